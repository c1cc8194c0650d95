"""Two adjusted win rates: at equal lengths, and corrected by a few human labels."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from chaku.errors import UsageError
from chaku.statistics.distributions import Floats, Ints, sigmoid, t_reach, t_two_sided
from chaku.statistics.means import Estimate, cluster_numbers

_MAX_STEPS = 100
_DECIDED = 20.0
"""Log odds beyond any that judgements can show."""


def length_adjusted(
    wins: ArrayLike, length_differences: ArrayLike, clusters: Sequence[Hashable] | None = None, level: float = 0.95
) -> Estimate:
    """The win rate that a logistic regression predicts for answers of equal length.

    `wins` (n,) lie in [0, 1], `length_differences` (n,) are ours minus theirs. As in AlpacaEval 2 (Dubois et al. 2024)
    the feature is tanh(difference / standard deviation). Unlike there, the error includes that of the fit (delta
    method, cluster-robust). The interval is found in log odds, and `p` is against a win rate of one half.
    Raises UsageError where length or one side decides everything.
    """
    y = np.asarray(wins, np.float64)
    of = cluster_numbers(clusters, len(y))
    difference = np.asarray(length_differences, np.float64)
    spread = difference.std()
    if not spread > 0:
        raise UsageError("the lengths differ by the same amount everywhere: there is nothing to adjust")
    x = np.column_stack([np.ones(len(y)), np.tanh(difference / spread)])
    point, covariance = _logistic(y, x, of)
    odds, error_odds = float(point[0]), float(np.sqrt(covariance[0, 0]))
    num_clusters = int(of.max()) + 1
    reach = t_reach(level, num_clusters - 1) * error_odds
    value, low, high = (float(sigmoid(np.array(each))) for each in (odds, odds - reach, odds + reach))
    p = t_two_sided(odds / error_odds, num_clusters - 1)
    return Estimate(value, value * (1 - value) * error_odds, low, high, p, len(y), num_clusters)


def prediction_powered(human: ArrayLike, judge: ArrayLike, judge_elsewhere: ArrayLike, level: float = 0.95) -> Estimate:
    """The mean human label over all items, of which few have one: PPI++ (Angelopoulos et al. 2023).

    `human` and `judge` (n,) are the labels of the same items, `judge_elsewhere` (N,) those of the items without a
    human label. Items must be independent (average the rows of a question first), and those with a label drawn at
    random. A judge that says nothing about the humans gets no weight. The interval uses t with n - 1.
    """
    y, f = np.asarray(human, np.float64), np.asarray(judge, np.float64)
    g = np.asarray(judge_elsewhere, np.float64)
    n, rest = len(y), len(g)
    if len(f) != n:
        raise UsageError(f"there are {n} human labels and {len(f)} of the judge for the same items")
    if n < 2:
        raise UsageError("the correction needs at least two human labels")
    weight = 0.0
    if rest > 1 and (variance := np.concatenate([f, g]).var(ddof=1)) > 0:
        weight = float(np.clip(np.cov(y, f)[0, 1] / ((1 + n / rest) * variance), 0, 1))
    value = float((y - weight * f).mean() + (weight * g.mean() if weight else 0.0))
    error = float(np.sqrt((y - weight * f).var(ddof=1) / n + (weight**2 * g.var(ddof=1) / rest if weight else 0.0)))
    reach = t_reach(level, n - 1) * error
    p = t_two_sided(value / error, n - 1) if error > 0 else float(value == 0)
    return Estimate(value, error, value - reach, value + reach, p, n + rest, n + rest)


def _logistic(y: Floats, x: Floats, clusters: Ints) -> tuple[Floats, Floats]:
    """Coefficients (k,) and their cluster-robust covariance (k, k), with the factor C / (C - 1) (n - 1) / (n - k)."""
    num, size = x.shape
    point = np.zeros(size)
    for _ in range(_MAX_STEPS):
        chance = sigmoid(x @ point)
        curvature = x.T @ (x * (chance * (1 - chance))[:, None])
        if np.linalg.cond(curvature) > 1e12 or np.abs(point).max() > _DECIDED:
            raise UsageError("length or one side decides every game: there is no adjusted win rate")
        step = np.linalg.solve(curvature, x.T @ (y - chance))
        point = point + step
        if np.abs(step).max() < 1e-12:
            break
    chance = sigmoid(x @ point)
    inverse = np.linalg.inv(x.T @ (x * (chance * (1 - chance))[:, None]))
    scores = x * (y - chance)[:, None]
    sums = np.column_stack([np.bincount(clusters, column) for column in scores.T])
    factor = len(sums) / (len(sums) - 1) * (num - 1) / (num - size)
    return point, inverse @ (sums.T @ sums) @ inverse * factor
