"""Tables to records, a row at a time: Parquet, Arrow (as Hugging Face's datasets write it), CSV and TSV."""

from __future__ import annotations

import ast
import csv
from collections.abc import Iterator
from typing import IO, Any

import orjson

from chaku.data.inputs.json_stream import RawRecord, pieces
from chaku.protocol.json_scan import loads

_ROWS_AT_A_TIME = 256
_MAX_CELL_CHARS = 1 << 20
"""Cells that are longer stay text, whatever they look like."""
_COLUMNS = frozenset(
    """id prompt question instruction input context output response answer answers completion target text messages
    conversations conversation chosen rejected system system_prompt role content category source query""".split()  # noqa: SIM905
)
_LONE_COLUMNS = ("prompt", "question", "instruction", "messages", "conversation", "conversations")
_SEPARATORS = ",\t;|"


def parquet_rows(file: IO[bytes]) -> Iterator[RawRecord]:
    """Rows of a Parquet file."""
    import pyarrow.parquet as parquet

    yield from _rows(lambda: parquet.ParquetFile(file).iter_batches(batch_size=_ROWS_AT_A_TIME))


def arrow_rows(file: IO[bytes], *, is_stream: bool) -> Iterator[RawRecord]:
    """Rows of an Arrow file, or of the stream that `save_to_disk` and `datasets`' cache write."""
    import pyarrow as pa

    def batches() -> Iterator[Any]:
        reader = pa.ipc.open_stream(file) if is_stream else pa.ipc.open_file(file)
        if is_stream:
            yield from reader
            return
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)

    yield from _rows(batches)


def _rows(batches: Any) -> Iterator[RawRecord]:
    import pyarrow as pa

    row = 0
    try:
        for batch in batches():
            for start in range(0, batch.num_rows, _ROWS_AT_A_TIME):
                for value in batch.slice(start, _ROWS_AT_A_TIME).to_pylist():
                    row += 1
                    yield RawRecord(row, orjson.dumps(_without_nulls(value), default=str))
    except (pa.ArrowException, OSError, TypeError, ValueError) as error:
        yield RawRecord(row + 1, b"", f"the file can't be read further: {error}")


def _without_nulls(value: Any) -> Any:
    """Tables fill absent keys of a struct with null; JSON leaves them out."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def is_csv(first_line: bytes) -> bool:
    """Whether a line is the header of a table of conversations."""
    try:
        header = first_line.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return False
    names = [name.strip().strip('"').lower() for name in header.split(_separator(header))]
    is_table = len(names) > 1 or names[0] in _LONE_COLUMNS
    return is_table and bool(_COLUMNS & set(names)) and all(len(name) < 64 for name in names)


def _separator(header: str) -> str:
    return max(_SEPARATORS, key=header.count)


def csv_rows(file: IO[bytes]) -> Iterator[RawRecord]:
    """Rows of a CSV or TSV with a header. Cells with JSON or a Python list or dict become values; empty ones go."""
    csv.field_size_limit(1 << 30)
    text = _text_lines(file)
    header = next(text, "")
    reader = csv.reader(text, delimiter=_separator(header))
    names = next(csv.reader([header], delimiter=_separator(header)), [])
    names = [name.strip().lower() if name.strip().lower() in _COLUMNS else name.strip() for name in names]
    number = 0
    try:
        for row in reader:
            number += 1
            if not row:
                continue
            if len(row) > len(names):
                shown = orjson.dumps(row)[:200]
                yield RawRecord(number, shown, f"the row has {len(row)} cells, the header {len(names)}")
                continue
            cells = {name: _cell(cell) for name, cell in zip(names, row, strict=False) if cell != ""}
            yield RawRecord(number, orjson.dumps(cells, default=str))
    except (csv.Error, OSError) as error:
        yield RawRecord(number + 1, b"", f"the file can't be read further: {error}")


def _text_lines(file: IO[bytes]) -> Iterator[str]:
    """Lines with their ends; bytes that are not UTF-8 become U+FFFD."""
    rest = b""
    for piece in pieces(file):
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line.decode("utf-8-sig", "replace") + "\n" for line in whole)
    if rest:
        yield rest.decode("utf-8-sig", "replace")


def _cell(text: str) -> Any:
    start = text[:1]
    if start not in "[{" or len(text) > _MAX_CELL_CHARS:
        return text
    try:
        return loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        value = ast.literal_eval(text)
        orjson.dumps(value)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text
    return value
