"""Modules that run inside a server, in its environment: each imports the standard library alone."""
