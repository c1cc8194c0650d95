"""Send an engine's answer to the client, in blocks or whole, and note what accounting needs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from chaku.engines.base import Block
from chaku.serve.exchange import Exchange
from chaku.serve.wires.base import Translation

AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_STREAM_HEADERS = [
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold tokens back
]


async def relay(
    blocks: AsyncIterator[Block],
    exchange: Exchange,
    send: Send,
    headers: Headers,
    translation: Translation,
) -> None:
    """Send blocks as they come, in the client's words; note time to first token and usage on `exchange`."""
    async for block in blocks:
        if block.num_tokens:
            exchange.completion_tokens += block.num_tokens  # at least so many, should no usage come
            if exchange.first_token_s is None:
                exchange.first_token_s = exchange.since_start_s()
        if block.usage is not None:
            exchange.take_usage(block.usage)
        if not exchange.has_headers_sent:
            # Headers wait for the engine's first block: until then a failure can still have its own status.
            exchange.begin(200)
            kind = (b"content-type", translation.media_type)
            await send({"type": "http.response.start", "status": 200, "headers": [kind, *_STREAM_HEADERS, *headers]})
        piece = translation.piece(block)
        if piece or block.is_last:
            await send({"type": "http.response.body", "body": piece, "more_body": not block.is_last})
            exchange.is_complete = block.is_last
    if not exchange.is_complete:
        await send({"type": "http.response.body", "body": b""})
        exchange.is_complete = True


async def relay_whole(
    answer: dict[str, Any], exchange: Exchange, send: Send, headers: Headers, translation: Translation
) -> None:
    """Send a whole answer, in the client's words; note its usage on `exchange`."""
    exchange.take_usage(answer.get("usage"))
    body = translation.whole(answer)  # it may fail: then the headers have not gone out
    exchange.begin(200)
    await send_json(send, 200, body, headers)
    exchange.is_complete = True


async def send_json(send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Send a response that is one JSON text."""
    length = (b"content-length", str(len(body)).encode())
    kind = (b"content-type", b"application/json")
    await send({"type": "http.response.start", "status": status, "headers": [kind, length, *headers]})
    await send({"type": "http.response.body", "body": body})
