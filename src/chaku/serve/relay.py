"""Send an engine's answer to the client, in blocks or whole, and note what accounting needs."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeVar

from chaku.engines.base import Block
from chaku.errors import EngineError
from chaku.protocol.answers import NOT_OPENAI
from chaku.serve.exchange import Exchange
from chaku.serve.wires.base import Translation

log = logging.getLogger(__name__)

Said = TypeVar("Said")
AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_STREAM_HEADERS = [
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold tokens back
]


class Relay:
    """Sends one answer in the client's words; notes time to first token and usage on its exchange."""

    def __init__(self, exchange: Exchange, send: Send, headers: Headers, translation: Translation) -> None:
        """`headers` go with the answer, whichever replica gives it."""
        self._exchange = exchange
        self._send = send
        self._headers = headers
        self._translation = translation
        self._before_end: Callable[[], Awaitable[None]] | None = None

    def before_end(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call this just before the last byte goes out: what it does is done for a client that has the whole answer."""
        self._before_end = callback

    def add_headers(self, headers: Headers) -> None:
        """Send these too."""
        self._headers = [*self._headers, *headers]

    async def block(self, block: Block, notes: tuple[str, ...]) -> None:
        """Send a block of a stream. The first one sends the headers, `notes` among them."""
        exchange = self._exchange
        if block.num_tokens:
            exchange.completion_tokens += block.num_tokens  # at least so many, should no usage come
            if exchange.first_token_s is None:
                exchange.first_token_s = exchange.since_start_s()
        if block.usage is not None:
            exchange.take_usage(block.usage)
        piece = self._translated(self._translation.piece, block)  # it may fail: then the headers have not gone out
        if not exchange.has_headers_sent:
            exchange.begin(200)
            kind = (b"content-type", self._translation.media_type)
            headers = [kind, *_STREAM_HEADERS, *self._headers, *note_headers(notes)]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        if piece or block.is_last:
            if block.is_last:
                await self._prepare_end()
            await self._send({"type": "http.response.body", "body": piece, "more_body": not block.is_last})
            exchange.is_complete = block.is_last

    async def whole(self, answer: dict[str, Any], notes: tuple[str, ...]) -> None:
        """Send a whole answer."""
        self._exchange.take_usage(answer.get("usage"))
        body = self._translated(self._translation.whole, answer)  # it may fail: then the headers have not gone out
        await self._prepare_end()
        self._exchange.begin(200)
        await send_json(self._send, 200, body, [*self._headers, *note_headers(notes)])
        self._exchange.is_complete = True

    async def end(self) -> None:
        """End a stream whose last block did not say that it was the last."""
        if not self._exchange.is_complete:
            await self._prepare_end()
            await self._send({"type": "http.response.body", "body": b""})
            self._exchange.is_complete = True

    def _translated(self, translate: Callable[[Said], bytes], said: Said) -> bytes:
        """What the client gets for it. Raises EngineError for an answer in a shape that nobody can read."""
        try:
            return translate(said)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            *_, (frame, line) = traceback.walk_tb(error.__traceback__)
            # Where, since the fault may be ours; and not the error's words, which may be a person's.
            why = f"{type(error).__name__} at={frame.f_code.co_qualname}:{line}"
            log.warning("answer not translated model=%r why=%s", self._exchange.model, why)
            raise EngineError(NOT_OPENAI) from error

    async def _prepare_end(self) -> None:
        if self._before_end is not None:
            await self._before_end()


def note_headers(notes: Iterable[str]) -> Headers:
    """Notes for the caller, as headers."""
    return [(b"x-chaku-note", note.encode("ascii", "replace")) for note in notes]


async def send_json(send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Send a response that is one JSON text."""
    length = (b"content-length", str(len(body)).encode())
    kind = (b"content-type", b"application/json")
    await send({"type": "http.response.start", "status": status, "headers": [kind, length, *headers]})
    await send({"type": "http.response.body", "body": body})
