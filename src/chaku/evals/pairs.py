"""Pairs of models over the same questions: totals, wins, and the difference with a paired interval."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from chaku.evals.agreement import settled
from chaku.evals.records import Judgement
from chaku.statistics.distributions import Floats
from chaku.statistics.means import Estimate, mean


@dataclass(frozen=True, eq=False)
class Pair:
    """Two models over the questions on which both were judged."""

    model_a: str
    model_b: str
    questions: tuple[str, ...]
    """(n,) Ids."""
    values_a: Floats
    """(n,) Scores, or points in [0, 1] from verdicts: the mean over orders, turns and repeats."""
    values_b: Floats
    outcomes: tuple[str, ...]
    """(n,) "a", "b" or "tie": what all judgements of the question say, a tie if they differ."""
    has_scores: bool
    """False: there are only verdicts."""

    @classmethod
    def of_values(
        cls, model_a: str, model_b: str, questions: tuple[str, ...], values_a: Floats, values_b: Floats
    ) -> Pair:
        """A pair of models that were judged one at a time: the larger value wins."""
        outcomes = tuple(
            "tie" if first == second else "a" if first > second else "b"
            for first, second in zip(values_a.tolist(), values_b.tolist(), strict=True)
        )
        return cls(model_a, model_b, questions, values_a, values_b, outcomes, True)

    @property
    def turned(self) -> Pair:
        """The same with the second model first."""
        outcomes = tuple({"a": "b", "b": "a", "tie": "tie"}[outcome] for outcome in self.outcomes)
        return Pair(self.model_b, self.model_a, self.questions, self.values_b, self.values_a, outcomes, self.has_scores)

    @property
    def points_b(self) -> Floats:
        """(n,) 1 where the second model won, 0.5 for a tie, 0 where it lost."""
        return np.array([{"a": 0.0, "tie": 0.5, "b": 1.0}[outcome] for outcome in self.outcomes])

    @property
    def difference(self) -> Estimate | None:
        """The mean of b - a per question; None for a single question."""
        return mean(self.values_b - self.values_a) if len(self.questions) > 1 else None

    def count(self, outcome: str) -> int:
        """Questions with this outcome."""
        return self.outcomes.count(outcome)

    def as_json(self) -> dict[str, Any]:
        """The pair's line of a table. Totals are null where the judge gave no scores."""
        difference = self.difference
        return {
            "model_a": self.model_a,
            "model_b": self.model_b,
            "total_a": float(self.values_a.sum()) if self.has_scores else None,
            "total_b": float(self.values_b.sum()) if self.has_scores else None,
            "wins_a": self.count("a"),
            "ties": self.count("tie"),
            "wins_b": self.count("b"),
            "difference": difference and difference.value,
            "low": difference and difference.low,
            "high": difference and difference.high,
        }


def pairs_of(judgements: Iterable[Judgement]) -> list[Pair]:
    """All pairs that were judged together, in the order and orientation of their first judgement.

    Judgements that could not be read are left out, with nothing in their place.
    """
    found: dict[frozenset[str], list[Judgement]] = {}
    for judgement in judgements:
        if judgement.outcome is not None:
            found.setdefault(frozenset(judgement.models), []).append(judgement)
    return [_pair(games) for games in found.values() if len(set(games[0].models)) == 2]


def _pair(games: list[Judgement]) -> Pair:
    model_a, model_b = games[0].models
    has_scores = all(game.mode == "pair-score" for game in games)
    by_question: dict[str, list[tuple[float, float, str]]] = {}
    for game in games:
        outcome = game.outcome
        assert outcome is not None
        values = game.scores if has_scores else {"a": (1.0, 0.0), "b": (0.0, 1.0), "tie": (0.5, 0.5)}[outcome]
        winner: str = outcome
        if game.models[0] != model_a:
            values, winner = values[::-1], {"a": "b", "b": "a", "tie": "tie"}[outcome]
        by_question.setdefault(game.question_id, []).append((values[0], values[1], winner))
    return Pair(
        model_a,
        model_b,
        tuple(by_question),
        np.array([np.mean([row[0] for row in rows]) for rows in by_question.values()]),
        np.array([np.mean([row[1] for row in rows]) for rows in by_question.values()]),
        tuple(settled([row[2] for row in rows]) for rows in by_question.values()),
        has_scores,
    )
