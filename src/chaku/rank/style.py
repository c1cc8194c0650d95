"""Style control: ratings beside the effect of what is not the answer's content, such as its length.

    P(first wins) = 1 / (1 + exp(theta_second - theta_first - x · beta))

x is how much more of a feature the first answer has. It is scaled to a standard deviation of 1 and not centred, so
that turning a game round changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chaku.errors import UsageError
from chaku.rank.fit import Ratings, centred, cluster_meat, description, require_connected
from chaku.rank.games import Floats, Games, pair_sums, won_matrix
from chaku.statistics.distributions import sigmoid

_MAX_STEPS = 100
_TOLERANCE = 1e-10
_DECIDED = 20.0
"""Log odds beyond any that games can show."""


@dataclass(frozen=True, eq=False)
class StyledRatings:
    """Ratings with the features' effects taken out, and the effects."""

    ratings: Ratings
    features: tuple[str, ...]
    effects: Floats
    """(features,) Log odds for one standard deviation more of the feature."""
    errors: Floats
    """(features,) Their standard errors."""


def differences(first: Floats, second: Floats) -> Floats:
    """(n, features) How much more of each feature the first answer has: (a - b) / (a + b + 1), for counts."""
    result: Floats = (first - second) / (first + second + 1)
    return result


def fit_with_style(games: Games, features: Floats, names: Sequence[str], *, prior: float = 0.0) -> StyledRatings:
    """Fit strengths and effects together, with sandwich errors; `features` is (n, features).

    Raises UsageError where the games don't connect the players, or a feature never differs or decides every game.
    """
    spread = features.std(axis=0)
    if constant := [name for name, value in zip(names, spread, strict=True) if not value > 0]:
        raise UsageError(f"{', '.join(constant)} is the same in all games", fix="leave it out")
    require_connected(won_matrix(games.cells, len(games.names)), games.names, prior)
    scaled = features / spread
    size = len(games.names)
    point = np.zeros(size + len(names))
    for _ in range(_MAX_STEPS):
        gradient, curvature = _derivatives(games, scaled, point, prior)
        step = np.linalg.solve(curvature, gradient)
        change = step[games.first] - step[games.second] + scaled @ step[size:]
        reach = max(float(np.abs(change).max()), 1e-300)
        point += step * np.log1p(reach) / reach
        if np.abs(step).max() < _TOLERANCE:
            break
        if np.abs(point).max() > _DECIDED:
            raise UsageError(
                "a style feature decides every game, so its effect can't be estimated", fix="leave features out"
            )
    else:
        raise UsageError("the ratings did not settle", fix="leave features out, or give a prior")
    point[:size] -= point[:size].mean()
    _, curvature = _derivatives(games, scaled, point, prior)
    inverse = np.linalg.inv(curvature)
    covariance = inverse @ _meat(games, scaled, point) @ inverse
    method = description(games, prior, [f"style control ({', '.join(names)})"])
    ratings = Ratings(games.names, point[:size], centred(covariance[:size, :size]), games.num_games, method)
    return StyledRatings(ratings, tuple(names), point[size:], np.sqrt(np.diag(covariance)[size:]))


def _missed(games: Games, features: Floats, point: Floats) -> tuple[Floats, Floats]:
    size = len(games.names)
    chance = sigmoid(point[games.first] - point[games.second] + features @ point[size:])
    return games.score - chance, chance * (1 - chance)


def _derivatives(games: Games, features: Floats, point: Floats, prior: float) -> tuple[Floats, Floats]:
    """The likelihood's gradient, and minus its second derivative."""
    size = len(games.names)
    missed, weights = _missed(games, features, point)
    gradient = np.concatenate([_by_player(games, missed), features.T @ missed])
    curvature = _with_features(games, features, weights)
    if prior:
        against_average = sigmoid(point[:size])
        gradient[:size] += prior * (0.5 - against_average)
        curvature[range(size), range(size)] += prior * against_average * (1 - against_average)
    else:
        curvature[:size, :size] += np.trace(curvature[:size, :size]) / size**2
    return gradient, curvature


def _meat(games: Games, features: Floats, point: Floats) -> Floats:
    missed, _ = _missed(games, features, point)
    if games.cluster is not None:
        return cluster_meat(games, missed, features)
    return _with_features(games, features, missed**2)


def _with_features(games: Games, features: Floats, weights: Floats) -> Floats:
    """The sum of weights × (e_first - e_second, x) (e_first - e_second, x)ᵀ."""
    size = len(games.names)
    cross = [_by_player(games, weights * column)[:, None] for column in features.T]
    cross_block = np.hstack(cross) if cross else np.zeros((size, 0))
    corner = features.T @ (weights[:, None] * features)
    return np.block([[pair_sums(games.first, games.second, weights, size), cross_block], [cross_block.T, corner]])


def _by_player(games: Games, values: Floats) -> Floats:
    size = len(games.names)
    return np.subtract(
        np.bincount(games.first, values, size), np.bincount(games.second, values, size), dtype=np.float64
    )
