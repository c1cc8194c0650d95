"""Arrow files of lists of numbers, memory-mapped: any row by its number, without copying. Tokens and rows are such."""

from __future__ import annotations

import functools
import mmap
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from chaku.errors import ChakuError

if TYPE_CHECKING:
    import pyarrow as pa


class MappedLists:
    """A file with these columns. Raises ChakuError where it can't be read, or has others."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow as pa

        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            table = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(self._map))).read_all()
        except OSError as error:
            raise ChakuError(f"{path} can't be read: {error}", fix="build the set again") from None
        except (pa.ArrowInvalid, ValueError) as error:  # ValueError: an empty file can't be mapped
            raise ChakuError(
                f"{path} can't be read, it is not an Arrow file: {error}", fix="build the set again"
            ) from None
        if table.schema != schema:
            raise ChakuError(f"{path} has the columns {table.schema.names}, not {schema.names}")
        is_list = [pa.types.is_list(field.type) for field in schema]
        self._batches: list[tuple[pa.RecordBatch, list[tuple[NDArray[Any], NDArray[Any]]]]] = []
        self._starts = [0]
        for batch in table.to_batches():
            columns = [column for column, wanted in zip(batch.columns, is_list, strict=True) if wanted]
            arrays = [(column.offsets.to_numpy(), column.values.to_numpy()) for column in columns]
            self._batches.append((batch, arrays))
            self._starts.append(self._starts[-1] + batch.num_rows)

    def __len__(self) -> int:
        return self._starts[-1]

    def lists(self, number: int) -> list[NDArray[Any]]:
        """What the columns of lists hold in a row, in the schema's order."""
        place = bisect_right(self._starts, number) - 1
        at = number - self._starts[place]
        return [values[offsets[at] : offsets[at + 1]] for offsets, values in self._batches[place][1]]

    def value(self, column: str, number: int) -> Any:
        """What another column holds in a row."""
        place = bisect_right(self._starts, number) - 1
        return self._batches[place][0].column(column)[number - self._starts[place]].as_py()

    def release(self) -> None:
        """Give the pages read so far back to the system; what is read again comes from its cache."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


@functools.lru_cache(maxsize=512)  # each keeps a file open
def open_mapped(path: Path, schema: pa.Schema) -> MappedLists:
    """As `MappedLists`, kept open for the next time."""
    return MappedLists(path, schema)
