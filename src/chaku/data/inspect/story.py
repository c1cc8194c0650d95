"""`chaku data why ID`: what became of one conversation, stage by stage, out of the ledger."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chaku.data.ledger import Flag
from chaku.data.manifest import read_manifest
from chaku.data.rules.personal import masked
from chaku.errors import NotFound

_LAST_STEP = re.compile(r"(?:[#/]\d+|/(?:chosen|rejected))$")


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
    files = sorted((folder / "ledger").glob("*.parquet"))
    asked = [identity, *_ids_of_original(files[0], identity)]
    exact = {found_id for root in asked for found_id in _with_ancestors(root)}
    events = [event for path in files for event in _events(path, exact, asked)]
    if not events:
        raise NotFound(
            f"the ledger of {folder} has no {identity!r}",
            fix="ids look like FILE:LINE (messages/*.jsonl and `chaku data report` show them), or give the original id",
        )
    return events


def _with_ancestors(identity: str) -> Iterator[str]:
    """An id, the conversation that it is a segment of, and the record that this is a path of."""
    yield identity
    while step := _LAST_STEP.search(identity):
        identity = identity[: step.start()]
        yield identity


def _ids_of_original(path: Path, original: str) -> list[str]:
    """What the import called the conversations that came with this id."""
    import pyarrow.parquet as parquet

    ids = parquet.read_table(path, columns=["id"], filters=[("source_id", "==", masked(original))])["id"]
    return [str(found_id) for found_id in ids.to_pylist()]


def _events(path: Path, exact: set[str], roots: list[str]) -> Iterator[Event]:
    """Decisions of one stage on these ids, and on what the roots became."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            ids = batch.column("id")
            wanted = pc.is_in(ids, pa.array(sorted(exact)))
            for beginning in (f"{root}{step}" for root in roots for step in "#/"):
                wanted = pc.or_(wanted, pc.starts_with(ids, beginning))
            for row in batch.filter(wanted).to_pylist():
                flags = tuple(Flag(flag["rule"], flag["score"], flag["note"]) for flag in row["flags"] or ())
                yield Event(row["stage"], row["id"], row["decision"], row["rule"], row["score"], row["note"], flags)
