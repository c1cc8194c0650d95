"""Answers, and the scores beside them, from the logs of inspect_ai (.json, .eval) and of lm-eval (samples_*.jsonl)."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from chaku.errors import UsageError
from chaku.evals.records import ContestantAnswer, Judgement, Question, content_key
from chaku.evals.suites import json_lines

Row = dict[str, Any]
_INSPECT_VALUES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
"""inspect's letters: correct, incorrect, partly, no answer."""


@dataclass
class ForeignLog:
    """What a log holds. Scores are judgements of mode check with the scorer's name as judge, recorded as they stand."""

    model: str
    questions: dict[str, Question] = field(default_factory=dict)
    answers: list[ContestantAnswer] = field(default_factory=list)
    scores: list[Judgement] = field(default_factory=list)

    def add(self, question: Question, sample: int, turns: tuple[str, ...], error: str | None = None) -> None:
        """Add an answer to a question."""
        self.questions.setdefault(question.id, question)
        key = content_key("log", self.model, question.id, sample, turns)
        self.answers.append(
            ContestantAnswer(
                key=key, question_id=question.id, model=self.model, turns=turns, sample=sample, error=error
            )
        )

    def add_score(self, question_id: str, sample: int, scorer: str, value: float, text: str = "") -> None:
        """Add what a scorer gave an answer."""
        self.scores.append(
            Judgement(
                key=content_key("log", self.model, question_id, sample, scorer),
                question_id=question_id,
                mode="check",
                judge=scorer,
                models=(self.model,),
                sample=sample,
                text=text,
                scores=(value,),
                origin="recorded",
            )
        )


def is_foreign_log(path: Path) -> bool:
    """Whether a file looks like such a log, by its name and its first bytes."""
    if path.suffix == ".eval":
        return True
    if path.suffix == ".json":
        try:
            with path.open("rb") as file:
                return b'"eval"' in file.read(1 << 16)
        except OSError:
            return False
    if path.suffix != ".jsonl" or not path.is_file():
        return False
    first = next((row for _, row in json_lines(path)), None)
    return isinstance(first, dict) and {"doc_id", "resps"} <= first.keys()


def read_foreign_log(path: Path, *, model: str | None = None) -> ForeignLog:
    """Read a log. `model` is the contestant's name; default: what the log says. Raises UsageError."""
    try:
        if path.suffix == ".jsonl":
            return _lm_eval(path, model)
        head, samples = _inspect_archive(path) if zipfile.is_zipfile(path) else _inspect_json(path)
        log = ForeignLog(model or str(head["eval"]["model"]))
        for sample in samples:
            _add_inspect_sample(log, sample)
        return log
    except OSError as error:
        raise UsageError(f"can't read {path}: {(error.strerror or str(error)).lower()}") from None
    except (zipfile.BadZipFile, NotImplementedError):
        raise UsageError(
            f"{path} is packed in a way that can't be read here", fix="convert it: inspect log convert --to json"
        ) from None
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(f"{path} is not a log of inspect or lm-eval: {type(error).__name__} {error}") from None


def _inspect_json(path: Path) -> tuple[Row, Iterable[Row]]:
    log = orjson.loads(path.read_bytes())
    return log, log.get("samples") or []


def _inspect_archive(path: Path) -> tuple[Row, Iterator[Row]]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        head = orjson.loads(archive.read("header.json" if "header.json" in names else "_journal/start.json"))
        samples = [orjson.loads(archive.read(name)) for name in sorted(names) if name.startswith("samples/")]
    return head, iter(samples)


def _add_inspect_sample(log: ForeignLog, sample: Row) -> None:
    question = _inspect_question(sample)
    number = int(sample.get("epoch") or 1) - 1
    text, error = _inspect_output(sample), sample.get("error")
    if error or text is None:
        why = error.get("message") if isinstance(error, dict) else error
        log.add(question, number, (), str(why or "there is no output"))
    else:
        log.add(question, number, (text,))
    for name, value, explanation in _inspect_scores(sample):
        log.add_score(question.id, number, name, value, explanation)


def _inspect_question(sample: Row) -> Question:
    given = sample["input"]
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    turns = tuple(_text(message["content"]) for message in messages if message["role"] == "user")
    target = sample.get("target") or ""
    reference = target if isinstance(target, str) else "\n".join(map(str, target))
    category = (sample.get("metadata") or {}).get("category")
    return Question(
        id=str(sample["id"]),
        turns=turns or ("",),
        reference=(reference,) if reference else (),
        category=str(category) if category else None,
    )


def _inspect_output(sample: Row) -> str | None:
    output = sample.get("output") or {}
    text = output.get("completion")
    if text is None and output.get("choices"):
        text = _text(output["choices"][0]["message"]["content"])
    return None if text is None else str(text)


def _inspect_scores(sample: Row) -> Iterator[tuple[str, float, str]]:
    """Metric, value and explanation of each score that is a number, or stands for one."""
    for scorer, score in (sample.get("scores") or {}).items():
        value, explanation = score["value"], str(score.get("explanation") or "")
        for name, item in value.items() if isinstance(value, dict) else [("", value)]:
            number = _INSPECT_VALUES.get(item, item) if isinstance(item, str) else item
            if isinstance(number, int | float):
                yield f"{scorer}/{name}" if name else scorer, float(number), explanation


def _text(content: Any) -> str:
    """The text of a message's content, which may come in parts."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if part.get("type") == "text")


def _lm_eval(path: Path, model: str | None) -> ForeignLog:
    """Rows of lm-eval's log_samples. With several filters an answer comes several times, with one text and one score
    per filter; tasks that compare likelihoods have scores and no text.
    """
    log = ForeignLog(model or (path.parent.name if path.parent.name else path.stem))
    task = path.stem.removeprefix("samples_").rsplit("_20", 1)[0]
    answered: set[str] = set()
    for _, row in json_lines(path):
        question_id = str(row["doc_id"])
        question = Question(
            id=question_id, turns=(_lm_eval_prompt(row),), reference=(str(row.get("target", "")),), category=task
        )
        if question_id not in answered:
            answered.add(question_id)
            text = row["resps"][0][0]
            if isinstance(text, str):
                log.add(question, 0, (text,))
            else:
                log.questions.setdefault(question_id, question)
        name = row.get("filter")
        metrics = row.get("metrics") or [key for key, value in row.items() if isinstance(value, float)]
        for metric in metrics:
            value = row.get(metric)
            if isinstance(value, int | float):
                scorer = metric if name in (None, "none") else f"{metric},{name}"
                log.add_score(question_id, 0, scorer, float(value))
    return log


def _lm_eval_prompt(row: Row) -> str:
    """The prompt as the model saw it; newer versions write arguments as a mapping."""
    arguments = row.get("arguments") or {}
    first = next(iter(arguments.values())) if isinstance(arguments, dict) else arguments[0]
    text = first.get("arg_0") if isinstance(first, dict) else first[0] if isinstance(first, list) else first
    return str(text)
