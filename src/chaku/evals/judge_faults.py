"""Measure one fault of a judge at a time, from what it said of the probes.

A fault is only named where chance would hardly show it (p < 0.001) and it is large enough to matter: an honest judge
must not be accused. The thresholds stand here, in one place.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chaku.comparison import Comparison
from chaku.errors import UsageError
from chaku.evals.agreement import Agreement, among_people, label, settled
from chaku.evals.judge_trial import Trial
from chaku.evals.probes import EMPTY, PADDED, Material, Probe
from chaku.evals.records import Judgement, Winner
from chaku.rank.fit import fit
from chaku.rank.games import Games
from chaku.statistics.agreement import Share, binomial_p, share
from chaku.statistics.means import Estimate

ALPHA = 0.001
"""A preference is only a fault below this p-value."""
MIN_EFFECT = 0.1
"""And where it decides at least this share of the cases."""
MOST_FLIPS = 0.35
MOST_CHANGES = 0.15
MOST_UNREAD = 0.05
LEAST_REAL_WINS = 0.9
MOST_UNTIED = 0.5
GOOD_KAPPA = 0.4
"""Moderate agreement (Landis and Koch 1977); needed where there is no human ceiling to compare with."""
MOST_EXAGGERATION = 1.25
SLOW_S = 20.0
"""Median time of one judgement. 80 questions with two models, both orders and 8 calls at once take 7 minutes then."""


@dataclass(frozen=True)
class Finding:
    """One thing that was measured."""

    name: str
    number: str
    """The value with its interval."""
    meaning: str
    """In words."""
    is_fault: bool = False
    """The judge is not fit with it. Warnings are no faults."""
    is_warning: bool = False


@dataclass(frozen=True)
class Case:
    """A pair in both orders. Outcomes are for the pair in sorted order; None: not read."""

    question_id: str
    first: str
    second: str
    outcomes: tuple[Winner | None, Winner | None]
    """When the first name was shown first, and when it was shown second."""

    @property
    def is_read(self) -> bool:
        """Whether both verdicts could be read."""
        return None not in self.outcomes

    @property
    def settled(self) -> str:
        """What both orders say; a tie unless they agree."""
        return settled([str(outcome) for outcome in self.outcomes])


def cases_of(said: Sequence[tuple[Probe, Judgement]], kind: str) -> list[Case]:
    """The pairs of one kind of probe that were judged in both orders."""
    found: dict[tuple[str, str, str], dict[bool, Winner | None]] = {}
    for probe, judgement in said:
        if probe.kind == kind:
            _question_id, first, _ = probe.case
            found.setdefault(probe.case, {})[probe.names[0] == first] = judgement.outcome
    return [Case(*case, (orders[True], _turned(orders[False]))) for case, orders in found.items() if len(orders) == 2]


def _turned(outcome: Winner | None) -> Winner | None:
    return {"a": "b", "b": "a", "tie": "tie", None: None}[outcome]


def games_of(case: Case, judge: str) -> list[Comparison]:
    """Both verdicts as comparisons."""
    return [
        Comparison(
            source="judge", model_a=case.first, model_b=case.second, outcome=outcome or "tie",
            prompt_id=case.question_id, cluster=case.question_id, judge=f"{judge} {order}",
        )
        for order, outcome in enumerate(case.outcomes)
    ]  # fmt: skip


def readable(said: Sequence[tuple[Probe, Judgement]]) -> Finding:
    """Whether its texts can be read."""
    unread = share(sum(judgement.state != "ok" for _, judgement in said), len(said))
    return Finding("unreadable", str(unread), "judgements that can't be read or failed", unread.low > MOST_UNREAD)


def position(cases: Sequence[Case]) -> list[Finding]:
    """Whether the order changes its verdicts, and towards which place. Consistent verdicts say nothing of it."""
    read = [case for case in cases if case.is_read]
    flipped = share(sum(case.outcomes[0] != case.outcomes[1] for case in read), len(read))
    first = sum(case.outcomes == ("a", "b") for case in read)
    second = sum(case.outcomes == ("b", "a") for case in read)
    preferred = share(first, first + second)
    is_biased = _is_preference(first, second, len(read))
    place = "first" if first >= second else "second"
    return [
        Finding("flips", _count(flipped), "pairs whose verdict changes with the order", flipped.low > MOST_FLIPS),
        Finding(
            "position",
            str(preferred) if preferred.num else "no such flips",
            f"it prefers what is shown {place}"
            if is_biased
            else "flips in which it took the answer shown first both times",
            is_biased,
        ),
    ]


def _is_preference(liked: int, disliked: int, num: int) -> bool:
    """Whether one side is taken more often than chance allows, in enough cases to matter."""
    return num > 0 and abs(liked - disliked) / num >= MIN_EFFECT and binomial_p(liked, liked + disliked) < ALPHA


def retest(said: Sequence[tuple[Probe, Judgement]]) -> Finding:
    """Whether it says the same again."""
    first = {
        (probe.names, probe.task.question.id): judgement.outcome for probe, judgement in said if probe.kind == "pair"
    }
    pairs = [
        (first.get((probe.names, probe.task.question.id)), judgement.outcome)
        for probe, judgement in said
        if probe.kind == "repeat"
    ]
    read = [(before, again) for before, again in pairs if before is not None and again is not None]
    changed = share(sum(before != again for before, again in read), len(read))
    return Finding("retest", _count(changed), "verdicts that change when asked again", changed.low > MOST_CHANGES)


def controls(said: Sequence[tuple[Probe, Judgement]]) -> list[Finding]:
    """Identical answers should tie, and an empty one should lose."""
    identical = [judgement.outcome for probe, judgement in said if probe.kind == "identical" and judgement.outcome]
    untied = share(sum(outcome != "tie" for outcome in identical), len(identical))
    real_won = [
        judgement.outcome == ("b" if probe.names[0].endswith(EMPTY) else "a")
        for probe, judgement in said
        if probe.kind == "empty" and judgement.outcome
    ]
    won = share(sum(real_won), len(real_won))
    return [
        Finding(
            "identical", _count(untied), "identical answers of which it calls one better",
            is_warning=untied.low > MOST_UNTIED,
        ),
        Finding("empty", _count(won), "real answers that win against an empty one", won.high < LEAST_REAL_WINS),
    ]  # fmt: skip


def padding(cases: Sequence[Case]) -> list[Finding]:
    """Whether an answer wins by saying everything twice."""
    read = [case for case in cases if case.is_read]
    padded_won = unpadded_won = 0
    for case in read:
        if case.settled != "tie":
            winner = case.first if case.settled == "a" else case.second
            padded_won += winner.endswith(PADDED)
            unpadded_won += not winner.endswith(PADDED)
    won = share(padded_won, len(read))
    is_fooled = padded_won > unpadded_won and _is_preference(padded_won, unpadded_won, len(read))
    return [Finding("verbosity", _count(won), "answers that win by repeating themselves as a list", is_fooled)]


def agreement_found(agreement: Agreement | None, material: Material) -> list[Finding]:
    """Its agreement with the labels, beside that of people among themselves. A fault where chance would do as well."""
    if agreement is None or agreement.kappa is None:
        why = "too few labelled pairs could be read" if material.labels else "there are no labels to compare with"
        return [Finding("agreement", "unknown", why, is_warning=True)]
    whose = "human labels" if material.of_people else "labels known by construction"
    kappa = agreement.kappa
    exact = f"{agreement.agreed}/{agreement.compared} = {agreement.share:.0%}, kappa {_interval(kappa)}"
    found = [Finding("agreement", exact, f"agreement with {whose}", kappa.low <= 0)]
    ceiling = among_people(material.labels).kappa if material.of_people else None
    if ceiling is not None:
        found.append(Finding("ceiling", f"kappa {_interval(ceiling)}", "agreement of people among themselves"))
    return found


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def _errors(cases: Sequence[Case], truth: Sequence[Comparison]) -> list[tuple[Case, str]]:
    """Cases in which the settled verdict and the truth name different winners, and the wrongly preferred name."""
    votes: dict[tuple[str, str, str], list[str]] = {}
    for game in truth:
        (question_id, first, second, _), winner = label(game)
        votes.setdefault((question_id, first, second), []).append(winner)
    wrong = []
    for case in cases:
        right = settled(votes.get((case.question_id, case.first, case.second), ["tie"]))
        if case.is_read and right != case.settled and case.settled != "tie" and right != "tie":
            wrong.append((case, case.first if case.settled == "a" else case.second))
    return wrong


def length_errors(cases: Sequence[Case], material: Material) -> Finding:
    """Whether its errors, by the labels, favour length."""
    name, meaning = "length", "errors that favour the longer answer"
    if not material.labels:
        return Finding(name, "unknown", f"{meaning}: there are no labels")
    longer = shorter = 0
    for case, winner in _errors(cases, material.labels):
        loser = case.second if winner == case.first else case.first
        lengths = [sum(map(len, material.answers[case.question_id, each, 0].turns)) for each in (winner, loser)]
        longer += lengths[0] > lengths[1]
        shorter += lengths[0] < lengths[1]
    is_biased = longer > shorter and _is_preference(longer, shorter, len(cases))
    return Finding(name, _count(share(longer, longer + shorter), "errors"), meaning, is_biased)


def self_preference(
    cases: Sequence[Case], own: str | None, material: Material, others: Sequence[Comparison]
) -> Finding:
    """Whether its errors, by the labels or by other judges, favour its own contestant."""
    name = "self-preference"
    if own is None:
        return Finding(
            name, "can't be told", "none of the contestants is known to be the judge itself: name it with --own"
        )
    truth = material.labels or others
    if not truth:
        return Finding(name, "can't be told", "it takes labels, or another judge's verdicts, to tell it from quality")
    ours = [case for case in cases if own in (case.first, case.second)]
    wrong = [winner for case, winner in _errors(ours, truth)]
    mine, theirs = wrong.count(own), sum(winner != own for winner in wrong)
    against = "labels" if material.labels else "other judges"
    is_biased = mine > theirs and _is_preference(mine, theirs, len(ours))
    counted = _count(share(mine, mine + theirs), "errors")
    return Finding(name, counted, f"errors that favour {own}, measured by {against}", is_biased)


def _count(found: Share, what: str = "readable verdicts") -> str:
    return str(found) if found.num else f"no {what}"


def exaggeration(games: Sequence[Comparison], labels: Sequence[Comparison]) -> list[Finding]:
    """How much wider the judge's ratings are spread than those of people: the slope of one on the other."""
    names = {name for game in labels for name in (game.model_a, game.model_b)}
    if len(names) < 3:
        return []
    try:
        slope = _slope(games, labels)
        clusters = sorted({game.prompt_id or "" for game in labels})
        groups = [set(clusters[number::10]) for number in range(10)]
        parts = [
            _slope(*([game for game in side if game.prompt_id not in group] for side in (games, labels)))
            for group in groups
        ]
    except UsageError:
        return []
    error = float(np.sqrt(0.9 * np.sum((np.array(parts) - np.mean(parts)) ** 2)))
    low, high = slope - 2.26 * error, slope + 2.26 * error  # t with 9 degrees of freedom; jackknife over ten groups
    is_wide = low > 1.0 and slope > MOST_EXAGGERATION
    return [
        Finding(
            "exaggeration", f"{slope:.2f} [{low:.2f}, {high:.2f}]", "spread of its ratings against that of the labels",
            is_warning=is_wide,
        )
    ]  # fmt: skip


def _slope(games: Sequence[Comparison], labels: Sequence[Comparison]) -> float:
    sides = [
        fit(Games.of((game.model_a, game.model_b, game.score) for game in side), prior=1.0) for side in (games, labels)
    ]
    common = [name for name in sides[0].names if name in sides[1].names]
    judged, human = (
        np.array([side.strengths[side.names.index(name)] for name in common], dtype=float) for side in sides
    )
    human, judged = human - human.mean(), judged - judged.mean()
    spread = float(human @ human)
    if spread == 0:
        raise UsageError("the labels tell no model from another")
    return float(judged @ human) / spread


def service(trial: Trial, slow_s: float) -> list[Finding]:
    """Its speed, and the limits of its server."""
    seconds = statistics.median(trial.seconds) if trial.seconds else 0.0
    return [
        Finding("slow", f"{seconds:.2g} s", "median time of a judgement", is_warning=seconds > slow_s),
        Finding(
            "rate limit", f"{trial.num_refused:,} of {len(trial.judgements) + trial.num_refused:,}",
            "calls that were refused with a 429 and made again", is_warning=trial.num_refused > 0,
        ),
    ]  # fmt: skip
