"""Moderation of prompts and answers: judges, the policy over them, and its place in every request."""
