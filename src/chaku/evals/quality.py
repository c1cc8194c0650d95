"""Relative quality: a model's total as a share of a reference's, as in Figure 1 of the Vicuna post.

Two models that never met are compared through those that they both met: LLaMA's share of Vicuna's total times Vicuna's
share of ChatGPT's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chaku.errors import UsageError
from chaku.evals.pairs import Pair
from chaku.statistics.distributions import t_reach
from chaku.statistics.means import robust_error


@dataclass(frozen=True)
class Quality:
    """A model's share of the reference's total, 1 for the reference itself, with an interval by question."""

    model: str
    share: float
    low: float
    high: float
    through: tuple[str, ...]
    """The models between it and the reference."""

    def __str__(self) -> str:
        return f"{self.share:.1%} [{self.low:.1%}, {self.high:.1%}]"

    def as_json(self) -> dict[str, Any]:
        """Shares in percent."""
        return {
            "model": self.model,
            "percent": 100 * self.share,
            "low": 100 * self.low,
            "high": 100 * self.high,
            "through": list(self.through),
        }


def relative_quality(pairs: Sequence[Pair], reference: str | None = None, level: float = 0.95) -> list[Quality]:
    """All models that lead to the reference through scored pairs, the worst first; without one, the best is it.

    The error is that of the log ratio (delta method): questions that several links share are one cluster.
    Raises UsageError for a reference without scores.
    """
    scored = [pair for pair in pairs if pair.has_scores and pair.values_a.sum() > 0 and pair.values_b.sum() > 0]
    models = list(dict.fromkeys(name for pair in scored for name in (pair.model_a, pair.model_b)))
    if reference is not None and reference not in models:
        raise UsageError(f"{reference} has no scores", fix=f"models with scores: {', '.join(models) or 'none'}")
    if not models:
        return []
    found = _from(scored, reference or models[0], level)
    if reference is None and found[-1].model != models[0]:
        found = _from(scored, found[-1].model, level)
    return found


def _from(pairs: list[Pair], reference: str, level: float) -> list[Quality]:
    """Breadth first: the fewest links."""
    paths: dict[str, list[tuple[Pair, bool]]] = {reference: []}
    queue = [reference]
    for known in queue:
        for pair in pairs:
            for new, other in ((pair.model_a, pair.model_b), (pair.model_b, pair.model_a)):
                if other == known and new not in paths:
                    paths[new] = [*paths[known], (pair, new == pair.model_a)]
                    queue.append(new)
    found = [_quality(model, reference, links, level) for model, links in paths.items()]
    return sorted(found, key=lambda quality: quality.share)


def _quality(model: str, reference: str, links: list[tuple[Pair, bool]], level: float) -> Quality:
    if not links:
        return Quality(model, 1.0, 1.0, 1.0, ())
    log_ratio, influence, through = 0.0, dict[str, float](), list[str]()
    for pair, is_a in links:
        ours, theirs = (pair.values_a, pair.values_b) if is_a else (pair.values_b, pair.values_a)
        log_ratio += math.log(ours.sum() / theirs.sum())
        for question, value in zip(pair.questions, ours / ours.sum() - theirs / theirs.sum(), strict=True):
            influence[question] = influence.get(question, 0.0) + float(value)
        through.append(pair.model_b if is_a else pair.model_a)
    reach = math.nan
    if len(influence) > 1:
        error = robust_error(np.array(list(influence.values())), np.arange(len(influence)))
        reach = t_reach(level, len(influence) - 1) * error
    between = tuple(name for name in reversed(through) if name != reference)
    share = math.exp(log_ratio)
    return Quality(model, share, share * math.exp(-reach), share * math.exp(reach), between)
