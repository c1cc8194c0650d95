"""Ratings of games drawn again with replacement: errors without any formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chaku.errors import UsageError
from chaku.rank import connectivity, newton
from chaku.rank.fit import BASE, SCALE, require_connected
from chaku.rank.games import Cells, Floats, Games, won_matrix

_PER_BATCH = 25


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Ratings of each round."""

    names: tuple[str, ...]
    ratings: Floats
    """(rounds, players)"""
    num_redrawn: int
    """Rounds that gave no ratings, because a player won or lost everything in them, and were drawn again."""

    def intervals(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """(players,) twice: percentiles of the rounds."""
        low, high = np.quantile(self.ratings, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high


def bootstrap(games: Games, rounds: int = 100, *, prior: float = 0.0, seed: int = 0) -> Bootstrap:
    """Draw the games, or the clusters where they have some, `rounds` times and rate each draw exactly.

    Draws that give no ratings are replaced and counted: of players with very few games the intervals are then too
    narrow. Raises UsageError where that is every second draw.
    """
    size = len(games.names)
    cells = games.cells
    random = np.random.default_rng(seed)
    whole = won_matrix(cells, size)
    require_connected(whole, games.names, prior)
    start = newton.strengths(whole, prior)
    draw = _game_draws(games, random) if games.cluster is None else _cluster_draws(games, random)
    strengths: list[Floats] = []
    num_done = num_redrawn = 0
    while num_done < rounds:
        won = draw(min(_PER_BATCH, rounds - num_done))
        if not prior:
            good = connectivity.is_connected(won)
            num_redrawn += int((~good).sum())
            won = won[good]
            if num_redrawn > max(_PER_BATCH, num_done + len(won)):
                raise UsageError(
                    f"{num_redrawn} of {num_redrawn + num_done + len(won)} draws gave no ratings: too few games",
                    fix="take the sandwich errors, or give a prior",
                )
        if len(won):
            strengths.append(newton.strengths(won, prior, start))
            num_done += len(won)
    return Bootstrap(games.names, SCALE * np.concatenate(strengths) + BASE, num_redrawn)


def _game_draws(games: Games, random: np.random.Generator) -> Callable[[int], Floats]:
    cells, size = games.cells, len(games.names)
    shares = cells.count / cells.count.sum()

    def draw(rounds: int) -> Floats:
        return won_matrix(cells, size, random.multinomial(len(games), shares, rounds).astype(np.float64))

    return draw


def _cluster_draws(games: Games, random: np.random.Generator) -> Callable[[int], Floats]:
    assert games.cluster is not None
    size = len(games.names)
    _, cluster = np.unique(games.cluster, return_inverse=True)
    num_clusters = int(cluster.max()) + 1
    single = Cells(games.first, games.second, games.score, np.ones(len(games)))

    def draw(rounds: int) -> Floats:
        def won() -> Floats:
            times = np.bincount(random.integers(num_clusters, size=num_clusters), minlength=num_clusters)
            return won_matrix(single, size, times[cluster].astype(np.float64))

        return np.stack([won() for _ in range(rounds)])

    return draw
