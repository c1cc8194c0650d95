"""Pass an engine's blocks on to the client, and note what accounting needs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from chaku.engines.base import Block
from chaku.serve.exchange import Exchange
from chaku.serve.wires import Wire

AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold tokens back
]


async def relay(
    blocks: AsyncIterator[Block],
    exchange: Exchange,
    send: Send,
    headers: list[tuple[bytes, bytes]],
    wire: Wire,
    *,
    shows_usage: bool,
) -> None:
    """Send blocks as they come, in the words of `wire`; note time to first token and usage on `exchange`."""
    async for block in blocks:
        if block.num_tokens:
            exchange.completion_tokens += block.num_tokens  # at least so many, should no usage come
            if exchange.first_token_s is None:
                exchange.first_token_s = exchange.since_start_s()
        if block.usage is not None:
            exchange.take_usage(block.usage)
        if not exchange.has_headers_sent:
            # Held back until the engine has said something: until then a failure can still have its own status.
            exchange.has_headers_sent = True
            exchange.status = 200
            await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS + headers})
        piece = wire.piece(block, shows_usage=shows_usage)
        if piece or block.is_last:
            await send({"type": "http.response.body", "body": piece, "more_body": not block.is_last})
            exchange.is_complete = block.is_last
    if not exchange.is_complete:
        await send({"type": "http.response.body", "body": b""})
        exchange.is_complete = True
