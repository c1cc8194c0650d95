"""The third map: packed rows, one shard of them at a time, gathered from the tokenised shards by the packing plan."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from chaku.chat.messages import Conversation
from chaku.data.ledger import Decision, Ledger, StageCounts
from chaku.data.rows.mapped import MappedLists, open_mapped
from chaku.data.rows.tokenise import checksum, lists
from chaku.data.rows.tokenise import schema as token_schema
from chaku.records import atomic_folder

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_SHARD = 4096
_ROWS_PER_BATCH = 256


@dataclass(frozen=True)
class RowsTask:
    """Rows of one shard: documents by their number over all tokenised files, in order, and where each row starts."""

    index: int
    part: str
    folder: Path
    sources: tuple[Path, ...]
    source_starts: NDArray[np.int64]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]

    @property
    def name(self) -> str:
        """File name without its ending, such as train-00000."""
        return f"{self.part}-{self.index:05}"


@functools.cache
def schema() -> pa.Schema:
    """Columns of a built set's rows. loss_mask is not shifted; doc_ids count the documents of a row from 0."""
    import pyarrow as pa

    return pa.schema(
        [
            ("input_ids", pa.list_(pa.uint32())),
            ("loss_mask", pa.list_(pa.uint8())),
            ("doc_ids", pa.list_(pa.uint16())),
        ]
    )


def write_rows(task: RowsTask) -> dict[str, StageCounts]:
    """Write one shard of rows with its ledger and counts."""
    import pyarrow as pa

    ledger = Ledger()
    counts = ledger.stage("pack")
    with atomic_folder(task.folder) as folder:
        with pa.ipc.new_file(str(folder / f"{task.name}.arrow"), schema()) as writer:
            batch: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
            for row in range(len(task.starts) - 1):
                batch.append(_row(task, row, ledger))
                if len(batch) == _ROWS_PER_BATCH:
                    writer.write_batch(_record_batch(batch))
                    batch = []
                    for source in task.sources:
                        open_mapped(source, token_schema()).release()
            if batch:
                writer.write_batch(_record_batch(batch))
        counts.check("pack")
        counts.sums["rows"] += len(task.starts) - 1
        ledger.write(folder)
        (folder / "counts.json").write_bytes(orjson.dumps({"stages": {"pack": counts.to_json(with_seconds=True)}}))
    return ledger.counts


def _row(task: RowsTask, row: int, ledger: Ledger) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    ids: list[NDArray[np.uint32]] = []
    masks: list[NDArray[np.uint8]] = []
    sums = ledger.counts["pack"].sums
    for number in task.order[task.starts[row] : task.starts[row + 1]].tolist():
        file = int(np.searchsorted(task.source_starts, number, "right")) - 1
        source, at = open_mapped(task.sources[file], token_schema()), number - int(task.source_starts[file])
        name, (own_ids, own_mask) = source.value("id", at), source.lists(at)
        sums["tokens"] += len(own_ids)
        sums["trained_tokens"] += int(own_mask.sum())
        sums["checksum"] += checksum(own_ids, own_mask)
        note = f"{task.name} row {row} document {len(ids)}"
        tuple(ledger.record("pack", name, (Decision(name, Conversation(name, ()), None, row, note),)))
        ids.append(own_ids)
        masks.append(own_mask)
    documents = np.repeat(np.arange(len(ids), dtype=np.uint16), [len(document) for document in ids])
    return np.concatenate(ids), np.concatenate(masks), documents


def _record_batch(rows: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.record_batch([lists(column) for column in zip(*rows, strict=True)], schema=schema())


@dataclass(frozen=True)
class Row:
    """One packed row of a built set, and where it stands."""

    file: str
    number: int
    ids: NDArray[np.uint32]
    loss_mask: NDArray[np.uint8]
    doc_ids: NDArray[np.uint16]

    def documents(self) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.uint8]]]:
        """Ids and mask of each document in the row."""
        borders = np.flatnonzero(np.diff(self.doc_ids)) + 1
        yield from zip(np.split(self.ids, borders), np.split(self.loss_mask, borders), strict=True)


def read_rows(path: Path) -> Iterator[Row]:
    """All rows of a file in order, copied out of it. Raises ChakuError for a file that is not such rows."""
    rows = MappedLists(path, schema())
    for number in range(len(rows)):
        yield Row(path.name, number, *(column.copy() for column in rows.lists(number)))
