"""What a run says of each model, question by question, whoever made the run: the input of every comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from chaku.errors import UsageError
from chaku.evals.foreign_logs import is_foreign_log, read_foreign_log
from chaku.evals.pairs import Pair, pairs_of
from chaku.evals.records import ContestantAnswer, Judgement, Question, Run

_PAIR_MODES = ("verdict", "pair-score")


@dataclass
class Source:
    """A run or a log: its questions, answers and judgements."""

    name: str
    questions: dict[str, Question]
    answers: list[ContestantAnswer]
    judgements: list[Judgement]

    @property
    def metrics(self) -> list[str]:
        """What can be compared: modes of judging, and the names of programs' checks."""
        return list(dict.fromkeys(_metric(judgement) for judgement in self.judgements))

    def lengths(self, model: str) -> dict[str, float]:
        """Words of the model's answers by question, the mean over samples."""
        words: dict[str, list[int]] = {}
        for answer in self.answers:
            if answer.model == model and not answer.error:
                words.setdefault(answer.question_id, []).append(sum(len(turn.split()) for turn in answer.turns))
        return {question: sum(counts) / len(counts) for question, counts in words.items()}


@dataclass(frozen=True, eq=False)
class Measured:
    """One model's values on one metric."""

    source: Source
    model: str
    metric: str
    values: dict[str, float]
    """By question: the mean over turns, samples, orders and repeats."""
    opponents: frozenset[str]
    """Whom it was judged against; none where it was judged alone."""
    judges: frozenset[tuple[str, str]]
    """Judging models, and the names of their prompts."""
    unread: frozenset[int]
    """Judgements that failed or could not be read, as their places among the source's."""


@dataclass(frozen=True, eq=False)
class Match:
    """Two models to compare: the pair, and what belongs to it."""

    pair: Pair
    metric: str
    categories: dict[str, str | None]
    length_differences: dict[str, float]
    """By question, where both answers are known: words of b minus words of a."""
    num_unread: int
    num_only_a: int
    """Questions with a value of the first model only."""
    num_only_b: int
    judges: frozenset[tuple[str, str]]


def read_source(path: Path) -> Source:
    """Read a run's folder, a log of inspect or lm-eval, or a folder of lm-eval's samples. Raises UsageError."""
    if (path / "run.json").exists():
        run = Run.load(path)
        return Source(path.name, run.questions, run.answers, run.judgements)
    logs = sorted(path.rglob("samples_*.jsonl")) if path.is_dir() else [path]
    if not logs or not all(is_foreign_log(log) for log in logs):
        raise UsageError(
            f"{path} is no run", fix="name a run's folder, a log of inspect (.json, .eval) or lm-eval's samples_*.jsonl"
        )
    whole = Source(path.name if path.is_dir() else path.stem, {}, [], [])
    for log in map(read_foreign_log, logs):
        prefix = {
            each.id: f"{each.category}/{each.id}" if len(logs) > 1 else each.id for each in log.questions.values()
        }
        for question in log.questions.values():
            whole.questions[prefix[question.id]] = question.model_copy(update={"id": prefix[question.id]})
        for answer in log.answers:
            whole.answers.append(answer.model_copy(update={"question_id": prefix[answer.question_id]}))
        for score in log.scores:
            whole.judgements.append(score.model_copy(update={"question_id": prefix[score.question_id]}))
    return whole


def matches(sources: Sequence[Source], *, metric: str | None = None, models: Sequence[str] = ()) -> list[Match]:
    """All pairs of models on one metric, first against later ones.

    Two models that were judged against each other in one run are compared by those judgements. All others are compared
    by what each got on the same questions. Raises UsageError where nothing can be compared, or judges differ.
    """
    metric = metric or _common_metric(sources)
    measured = [one for source in sources for one in measure(source, metric)]
    if models:
        measured = _of_models(measured, models, metric)
    if len(measured) < 2:
        raise UsageError(f"there are no two models with {metric}", fix="name two runs, or a run with two models")
    met = {
        (id(source), frozenset((pair.model_a, pair.model_b))): pair
        for source in sources
        for pair in pairs_of(judgement for judgement in source.judgements if _metric(judgement) == metric)
    }
    found = []
    for a, b in combinations(measured, 2):
        direct = met.get((id(a.source), frozenset((a.model, b.model)))) if a.source is b.source else None
        if direct is not None and direct.model_a != a.model:
            direct = direct.turned
        found.append(_match(a, b, direct))
    return found


def _of_models(measured: Sequence[Measured], models: Sequence[str], metric: str) -> list[Measured]:
    """Those of the models, in their order. Raises UsageError for a model without one."""
    known = {one.model for one in measured}
    if missing := [name for name in models if name not in known]:
        raise UsageError(
            f"{missing[0]} has no {metric}", fix=f"models that have it: {', '.join(sorted(known)) or 'none'}"
        )
    return [one for name in models for one in measured if one.model == name]


def _match(a: Measured, b: Measured, direct: Pair | None) -> Match:
    pair = direct or _pair(a, b)
    lengths_a, lengths_b = a.source.lengths(a.model), b.source.lengths(b.model)
    return Match(
        pair,
        a.metric,
        {each: a.source.questions[each].category for each in pair.questions if each in a.source.questions},
        {
            question: lengths_b[question] - lengths_a[question]
            for question in pair.questions
            if question in lengths_a and question in lengths_b
        },
        _num_unread(a, b, is_direct=direct is not None),
        0 if direct else len(a.values.keys() - b.values.keys()),
        0 if direct else len(b.values.keys() - a.values.keys()),
        a.judges | b.judges,
    )  # fmt: skip


def _num_unread(a: Measured, b: Measured, *, is_direct: bool) -> int:
    """What is missing for a comparison. A judgement of both models is one."""
    if is_direct:
        return len(a.unread & b.unread)
    return len(a.unread | b.unread) if a.source is b.source else len(a.unread) + len(b.unread)


def _pair(a: Measured, b: Measured) -> Pair:
    name_a, name_b = a.model, b.model
    if name_a == name_b:
        name_a, name_b = f"{name_a} ({a.source.name})", f"{name_b} ({b.source.name})"
        if name_a == name_b:
            name_b += " (2)"
    if a.judges != b.judges:
        raise UsageError(
            f"{name_a} was judged by {_names(a)} and {name_b} by {_names(b)}",
            fix="judge both with the same judge and prompt: `chaku eval judge`",
        )
    if a.opponents - {b.model} != b.opponents - {a.model}:
        raise UsageError(
            f"{name_a} and {name_b} were judged against different models", fix="compare scores of single answers"
        )
    shared = tuple(question for question in a.values if question in b.values)
    if not shared:
        raise UsageError(f"{name_a} and {name_b} have no question in common", fix="compare runs of one suite")
    values_a = np.array([a.values[question] for question in shared])
    values_b = np.array([b.values[question] for question in shared])
    return Pair.of_values(name_a, name_b, shared, values_a, values_b)


def _names(measured: Measured) -> str:
    return ", ".join(" ".join(filter(None, judge)) for judge in sorted(measured.judges))


def measure(source: Source, metric: str) -> list[Measured]:
    """Every model that has values on a metric."""
    rows: dict[str, dict[str, list[float]]] = {}
    opponents: dict[str, set[str]] = {}
    judges: dict[str, set[tuple[str, str]]] = {}
    unread: dict[str, set[int]] = {}
    for place, judgement in enumerate(source.judgements):
        if _metric(judgement) != metric:
            continue
        for at, model in enumerate(judgement.models):
            judges.setdefault(model, set()).add((judgement.judge, judgement.prompt or ""))
            opponents.setdefault(model, set()).update(judgement.models[:at] + judgement.models[at + 1 :])
            if judgement.state != "ok":
                unread.setdefault(model, set()).add(place)
                continue
            rows.setdefault(model, {}).setdefault(judgement.question_id, []).append(_value(judgement, at))
    return [
        Measured(
            source,
            model,
            metric,
            {question: sum(values) / len(values) for question, values in by_question.items()},
            frozenset(opponents[model]),
            frozenset(judges[model]),
            frozenset(unread.get(model, ())),
        )
        for model, by_question in rows.items()
    ]


def _value(judgement: Judgement, at: int) -> float:
    """A score, or the points of a verdict."""
    if judgement.scores:
        return judgement.scores[at]
    return 0.5 if judgement.winner == "tie" else float(judgement.winner == "ab"[at])


def _metric(judgement: Judgement) -> str:
    return judgement.judge if judgement.mode == "check" else judgement.mode


def _common_metric(sources: Iterable[Source]) -> str:
    sources = list(sources)
    common = [metric for metric in sources[0].metrics if all(metric in source.metrics for source in sources)]
    if not common:
        each = "; ".join(f"{source.name} has {', '.join(source.metrics) or 'none'}" for source in sources)
        raise UsageError(f"the runs have no metric in common: {each}", fix="judge both in the same way")
    return min(common, key=lambda metric: metric not in _PAIR_MODES)
