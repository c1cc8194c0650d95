"""The mean of clustered values, and whether it differs from 0: the core of every paired comparison."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from chaku.errors import UsageError
from chaku.statistics.distributions import Floats, Ints, root, t_power, t_reach, t_two_sided

POWER = 0.8
"""The chance to detect a real effect that planning asks for."""
_MAX_EXACT = 16
"""Clusters up to which all sign flips are enumerated: 65,536 of them."""
_MAX_CLUSTERS = 100_000_000


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error, an interval and a two-sided p-value against 0."""

    value: float
    error: float
    low: float
    high: float
    p: float
    num: int
    """Values."""
    num_clusters: int

    def __str__(self) -> str:
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def mean(values: ArrayLike, clusters: Sequence[Hashable] | None = None, level: float = 0.95) -> Estimate:
    """The mean of (n,) values with a cluster-robust error and a t interval (C - 1 degrees of freedom).

    Raises UsageError for fewer than two clusters.
    """
    x = np.asarray(values, np.float64)
    of = cluster_numbers(clusters, len(x))
    value = float(x.mean()) if len(x) else math.nan
    return estimate(value, robust_error((x - value) / max(len(x), 1), of), of, level)


def estimate(value: float, error: float, clusters: Ints, level: float = 0.95) -> Estimate:
    """An estimate from a value and its error; `clusters` (n,) are numbers from 0."""
    num_clusters = int(clusters.max()) + 1
    df = num_clusters - 1
    reach = t_reach(level, df) * error
    p = t_two_sided(value / error, df) if error > 0 else float(value == 0)
    return Estimate(value, error, value - reach, value + reach, p, len(clusters), num_clusters)


def robust_error(influences: Floats, clusters: Ints) -> float:
    """The standard error of an estimate from (n,) influences of its values, summed by cluster; factor C / (C - 1)."""
    sums = np.bincount(clusters, influences)
    return float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)))


def cluster_numbers(clusters: Sequence[Hashable] | None, num: int) -> Ints:
    """(n,) Numbers from 0; every value is a cluster where none are given. Raises UsageError."""
    if clusters is None:
        numbers = np.arange(num)
    else:
        place: dict[Hashable, int] = {}
        numbers = np.array([place.setdefault(each, len(place)) for each in clusters], np.int64)
    if len(numbers) != num:
        raise UsageError(f"there are {len(numbers)} clusters for {num} values")
    if num == 0 or numbers.max() < 1:
        raise UsageError("an error needs at least two independent values", fix="compare on more questions")
    return numbers


def permutation_p(
    differences: ArrayLike, clusters: Sequence[Hashable] | None = None, *, rounds: int = 20_000, seed: int = 0
) -> float:
    """Two-sided p-value of a paired permutation test: signs flip at random, by whole clusters.

    Exact up to 16 clusters. Beyond that `rounds` random flips, with the observed one counted among them.
    """
    x = np.asarray(differences, np.float64)
    sums = np.bincount(cluster_numbers(clusters, len(x)), x)
    observed = abs(sums.sum()) * (1 - 1e-12) - 1e-12
    size = len(sums)
    if size <= _MAX_EXACT:
        signs = 1 - 2 * ((np.arange(2**size)[:, None] >> np.arange(size)) & 1)
        return float((np.abs(signs @ sums) >= observed).mean())
    random = np.random.default_rng(seed)
    num_as_large = 0
    left = rounds
    while left:
        batch = min(left, max(1, 4_000_000 // size))
        signs = 1 - 2 * random.integers(0, 2, (batch, size))
        num_as_large += int((np.abs(signs @ sums) >= observed).sum())
        left -= batch
    return (num_as_large + 1) / (rounds + 1)


def holm(p_values: ArrayLike) -> Floats:
    """(n,) P-values adjusted for n tests, so that false alarms in the whole family stay below alpha (Holm 1979)."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    scaled = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(scaled, 1)
    return adjusted


def detectable_effect(error: float, num_clusters: int, *, power: float = POWER, alpha: float = 0.05) -> float:
    """The smallest true difference that a test with this standard error detects with chance `power`."""
    df = num_clusters - 1
    return error * root(lambda effect: t_power(effect, df, alpha) - power, 0.0, 10 * t_reach(1 - alpha, df) + 10)


def needed_clusters(
    effect: float, error: float, num_clusters: int, *, power: float = POWER, alpha: float = 0.05
) -> int | None:
    """How many clusters detect a true `effect` with chance `power`, if they vary as those at hand do.

    None for an effect of 0, and where it would be more than a hundred million.
    """
    spread = error * math.sqrt(num_clusters)
    if effect == 0:
        return None
    if spread == 0:
        return 2

    def is_enough(num: int) -> bool:
        return t_power(abs(effect) * math.sqrt(num) / spread, num - 1, alpha) >= power

    low, high = 1, 2
    while not is_enough(high):
        low, high = high, 2 * high
        if high > _MAX_CLUSTERS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
