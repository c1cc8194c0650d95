"""Read comparisons from files: chaku's own, FastChat's battles and logs, MT-bench's labels, plain CSV.

The format is detected per record. What can't be read is counted by reason, and costs only itself.
"""

from __future__ import annotations

import codecs
import csv
import datetime as dt
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from chaku.comparison import Comparison, Outcome, Style, without_repeats
from chaku.errors import UsageError

Record = dict[str, Any]

_WINNERS: dict[str, Outcome] = {
    "model_a": "a", "a": "a", "A": "a", "left": "a", "model_1": "a",
    "model_b": "b", "b": "b", "B": "b", "right": "b", "model_2": "b",
    "tie": "tie", "tie (inconsistent)": "tie", "draw": "tie",
    "tie (bothbad)": "both_bad", "both_bad": "both_bad", "bothbad": "both_bad",
}  # fmt: skip
_LOGGED_VOTES: dict[str, Outcome] = {
    "leftvote": "a", "rightvote": "b", "tievote": "tie", "bothbad_vote": "both_bad"
}  # fmt: skip
_PEOPLE = re.compile(r"(arena_user|expert|author|human|voter|user)(_|$)")
_HEADERS = re.compile(r"^#{1,6} ", re.MULTILINE)
_LISTS = re.compile(r"^\s*(?:[-*+]|\d+[.)]) ", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")


@dataclass
class Reading:
    """What files held."""

    comparisons: list[Comparison] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    """Records that are not comparisons, by reason."""

    @property
    def counted(self) -> list[Comparison]:
        """Those that take part in ratings."""
        return [comparison for comparison in self.comparisons if comparison.counted]


class _Skipped(Exception):
    """Why a record is not a comparison."""


def read_battles(paths: Sequence[Path]) -> Reading:
    """Read all files; a game that stands in them twice counts once. Raises UsageError for a file that can't be read."""
    reading = Reading()
    for path in paths:
        for place, record in _records(path, reading.skipped):
            try:
                reading.comparisons.append(_comparison(record, f"{path.name}:{place}"))
            except _Skipped as why:
                reading.skipped[str(why)] += 1
    num_read = len(reading.comparisons)
    reading.comparisons = list(without_repeats(reading.comparisons))
    if num_repeated := num_read - len(reading.comparisons):
        reading.skipped["the same game again"] += num_repeated
    return reading


def _records(path: Path, skipped: Counter[str]) -> Iterator[tuple[int, Record]]:
    try:
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise UsageError(f"can't read {path}: {(error.strerror or str(error)).lower()}") from None
    start = content.lstrip()[:1]
    if start not in (b"{", b"["):
        yield from _csv_records(path, content)
        return
    if start == b"[":
        try:
            rows = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise UsageError(f"{path} is not JSON: {error}") from None
        numbered = enumerate(rows, 1)
    else:
        numbered = enumerate(map(_parsed, content.splitlines()), 1)
    for place, record in numbered:
        if isinstance(record, dict):
            yield place, record
        elif record is not None:
            skipped["not a JSON object"] += 1


def _parsed(line: bytes) -> Any:
    """The value of a line, None for an empty one; broken JSON is a text, which is not a record."""
    if not line.strip():
        return None
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return "broken"


def _csv_records(path: Path, content: bytes) -> Iterator[tuple[int, Record]]:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{path} is neither JSON nor CSV in UTF-8") from None
    rows = csv.DictReader(text.splitlines())
    if missing := {"model_a", "model_b", "winner"} - set(rows.fieldnames or ()):
        raise UsageError(
            f"{path} is not a file of comparisons: no column {', '.join(sorted(missing))}",
            fix="a CSV needs the columns model_a, model_b, winner; JSON lines are read too",
        )
    for place, row in enumerate(rows, 2):
        yield place, {name: value for name, value in row.items() if name and value}


def _comparison(record: Record, place: str) -> Comparison:
    try:
        if "schema" in record and "outcome" in record:
            return Comparison.of(record)
        if "type" in record and "states" in record:
            return _logged(record)
        return _battle(record, place)
    except (ValueError, TypeError, AttributeError) as error:
        raise _Skipped(f"a field has another shape ({str(error)[:80]})") from None


def _battle(record: Record, place: str) -> Comparison:
    """A cleaned battle of FastChat's, an MT-bench label, or a row of CSV: they have these names in common."""
    for name in ("model_a", "model_b", "winner"):
        if not isinstance(record.get(name), str):
            raise _Skipped(f"no {name}")
    by_name: dict[str, Outcome] = {record["model_a"]: "a", record["model_b"]: "b"}
    outcome = _WINNERS.get(record["winner"]) or by_name.get(record["winner"])
    if outcome is None:
        raise _Skipped(f"winner {record['winner'][:40]!r} is unknown")
    _check_models(record["model_a"], record["model_b"])
    judge = record.get("judge") or record.get("voter")
    is_person = isinstance(judge, str) and (_PEOPLE.match(judge) is not None or "voter" in record)
    question = record.get("question_id", record.get("prompt_id"))
    prompt_id = place if question is None else str(question)
    is_named = record.get("anony") is False
    style_a, style_b = _styles(record)
    return Comparison(
        source="import" if judge is None else "human" if is_person else "judge",
        model_a=record["model_a"],
        model_b=record["model_b"],
        outcome=outcome,
        prompt_id=prompt_id,
        cluster=str(judge) if is_person else None if question is None else prompt_id,
        category=record.get("category"),
        language=record.get("language"),
        turn=max(1, int(record.get("turn") or 1)),
        judge=None if is_person or judge is None else str(judge),
        voter=str(judge) if is_person else None,
        style_a=style_a,
        style_b=style_b,
        counted=not is_named,
        reason="the models' names were shown" if is_named else None,
        created=_moment(record.get("tstamp") or record.get("created")),
    )


def _logged(record: Record) -> Comparison:
    """A line of FastChat's arena log."""
    outcome = _LOGGED_VOTES.get(record["type"])
    if outcome is None:
        raise _Skipped(f"no vote, but {str(record['type'])[:40]!r}")
    models = [str(state.get("model_name") or "") for state in record["states"]]
    if len(models) != 2:
        raise _Skipped("a vote needs two sides")
    _check_models(*models)
    is_named = any(record.get("models") or ())
    texts = [_answers(state.get("messages") or []) for state in record["states"]]
    return Comparison(
        source="human",
        model_a=models[0],
        model_b=models[1],
        outcome=outcome,
        prompt_id=str(record["states"][0].get("conv_id") or "") or None,
        turn=max(1, texts[0][1]),
        style_a=style_of(texts[0][0]),
        style_b=style_of(texts[1][0]),
        counted=not is_named,
        reason="the models' names were shown" if is_named else None,
        created=_moment(record.get("tstamp")),
    )


def _check_models(model_a: str, model_b: str) -> None:
    if not model_a or not model_b:
        raise _Skipped("a model without a name")
    if model_a == model_b:
        raise _Skipped("a model against itself")


def _answers(messages: list[Any]) -> tuple[str, int]:
    """The answers' text, and how many there are. FastChat keeps (role, text) pairs, the user's first."""
    answers = [str(text) for _, text in messages[1::2] if text]
    return "\n".join(answers), len(answers)


def _styles(record: Record) -> tuple[Style | None, Style | None]:
    counts = record.get("conv_metadata")
    if isinstance(counts, dict) and "sum_assistant_a_tokens" in counts:
        return _counted_style(counts, "a"), _counted_style(counts, "b")
    sides = [record.get("conversation_a"), record.get("conversation_b")]
    if not all(isinstance(side, list) for side in sides):
        return None, None
    styles = []
    for side in sides:
        texts = [str(turn["content"]) for turn in side or () if turn.get("role") == "assistant"]
        styles.append(style_of("\n".join(texts)))
    return styles[0], styles[1]


def _counted_style(counts: Record, side: str) -> Style:
    def total(name: str) -> int:
        value = counts.get(f"{name}_{side}") or 0
        return int(sum(value.values()) if isinstance(value, dict) else value)

    return Style(
        tokens=int(counts[f"sum_assistant_{side}_tokens"]),
        headers=total("header_count"),
        lists=total("list_count"),
        bold=total("bold_count"),
    )


def style_of(text: str) -> Style:
    """Counts of a text. Its tokens are taken to be its words: both sides are counted alike."""
    return Style(
        tokens=len(text.split()),
        headers=len(_HEADERS.findall(text)),
        lists=len(_LISTS.findall(text)),
        bold=len(_BOLD.findall(text)),
    )


def _moment(value: Any) -> str | None:
    """ISO 8601 in UTC of Unix seconds or of a date in text."""
    if value is None:
        return None
    if isinstance(value, int | float):
        return dt.datetime.fromtimestamp(value, dt.UTC).isoformat()
    moment = dt.datetime.fromisoformat(str(value))
    return (moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)).isoformat()
