"""The distributions behind the tests: beta, Student's t, noncentral t, normal."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_TINY = 1e-300
_NUM_NODES = 256
_REACH = 12.0
"""Standard deviations on each side over which the noncentral t is integrated."""


def normal_reach(level: float) -> float:
    """How many standard errors reach from the middle to either end of a normal interval of `level`."""
    return NormalDist().inv_cdf(0.5 + level / 2)


def sigmoid(values: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * values))


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    if x < (a + 1) / (a + b + 2):
        return math.exp(log_front) * _beta_fraction(x, a, b) / a
    return 1 - math.exp(log_front) * _beta_fraction(1 - x, b, a) / b


def beta_quantile(share: float, a: float, b: float) -> float:
    """The x at which I_x(a, b) is `share`."""
    return root(lambda x: beta_cdf(x, a, b) - share, 0.0, 1.0)


def t_two_sided(t: float, df: float) -> float:
    """P(|T| >= |t|): the two-sided p-value."""
    return beta_cdf(df / (df + t * t), df / 2, 0.5)


@lru_cache(maxsize=1024)
def t_reach(level: float, df: float) -> float:
    """How many standard errors reach from the middle to either end of a t interval of `level`."""
    x = beta_quantile(1 - level, df / 2, 0.5)
    return math.sqrt(df * (1 - x) / x) if x > 0 else math.inf


def t_power(noncentrality: float, df: float, alpha: float = 0.05) -> float:
    """The chance that a two-sided t test at `alpha` rejects, where the true effect is `noncentrality` standard errors.

    Integrates over the estimated error by Gauss-Legendre quadrature.
    """
    critical = t_reach(1 - alpha, df)
    reach = _REACH / math.sqrt(2 * df)
    low, high = max(0.0, 1 - reach), 1 + reach
    nodes, weights = _quadrature()
    ratio = low + (nodes + 1) * (high - low) / 2
    log_density = (
        math.log(2) + df / 2 * math.log(df / 2) - math.lgamma(df / 2) + (df - 1) * np.log(ratio) - df * ratio**2 / 2
    )
    rejects = [
        math.erfc((critical * each - noncentrality) / math.sqrt(2))
        + math.erfc((critical * each + noncentrality) / math.sqrt(2))
        for each in ratio.tolist()
    ]
    return float(weights @ (np.exp(log_density) * rejects)) * (high - low) / 4


@cache
def _quadrature() -> tuple[Floats, Floats]:
    """Nodes and weights (256,) of Gauss-Legendre quadrature on [-1, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NUM_NODES)
    return nodes, weights


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where an increasing function is 0, by bisection to the last bit that matters."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if function(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _beta_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method (DLMF 8.17.22)."""
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > _TINY else _TINY)
    result = d
    for m in range(1, 10_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + numerator * d
            c = 1 + numerator / c
            d = 1 / (d if abs(d) > _TINY else _TINY)
            c = c if abs(c) > _TINY else _TINY
            result *= d * c
        if abs(d * c - 1) < 1e-16:
            break
    return result
