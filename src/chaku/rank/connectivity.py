"""Whether games say anything about all players together.

Ratings exist only where every player is reached from every other one along wins and ties (Ford 1957, Zermelo 1929).
Otherwise one group never lost a point to the rest, or never met it, and no number says how much better it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chaku.rank.games import Floats

_MAX_SHOWN = 6


def components(won: Floats) -> list[list[int]]:
    """Groups of players that reach each other along points won, the largest first. One group: ratings exist.

    `won` (players, players) is what the row's player got from the column's.
    """
    reach = _closure(won > 0)
    both = reach & reach.T
    groups: dict[bytes, list[int]] = {}
    for player, row in enumerate(both):
        groups.setdefault(row.tobytes(), []).append(player)
    return sorted(groups.values(), key=lambda group: (-len(group), group))


def is_connected(won: Floats) -> NDArray[np.bool_]:
    """(...): whether ratings exist, of a stack of matrices (..., players, players)."""
    reach = _closure(won > 0)
    return np.asarray(reach.all(axis=(-1, -2)))


def _closure(edges: NDArray[np.bool_]) -> NDArray[np.bool_]:
    size = edges.shape[-1]
    reach: NDArray[np.bool_] = edges | np.eye(size, dtype=bool)
    length = 1
    while length < size:
        steps = reach.astype(np.float32)
        reach = steps @ steps > 0
        length *= 2
    return reach


def explanation(won: Floats, names: tuple[str, ...]) -> str:
    """Why there are no ratings: the groups, and what keeps them apart."""
    groups = components(won)
    largest = groups[0]
    parts = []
    for group in groups[1 : 1 + _MAX_SHOWN]:
        others = [player for player in range(len(names)) if player not in group]
        gained, lost = won[np.ix_(group, others)].sum(), won[np.ix_(others, group)].sum()
        who = _listed([names[player] for player in group])
        what = "never played the others" if not gained + lost else "lost every game" if not gained else "won every game"
        if gained and lost:
            what = "is tied to the others in one direction only"
        parts.append(f"{who} {what}")
    more = f"; and {len(groups) - 1 - _MAX_SHOWN} more groups" if len(groups) - 1 > _MAX_SHOWN else ""
    return f"{'; '.join(parts)}{more} (largest group: {_listed([names[player] for player in largest])})"


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_MAX_SHOWN])
    return shown if len(names) <= _MAX_SHOWN else f"{shown} and {len(names) - _MAX_SHOWN} more"
