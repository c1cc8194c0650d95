"""Online Elo: a rating that moves with every game. For display only: the order of the games changes it."""

from __future__ import annotations

from chaku.rank.fit import BASE
from chaku.rank.games import Games


def online_elo(games: Games, *, k: float = 4.0) -> dict[str, float]:
    """Ratings after the games in their order; everybody begins at 1000. `k` is how far one game moves a rating."""
    ratings = [BASE] * len(games.names)
    for first, second, score in zip(games.first.tolist(), games.second.tolist(), games.score.tolist(), strict=True):
        expected = 1 / (1 + 10 ** ((ratings[second] - ratings[first]) / 400))
        change = k * (score - expected)
        ratings[first] += change
        ratings[second] -= change
    return dict(zip(games.names, ratings, strict=True))
