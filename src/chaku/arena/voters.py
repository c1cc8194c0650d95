"""Voters whose votes don't fit those of all others: a bet against each, which chance rarely lets win.

If a voter votes like everybody else, each bet's expected value is 1, and so is that of the product over the votes: an
e-value (Ramdas et al. 2023, "Game-theoretic statistics and safe anytime-valid inference").
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from chaku.comparison import Comparison

FALSE_SHARE = 0.05
"""Expected share of innocent voters among those called outliers, at most (e-BH, Wang and Ramdas 2022)."""
_OUTCOMES = ("a", "tie", "b")
_BETS: tuple[dict[str, float], ...] = (
    {"a": 1 / 3, "tie": 1 / 3, "b": 1 / 3},
    {"a": 0.9, "tie": 0.05, "b": 0.05},
    {"a": 0.05, "tie": 0.05, "b": 0.9},
    {"a": 0.05, "tie": 0.9, "b": 0.05},
)
"""A voter who votes at random, always for one side, or always for a tie."""
_CONTRARY = 0.9
"""A fifth one, who reverses the others' votes."""
_SMOOTHING = 1.0
_LARGEST = 1e12


@dataclass(frozen=True)
class Voter:
    """One voter, and how badly the votes fit."""

    voter: str
    num_votes: int
    e_value: float
    is_outlier: bool


def judge_voters(games: Sequence[Comparison]) -> list[Voter]:
    """Every voter of human votes, those that fit worst first."""
    votes = [(game.voter, *_turned(game)) for game in games if game.source == "human" and game.voter is not None]
    everyone: Counter[tuple[tuple[str, str], str]] = Counter((pair, outcome) for _, pair, outcome, _ in votes)
    theirs: dict[str, list[tuple[tuple[str, str], str, bool]]] = {}
    for voter, pair, outcome, is_turned in votes:
        assert voter is not None
        theirs.setdefault(voter, []).append((pair, outcome, is_turned))
    values = {voter: (len(cast), _e_value(cast, everyone)) for voter, cast in theirs.items()}
    ordered = sorted(values, key=lambda voter: (-values[voter][1], voter))
    num_outliers = 0
    for place, voter in enumerate(ordered, 1):
        if values[voter][1] >= len(ordered) / (FALSE_SHARE * place):
            num_outliers = place
    return [Voter(voter, *values[voter], place < num_outliers) for place, voter in enumerate(ordered)]


def _turned(game: Comparison) -> tuple[tuple[str, str], str, bool]:
    """The pair in sorted order, the outcome for it, and whether sides were turned for that."""
    outcome = "a" if game.score > 0.5 else "b" if game.score < 0.5 else "tie"
    if game.model_a <= game.model_b:
        return (game.model_a, game.model_b), outcome, False
    return (game.model_b, game.model_a), {"a": "b", "b": "a", "tie": "tie"}[outcome], True


def _e_value(
    cast: Sequence[tuple[tuple[str, str], str, bool]], everyone: Counter[tuple[tuple[str, str], str]]
) -> float:
    """The mean over all bets of what they won; the others' votes say how likely each outcome was."""
    own = Counter((pair, outcome) for pair, outcome, _ in cast)
    logs = [0.0] * (len(_BETS) + 1)
    for pair, outcome, is_turned in cast:
        counts = {one: everyone[pair, one] - own[pair, one] + _SMOOTHING for one in _OUTCOMES}
        total = sum(counts.values())
        likely = counts[outcome] / total
        shown = {"a": "b", "b": "a", "tie": "tie"}[outcome] if is_turned else outcome
        for at, bet in enumerate(_BETS):
            logs[at] += math.log(bet[shown] / likely)
        reverse = {"a": counts["b"], "b": counts["a"], "tie": counts["tie"]}[outcome] / total
        logs[-1] += math.log((_CONTRARY * reverse + (1 - _CONTRARY) * likely) / likely)
    return sum(min(_LARGEST, math.exp(min(value, 50.0))) for value in logs) / len(logs)
