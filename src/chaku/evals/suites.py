"""Where questions come from: our own 80, files of FastChat's, and any file that holds nothing but prompts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import orjson

from chaku.complaints import not_utf8
from chaku.config import cache_dir
from chaku.errors import UsageError
from chaku.evals.records import Question
from chaku.nearest import did_you_mean

BUILT_IN = ("chaku-80",)
_QUESTIONS = Path(__file__).parent / "questions"
_PROMPT_FIELDS = ("prompt", "question", "instruction", "input", "text", "query")
_ID_FIELDS = ("id", "question_id")
_KNOWN_FIELDS = frozenset({"id", "turns", "category", "reference", "temperature", "checker"})
TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}
"""MT-bench's temperature for a category; 0.7 for any other (FastChat, llm_judge/common.py)."""
OTHER_TEMPERATURE = 0.7


def suites_folder() -> Path:
    """Where `chaku eval fetch` puts published suites."""
    return cache_dir() / "suites"


def suite_names() -> list[str]:
    """The suites that can be named: ours, and what was fetched."""
    fetched = sorted(path.parent.name for path in suites_folder().glob("*/question.jsonl"))
    return [*BUILT_IN, *fetched]


def find_suite(text: str) -> Path:
    """The file of a suite: a path, or a name. Raises UsageError."""
    if text in BUILT_IN:
        return _QUESTIONS / f"{text}.jsonl"
    path = Path(text)
    for place in (path, path / "question.jsonl", path / "questions.jsonl", suites_folder() / text / "question.jsonl"):
        if place.is_file():
            return place
    if text in ("vicuna80", "mt-bench"):
        raise UsageError(f"the suite {text} is not here", fix=f"fetch it: chaku eval fetch {text}")
    known = did_you_mean(text, suite_names(), f"suites: {', '.join(suite_names())}")
    raise UsageError(f"{text!r} is neither a suite nor a file of questions", fix=known)


def load_suite(text: str, *, references: Path | None = None) -> list[Question]:
    """The questions of a suite, by name or file. `references`: FastChat's file of reference answers.

    Raises UsageError with the line that can't be read, and for two questions with the same id.
    """
    path = find_suite(text)
    questions = read_questions(path)
    beside = path.with_name("reference.jsonl")
    if references is None and beside.is_file():
        references = beside
    if references is not None:
        answers = _references(references)
        questions = [
            question.model_copy(update={"reference": answers.get(question.id, question.reference)})
            for question in questions
        ]
    return questions


def read_questions(path: Path) -> list[Question]:
    """The questions of a file. Lines are ours, FastChat's, or objects or texts with a prompt; CSV needs a header.

    A question without an id gets the number of its line. Raises UsageError.
    """
    rows = _csv_rows(path) if path.suffix.lower() in (".csv", ".tsv") else json_lines(path)
    questions: dict[str, Question] = {}
    for number, row in rows:
        try:
            question = _question(row, number)
        except ValueError as error:
            raise UsageError(f"{path}:{number}: {error}") from None
        if questions.setdefault(question.id, question) is not question:
            raise UsageError(f"{path}:{number}: a second question has the id {question.id!r}")
    if not questions:
        raise UsageError(f"{path} holds no questions", fix='write one per line, such as {"prompt": "What is 2 + 2?"}')
    return list(questions.values())


def _question(row: Any, number: int) -> Question:
    if isinstance(row, str):
        row = {"prompt": row}
    if not isinstance(row, dict):
        raise ValueError("neither an object nor a text")
    if "turns" in row and row.keys() <= _KNOWN_FIELDS:
        return Question.of({"id": str(number), **row})
    turns = row.get("turns") or _turns_of_messages(row.get("messages"))
    if turns is None:
        name = next((name for name in _PROMPT_FIELDS if row.get(name)), None)
        if name is None:
            raise ValueError(f"there is no prompt: call it {_PROMPT_FIELDS[0]}, turns or messages")
        turns = [row[name]]
        if name == "instruction" and row.get("input"):
            turns = [f"{row['instruction']}\n\n{row['input']}"]
    reference = row.get("reference") or ()
    question_id = next((row[name] for name in _ID_FIELDS if row.get(name) is not None), number)
    return Question.of(
        {
            "id": str(question_id),
            "turns": turns,
            "category": row.get("category"),
            "reference": [reference] if isinstance(reference, str) else reference,
            "temperature": row.get("temperature", row.get("required_temperature")),
            "checker": row.get("checker"),
        }
    )


def _turns_of_messages(messages: Any) -> list[Any] | None:
    """What the user says in a list of messages."""
    if not messages:
        return None
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError("messages is not a list of messages")
    turns = [message.get("content") for message in messages if message.get("role") == "user"]
    if len(turns) != len(messages) and any(message.get("role") == "assistant" for message in messages[:-1]):
        raise ValueError("messages hold an assistant's turn: a suite holds only what the user says")
    return turns


def _references(path: Path) -> dict[str, tuple[str, ...]]:
    """FastChat's reference answers, by question."""
    found = {}
    for number, row in json_lines(path):
        try:
            found[str(row["question_id"])] = tuple(map(str, row["choices"][0]["turns"]))
        except (KeyError, IndexError, TypeError):
            raise UsageError(f"{path}:{number} is not a reference answer of FastChat's") from None
    return found


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Number and value of every line of a JSONL file. Raises UsageError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"can't read {path}: {(error.strerror or str(error)).lower()}") from None
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield number, orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise UsageError(f"{path}:{number} is not JSON: {error}") from None


def _csv_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows of a CSV or TSV file as objects; a file with a single column and no known header is a list of prompts."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(not_utf8(str(path), error), fix="convert it to UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        header = next(reader, [])
        if len(header) == 1 and header[0].strip().lower() not in _PROMPT_FIELDS:
            yield 1, header[0]
            header = ["prompt"]
        names = [name.strip().lower() for name in header]
        for cells in reader:
            if any(cell.strip() for cell in cells):
                row: dict[str, Any] = {name: cell for name, cell in zip(names, cells, strict=False) if cell != ""}
                if "temperature" in row:
                    row["temperature"] = _number(row["temperature"])
                yield reader.line_num, row
    except csv.Error as error:
        raise UsageError(f"{path}:{reader.line_num} is not CSV: {error}") from None


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def temperature_of(question: Question) -> float:
    """At which temperature a question is answered, where nobody says otherwise."""
    if question.temperature is not None:
        return question.temperature
    return TEMPERATURES.get(question.category or "", OTHER_TEMPERATURE)


def spread(questions: Sequence[Question], limit: int) -> list[Question]:
    """At most `limit` questions, of as many categories as possible, in the suite's order."""
    by_category: dict[str | None, list[Question]] = {}
    for question in questions:
        by_category.setdefault(question.category, []).append(question)
    taken = [question for row in zip_longest(*by_category.values()) for question in row if question is not None]
    chosen = {question.id for question in taken[:limit]}
    return [question for question in questions if question.id in chosen]
