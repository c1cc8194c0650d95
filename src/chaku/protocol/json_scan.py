"""Measure a JSON text before it is parsed: what parsing costs, and whether its integers survive it.

A parser builds one object per value. 8 MiB of `[],[],…` are 2.8 million lists, 21 times the memory, and a pause of
0.7 s in which no other request is served. The scan works on slices and yields after each, so that others get
their turn.

orjson, and most engines, round an integer of more than 64 bits to a float. Such integers are refused here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import orjson

from chaku.errors import InvalidRequest, PayloadTooLarge

MAX_DEPTH = 100
"""Levels of arrays and objects: fewer than JSON writers take, more than any JSON schema has."""
SLICE_BYTES = 32 << 10
_DATA_URL = b"data:"
_OPENERS, _CLOSERS = b"[{", b"]}"
_NOT_BRACKETS = bytes(set(range(256)) - set(_OPENERS + _CLOSERS))
_ZEROS_FOR_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG = b"0" * 19
"""No integer with fewer digits needs more than 64 bits."""
_LONG_INTEGER = re.compile(rb"(?<![\d.eE+-])-?\d{19,}(?![\d.eE])")
_MOST_DIGITS = 64 << 10
_OF_NUMBERS = b"0123456789+-.eE"
_STEPS = {**dict.fromkeys(_OPENERS, 1), **dict.fromkeys(_CLOSERS, -1)}


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """The most that one body may hold. Sizes are in bytes of the JSON text."""

    body_bytes: int
    text_bytes: int
    """Bytes inside strings, `data:` URLs not counted: those may fill the whole body."""
    structure_bytes: int
    """Bytes outside strings: numbers, names of constants, brackets, white space."""
    num_values: int
    """Strings, numbers, constants, arrays and objects; the keys of an object count too."""
    num_containers: int
    """Arrays and objects."""
    num_strings: int
    """Strings, the keys of objects included."""


class _Counts:
    """The counts so far, and whether the last slice ended inside a string."""

    def __init__(self) -> None:
        self.text_bytes = self.structure_bytes = self.num_values = self.num_containers = 0
        self.num_strings = 0
        self.depth = self.deepest = 0
        self._in_string = self._in_data_url = False
        self._url_bytes = 0
        self._carry = b""
        self._number = b""
        """The begin of a number that the next slice may continue."""

    def add(self, piece: bytes, *, is_last: bool) -> None:
        piece = self._carry + piece
        self._carry = b""
        if not is_last and (begun := piece.rfind(b'"', len(piece) - len(_DATA_URL))) >= 0:
            # Too little of the string is here to tell whether it is a data: URL.
            piece, self._carry = piece[:begun], piece[begun:]
        if b"\\" in piece:
            num_trailing = len(piece) - len(piece.rstrip(b"\\"))
            if num_trailing % 2 and not is_last:  # half an escape: its other half is in the next slice
                piece, self._carry = piece[:-1], b"\\" + self._carry
            piece = piece.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        parts = piece.split(b'"')  # every quote that is left begins or ends a string
        self.num_strings += len(parts) // 2
        if self._in_data_url or _DATA_URL in piece:
            for index in range(0 if self._in_string else 1, len(parts), 2):
                self._add_text(parts[index], begins=index > 0)
        else:
            self.text_bytes += sum(map(len, parts[0 if self._in_string else 1 :: 2]))
        structure = b"".join(parts[1 if self._in_string else 0 :: 2])
        self._check_integers(self._number + structure, is_last=is_last)
        self._add_structure(structure)
        if len(parts) % 2 == 0:
            self._in_string = not self._in_string

    def _add_text(self, text: bytes, *, begins: bool) -> None:
        if begins:
            self._in_data_url = text.startswith(_DATA_URL)
            self._url_bytes = 0
        if self._in_data_url and not (text.isascii() and b"\\u" not in text):
            # One character that is not ASCII makes four bytes of each when it is parsed: this is not base64.
            self._in_data_url = False
            self.text_bytes += self._url_bytes
        if self._in_data_url:
            self._url_bytes += len(text)
        else:
            self.text_bytes += len(text)

    def _check_integers(self, structure: bytes, *, is_last: bool) -> None:
        whole = structure if is_last else structure.rstrip(_OF_NUMBERS)
        self._number = structure[len(whole) :]
        if len(self._number) > _MOST_DIGITS:  # it is read again with every slice
            raise InvalidRequest(f"the body holds a number of over {_MOST_DIGITS:,} digits", code="invalid_json")
        if _has_long_number(whole) and not all(map(_fits, _LONG_INTEGER.findall(whole))):
            raise InvalidRequest(
                "the body holds an integer that does not fit in 64 bits", fix="send it as a text", code="invalid_json"
            )

    def _add_structure(self, structure: bytes) -> None:
        self.structure_bytes += len(structure)
        brackets = structure.translate(None, _NOT_BRACKETS)
        if brackets:
            num_openers = brackets.count(b"[") + brackets.count(b"{")
            self.num_containers += num_openers
            self.num_values += num_openers
            levels = list(accumulate(map(_STEPS.__getitem__, brackets), initial=self.depth))
            self.depth = levels[-1]
            self.deepest = max(self.deepest, max(levels))
        self.num_values += structure.count(b",") + structure.count(b":")


def scan(content: bytes | bytearray, limits: JsonLimits) -> Generator[None]:
    """Measure `content` slice by slice; a step takes a millisecond or two.

    Counts are exact up to the place where `content` stops being JSON, where a parser stops too.
    Raises PayloadTooLarge or InvalidRequest that names the limit which does not hold.
    """
    counts = _Counts()
    for start in range(0, len(content), SLICE_BYTES):
        end = start + SLICE_BYTES
        piece = bytes(content[start:end])
        counts.add(piece, is_last=end >= len(content))
        _check(counts, limits)
        yield


def check_small(content: bytes | bytearray) -> None:
    """Refuse a small body that is nested too deep or holds too large an integer; nearly free where it can't."""
    if content.count(b"[") + content.count(b"{") > MAX_DEPTH or _has_long_number(content):
        counts = _Counts()
        counts.add(bytes(content), is_last=True)
        _check_depth(counts)


def loads(text: bytes | str) -> Any:
    """The value of a JSON text, as orjson reads it. Raises JSONDecodeError, for an integer of more than 64 bits too."""
    value = orjson.loads(text)
    content = text.encode() if isinstance(text, str) else text
    if _has_long_number(content):
        whole = content.decode()

        def check_integer(digits: str) -> None:
            if not _fits(digits.encode()):
                raise orjson.JSONDecodeError("an integer does not fit in 64 bits", whole, whole.find(digits))

        json.loads(whole, parse_int=check_integer)
    return value


def _has_long_number(text: bytes | bytearray) -> bool:
    return _LONG in text.translate(_ZEROS_FOR_DIGITS)


def _fits(digits: bytes) -> bool:
    return len(digits) <= 20 and -(2**63) <= int(digits) < 2**64


def _check(counts: _Counts, limits: JsonLimits) -> None:
    if counts.num_containers > limits.num_containers:
        raise _too_much("arrays and objects", limits.num_containers)
    if counts.num_values > limits.num_values:
        raise _too_much("values", limits.num_values)
    if counts.num_strings > limits.num_strings:
        raise _too_much("texts", limits.num_strings)
    _check_depth(counts)
    if counts.text_bytes > limits.text_bytes:
        raise PayloadTooLarge(
            f"the body has over {limits.text_bytes / 2**20:g} MiB of text", fix="shorten the prompt, or split it"
        )
    if counts.structure_bytes > limits.structure_bytes:
        raise PayloadTooLarge(
            f"the body has over {limits.structure_bytes / 2**20:g} MiB outside of its texts",
            fix="send fewer numbers and less white space",
        )


def _check_depth(counts: _Counts) -> None:
    if counts.deepest > MAX_DEPTH:
        raise InvalidRequest(
            f"the body is nested more than {MAX_DEPTH} deep", fix="flatten its schema", code="invalid_json"
        )


def _too_much(what: str, limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body has more than {limit:,} {what}", fix="split the request")
