"""Read a request's body: bounded, unpacked, measured before it is parsed, checked in steps.

No body may stop other people's streams or cost many times its size. Whoever reads one pays in steps of a few
milliseconds, and large bodies are taken one after the other.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from starlette.requests import Request as HttpRequest

from chaku.errors import InvalidRequest, PayloadTooLarge, UnsupportedMedia
from chaku.protocol.json_scan import JsonLimits, check_small, scan
from chaku.protocol.requests import Request
from chaku.protocol.validation import ReadRequest, check, read_request, read_request_in_steps

Asked = TypeVar("Asked", bound=Request)
Message = TypeVar("Message", bound=BaseModel)
Value = TypeVar("Value")
Receive = Callable[[], Awaitable[Any]]
Headers = Mapping[bytes, bytes]

MiB = 2**20
CHAT_LIMITS = JsonLimits(
    body_bytes=32 * MiB,
    text_bytes=8 * MiB,
    structure_bytes=2 * MiB,
    num_values=100_000,
    num_containers=20_000,
    num_strings=100_000,
)
"""Only images, as base64, fill 32 MiB: 8 MiB of text are two million tokens."""
TEXT_LIMITS = JsonLimits(
    body_bytes=8 * MiB,
    text_bytes=8 * MiB,
    structure_bytes=4 * MiB,
    num_values=300_000,
    num_containers=4096,
    num_strings=8192,
)
"""Of completions and embeddings: 300,000 token ids are what OpenAI embeds at once, of 2,048 inputs at most."""
SMALL_BYTES = 64 << 10
"""Up to here even the worst body is parsed in a few milliseconds, and is not measured first."""
MAX_UNPACKED_RATIO = 100
"""Text and JSON shrink to a tenth, seldom to a fiftieth; a bomb shrinks to a thousandth."""
_UNPACK_STEP_BYTES = 256 << 10
_GZIP, _ZLIB = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS
_WINDOWS = {b"gzip": _GZIP, b"x-gzip": _GZIP, b"deflate": _ZLIB}


class BodyReader:
    """Reads the bodies of one gateway."""

    def __init__(self) -> None:
        self._large = asyncio.Lock()

    async def read(
        self, kind: type[Asked], limits: JsonLimits, headers: Headers, receive: Receive
    ) -> ReadRequest[Asked]:
        """The body of a request as `kind`.

        Raises InvalidRequest, PayloadTooLarge or UnsupportedMedia, which name the field or the limit.
        """
        content = await read_bytes(headers, receive, limits.body_bytes)
        if len(content) <= SMALL_BYTES:
            check_small(content)
            return read_request(kind, parse(content))
        async with self._large:
            await _in_steps(scan(content, limits))
            body = parse(content)
            del content
            await asyncio.sleep(0)
            return await _in_steps(read_request_in_steps(kind, body))


async def _in_steps(steps: Generator[None, None, Value]) -> Value:
    """The generator's value; others get their turn after each step."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: Value = end.value
            return value
        await asyncio.sleep(0)


def parse(content: bytes | bytearray) -> Any:
    """The JSON value of a body. Raises InvalidRequest."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}", code="invalid_json") from None


async def read_message(kind: type[Message], request: HttpRequest, max_bytes: int) -> Message:
    """A small body that is one JSON object. Raises InvalidRequest, PayloadTooLarge or UnsupportedMedia."""
    content = await read_bytes(dict(request.scope["headers"]), request.receive, max_bytes)
    check_small(content)
    body = parse(content)
    if not isinstance(body, dict):
        raise InvalidRequest("the body is not a JSON object")
    return check(kind, body)


async def read_bytes(headers: Headers, receive: Receive, max_bytes: int) -> bytes | bytearray:
    """The whole body, unpacked. Raises PayloadTooLarge, or UnsupportedMedia for an unknown Content-Encoding."""
    window = _window(headers[b"content-encoding"]) if b"content-encoding" in headers else None
    length = headers.get(b"content-length")
    if length is not None and length.isdigit() and int(length[:20]) > max_bytes:
        raise _too_large(max_bytes)
    message = await receive()
    content = message.get("body", b"")
    while True:
        if message["type"] == "http.disconnect":
            raise InvalidRequest("the client left before its request was whole")
        if len(content) > max_bytes:
            raise _too_large(max_bytes)
        if not message.get("more_body", False):
            break
        message = await receive()
        if isinstance(content, bytes):
            content = bytearray(content)
        content += message.get("body", b"")
    return content if window is None else await _unpack(content, window, max_bytes)


def _window(encoding: bytes) -> int | None:
    """zlib's word for a Content-Encoding; None where nothing is packed. Raises UnsupportedMedia."""
    encoding = encoding.strip().lower()
    if encoding not in _WINDOWS and encoding not in (b"identity", b""):
        raise UnsupportedMedia(
            f"Content-Encoding {encoding.decode('latin-1')[:40]!r} is not read here", fix="send gzip, or none"
        )
    return _WINDOWS.get(encoding)


async def _unpack(packed: bytes | bytearray, window: int, max_bytes: int) -> bytearray:
    """Raises PayloadTooLarge as soon as more comes out than is read, or than an honest body packs."""
    limit = min(max_bytes, len(packed) * MAX_UNPACKED_RATIO + SMALL_BYTES)
    unpacker = zlib.decompressobj(window)
    content = bytearray()
    try:
        for start in range(0, len(packed), _UNPACK_STEP_BYTES):
            rest = bytes(packed[start : start + _UNPACK_STEP_BYTES])
            while rest and not unpacker.eof:
                content += unpacker.decompress(rest, _UNPACK_STEP_BYTES)
                rest = unpacker.unconsumed_tail
                if len(content) > limit:
                    raise (
                        _too_large(max_bytes)
                        if limit == max_bytes
                        else PayloadTooLarge(
                            f"the body decompresses to over {MAX_UNPACKED_RATIO} times its size",
                            fix="send it uncompressed",
                        )
                    )
                await asyncio.sleep(0)
    except zlib.error:
        raise InvalidRequest("the body is not what its Content-Encoding says", code="invalid_encoding") from None
    if not unpacker.eof:
        raise InvalidRequest("the body ends before its compressed data do", code="invalid_encoding")
    return content


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is over {max_bytes // MiB} MiB", fix="send smaller images or a shorter prompt")
