"""A built set as training reads it: any row by its number, memory-mapped; nothing is held but where files lie."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from pathlib import Path
from typing import Any, Protocol

from chaku.data.rows.mapped import open_mapped
from chaku.data.rows.packed import Row, schema
from chaku.errors import UsageError


class RowSource(Protocol):
    """Rows by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Row: ...


class Rows:
    """The rows of one part of a set, in the order of its files. Raises ChakuError for files that can't be read."""

    def __init__(self, folder: Path, part: str) -> None:
        self.paths = sorted((folder / "rows").glob(f"{part}-[0-9]*.arrow"))
        self._schema = schema()
        self._starts = [0, *itertools.accumulate(len(open_mapped(path, self._schema)) for path in self.paths)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, number: int) -> Row:
        if not 0 <= number < len(self):
            raise IndexError(number)
        place = bisect_right(self._starts, number) - 1
        path = self.paths[place]
        return Row(path.name, number, *open_mapped(path, self._schema).lists(number - self._starts[place]))


def checked_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a set that is fit to train on. Raises UsageError where audit or files' sizes say no."""
    from chaku.data.manifest import file_errors, read_manifest

    manifest = read_manifest(folder)
    if manifest["tokenizer"] is None:
        raise UsageError(f"{folder} has no rows: it was built without a tokenizer", fix="build it with --tokenizer")
    audit = manifest.get("audit", {"passed": False, "errors": ["it was never audited"]})
    if not audit["passed"]:
        reasons = "; ".join(audit["errors"])
        raise UsageError(f"{folder} is not fit to train on: {reasons}", fix=f"chaku data audit {folder} says more")
    if errors := file_errors(folder, manifest, hashes=False):
        raise UsageError(f"{folder} is not as it was built: {'; '.join(errors[:3])}", fix="copy or build it again")
    return manifest
