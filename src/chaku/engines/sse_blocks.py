"""Server-sent events of an OpenAI-compatible server, cut into blocks of whole events, whatever they mean."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp

from chaku.errors import EngineError
from chaku.protocol.answers import DONE
from chaku.protocol.sse import MAX_EVENT_BYTES

_DRAIN_S = 0.05
"""A stream gets so long to end after its last event, so that its connection can be used again."""


async def sse_blocks(response: aiohttp.ClientResponse, *, who: str) -> AsyncIterator[bytes]:
    """Yield the body in blocks of whole events, one block per piece that the network delivered.

    Every event with data is one line, `data: ` and a JSON object, however the server spells it: readers of blocks look
    for that alone.

    `data: [DONE]` is the last event, whatever follows it. Raises EngineError where the stream ends before, where an
    event is longer than 16 MiB, or where its data is no JSON object.
    """
    rest = b""
    async for piece in response.content.iter_any():
        block = rest + piece if rest else piece
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n")
        if block.endswith(b"\n\n"):
            rest = b""
        else:
            cut = block.rfind(b"\n\n") + 2
            if cut == 1:
                if len(block) > MAX_EVENT_BYTES:
                    raise EngineError(f"{who} sent an event of more than {MAX_EVENT_BYTES:,} bytes")
                rest = block
                continue
            block, rest = block[:cut], block[cut:]
        if not _is_plain(block):
            block = _respelled(block, who)
        if (end := block.find(DONE)) >= 0:
            await _drain(response)  # first, so that the connection is back when the client asks again
            yield block[: end + len(DONE)]
            return
        if block:
            yield block
    raise EngineError(f"{who} ended its stream before it was complete")


def _is_plain(events: bytes) -> bool:
    """Whether each event is one line with an object or the end, spelled as everybody does. Costs a microsecond."""
    num_plain = events.startswith((b"data: {", DONE)) + events.count(b"\n\ndata: {") + events.count(b"\n\n" + DONE)
    return 2 * num_plain == events.count(b"\n")


def _respelled(events: bytes, who: str) -> bytes:
    """Whole events up to the last, each with data on one line. Names, ids and nulls go; comments stay."""
    plain = []
    for text in filter(None, (text.strip(b"\n") for text in events.split(b"\n\n"))):
        data = b" ".join(line[5:].strip() for line in text.split(b"\n") if line.startswith(b"data:"))
        if data == b"null":  # llama.cpp sends one where it answers several prompts
            continue
        if data and not (data.startswith(b"{") or data == b"[DONE]"):
            raise EngineError(f"{who} sent an event that is not a JSON object: {data[:80].decode(errors='replace')!r}")
        plain.append((b"data: " + data if data else text) + b"\n\n")
        if plain[-1] == DONE:
            break
    return b"".join(plain)


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read on to the end of the body, for a moment: it carries nothing more."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in response.content.iter_any():
                pass
