"""`chaku data why ID`: what became of one conversation, stage by stage, out of the ledger."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chaku.data.ledger import Flag
from chaku.data.manifest import read_manifest
from chaku.errors import NotFound

_LAST_STEP = re.compile(r"[#/]\d+$")


@dataclass(frozen=True)
class Event:
    """One decision of one stage."""

    stage: str
    id: str
    decision: str
    rule: str | None
    score: float | None
    note: str | None
    flags: tuple[Flag, ...]


def story(folder: Path, identity: str) -> list[Event]:
    """All decisions on a conversation, what it came from and what it became. `identity` is ours or the original.

    Raises NotFound when the ledger knows no such id.
    """
    read_manifest(folder)
    ours = {identity}
    while step := _LAST_STEP.search(identity):
        identity = identity[: step.start()]
        ours.add(identity)
    asked = max(ours, key=len)
    events = [event for path in _files(folder) for event in _events(path, ours, asked)]
    if not events:
        raise NotFound(
            f"the ledger of {folder} knows no {asked!r}",
            fix="ids look like FILE:LINE (messages/*.jsonl and `chaku data report` show them), or give the original id",
        )
    return events


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "ledger").glob("*.parquet"))


def _events(path: Path, ours: set[str], asked: str) -> Iterator[Event]:
    """Rows of one stage. An original id found at import is followed by the ids that it got."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            ids, parents = batch.column("id"), batch.column("parent")
            wanted = pc.or_(pc.is_in(ids, pa.array(sorted(ours))), pc.fill_null(pc.equal(batch.column("source_id"), asked), False))
            for step in ("#", "/"):
                wanted = pc.or_(wanted, pc.starts_with(ids, asked + step))
            wanted = pc.or_(wanted, pc.fill_null(pc.is_in(parents, pa.array([asked])), False))
            for row in batch.filter(wanted).to_pylist():
                if row["source_id"] == asked:
                    ours.add(row["id"])
                if row["parent"] in ours and row["parent"] not in (None, _parent_of_asked(asked)):
                    ours.add(row["id"])
                flags = tuple(Flag(flag["rule"], flag["score"], flag["note"]) for flag in row["flags"] or ())
                yield Event(row["stage"], row["id"], row["decision"], row["rule"], row["score"], row["note"], flags)


def _parent_of_asked(asked: str) -> str | None:
    step = _LAST_STEP.search(asked)
    return asked[: step.start()] if step else None
