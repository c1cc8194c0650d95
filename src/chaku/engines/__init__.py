"""Engines: they turn a request into a stream of deltas, through one interface."""
