"""A built set as training reads it: any row by its number, memory-mapped; nothing is held but where files lie."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from chaku.data.rows import Row, schema
from chaku.errors import ChakuError, UsageError


class RowSource(Protocol):
    """Rows by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Row: ...


class Rows:
    """The rows of one part of a set, in the order of its files. Raises ChakuError for files that can't be read."""

    def __init__(self, folder: Path, part: str) -> None:
        self.paths = sorted((folder / "rows").glob(f"{part}-*.arrow"))
        counts = [(path, index, batch.num_rows) for path in self.paths for index, batch in enumerate(_batches(path))]
        self._places = [(path, index) for path, index, _ in counts]
        self._starts = np.cumsum([0, *(count for _, _, count in counts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, number: int) -> Row:
        if not 0 <= number < len(self):
            raise IndexError(number)
        place = int(np.searchsorted(self._starts, number, "right")) - 1
        path, index = self._places[place]
        columns = _batches(path)[index].columns
        at = number - int(self._starts[place])
        ids, mask, documents = (
            column.values.to_numpy()[column.offsets[at].as_py() : column.offsets[at + 1].as_py()] for column in columns
        )
        return Row(path.name, number, ids, mask, documents)


@functools.lru_cache(maxsize=1024)
def _batches(path: Path) -> list[Any]:
    import pyarrow as pa

    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise ChakuError(f"{path} can't be read: {error}", fix="build the set again") from None
    if table.schema != schema():
        raise ChakuError(f"{path} has the columns {table.schema.names}, not {schema().names}")
    return list(table.to_batches())


def checked_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a set that is fit to train on. Raises UsageError with the audit's reasons where it is not."""
    from chaku.data.manifest import read_manifest

    manifest = read_manifest(folder)
    if manifest["tokenizer"] is None:
        raise UsageError(f"{folder} has no rows: it was built without a tokenizer", fix="build it with --tokenizer")
    audit = manifest.get("audit", {"passed": False, "errors": ["it was never audited"]})
    if not audit["passed"]:
        reasons = "; ".join(audit["errors"])
        raise UsageError(f"{folder} is not fit to train on: {reasons}", fix=f"chaku data audit {folder} says more")
    return manifest
