"""Server-sent events of an OpenAI-compatible server, cut into blocks of whole events, whatever they mean."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import aiohttp

from chaku.errors import EngineError
from chaku.protocol.answers import DONE
from chaku.protocol.sse import MAX_EVENT_BYTES

_DRAIN_S = 0.05
"""A stream gets so long to end after its last event, so that its connection can be used again."""
_NO_SPACE = re.compile(rb"^data:(?=[{\[])", re.MULTILINE)


async def sse_blocks(response: aiohttp.ClientResponse, *, who: str) -> AsyncIterator[bytes]:
    """Yield the body in blocks of whole events, line ends made `\\n`, one block per piece that the network delivered.

    `data: [DONE]` is the last event, whatever follows it. Raises EngineError where the stream ends before, or where an
    event is longer than 16 MiB.
    """
    rest = b""
    async for piece in response.content.iter_any():
        block = rest + piece if rest else piece
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n")
        if block.startswith(b"data:") and block[5:6] != b" ":  # the space may be left out
            block = _NO_SPACE.sub(b"data: ", block)
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
        if (end := block.find(DONE)) >= 0:
            await _drain(response)  # first, so that the connection is back when the client asks again
            yield block[: end + len(DONE)]
            return
        yield block
    raise EngineError(f"{who} ended its stream before it was complete")


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read on to the end of the body, for a moment: it carries nothing more."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in response.content.iter_any():
                pass
