"""Read what FastChat wrote: answers, reviews with two scores, MT-bench judgements. Recorded scores stay as recorded.

A review names its answers by id. Which model wrote them is found in the answer files of the folder `answer` beside the
review's folder, or else in the review's own name: review_{first}_{second}.jsonl.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from chaku.errors import UsageError
from chaku.evals.records import ContestantAnswer, Judgement, Question, Winner, content_key
from chaku.evals.suites import json_lines

Row = dict[str, Any]
Kind = Literal["answer", "review", "pair", "single"]
_WINNERS: dict[str, Winner] = {"model_1": "a", "model_2": "b", "tie": "tie"}
_REVIEWER = re.compile(r"-\d{4}-[a-z]+$")
"""gpt-4-0328-coding: a judge with a date and the name of its prompt."""
_TURNED: dict[Winner, Winner] = {"a": "b", "b": "a", "tie": "tie"}


@dataclass
class OldFiles:
    """What FastChat's files held."""

    answers: list[ContestantAnswer] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)


def kind_of(path: Path) -> Kind | None:
    """What the first row of a JSONL file is; None if it is nothing of this kind. Raises UsageError."""
    for _, row in _rows(path):
        if {"answer1_id", "answer2_id", "score"} <= row.keys():
            return "review"
        if "g1_winner" in row:
            return "pair"
        if {"judgment", "score"} <= row.keys():
            return "single"
        if "answer_id" in row and ("text" in row or "choices" in row):
            return "answer"
        return None
    return None


def read_old_files(paths: Sequence[Path]) -> OldFiles:
    """Read files of all four kinds, and the answers that lie beside reviews. Raises UsageError naming the line."""
    found = OldFiles()
    kinds = {path: kind_of(path) for path in paths}
    if unknown := [path for path, kind in kinds.items() if kind is None]:
        raise UsageError(f"{unknown[0]} is neither answers nor judgements of FastChat's")
    beside = {near.resolve() for path, kind in kinds.items() if kind == "review" for near in _answers_beside(path)}
    named = [path for path, kind in kinds.items() if kind == "answer"]
    writers: dict[str, str] = {}
    for path in [*named, *sorted(beside - {path.resolve() for path in named})]:
        for answer in _each(path, lambda row, path=path: _answer(row, path)):  # type: ignore[misc]
            found.answers.append(answer)
            writers[answer.key] = answer.model
    for path, kind in kinds.items():
        if kind == "review":
            found.judgements += _each(path, lambda row, path=path: _review(row, path, writers))  # type: ignore[misc]
        elif kind == "pair":
            for games in _each(path, _pair):
                found.judgements += games
        elif kind == "single":
            found.judgements += _each(path, _single)
    return found


def read_old_questions(path: Path) -> dict[str, Question]:
    """Questions by id: `text` in the first release, `turns` later. Raises UsageError naming the line."""
    return {question.id: question for question in _each(path, _question)}


def questions_beside(paths: Sequence[Path]) -> Path | None:
    """The question.jsonl in a file's folder or the folder above, if there is one."""
    for path in paths:
        for folder in path.resolve().parents[:2]:
            if (questions := folder / "question.jsonl").is_file():
                return questions
    return None


def _answers_beside(review: Path) -> list[Path]:
    return sorted(review.resolve().parent.parent.glob("answer/answer_*.jsonl"))


def _question(row: Row) -> Question:
    return Question(
        id=str(row["question_id"]),
        turns=tuple(map(str, row["turns"])) if "turns" in row else (str(row["text"]),),
        category=row.get("category"),
        reference=tuple(map(str, row.get("reference") or ())),
        temperature=row.get("required_temperature"),
    )


def _answer(row: Row, path: Path) -> ContestantAnswer:
    """A row of answer_{model}.jsonl or of model_answer/{model}.jsonl. The file's name is the model's."""
    model = path.stem.removeprefix("answer_") if path.stem.startswith("answer_") else str(row["model_id"])
    turns = row["choices"][0]["turns"] if "choices" in row else [row["text"]]
    return ContestantAnswer(
        key=str(row["answer_id"]), question_id=str(row["question_id"]), model=model, turns=tuple(map(str, turns))
    )


def _review(row: Row, path: Path, writers: dict[str, str]) -> Judgement:
    """A row of a review file. The score -1 of both sides is FastChat's word for a text that it could not read."""
    first, second = (float(score) for score in row["score"])
    ids = (str(row["answer1_id"]), str(row["answer2_id"]))
    models = tuple(writers[each] for each in ids if each in writers)
    if len(models) != 2:
        models = _models_of_name(path)
    is_read = first >= 0 and second >= 0
    return Judgement(
        key=content_key("review", models, row["question_id"], row.get("review_id"), row["text"]),
        question_id=str(row["question_id"]),
        mode="pair-score",
        judge=_REVIEWER.sub("", str(row.get("reviewer_id") or "unknown")),
        models=models,
        prompt=str(row.get("reviewer_id") or "") or None,
        text=str(row["text"]),
        state="ok" if is_read else "unparsed",
        scores=(first, second) if is_read else (),
        origin="recorded",
    )


def _models_of_name(path: Path) -> tuple[str, str]:
    parts = path.stem.removeprefix("review_").split("_")
    if len(parts) != 2:
        raise ValueError(f"its answers are not in {path.parent.parent / 'answer'}, and its name has no two models")
    return parts[0], parts[1]


def _pair(row: Row) -> list[Judgement]:
    """Two games of MT-bench, the second with the sides exchanged; winners are named by the first game's sides."""
    models = (str(row["model_1"]), str(row["model_2"]))
    games = []
    for game, shown in ((1, models), (2, models[::-1])):
        if f"g{game}_winner" not in row:
            continue
        winner = _WINNERS.get(str(row[f"g{game}_winner"]))
        if winner is not None and game == 2:
            winner = _TURNED[winner]
        text = str(row.get(f"g{game}_judgment") or "")
        judge, prompt = _judge(row)
        games.append(
            Judgement(
                key=content_key("pair", shown, row["question_id"], row.get("turn"), judge, prompt, text, winner),
                question_id=str(row["question_id"]),
                mode="verdict",
                judge=judge,
                models=shown,
                turn=int(row.get("turn") or 1),
                prompt=prompt,
                text=text,
                state="unparsed" if winner is None else "ok",
                winner=winner,
                origin="recorded",
            )
        )
    return games


def _single(row: Row) -> Judgement:
    """One answer's score in MT-bench; -1 is FastChat's word for a text that it could not read."""
    score = float(row["score"])
    judge, prompt = _judge(row)
    return Judgement(
        key=content_key("single", row["model"], row["question_id"], row.get("turn"), judge, prompt),
        question_id=str(row["question_id"]),
        mode="score",
        judge=judge,
        models=(str(row["model"]),),
        turn=int(row.get("turn") or 1),
        prompt=prompt,
        text=str(row["judgment"]),
        state="ok" if score >= 0 else "unparsed",
        scores=(score,) if score >= 0 else (),
        origin="recorded",
    )


def _judge(row: Row) -> tuple[str, str | None]:
    judge = row.get("judge")
    if isinstance(judge, list) and judge:
        return str(judge[0]), str(judge[1]) if len(judge) > 1 else None
    return str(judge or "unknown"), None


def _each(path: Path, read: Callable[[Row], Any]) -> list[Any]:
    results = []
    for number, row in _rows(path):
        try:
            results.append(read(row))
        except KeyError as missing:
            raise UsageError(f"{path}:{number}: there is no {missing.args[0]}") from None
        except (ValueError, TypeError, IndexError) as error:
            raise UsageError(f"{path}:{number}: {error}") from None
    return results


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    for number, row in json_lines(path):
        if not isinstance(row, dict):
            raise UsageError(f"{path}:{number} is not a JSON object")
        yield number, row
