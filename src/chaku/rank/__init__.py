"""Ratings from games between pairs: Bradley–Terry, with error bars. Numbers in, numbers out: numpy and no I/O.

`games` holds the input. `fit` makes `Ratings` of it. The other modules answer one question each.
"""
