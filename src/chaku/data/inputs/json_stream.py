"""JSON out of a stream of bytes: lines, the values of an array, values one after another. One record in memory."""

from __future__ import annotations

import codecs
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

READ_BYTES = 1 << 20
_MAX_VALUE_CHARS = 256 << 20
"""A JSON value that has not ended after so many characters is broken; a longer one can't be read."""


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One JSON value as bytes, where it stood, and what was wrong with it."""

    line: int
    """From 1; the row of a table."""
    data: bytes
    error: str | None = None
    number: int | None = None
    """Which one it is in an array, from 1; several may share a line."""
    member: str | None = None
    """The file of an archive that it stood in."""

    @property
    def place(self) -> str:
        """What tells it from the others of its file: its number in an array, or its line."""
        place = str(self.line if self.number is None else self.number)
        return place if self.member is None else f"{self.member}:{place}"


def pieces(file: IO[bytes]) -> Iterator[bytes]:
    """The file's bytes; a compressed file that is cut short or damaged ends with the exception OSError."""
    while True:
        try:
            piece = file.read(READ_BYTES)
        except (EOFError, gzip.BadGzipFile) as error:
            raise OSError(str(error)) from error
        except OSError:
            raise
        except Exception as error:  # zlib.error and pyarrow's own, which are not OSErrors
            if type(error).__module__.partition(".")[0] not in ("zlib", "pyarrow"):
                raise
            raise OSError(str(error)) from error
        if not piece:
            return
        yield piece


def lines(file: IO[bytes]) -> Iterator[RawRecord]:
    """One value a line; blank lines are skipped."""
    rest, line = b"", 0
    try:
        for piece in pieces(file):
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


def values(file: IO[bytes], *, is_array: bool) -> Iterator[RawRecord]:
    """JSON values in an array, or one after another. After a broken one, reading goes on at the next object."""
    text = _Text(pieces(file))
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
            if len(text.text) - text.position < READ_BYTES and text.grow():
                continue
            return False
        return isinstance(value, dict) and bool(_RECORD_KEYS & value.keys())
