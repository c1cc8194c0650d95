"""The Bradley–Terry likelihood, maximised by Newton's method for many sets of counts at once.

    P(i beats j) = 1 / (1 + exp(theta_j - theta_i))

The steps are damped by log(1 + d) / d, where d is the largest change of a difference: then each step raises the
likelihood, wherever it starts (Bach 2010, self-concordance of logistic regression).
"""

from __future__ import annotations

import numpy as np

from chaku.errors import UsageError
from chaku.rank.games import Floats, laplacian
from chaku.statistics.distributions import sigmoid

_MAX_STEPS = 200
_TOLERANCE = 1e-11


def strengths(won: Floats, prior: float = 0.0, start: Floats | None = None) -> Floats:
    """(..., players): natural-log strengths with mean 0, of `won` (..., players, players).

    `prior` is a number of games that every player ties in part: half won, half lost, against a player of strength 0.
    Without one, `won` must be connected. Raises UsageError where the maximum is not found.
    """
    size = won.shape[-1]
    flat = won.reshape(-1, size, size)
    theta = np.zeros((len(flat), size)) if start is None else np.broadcast_to(start, (len(flat), size)).copy()
    played = flat + flat.swapaxes(-1, -2)
    gained = flat.sum(axis=-1)
    for _ in range(_MAX_STEPS):
        chance = sigmoid(theta[:, :, None] - theta[:, None, :])
        gradient = gained - (played * chance).sum(axis=-1)
        curvature = laplacian(played * chance * (1 - chance))
        if prior:
            against_average = sigmoid(theta)
            gradient += prior * (0.5 - against_average)
            curvature[:, range(size), range(size)] += prior * against_average * (1 - against_average)
        else:
            curvature += _gauge(curvature)
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        spread = np.maximum(np.ptp(step, axis=-1, keepdims=True), 1e-300)
        theta += step * np.log1p(spread) / spread
        if np.abs(step).max() < _TOLERANCE:
            theta -= theta.mean(axis=-1, keepdims=True)
            return theta.reshape(won.shape[:-1])
    raise UsageError(
        "the ratings did not settle: some player is almost never beaten, or almost always",
        fix="collect more games, or give a prior",
    )


def information(won: Floats, theta: Floats, prior: float = 0.0) -> Floats:
    """(players, players): minus the likelihood's second derivative at `theta`, made invertible.

    The direction in which all strengths grow together says nothing. It gets a curvature of the others' size, which
    changes no difference.
    """
    played = won + won.T
    chance = sigmoid(theta[:, None] - theta[None, :])
    curvature = laplacian(played * chance * (1 - chance))
    if prior:
        against_average = sigmoid(theta)
        return curvature + np.diag(prior * against_average * (1 - against_average))
    return curvature + _gauge(curvature)


def _gauge(curvature: Floats) -> Floats:
    size = curvature.shape[-1]
    mean: Floats = np.trace(curvature, axis1=-2, axis2=-1)[..., None, None] / size**2
    return mean
