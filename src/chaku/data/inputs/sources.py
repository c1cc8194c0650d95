"""Files to raw records: what a file is, told from its bytes. Plain or compressed, in any UTF encoding, or an archive.

Known: JSONL, JSON arrays, single JSON values, Parquet, Arrow, CSV, zip. Streams: memory holds one record (and a
read-ahead), however long the file; only an object around its records is held whole. What a record means is shapes.py's
business.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import itertools
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, cast

import orjson

from chaku.data.inputs.json_stream import READ_BYTES, RawRecord, lines, pieces, values
from chaku.data.inputs.tables import arrow_rows, csv_rows, is_csv, parquet_rows
from chaku.data.inputs.turns import is_turn_list
from chaku.data.inputs.wrappers import unwrapped
from chaku.errors import UsageError
from chaku.protocol.json_scan import loads

_GZIP, _ZSTD, _ZIP = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"
_TABLES = {b"PAR1": "parquet", b"ARROW1\0\0": "arrow", b"\xff\xff\xff\xff": "arrow stream"}
_NOT_READ = {
    b"%PDF": "PDF", b"SQLite format 3": "an SQLite database", b"\x89PNG": "an image", b"\xff\xd8\xff": "an image",
    b"GIF8": "an image", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7-Zip", b"\x80\x04": "a Python pickle",
    b"GGUF": "a model", b"ustar": "tar",
}  # fmt: skip
_UTF_16 = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_MEMBERS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".gz", ".zst")

Open = Callable[[], contextlib.AbstractContextManager[IO[bytes]]]


def detect(path: Path) -> str:
    """How the file holds its records, from its first bytes: `jsonl`, `csv` ...; "unknown: PDF" where it is not read."""
    return _detect(lambda: _open(path))


def records(path: Path) -> Iterator[RawRecord]:
    """Read all records in order. What can't be read comes as a record with `error`; a file that ends early too."""
    container = detect(path)
    if container != "zip":
        yield from _records(container, lambda: _open(path))
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if not entry.is_dir() and not entry.filename.startswith("__MACOSX/"):
                    yield from _member(archive, entry.filename)
    except (zipfile.BadZipFile, OSError) as error:
        yield RawRecord(1, b"", f"the archive can't be read: {error}")


def _member(archive: zipfile.ZipFile, name: str) -> Iterator[RawRecord]:
    if not name.lower().endswith(_MEMBERS):
        yield RawRecord(1, b"", f"files such as {Path(name).suffix or name} in an archive are not read", member=name)
        return

    @contextlib.contextmanager
    def opened() -> Iterator[IO[bytes]]:
        with archive.open(name) as raw, _unpacked(raw) as file:
            yield file

    try:
        for record in _records(_detect(opened), opened):
            yield replace(record, member=name)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, UsageError) as error:
        yield RawRecord(1, b"", f"the file in the archive can't be read: {error}", member=name)


def _detect(opened: Open) -> str:
    head = b""
    with opened() as file, contextlib.suppress(OSError):  # the reader proper meets it again and reports it
        head = next(pieces(file), b"")[:512]
    for magic, table in _TABLES.items():
        if head.startswith(magic):
            return table
    if head.startswith(_ZIP):
        return "zip"
    for magic, name in _NOT_READ.items():
        if head.startswith(magic) or (magic == b"ustar" and head[257:262] == magic):
            return f"unknown: {name}"
    if b"\0" in head:
        return "unknown: no text"
    with opened() as file:
        first, has_more = _first_filled_line(file)
    if first.startswith(b"["):
        with contextlib.suppress(orjson.JSONDecodeError):
            whole = orjson.loads(first)
            return "jsonl" if has_more or is_turn_list(whole) else "json array"
        return "json array"
    if first.startswith(b"{") and not _is_json(first):
        # A pretty-printed object is broken in line 1 but whole further on; a broken line of JSONL is not.
        return "jsonl" if first.rstrip().endswith(b"}") else "json values"
    return "csv" if has_more and is_csv(first) else "jsonl"


def _records(container: str, opened: Open) -> Iterator[RawRecord]:
    if container.startswith("unknown"):
        yield RawRecord(1, b"", f"{container.removeprefix('unknown: ')} is not read")
        return
    if container == "zip":
        yield RawRecord(1, b"", "an archive inside an archive is not read")
        return
    with opened() as file:
        if container in _TABLES.values():
            seekable = file if file.seekable() and isinstance(file, io.BufferedReader) else io.BytesIO(file.read())
            yield from parquet_rows(seekable) if container == "parquet" else arrow_rows(
                seekable, is_stream=container == "arrow stream"
            )  # fmt: skip
        elif container == "csv":
            yield from csv_rows(file)
        elif container == "json array":
            yield from _numbered(values(file, is_array=True))
        else:
            found = lines(file) if container == "jsonl" else _numbered(values(file, is_array=False))
            yield from _without_wrapper(found)


def _numbered(found: Iterator[RawRecord]) -> Iterator[RawRecord]:
    return (replace(record, number=number) for number, record in enumerate(found, start=1))


def _without_wrapper(found: Iterator[RawRecord]) -> Iterator[RawRecord]:
    """The records as they come, or those inside the only one, where it is an object around them."""
    first = next(found, None)
    if first is None:
        return
    second = next(found, None)
    if second is None and first.error is None:
        with contextlib.suppress(orjson.JSONDecodeError):
            inner = unwrapped(loads(first.data))
            if inner is not None:
                for number, value in enumerate(inner, start=1):
                    yield RawRecord(first.line, orjson.dumps(value), number=number)
                return
    yield from itertools.chain([first], [] if second is None else [second], found)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as raw, _unpacked(raw) as file:
            yield file
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder", fix="give the files in it") from None
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}", fix="check the path") from None
    except PermissionError:
        raise UsageError(f"can't read {path}: permission denied", fix="check its permissions") from None


@contextlib.contextmanager
def _unpacked(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    """The file without its compression, and as UTF-8 whatever its encoding."""
    magic = raw.read(4)
    raw.seek(0)
    if magic.startswith(_GZIP):
        yield _as_utf8(cast(IO[bytes], gzip.GzipFile(fileobj=raw)))
    elif magic == _ZSTD:
        import pyarrow as pa

        with pa.input_stream(raw, compression="zstd") as stream:
            yield cast(IO[bytes], stream)
    else:
        yield _as_utf8(raw)


def _as_utf8(file: IO[bytes]) -> IO[bytes]:
    try:
        head = file.read(4)
    except (OSError, EOFError):  # the reader proper meets it again and reports it
        head = b""
    file.seek(0)
    encoding = _UTF_16.get(head[:2])
    if encoding is None and len(head) == 4 and head[:1] in b"{[" + b"\0":
        encoding = "utf-16-le" if head[1::2] == b"\0\0" else "utf-16-be" if head[::2] == b"\0\0" else None
    if encoding is None or head in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        return file
    return cast(IO[bytes], codecs.EncodedFile(file, "utf-8", encoding, errors="replace"))


def _first_filled_line(file: IO[bytes]) -> tuple[bytes, bool]:
    """The first line that is not blank, and whether more than blanks follow it."""
    buffer = b""
    try:
        for piece in pieces(file):
            buffer = (buffer + piece).removeprefix(codecs.BOM_UTF8).lstrip()
            first, _, more = buffer.partition(b"\n")
            if more.strip():
                return first, True
            if len(buffer) > 64 * READ_BYTES:
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
