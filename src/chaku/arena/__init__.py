"""Comparisons between models: read them from files, rate them, show them as a leaderboard."""
