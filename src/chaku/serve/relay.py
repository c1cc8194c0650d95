"""Pass a stream of server-sent events on to the client, looking only at what accounting needs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from chaku.protocol.answers import DONE
from chaku.serve.exchange import Exchange

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold tokens back
]
# Inside a JSON string the quotes would be escaped, so neither can be text of the model. Some servers put a space in.
_CONTENT = re.compile(rb'"(?:content|text|reasoning_content|arguments)": ?"[^"]')
_USAGE = re.compile(rb'"usage": ?\{')


async def relay(
    blocks: AsyncIterator[bytes],
    exchange: Exchange,
    send: Send,
    headers: list[tuple[bytes, bytes]],
    *,
    shows_usage: bool,
) -> None:
    """Send blocks of whole events as they come; note time to first token and usage on `exchange`.

    Engines always send a usage chunk; it is dropped where the client did not ask for it.
    """
    async for block in blocks:
        if num_pieces := count_content(block):
            exchange.completion_tokens += num_pieces  # at least so many, should no usage come
            if exchange.first_token_s is None:
                exchange.first_token_s = exchange.since_start_s()
        if b'"usage"' in block and _USAGE.search(block):
            block = _take_usage(block, exchange, shows_usage)
        if not exchange.has_headers_sent:
            # Held back until the engine has said something: until then a failure can still have its own status.
            exchange.has_headers_sent = True
            exchange.status = 200
            await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS + headers})
        if block:
            is_last = block.endswith(DONE)
            await send({"type": "http.response.body", "body": block, "more_body": not is_last})
            exchange.is_complete = is_last
    if not exchange.is_complete:
        await send({"type": "http.response.body", "body": b""})
        exchange.is_complete = True


def count_content(block: bytes) -> int:
    """How many pieces of the answer the block's events carry; a role alone is none."""
    return len(_CONTENT.findall(block))


def _take_usage(block: bytes, exchange: Exchange, shows_usage: bool) -> bytes:
    kept: list[bytes] = []
    for event in block.split(b"\n\n"):
        if not event:
            continue
        if event.startswith(b"data: {") and _USAGE.search(event):
            chunk = orjson.loads(event[6:])
            exchange.take_usage(chunk.get("usage"))
            if not shows_usage and not chunk.get("choices"):
                continue
        kept.append(event + b"\n\n")
    return b"".join(kept)
