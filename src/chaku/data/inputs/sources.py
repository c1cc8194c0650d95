"""Files to raw records: JSONL, JSON arrays, single JSON values, Parquet, plain or compressed with gzip or zstd.

Streams: memory holds one record (and a read-ahead), however long the file. What a record means is shapes.py's business.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, cast

import orjson

from chaku.errors import UsageError

Container = Literal["jsonl", "json array", "json values", "parquet"]

_READ_BYTES = 1 << 20
_MAX_VALUE_CHARS = 256 << 20
"""A JSON value that has not ended after so many characters is broken; a longer one can't be read."""
_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One JSON value as bytes, where it stood, and what was wrong with it."""

    line: int
    """From 1; the row of a Parquet file."""
    data: bytes
    error: str | None = None
    number: int | None = None
    """Which one it is in an array, from 1; several may share a line."""

    @property
    def place(self) -> int:
        """What tells it from the others of its file: its number in an array, or its line."""
        return self.line if self.number is None else self.number


def detect(path: Path) -> Container:
    """How the file holds its records, from its first bytes."""
    with _open(path) as file:
        head = file.read(4)
    if head == _PARQUET:
        return "parquet"
    with _open(path) as file:
        first, has_more = _first_filled_line(file)
    if first.startswith(b"["):
        with contextlib.suppress(orjson.JSONDecodeError):
            whole = orjson.loads(first)
            return "jsonl" if has_more or _is_turn_list(whole) else "json array"
        return "json array"
    if first.startswith(b"{") and not _is_json(first):
        # A pretty-printed object is broken in line 1 but whole further on; a broken line of JSONL is not.
        return "jsonl" if first.rstrip().endswith(b"}") else "json values"
    return "jsonl"


def records(path: Path) -> Iterator[RawRecord]:
    """Read all records in order. What can't be read comes as a record with `error`; a file that ends early too."""
    container = detect(path)
    if container == "parquet":
        yield from _parquet(path)
        return
    with _open(path) as file:
        if container == "jsonl":
            yield from _lines(file)
            return
        for number, record in enumerate(_values(file, is_array=container == "json array"), start=1):
            yield replace(record, number=number)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as raw:
            magic = raw.read(4)
            raw.seek(0)
            if magic.startswith(_GZIP):
                yield cast(IO[bytes], gzip.GzipFile(fileobj=raw))
            elif magic == _ZSTD:
                import pyarrow as pa

                with pa.input_stream(raw, compression="zstd") as stream:
                    yield cast(IO[bytes], stream)
            else:
                yield raw
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder", fix="give the files in it") from None
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}", fix="check the path") from None


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    """The file's bytes; a compressed file that is cut short or damaged ends with the exception OSError."""
    while True:
        try:
            piece = file.read(_READ_BYTES)
        except (EOFError, gzip.BadGzipFile) as error:
            raise OSError(str(error)) from error
        except OSError:
            raise
        except Exception as error:  # zlib.error and pyarrow's own, which are no OSError
            if type(error).__module__.partition(".")[0] not in ("zlib", "pyarrow"):
                raise
            raise OSError(str(error)) from error
        if not piece:
            return
        yield piece


def _first_filled_line(file: IO[bytes]) -> tuple[bytes, bool]:
    """The first line that is not blank, and whether more than blanks follow it."""
    buffer = b""
    try:
        for piece in _pieces(file):
            buffer = (buffer + piece).removeprefix(codecs.BOM_UTF8).lstrip()
            first, _, more = buffer.partition(b"\n")
            if more.strip():
                return first, True
            if len(buffer) > 64 * _READ_BYTES:
                break
    except OSError:
        pass  # the reader proper meets it again and reports it with its line
    return buffer.partition(b"\n")[0], False


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _is_turn_list(value: object) -> bool:
    """A list of messages is itself one record of JSONL, not an array of records."""
    if not isinstance(value, list):
        return False
    return bool(value) and all(isinstance(item, dict) and ({"from", "role"} & item.keys()) for item in value)


def _lines(file: IO[bytes]) -> Iterator[RawRecord]:
    rest, line = b"", 0
    try:
        for piece in _pieces(file):
            *whole, rest = (rest + piece).split(b"\n")
            for data in whole:
                line += 1
                if line == 1:
                    data = data.removeprefix(codecs.BOM_UTF8)
                if data.strip():
                    yield RawRecord(line, data.strip())
    except OSError as error:
        yield RawRecord(line + 1, rest, f"the file can't be read further: {error}")
        return
    if rest.strip():
        yield RawRecord(line + 1, rest.removeprefix(codecs.BOM_UTF8).strip() if line == 0 else rest.strip())


def _parquet(path: Path) -> Iterator[RawRecord]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    row = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for value in batch.to_pylist():
                    row += 1
                    yield RawRecord(row, orjson.dumps(_without_nulls(value), default=str))
    except (pa.ArrowException, OSError) as error:
        yield RawRecord(row + 1, b"", f"the file can't be read further: {error}")


def _without_nulls(value: Any) -> Any:
    """Parquet fills absent keys of a struct with null; JSON leaves them out."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


_SPACE = re.compile(r"\s*")
_DECODER = json.JSONDecoder()


class _Text:
    """A window over a text that is read on demand, and counts the lines that left it."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = iter(pieces)
        self.decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode
        self.text = ""
        self.position = 0
        self.line = 1
        self.at_end = False
        self.failure: str | None = None

    def grow(self) -> bool:
        """Read at least as much again as is held; False at the end of the file."""
        if self.at_end:
            return False
        self.line += self.text.count("\n", 0, self.position)
        kept = [self.text[self.position :]]
        wanted, got = max(len(kept[0]), 1), 0
        while got < wanted and not self.at_end:
            try:
                piece = next(self.pieces, b"")
            except OSError as error:
                self.failure, piece = f"the file can't be read further: {error}", b""
            self.at_end = not piece
            kept.append(self.decode(piece, self.at_end))
            got += len(kept[-1])
        self.text, self.position = "".join(kept), 0
        return True

    def next_character(self) -> str:
        """Skip white space; "" at the end of the file."""
        while True:
            match = _SPACE.match(self.text, self.position)
            assert match is not None
            self.position = match.end()
            if self.position < len(self.text):
                return self.text[self.position]
            if not self.grow():
                return ""

    def line_at(self, position: int) -> int:
        return self.line + self.text.count("\n", 0, position)


def _values(file: IO[bytes], *, is_array: bool) -> Iterator[RawRecord]:
    """JSON values in an array, or one after another. After a broken one, reading goes on at the next object."""
    text = _Text(_pieces(file))
    closed = not is_array
    if is_array and text.next_character() == "[":
        text.position += 1
    while character := text.next_character():
        if is_array and character == "]":
            closed = True
            text.position += 1
            break
        if character == ",":
            text.position += 1
            continue
        yield _next_value(text)
    if text.failure is not None:
        yield RawRecord(text.line_at(text.position), b"", text.failure)
    elif is_array and closed and text.next_character():
        shown = text.text[text.position : text.position + 200].encode("utf-8", "replace")
        yield RawRecord(text.line_at(text.position), shown, "text after the end of the array")
    elif not closed:
        yield RawRecord(text.line_at(text.position), b"", "the array does not end: the file is cut short")


def _next_value(text: _Text) -> RawRecord:
    while True:
        try:
            _, end = _DECODER.raw_decode(text.text, text.position)
            ends_inside = end < len(text.text) or text.at_end
        except json.JSONDecodeError as error:
            broken = error.pos < len(text.text) - 64 and not error.msg.startswith("Unterminated string")
            if not broken and len(text.text) - text.position < _MAX_VALUE_CHARS and text.grow():
                continue
            return _resynchronise(text, error)
        except RecursionError:
            return _resynchronise(text, json.JSONDecodeError("nested too deeply", text.text, text.position))
        if ends_inside or not text.grow():  # a number at the very end of the window may go on
            data = text.text[text.position : end].encode("utf-8", "surrogateescape")
            record = RawRecord(text.line_at(text.position), data)
            text.position = end
            return record


_NEXT_OBJECT = re.compile(r"[\n,]\s*(?=\{)")
_RECORD_KEYS = frozenset(
    ("conversations", "conversation", "messages", "instruction", "prompt", "turns", "message_tree_id", "replies")
)


def _resynchronise(text: _Text, error: json.JSONDecodeError) -> RawRecord:
    """Skip to the next whole object that looks like a record, so that one broken value costs only itself."""
    line = text.line_at(text.position)
    shown = text.text[text.position : text.position + 200].encode("utf-8", "replace")
    message = f"{error.msg} (line {text.line_at(error.pos)}, column {error.colno})"
    text.position += 1
    while True:
        found = _NEXT_OBJECT.search(text.text, text.position)
        if found is not None:
            text.position = found.end()
            if _is_record_ahead(text):
                break
            continue
        text.position = max(text.position, len(text.text.rstrip()) - 1)
        if not text.grow():
            text.position = len(text.text)
            break
    return RawRecord(line, shown, message)


def _is_record_ahead(text: _Text) -> bool:
    while True:
        try:
            value, _ = _DECODER.raw_decode(text.text, text.position)
        except json.JSONDecodeError:
            if len(text.text) - text.position < _READ_BYTES and text.grow():
                continue
            return False
        return isinstance(value, dict) and bool(_RECORD_KEYS & value.keys())
