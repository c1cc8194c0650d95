"""How often a judge and people agree, and people among themselves: the human ceiling.

One case is one verdict against one vote on the same question, pair and turn, as in MT-bench (Zheng et al. 2023). Cases
of one question are a cluster.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from chaku.comparison import Comparison
from chaku.statistics.agreement import kappa
from chaku.statistics.means import Estimate, mean

Key = tuple[str, str, str, int]
"""Question, the pair in sorted order, turn."""
Case = tuple[str, str, str]
"""Question, and the two labels."""


@dataclass(frozen=True)
class Agreement:
    """Cases in which two labels are the same."""

    agreed: int
    compared: int
    rate: Estimate | None
    """With an interval by question; None for fewer than two questions."""
    kappa: Estimate | None
    """Cohen's, which takes away what chance alone would give."""

    @property
    def share(self) -> float:
        """Between 0 and 1; 0 where nothing was compared."""
        return self.agreed / self.compared if self.compared else 0.0

    def __str__(self) -> str:
        interval = f" [{self.rate.low:.0%}, {self.rate.high:.0%}]" if self.rate else ""
        return f"{self.agreed}/{self.compared} = {self.share:.0%}{interval}"

    def as_json(self) -> dict[str, Any]:
        """Counts, share with its interval, and kappa; null for what can't be told."""
        return {
            "agreed": self.agreed,
            "compared": self.compared,
            "share": self.share if self.compared else None,
            "low": self.rate and self.rate.low,
            "high": self.rate and self.rate.high,
            "kappa": self.kappa and (None if math.isnan(self.kappa.value) else self.kappa.value),
        }


def with_people(judge: Iterable[Comparison], people: Iterable[Comparison], *, ties: bool = True) -> Agreement:
    """Compare each verdict with each vote. A judge that contradicts itself on a pair counts as a tie there.

    Without `ties`, cases in which either says tie are left out.
    """
    verdicts = {key: settled(labels) for key, labels in _by_key(judge).items()}
    return _agreement(
        ((key[0], verdicts[key], vote) for key, votes in _votes(people).items() if key in verdicts for vote in votes),
        ties,
    )


def among_people(people: Iterable[Comparison], *, ties: bool = True) -> Agreement:
    """Compare all pairs of votes on the same question, pair and turn by different people."""
    cases = (
        (key[0], first, second) for key, votes in _votes(people).items() for first, second in combinations(votes, 2)
    )
    return _agreement(cases, ties)


def settled(labels: Sequence[str]) -> str:
    """One label for several verdicts of one judge: a tie unless they are the same."""
    return labels[0] if len(set(labels)) == 1 else "tie"


def label(game: Comparison) -> tuple[Key, str]:
    """What was compared, and the winner ("a", "b" or "tie") for the pair in sorted order."""
    score = game.score
    first, second = game.model_a, game.model_b
    if first > second:
        first, second, score = second, first, 1 - score
    return (game.prompt_id or "", first, second, game.turn), "a" if score > 0.5 else "b" if score < 0.5 else "tie"


def _by_key(games: Iterable[Comparison]) -> dict[Key, list[str]]:
    found: dict[Key, list[str]] = {}
    for game in games:
        key, winner = label(game)
        found.setdefault(key, []).append(winner)
    return found


def _votes(people: Iterable[Comparison]) -> dict[Key, list[str]]:
    """One vote per person and key, the first. Votes without a voter are different people's."""
    votes: dict[Key, list[str]] = {}
    seen: set[tuple[Key, str]] = set()
    for game in people:
        key, winner = label(game)
        if game.voter is not None and (key, game.voter) in seen:
            continue
        seen.add((key, game.voter or ""))
        votes.setdefault(key, []).append(winner)
    return votes


def _agreement(cases: Iterable[Case], ties: bool) -> Agreement:
    kept = list(_counted(cases, ties))
    clusters = [case[0] for case in kept]
    same = [float(first == second) for _, first, second in kept]
    if len(set(clusters)) < 2:
        return Agreement(int(sum(same)), len(kept), None, None)
    beyond_chance = kappa([case[1] for case in kept], [case[2] for case in kept], clusters)
    return Agreement(int(sum(same)), len(kept), mean(same, clusters), beyond_chance)


def _counted(cases: Iterable[Case], ties: bool) -> Iterator[Case]:
    return (case for case in cases if ties or "tie" not in case[1:])
