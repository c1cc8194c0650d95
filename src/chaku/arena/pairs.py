"""Which two contestants meet next: pairs whose result is the least certain come more often, every pair comes.

A pair's weight is how much its next vote narrows the error of its win rate,
sqrt(p (1 - p)) (1 / sqrt(n) - 1 / sqrt(n + 1)), as in Chatbot Arena (arXiv 2403.04132, section 5). n and p are those of
the votes so far and two tied games.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence

EVEN_SHARE = 0.2
"""Of all draws, which every pair shares evenly."""
_TIED_GAMES = 2
METHOD = (
    "A pair is drawn with a probability that grows with what its next vote adds to what is known of it; "
    "a fifth of all draws is even. Sides are random."
)

Pair = tuple[str, str]


def pair_probabilities(names: Sequence[str], results: Mapping[Pair, tuple[float, int]]) -> dict[Pair, float]:
    """The probability of each pair, in sorted order of the names; they add up to 1.

    `results` has the first one's points and the games of a pair. Fewer than two names give no pair.
    """
    pairs = list(itertools.combinations(sorted(set(names)), 2))
    weights = {pair: _weight(*results.get(pair, (0.0, 0))) for pair in pairs}
    total = sum(weights.values())
    return {pair: (1 - EVEN_SHARE) * weight / total + EVEN_SHARE / len(pairs) for pair, weight in weights.items()}


def draw(probabilities: Mapping[Pair, float], chance: random.Random) -> tuple[Pair, float]:
    """A pair in random order, and the probability of meeting in either order. There must be a pair."""
    pairs = list(probabilities)
    pair = chance.choices(pairs, [probabilities[one] for one in pairs])[0]
    return (pair if chance.random() < 0.5 else (pair[1], pair[0])), probabilities[pair]


def _weight(points: float, num_games: int) -> float:
    n = num_games + _TIED_GAMES
    p = (points + _TIED_GAMES / 2) / n
    return math.sqrt(p * (1 - p)) * (1 / math.sqrt(n) - 1 / math.sqrt(n + 1))
