"""A run as one JSON object: what the report, the Evals screen and `--json` show. Computed anew from the records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from chaku.evals.deciding import deciding_sentence
from chaku.evals.health import Health, health_of, winners_by_order
from chaku.evals.measured import Source, measure
from chaku.evals.pairs import Pair, pairs_of
from chaku.evals.quality import relative_quality
from chaku.evals.records import CallUsage, Judgement, Run
from chaku.statistics.agreement import Share
from chaku.statistics.means import mean

UNITS = {"verdict": "share of points", "pair-score": "score of 10", "score": "score of 10"}
_OTHER = "no category"


def row_of(run: Run) -> dict[str, Any]:
    """One line of a list of runs."""
    manifest = run.manifest
    num_answers = sum(not answer.error for answer in run.answers)
    num_judgements = sum(judgement.mode != "check" and judgement.state != "failed" for judgement in run.judgements)
    planned = (manifest.num_answers, manifest.num_judgements)
    return {
        "name": run.folder.name,
        "suite": manifest.suite,
        "created": manifest.created,
        "models": list(manifest.model_names),
        "judge": manifest.judge,
        "mode": manifest.mode,
        "answers": [num_answers, planned[0]],
        "judgements": [num_judgements, planned[1]],
        "is_done": num_answers >= planned[0] and num_judgements >= planned[1],
    }


def summary(run: Run, against: Run | None = None) -> dict[str, Any]:
    """All of a run. `against` is another run: questions on which its judge decided otherwise are marked."""
    source = Source(run.folder.name, run.questions, run.answers, run.judgements)
    judged = [judgement for judgement in run.judgements if judgement.mode != "check"]
    pairs = pairs_of(judged)
    return {
        **row_of(run),
        "against": against and against.folder.name,
        "scores": [_scores(source, metric) for metric in source.metrics],
        "quality": [one.as_json() for one in relative_quality(pairs)],
        "pairs": [pair.as_json() for pair in pairs],
        "matrix": _matrix(pairs),
        "health": _health(health_of(judged)) if judged else None,
        "cost": _costs(run),
        "questions": _questions(run, against),
    }


def _scores(source: Source, metric: str) -> dict[str, Any]:
    """By model: the mean over all questions and by category, each with its interval."""
    models = []
    for one in measure(source, metric):
        by_category: dict[str, list[float]] = {}
        for question, value in one.values.items():
            known = source.questions.get(question)
            by_category.setdefault((known and known.category) or _OTHER, []).append(value)
        models.append(
            {
                "model": one.model,
                "all": _estimate(list(one.values.values())),
                "categories": {name: _estimate(values) for name, values in by_category.items()},
            }
        )
    is_score = metric in ("pair-score", "score")
    return {
        "metric": metric,
        "unit": UNITS.get(metric, "share passed"),
        "most": 10 if is_score else 1,
        "models": models,
    }


def _estimate(values: Sequence[float]) -> dict[str, Any]:
    value = sum(values) / len(values)
    if len(values) < 2:
        return {"value": value, "low": None, "high": None, "num": len(values)}
    found = mean(values)
    return {"value": value, "low": found.low, "high": found.high, "num": len(values)}


def _matrix(pairs: Iterable[Pair]) -> dict[str, Any]:
    """Share of points that the row's model won against the column's, null where they did not meet."""
    pairs = list(pairs)
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.model_a, pair.model_b)))
    values: list[list[float | None]] = [[None] * len(names) for _ in names]
    for pair in pairs:
        a, b = names.index(pair.model_a), names.index(pair.model_b)
        won = float(pair.points_b.mean())
        values[a][b], values[b][a] = 1 - won, won
    return {"names": names, "values": values}


def _health(health: Health) -> dict[str, Any]:
    return {
        "unread": _share(health.unread),
        "flips": _share(health.flips),
        "first": _share(health.first),
        "first_p": health.first_p,
    }


def _share(share: Share) -> dict[str, Any]:
    value = None if math.isnan(share.value) else share.value
    return {"count": share.count, "num": share.num, "value": value, "low": share.low, "high": share.high}


def _costs(run: Run) -> list[dict[str, Any]]:
    """Tokens, dollars and seconds by who used them; dollars are null where no price is known."""
    spent: dict[tuple[str, str], list[CallUsage]] = {}
    for answer in run.answers:
        spent.setdefault((answer.model, "answers"), []).append(answer.usage)
    for judgement in run.judgements:
        if judgement.mode != "check":
            spent.setdefault((judgement.judge, "judgements"), []).append(judgement.usage)
    rows = []
    for (name, what), usages in spent.items():
        dollars = [usage.dollars for usage in usages if usage.dollars is not None]
        rows.append(
            {
                "name": name,
                "what": what,
                "num": len(usages),
                "prompt_tokens": sum(usage.prompt_tokens for usage in usages),
                "completion_tokens": sum(usage.completion_tokens for usage in usages),
                "dollars": sum(dollars) if dollars else None,
                "seconds": sum(usage.seconds or 0 for usage in usages),
            }
        )
    return rows


def _questions(run: Run, against: Run | None) -> list[dict[str, Any]]:
    judgements: dict[str, list[Judgement]] = {}
    for judgement in run.judgements:
        judgements.setdefault(judgement.question_id, []).append(judgement)
    answers: dict[str, dict[str, Any]] = {}
    for answer in run.answers:
        shown = {"turns": list(answer.turns), "error": answer.error}
        answers.setdefault(answer.question_id, {}).setdefault(answer.model, shown)
    elsewhere = _outcomes(against) if against else {}
    differing: dict[str, list[list[str]]] = {}
    for (asked, pair), outcome in _outcomes(run).items() if against else ():
        if elsewhere.get((asked, pair), outcome) != outcome:
            differing.setdefault(asked, []).append(sorted(pair))
    rows = []
    for question in run.questions.values():
        mine = judgements.get(question.id, [])
        rows.append(
            {
                "id": question.id,
                "category": question.category or _OTHER,
                "turns": list(question.turns),
                "reference": list(question.reference),
                "answers": answers.get(question.id, {}),
                "judgements": [_judgement(judgement) for judgement in mine],
                "flipped": [sorted(key[1]) for key, winners in winners_by_order(mine).items() if len(set(winners)) > 1],
                "differs": differing.get(question.id, []),
            }
        )
    return rows


def _outcomes(run: Run) -> dict[tuple[str, frozenset[str]], str]:
    """Who won a question, by its id and the pair: a name, or tie."""
    found = {}
    for pair in pairs_of(run.judgements):
        for question, outcome in zip(pair.questions, pair.outcomes, strict=True):
            winner = {"a": pair.model_a, "b": pair.model_b, "tie": "tie"}[outcome]
            found[question, frozenset((pair.model_a, pair.model_b))] = winner
    return found


def _judgement(one: Judgement) -> dict[str, Any]:
    return {
        "key": one.key,
        "mode": one.mode,
        "judge": one.judge,
        "models": list(one.models),
        "turn": one.turn,
        "state": one.state,
        "error": one.error,
        "outcome": one.outcome,
        "scores": list(one.scores),
        "text": one.text,
        "deciding": deciding_sentence(one.text),
    }
