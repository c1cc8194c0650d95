"""Shares and agreement: exact binomial intervals and tests, Cohen's kappa."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from chaku.errors import UsageError
from chaku.statistics.distributions import beta_quantile
from chaku.statistics.means import Estimate, cluster_numbers, estimate, robust_error


@dataclass(frozen=True)
class Share:
    """`count` of `num`, with an exact (Clopper-Pearson) interval."""

    count: int
    num: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """Between 0 and 1; not a number where `num` is 0."""
        return self.count / self.num if self.num else math.nan

    def __str__(self) -> str:
        return f"{self.count}/{self.num} = {self.value:.0%} [{self.low:.0%}, {self.high:.0%}]"


def share(count: int, num: int, level: float = 0.95) -> Share:
    """A share of independent cases. Of none, the interval is 0 to 1. Raises UsageError for an impossible count."""
    if not 0 <= count <= num:
        raise UsageError(f"{count} of {num} is no share")
    tail = (1 - level) / 2
    low = beta_quantile(tail, count, num - count + 1) if count else 0.0
    high = beta_quantile(1 - tail, count + 1, num - count) if count < num else 1.0
    return Share(count, num, low, high)


def binomial_p(count: int, num: int, chance: float = 0.5) -> float:
    """The exact two-sided p-value of `count` in `num`: outcomes no likelier than the observed one add up."""
    if num == 0:
        return 1.0
    logs = [
        math.lgamma(num + 1) - math.lgamma(k + 1) - math.lgamma(num - k + 1)
        + k * math.log(chance) + (num - k) * math.log1p(-chance)
        for k in range(num + 1)
    ]  # fmt: skip
    limit = logs[count] + 1e-7
    return min(1.0, math.fsum(math.exp(each) for each in logs if each <= limit))


def kappa(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> Estimate:
    """Cohen's kappa of two raters' labels (n,): agreement beyond chance, with a cluster-robust delta-method error.

    Not a number where both raters give one single label: chance agreement is then complete.
    """
    of = cluster_numbers(clusters, len(first))
    place: dict[Hashable, int] = {}
    a = np.array([place.setdefault(each, len(place)) for each in first])
    b = np.array([place.setdefault(each, len(place)) for each in second])
    share_a = np.bincount(a, minlength=len(place)) / len(a)
    share_b = np.bincount(b, minlength=len(place)) / len(b)
    agreed = a == b
    observed, by_chance = float(agreed.mean()), float(share_a @ share_b)
    if by_chance == 1:
        return Estimate(math.nan, math.nan, math.nan, math.nan, math.nan, len(a), int(of.max()) + 1)
    value = (observed - by_chance) / (1 - by_chance)
    of_chance = share_b[a] + share_a[b] - 2 * by_chance
    influence = (agreed - observed - of_chance * (1 - value)) / (1 - by_chance)
    return estimate(value, robust_error(influence / len(a), of), of, level)
