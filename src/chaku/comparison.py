"""One game between two answers: the record that votes, verdicts and imports share. A JSON line, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chaku.complaints import MAX_EXACT_INT, in_words
from chaku.records import atomic_write

SCHEMA = 1
Outcome = Literal["a", "b", "tie", "both_bad"]
_SCORES = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}
_Count = Annotated[int, Field(ge=0, le=MAX_EXACT_INT)]


class Style(BaseModel):
    """What can be counted in an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tokens: _Count
    headers: _Count = 0
    lists: _Count = 0
    bold: _Count = 0


class Comparison(BaseModel):
    """One game. With both orders of a pair judged there are two of them; what could not be read is none."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: Literal["human", "judge", "import"]
    model_a: Annotated[str, Field(min_length=1)]
    """The contestant that was shown first."""
    model_b: Annotated[str, Field(min_length=1)]
    outcome: Outcome | Annotated[float, Field(ge=0, le=1)]
    """Who won, or the share that `model_a` got."""
    prompt_id: str | None = None
    cluster: str | None = None
    """Games with the same one are not independent: a prompt, a voter or a day."""
    category: str | None = None
    language: str | None = None
    turn: Annotated[int, Field(ge=1, le=MAX_EXACT_INT)] = 1
    judge: str | None = None
    """The judging model and a hash of its prompt."""
    voter: str | None = None
    style_a: Style | None = None
    style_b: Style | None = None
    counted: bool = True
    """False: it is kept, and not rated; `reason` says why."""
    reason: str | None = None
    consent: bool | None = None
    """Whether the voter agreed that the vote is kept and used. None: unknown, as of imports."""
    created: str | None = None
    """ISO 8601, UTC."""

    @cached_property
    def id(self) -> str:
        """A hash of all the rest: the same game has the same id wherever it is read."""
        content = orjson.dumps(self.model_dump(exclude_none=True), option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(content).hexdigest()[:32]

    @property
    def score(self) -> float:
        """What `model_a` got: 1, 0.5 or 0, or the grade."""
        return self.outcome if isinstance(self.outcome, float | int) else _SCORES[self.outcome]

    def replaced(self, **values: object) -> Comparison:
        """A copy with other values, which has an id of its own. `model_copy` would keep the old id."""
        return Comparison.model_validate({**self.model_dump(), **values})

    def line(self) -> bytes:
        """The record as a line of JSON."""
        record = {"schema": SCHEMA, "id": self.id, **self.model_dump(exclude_none=True)}
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def of(cls, record: dict[str, object]) -> Comparison:
        """A record as `line` writes it. Raises ValueError that says what is wrong with it."""
        record = dict(record)
        if (schema := record.pop("schema", None)) != SCHEMA:
            raise ValueError(f"schema {schema!r} is not read here, {SCHEMA} is")
        wanted = record.pop("id", None)
        try:
            comparison = cls.model_validate(record)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"][:1])
            raise ValueError(f"{place}: {in_words(first)}") from None
        if wanted is not None and wanted != comparison.id:
            raise ValueError("the record was changed after its id was written")
        return comparison


def redacted(comparisons: Iterable[Comparison]) -> Iterator[Comparison]:
    """Without what leads to a person: voters are numbers of this file, and moments are days.

    Games that look alike then are kept apart by the fraction of their day's first second.
    """
    numbers: dict[str, str] = {}
    seen: set[str] = set()

    def number(name: str | None) -> str | None:
        return None if name is None else numbers.setdefault(name, f"voter-{len(numbers) + 1}")

    for game in comparisons:
        values = {
            "cluster": number(game.cluster) if game.cluster == game.voter else game.cluster,
            "voter": number(game.voter),
            "created": game.created[:10] if game.created else None,
        }
        copy = game.replaced(**values)
        place = 0
        while copy.id in seen and values["created"]:
            place += 1
            moment = f"{values['created']}T00:00:00.{place:06d}+00:00"
            copy = game.replaced(**{**values, "created": moment})
        seen.add(copy.id)
        yield copy


def write_comparisons(path: Path, comparisons: Iterable[Comparison]) -> None:
    """Write a JSONL file, whole or not at all."""
    with atomic_write(path) as file:
        file.writelines(comparison.line() for comparison in comparisons)


def without_repeats(comparisons: Iterable[Comparison]) -> Iterator[Comparison]:
    """Each game once, in order."""
    seen: set[str] = set()
    for comparison in comparisons:
        if comparison.id not in seen:
            seen.add(comparison.id)
            yield comparison
