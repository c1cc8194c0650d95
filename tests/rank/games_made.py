"""Games whose true strengths are known."""

from __future__ import annotations

import numpy as np

from chaku.rank.games import Games


def play(
    strengths: np.ndarray,
    num: int,
    seed: int,
    *,
    ties: float = 0.2,
    num_clusters: int | None = None,
    cluster_effect: float = 0.0,
) -> Games:
    """`num` games of random pairs. In a cluster one random shift of all strengths holds for every game."""
    random = np.random.default_rng(seed)
    size = len(strengths)
    first = random.integers(size, size=num)
    second = (first + random.integers(1, size, size=num)) % size
    cluster = None if num_clusters is None else random.integers(num_clusters, size=num)
    gap = strengths[first] - strengths[second]
    if cluster is not None:
        shifts = random.normal(0, cluster_effect, (num_clusters or 0, size))
        gap = gap + shifts[cluster, first] - shifts[cluster, second]
    chance = 1 / (1 + np.exp(-gap))
    score = (random.random(num) < chance).astype(float)
    score[random.random(num) < ties] = 0.5
    return Games(tuple(f"m{index}" for index in range(size)), first, second, score, cluster)
