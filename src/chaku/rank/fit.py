"""Ratings by Bradley–Terry, with an error for each and for every difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chaku.errors import UsageError
from chaku.rank import connectivity, newton
from chaku.rank.games import Floats, Games, Ints, pair_sums, won_matrix
from chaku.statistics.distributions import normal_reach, sigmoid

SCALE = 400 / np.log(10)
"""Rating points per natural-log strength: 400 points are odds of ten to one."""
BASE = 1000.0
"""The mean of all ratings."""
_SCORES_PER_CHUNK = 4_000_000


@dataclass(frozen=True, eq=False)
class Ratings:
    """Fitted strengths. Rating = 400 / ln(10) * strength + 1000."""

    names: tuple[str, ...]
    strengths: Floats
    """(players,) Natural-log strengths with mean 0."""
    covariance: Floats
    """(players, players) Of the strengths."""
    num_games: Ints
    """(players,)"""
    method: str
    """How the ratings and their errors were found, in words."""

    @property
    def ratings(self) -> Floats:
        """(players,) On the scale of Elo."""
        points: Floats = SCALE * self.strengths + BASE
        return points

    @property
    def errors(self) -> Floats:
        """(players,) Standard errors of the ratings, in rating points."""
        points: Floats = SCALE * np.sqrt(np.diag(self.covariance))
        return points

    def intervals(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """(players,) twice: low and high ends of the ratings."""
        reach = normal_reach(level) * self.errors
        return self.ratings - reach, self.ratings + reach

    def anchored(self, anchor: str, rating: float = BASE) -> Ratings:
        """The same with `anchor` at `rating`: errors are those of the difference to it. Raises UsageError."""
        at = self._index(anchor)
        shift = np.eye(len(self.names))
        shift[:, at] -= 1
        strengths = self.strengths - self.strengths[at] + (rating - BASE) / SCALE
        method = f"{self.method}; {anchor} at {rating:g}"
        return Ratings(self.names, strengths, shift @ self.covariance @ shift.T, self.num_games, method)

    def rank_intervals(self, level: float = 0.95) -> tuple[Ints, Ints]:
        """(players,) twice: best and worst rank that the games allow.

        A player stands above another where their difference is larger than its own error allows: overlapping
        intervals are the wrong test, since the errors of two players are not independent. Of one player all
        comparisons hold together at `level` (Šidák).
        """
        size = len(self.names)
        limit = normal_reach(level ** (1 / max(size - 1, 1)))
        gap = self.strengths[:, None] - self.strengths[None, :]
        above = gap > limit * np.maximum(self._gap_errors(), 1e-300)
        return 1 + above.sum(axis=0), size - above.sum(axis=1)

    def win_probabilities(self) -> tuple[Floats, Floats]:
        """(players, players) twice: how likely the row's player beats the column's, and the standard error of that."""
        chance = sigmoid(self.strengths[:, None] - self.strengths[None, :])
        return chance, chance * (1 - chance) * self._gap_errors()

    def _gap_errors(self) -> Floats:
        variance = np.diag(self.covariance)
        errors: Floats = np.sqrt(np.maximum(variance[:, None] + variance[None, :] - 2 * self.covariance, 0))
        return errors

    def _index(self, name: str) -> int:
        if name not in self.names:
            raise UsageError(f"{name} has no rating", fix=f"rated: {', '.join(self.names[:20])}")
        return self.names.index(name)


def fit(games: Games, *, prior: float = 0.0) -> Ratings:
    """Maximum likelihood with ties as half wins; robust (sandwich) errors, by cluster where the games have clusters.

    `prior` adds to every player so many games against an average one, half won and half lost. It is said in `method`.
    Raises UsageError where the games don't connect all players, naming the groups.
    """
    size = len(games.names)
    won = won_matrix(games.cells, size)
    require_connected(won, games.names, prior)
    strengths = newton.strengths(won, prior)
    inverse = np.linalg.inv(newton.information(won, strengths, prior))
    covariance = centred(inverse @ meat(games, strengths) @ inverse)
    return Ratings(games.names, strengths, covariance, games.num_games, description(games, prior))


def require_connected(won: Floats, names: tuple[str, ...], prior: float) -> None:
    """Raises UsageError, naming the groups, where there are no ratings without a prior."""
    if prior < 0:
        raise UsageError(f"a prior of {prior:g} games is negative")
    if not prior and not connectivity.is_connected(won):
        raise UsageError(
            f"the games give no ratings: {connectivity.explanation(won, names)}",
            fix="collect games between the groups, leave players out, or give a prior such as 1 game each",
        )


def meat(games: Games, strengths: Floats) -> Floats:
    """(players, players): the variance of the likelihood's gradient, as the games show it.

    Independent games add the square of what each missed its expectation by. Games of a cluster are summed first, and
    the result is multiplied by C / (C - 1) for C clusters.
    """
    size = len(games.names)
    if games.cluster is None:
        cells = games.cells
        missed = cells.score - sigmoid(strengths[cells.first] - strengths[cells.second])
        return pair_sums(cells.first, cells.second, cells.count * missed**2, size)
    missed = games.score - sigmoid(strengths[games.first] - strengths[games.second])
    return cluster_meat(games, missed, np.zeros((len(games), 0)))


def cluster_meat(games: Games, missed: Floats, features: Floats) -> Floats:
    """(players + features, the same): the same for clusters, where (n, features) stand beside the players."""
    assert games.cluster is not None
    size, num_features = len(games.names), features.shape[1]
    _, cluster = np.unique(games.cluster, return_inverse=True)
    num_clusters = int(cluster.max()) + 1
    if num_clusters < 2:
        raise UsageError("all games are in one cluster, so errors can't be estimated", fix="use --cluster none")
    order = np.argsort(cluster, kind="stable")
    cluster, missed, features = cluster[order], missed[order], features[order]
    first, second = games.first[order], games.second[order]
    total = np.zeros((size + num_features, size + num_features))
    per_chunk = max(1, _SCORES_PER_CHUNK // (size + num_features))
    for begin in range(0, num_clusters, per_chunk):
        end = min(begin + per_chunk, num_clusters)
        rows = slice(*np.searchsorted(cluster, [begin, end]))
        place, left = cluster[rows] - begin, missed[rows]
        scores = np.bincount(place * size + first[rows], left, (end - begin) * size)
        scores -= np.bincount(place * size + second[rows], left, (end - begin) * size)
        sums = [scores.reshape(-1, size)]
        sums += [np.bincount(place, left * column, end - begin)[:, None] for column in features[rows].T]
        gradient = np.hstack(sums)
        total += gradient.T @ gradient
    result: Floats = total * num_clusters / (num_clusters - 1)
    return result


def centred(covariance: Floats) -> Floats:
    """The covariance of strengths from which their mean was taken."""
    result: Floats = covariance - covariance.mean(axis=0, keepdims=True)
    result -= result.mean(axis=1, keepdims=True)
    return result


def description(games: Games, prior: float, extra: Sequence[str] = ()) -> str:
    """The method in words, for whoever reads the numbers later."""
    parts = ["Bradley-Terry, ties as half wins"]
    if prior:
        parts.append(f"prior of {prior:g} tied games per player")
    parts += extra
    if games.cluster is None:
        parts.append("sandwich errors")
    else:
        parts.append(f"sandwich errors by {len(np.unique(games.cluster)):,} clusters")
    return ", ".join(parts)
