"""Draws long work on standard error: bars with rate and time left on a terminal, a line every few seconds elsewhere.

One module for each kind of work: fetching a model, a pass over weights, building a set, training.
"""
