"""Which replica takes a call. Pure: no I/O, no engine; clock and random source are passed in."""
