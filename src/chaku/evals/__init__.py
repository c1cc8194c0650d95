"""Suites of questions, runs of answers and judgements, and whether a judge can be trusted."""
