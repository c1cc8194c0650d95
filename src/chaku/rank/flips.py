"""How few reversed votes would put another player first (after arXiv 2508.11847)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chaku.rank import connectivity, newton
from chaku.rank.fit import Ratings
from chaku.rank.games import Cells, Floats, Games, Ints, won_matrix

_MAX_RIVALS = 5
_MAX_ROUNDS = 30
_TIE = 1e-8
"""Strengths closer than this are equal."""


@dataclass(frozen=True)
class Flips:
    """So many reversed games make `rival` the first: an upper bound, which a fit has confirmed."""

    num_games: int
    leader: str
    rival: str

    def __str__(self) -> str:
        votes = "vote" if self.num_games == 1 else "votes"
        return f"{self.num_games:,} reversed {votes} would put {self.rival} first"


def flips_to_lose_the_lead(games: Games, ratings: Ratings, *, prior: float = 0.0) -> Flips | None:
    """The fewest games found whose reversal changes who is first. None if reversing all of them does not.

    Games are reversed in the order of their influence on the gap (one step of Newton's method). The ratings are then
    fitted again, and more games are reversed until the lead has changed.
    """
    order = np.argsort(-ratings.strengths)
    leader, rivals = int(order[0]), order[1 : 1 + _MAX_RIVALS]
    won = won_matrix(games.cells, len(games.names))
    inverse = np.asarray(np.linalg.inv(newton.information(won, ratings.strengths, prior)), np.float64)
    found: list[Flips] = []
    for rival in map(int, rivals):
        num_games = _flips(games, ratings.strengths, inverse, leader, rival, prior)
        if num_games is not None:
            found.append(Flips(num_games, games.names[leader], games.names[rival]))
    return min(found, key=lambda flips: flips.num_games, default=None)


def _flips(games: Games, strengths: Floats, inverse: Floats, leader: int, rival: int, prior: float) -> int | None:
    cells = games.cells
    pull = inverse[leader] - inverse[rival]
    # Reversing a game's score s to 1 - s moves the gap by (1 - 2 s) (pull of the first - pull of the second).
    effect = (1 - 2 * cells.score) * (pull[cells.first] - pull[cells.second])
    order = np.argsort(effect)
    order = order[effect[order] < -1e-12]
    counts, gains = cells.count[order], -effect[order]
    reach = np.cumsum(counts * gains)
    if not len(order):
        return None
    target = float(strengths[leader] - strengths[rival])
    num = 0
    for _ in range(_MAX_ROUNDS):
        num = max(num + 1, _num_needed(counts, gains, reach, target))
        if num > counts.sum():
            return None
        after = _refit(cells, order, counts, num, len(games.names), strengths, prior)
        if after is None or after[rival] > after[leader] + _TIE:
            return num
        target += float(after[leader] - after[rival])
    return None


def _num_needed(counts: Floats, gains: Floats, reach: Floats, target: float) -> int:
    """How many games, the most influential first, close a gap of `target`; more than there are if none do."""
    cell = int(np.searchsorted(reach, target, side="right"))
    if cell == len(reach):
        return int(counts.sum()) + 1
    before = reach[cell - 1] if cell else 0.0
    return int(counts[:cell].sum() + np.floor((target - before) / gains[cell]) + 1)


def _refit(
    cells: Cells, order: Ints, counts: Floats, num: int, size: int, start: Floats, prior: float
) -> Floats | None:
    """Strengths after `num` games were reversed; None where the games then give no ratings."""
    reversed = np.clip(num - (np.cumsum(counts) - counts), 0, counts)
    kept = cells.count.copy()
    kept[order] -= reversed
    flipped = Cells(
        np.concatenate([cells.first, cells.first[order]]),
        np.concatenate([cells.second, cells.second[order]]),
        np.concatenate([cells.score, 1 - cells.score[order]]),
        np.concatenate([kept, reversed]),
    )
    won = won_matrix(flipped, size)
    if not prior and not connectivity.is_connected(won):
        return None
    return newton.strengths(won, prior, start)
