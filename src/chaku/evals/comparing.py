"""Two models compared: difference, test, what more questions would show, and the win rate three ways."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from chaku.comparison import Comparison
from chaku.errors import UsageError
from chaku.evals.measured import Match
from chaku.statistics.adjusted import length_adjusted, prediction_powered
from chaku.statistics.means import Estimate, detectable_effect, holm, mean, needed_clusters, permutation_p

ALPHA = 0.05
SMALL = 30
"""Below so many clusters the p-value is that of a permutation test, which assumes no distribution."""
_CONDITION = re.compile(r"(p|difference|low|high)\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?)")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": lambda value, limit: value < limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    ">=": lambda value, limit: value >= limit,
}


@dataclass(frozen=True, eq=False)
class Compared:
    """What can be said about two models."""

    match: Match
    difference: Estimate
    """b - a per question; the interval is a cluster-robust t interval."""
    test: Literal["t", "permutation"]
    p: float
    """Two-sided, of this pair alone."""
    p_adjusted: float
    """By Holm's method over all pairs of the same comparison."""
    detectable: float
    """The smallest true difference found with 80 % chance at this number of questions."""
    needed: int | None
    """Clusters that find the observed difference, if it is the true one, with 80 % chance."""
    win_rate: Estimate
    """Of b: ties are half wins."""
    win_rate_at_equal_lengths: Estimate | None
    win_rate_by_people: Estimate | None
    """All questions, corrected by those with human labels."""
    num_labels: int
    """Questions with human labels."""

    @property
    def verdict(self) -> Literal["better", "worse", "no difference found"]:
        """Whether b is better than a, at a chance of 5 % for any false alarm."""
        if self.p_adjusted >= ALPHA:
            return "no difference found"
        return "better" if self.difference.value > 0 else "worse"

    def as_json(self) -> dict[str, Any]:
        """All of it, flat; null for what can't be told."""
        match, pair = self.match, self.match.pair
        return {
            **pair.as_json(),
            "metric": match.metric,
            "judges": sorted({judge for judge, _ in match.judges}),
            "mean_a": float(pair.values_a.mean()),
            "mean_b": float(pair.values_b.mean()),
            "error": self.difference.error,
            "difference": self.difference.value,
            "low": self.difference.low,
            "high": self.difference.high,
            "questions": self.difference.num,
            "clusters": self.difference.num_clusters,
            "test": self.test,
            "p": self.p,
            "p_adjusted": self.p_adjusted,
            "verdict": self.verdict,
            "detectable": self.detectable,
            "needed": self.needed,
            "win_rate": _interval(self.win_rate),
            "win_rate_at_equal_lengths": _interval(self.win_rate_at_equal_lengths),
            "win_rate_by_people": _interval(self.win_rate_by_people),
            "labels": self.num_labels,
            "unread": match.num_unread,
            "only_a": match.num_only_a,
            "only_b": match.num_only_b,
        }


def compare(
    found: Sequence[Match],
    labels: Sequence[Comparison] = (),
    *,
    cluster: Literal["question", "category"] = "question",
    level: float = 1 - ALPHA,
) -> list[Compared]:
    """Compare every pair; p-values are adjusted over all of them. Raises UsageError for fewer than two clusters."""
    compared = [_compare(match, labels, cluster, level) for match in found]
    adjusted = holm([one.p for one in compared])
    return [replace(one, p_adjusted=float(p)) for one, p in zip(compared, adjusted, strict=True)]


def parse_condition(text: str) -> Callable[[Compared], bool]:
    """A test such as "worse,p<0.05": all parts must hold. `p` is the adjusted one. Raises UsageError."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    tests: list[Callable[[Compared], bool]] = []
    for part in parts:
        if part in ("worse", "better"):
            tests.append(_is_worse if part == "worse" else _is_better)
        elif found := _CONDITION.fullmatch(part):
            tests.append(_limit(found[1], _COMPARE[found[2]], float(found[3])))
        else:
            raise UsageError(
                f"{part!r} is no condition",
                fix='conditions are worse, better, and p, difference, low or high with a limit: "worse,p<0.05"',
            )
    if not tests:
        raise UsageError("the condition is empty", fix='try "worse,p<0.05"')
    return lambda compared: all(test(compared) for test in tests)


def _compare(match: Match, labels: Sequence[Comparison], cluster: str, level: float) -> Compared:
    pair = match.pair
    clusters = [match.categories.get(question) or question for question in pair.questions]
    if cluster == "question":
        clusters = list(pair.questions)
    differences = pair.values_b - pair.values_a
    difference = mean(differences, clusters, level)
    is_small = difference.num_clusters < SMALL
    p = permutation_p(differences, clusters) if is_small else difference.p
    by_people, num_labels = _by_people(match, labels, level)
    return Compared(
        match,
        difference,
        "permutation" if is_small else "t",
        p,
        p,
        detectable_effect(difference.error, difference.num_clusters),
        needed_clusters(difference.value, difference.error, difference.num_clusters),
        mean(pair.points_b, clusters, level),
        _at_equal_lengths(match, clusters, level),
        by_people,
        num_labels,
    )


def _at_equal_lengths(match: Match, clusters: Sequence[str], level: float) -> Estimate | None:
    known = [at for at, question in enumerate(match.pair.questions) if question in match.length_differences]
    if len(known) < SMALL:
        return None
    lengths = [match.length_differences[match.pair.questions[at]] for at in known]
    try:
        return length_adjusted(match.pair.points_b[known], lengths, [clusters[at] for at in known], level)
    except UsageError:
        return None  # one side or length decides everything: no regression exists


def _by_people(match: Match, labels: Sequence[Comparison], level: float) -> tuple[Estimate | None, int]:
    pair = match.pair
    points: dict[str, list[float]] = {}
    for game in labels:
        if game.prompt_id is not None and {game.model_a, game.model_b} == {pair.model_a, pair.model_b}:
            points.setdefault(game.prompt_id, []).append(game.score if game.model_a == pair.model_b else 1 - game.score)
    labelled = np.array([question in points for question in pair.questions])
    num = int(labelled.sum())
    if num < 2:
        return None, num
    human = [float(np.mean(points[question])) for question in pair.questions if question in points]
    return prediction_powered(human, pair.points_b[labelled], pair.points_b[~labelled], level), num


def _is_worse(compared: Compared) -> bool:
    return compared.difference.value < 0


def _is_better(compared: Compared) -> bool:
    return compared.difference.value > 0


def _limit(name: str, holds: Callable[[float, float], bool], limit: float) -> Callable[[Compared], bool]:
    def test(compared: Compared) -> bool:
        value = (
            compared.p_adjusted
            if name == "p"
            else getattr(compared.difference, "value" if name == "difference" else name)
        )
        return holds(value, limit)

    return test


def _interval(estimate: Estimate | None) -> dict[str, float] | None:
    return None if estimate is None else {"value": estimate.value, "low": estimate.low, "high": estimate.high}
