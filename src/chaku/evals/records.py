"""What an evaluation is made of: questions, answers, judgements, and the folder in which a run keeps them.

    RUN/run.json             what was asked for: suite, contestants, judge
    RUN/questions.jsonl      the questions, in their order
    RUN/answers.jsonl        one line per answer
    RUN/judgements.jsonl     one line per judgement
    RUN/labels.jsonl         people's comparisons of the same answers, where there are any

Answers and judgements are only ever appended. Their `key` is a hash of everything that was asked: a call whose key is
recorded is not made again. Of two lines with the same key the later one counts: the first one was a failure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chaku.comparison import Comparison
from chaku.complaints import in_words
from chaku.errors import UsageError
from chaku.records import atomic_write
from chaku.settings import Contestant

SCHEMA = 1
LABELS_FILE = "labels.jsonl"
Mode = Literal["verdict", "pair-score", "score", "check"]
"""verdict: which of two answers is better. pair-score: two scores from 1 to 10 in one judgement. score: one answer
alone, from 1 to 10. check: a program's check, 1 (passed) or 0."""
Winner = Literal["a", "b", "tie"]


class Record(BaseModel):
    """A line of JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def line(self) -> bytes:
        """The record as a line; what has its default is left out."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def of(cls, row: Any) -> Self:
        """The record of a decoded line. Raises ValueError that says what is wrong with it."""
        try:
            return cls.model_validate(row)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"{place}: {in_words(first)}" if place else in_words(first)) from None


class Checker(Record):
    """How a program checks an answer, without a judge."""

    kind: Literal["number", "regex", "python"]
    """number: the last number of the answer is `expected`. regex: `expected` is found in it. python: the answer's code
    runs, and after it the statements of `expected`; an exception is a failure."""
    expected: str
    tolerance: float = 0.0
    """Largest relative error of a number."""


class Question(Record):
    """One question of a suite; one with several turns is a conversation."""

    id: str
    turns: Annotated[tuple[str, ...], Field(min_length=1)]
    """What the user says, turn by turn."""
    category: str | None = None
    reference: tuple[str, ...] = ()
    """A good answer to each turn, or none."""
    temperature: float | None = None
    """For this question's answers; a contestant's own setting wins."""
    checker: Checker | None = None


class CallUsage(Record):
    """What a call cost."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float | None = None
    """None: there was no price for the model."""
    seconds: float | None = None


class ContestantAnswer(Record):
    """What a contestant answered to all turns of a question, or why it did not."""

    key: str
    question_id: str
    model: str
    """The contestant's name."""
    turns: tuple[str, ...] = ()
    sample: int = 0
    """Number of this answer, where each question is asked several times."""
    finish_reasons: tuple[str, ...] = ()
    usage: CallUsage = CallUsage()
    error: str | None = None
    """Why there is no answer; `turns` is empty then."""


class Judgement(Record):
    """What a judge said of one answer, or of two in the order in which it saw them."""

    key: str
    question_id: str
    mode: Mode
    judge: str
    """The judging model; "checker" for a program."""
    models: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]
    """The contestants' names, in the order shown."""
    turn: Annotated[int, Field(ge=1)] = 1
    """The last turn that was judged."""
    sample: int = 0
    """Number of the judged answers."""
    repeat: int = 0
    """Number of this judgement, where the same is judged several times."""
    prompt: str | None = None
    """Name of the judge's prompt."""
    text: str = ""
    """What the judge wrote, whole."""
    state: Literal["ok", "unparsed", "failed"] = "ok"
    """unparsed: the text can't be read. failed: there is no text, and `error` says why. Neither is a tie or a zero."""
    winner: Winner | None = None
    """In mode verdict: "a" is the answer that was shown first."""
    scores: tuple[float, ...] = ()
    """One per model, in the order of `models`."""
    origin: Literal["parsed", "recorded"] = "parsed"
    """recorded: winner and scores come from a file beside the text, and were not read from the text."""
    usage: CallUsage = CallUsage()
    error: str | None = None

    @property
    def outcome(self) -> Winner | None:
        """Who of two won, in either mode; None for an answer judged alone, and for what could not be read."""
        if self.state != "ok" or len(self.models) != 2:
            return None
        if self.mode == "verdict":
            return self.winner
        first, second = self.scores
        return "tie" if first == second else "a" if first > second else "b"

    def comparison(self, question: Question | None = None) -> Comparison | None:
        """The same as the record that ratings are made of; None where there is no outcome."""
        if self.outcome is None:
            return None
        return Comparison(
            source="judge",
            model_a=self.models[0],
            model_b=self.models[1],
            outcome=self.outcome,
            prompt_id=self.question_id,
            cluster=self.question_id,
            category=question.category if question else None,
            turn=self.turn,
            judge=f"{self.judge} {self.prompt}" if self.prompt else self.judge,
        )


class Manifest(Record):
    """run.json: what was asked for, once."""

    suite: str
    """Name or path of the questions."""
    created: str
    """ISO 8601, UTC."""
    contestants: tuple[Contestant, ...] = ()
    judge: str | None = None
    """None: the answers are not judged by a model."""
    mode: Mode | None = None
    orders: Literal["both", "given"] = "both"
    samples: int = 1
    prompt: str | None = None
    """Name of the prompts."""
    num_answers: int = 0
    """Answers that the run makes; with it a run that is still going knows how far it is."""
    num_judgements: int = 0
    chaku: str = ""
    """Version that began the run."""
    imported_from: tuple[str, ...] = ()
    """Files of another program, where the run was not made here."""

    @property
    def model_names(self) -> tuple[str, ...]:
        """The contestants' names, in their order."""
        return tuple(contestant.name for contestant in self.contestants)


@dataclass(frozen=True)
class Run:
    """A run's folder as it is now."""

    folder: Path
    manifest: Manifest
    questions: dict[str, Question]
    """By id, in the suite's order."""
    answers: list[ContestantAnswer]
    judgements: list[Judgement]

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read a folder; one in which a run still writes may be read. Raises UsageError."""
        manifest = read_manifest(folder)
        return cls(
            folder,
            manifest,
            {question.id: question for question in read_records(folder / "questions.jsonl", Question)},
            newest(read_records(folder / "answers.jsonl", ContestantAnswer, missing_ok=True)),
            newest(read_records(folder / "judgements.jsonl", Judgement, missing_ok=True)),
        )

    @property
    def dollars(self) -> float:
        """What all recorded calls cost, where there was a price."""
        usages = [answer.usage for answer in self.answers] + [judgement.usage for judgement in self.judgements]
        return sum(usage.dollars or 0.0 for usage in usages)

    def answer_of(self, question_id: str, model: str, sample: int = 0) -> ContestantAnswer | None:
        """A contestant's answer that did not fail."""
        for answer in self.answers:
            if (answer.question_id, answer.model, answer.sample) == (question_id, model, sample) and not answer.error:
                return answer
        return None

    def comparisons(self) -> list[Comparison]:
        """The judgements of two answers that could be read, for ratings."""
        games = (one.comparison(self.questions.get(one.question_id)) for one in self.judgements)
        return [game for game in games if game is not None]


Kind = TypeVar("Kind", bound=Record)
Keyed = TypeVar("Keyed", ContestantAnswer, Judgement)


def content_key(*parts: Any) -> str:
    """A hash of what was asked: anything that JSON can hold."""
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def newest(records: Iterable[Keyed]) -> list[Keyed]:
    """One record per key, the last, at the place of the first."""
    return list({record.key: record for record in records}.values())


def read_records(path: Path, kind: type[Kind], *, missing_ok: bool = False) -> list[Kind]:
    """The records of a JSONL file. A last line that is only half written is not read. Raises UsageError."""
    if missing_ok and not path.exists():
        return []
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from None
    records = []
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
        try:
            records.append(kind.of(orjson.loads(line)))
        except ValueError as error:
            raise UsageError(f"{path}:{number}: {error}") from None
    return records


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write a JSONL file, whole or not at all."""
    with atomic_write(path) as file:
        file.writelines(record.line() for record in records)


def read_manifest(folder: Path) -> Manifest:
    """What a run was asked for. Raises UsageError where the folder is no run."""
    path = folder / "run.json"
    try:
        row = orjson.loads(path.read_bytes())
        if row.pop("schema", None) != SCHEMA:
            raise ValueError(f"only schema {SCHEMA} can be read")
        return Manifest.of(row)
    except OSError:
        raise UsageError(f"{folder} is not a run of `chaku eval`", fix="name a folder with a run.json") from None
    except (ValueError, AttributeError) as error:
        raise UsageError(f"{path}: {error}") from None


def write_run(folder: Path, manifest: Manifest, questions: Iterable[Question]) -> None:
    """Begin a run's folder: its manifest and its questions."""
    write_records(folder / "questions.jsonl", questions)
    with atomic_write(folder / "run.json") as file:
        content = {"schema": SCHEMA, **manifest.model_dump(mode="json", exclude_defaults=True)}
        file.write(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
