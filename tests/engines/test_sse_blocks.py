from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

import pytest

from chaku.engines.sse_blocks import sse_blocks
from chaku.errors import EngineError
from processes import PATIENCE_S
from raw_http import STREAM, chunk, read_request, server, transport


async def blocks_of(pieces: Iterable[bytes], *, pause_s: float = 0.0) -> list[bytes]:
    """The blocks of a stream that a server sends in these pieces."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(STREAM)
        for piece in pieces:
            writer.write(chunk(piece))
            await writer.drain()
            await asyncio.sleep(pause_s)
        writer.write(chunk(b""))
        await writer.drain()

    async with server(serve) as url, transport(url) as peer, peer.request("POST", "/x", {}) as response:
        return [block async for block in sse_blocks(response, who="peer")]


def cut(sent: bytes, size: int) -> list[bytes]:
    return [sent[start : start + size] for start in range(0, len(sent), size)]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_blocks_are_whole_events_wherever_the_network_cuts(size: int, line_end: bytes) -> None:
    body = b'data: {"a":1}\n\ndata: {"b":"\xc3\xa9"}\n\ndata: [DONE]\n\n'
    blocks = await blocks_of(cut(body.replace(b"\n", line_end), size))
    assert all(block.endswith(b"\n\n") for block in blocks)
    assert b"".join(blocks) == body


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    "spelled",
    [
        b'event: chunk\ndata: {"a": 1}\n\n',
        b'data: {"a": 1}\nid: 7\n\n',
        b': a comment\ndata:{"a": 1}\n\n',
        b'data:  {"a": 1}\n\n',
        b'data: {"a":\ndata: 1}\n\n',
        b'\n\ndata: {"a": 1}\n\n',
        b'data: null\n\ndata: {"a": 1}\n\n',
    ],
)
async def test_an_event_is_one_line_however_it_is_spelled(spelled: bytes, size: int) -> None:
    first, alone = b'data: {"first": 0}\n\n', b": keep-alive\n\n"
    body = b"".join(await blocks_of(cut(first + spelled + alone + b"data: [DONE]\n\n", size)))
    assert body == first + b'data: {"a": 1}\n\n' + alone + b"data: [DONE]\n\n"


@pytest.mark.parametrize("sent", [b"", b"data: {}\n\n", b"data: {}\n\ndata: [DO"])
async def test_a_stream_without_its_end_is_an_engine_error(sent: bytes) -> None:
    with pytest.raises(EngineError, match="complete"):
        await blocks_of([sent] if sent else [])


@pytest.mark.parametrize("in_one", [True, False])
async def test_nothing_counts_after_the_last_event(in_one: bool) -> None:
    body, more = b"data: {}\n\ndata: [DONE]\n\n", b": bye\n\ndata: {}\n\ndata: bye\n\n\n"
    assert b"".join(await blocks_of([body + more] if in_one else [body, more], pause_s=0.01)) == body


async def test_an_event_without_end_is_an_engine_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaku.engines.sse_blocks.MAX_EVENT_BYTES", 1000)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(STREAM)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(chunk(b"x" * 600))
                await writer.drain()
                await asyncio.sleep(0)

    async with server(serve) as url, transport(url) as peer, peer.request("POST", "/x", {}) as response:
        with pytest.raises(EngineError, match="1,000 bytes"):
            _ = [block async for block in sse_blocks(response, who="peer")]


async def test_leaving_early_closes_the_connection() -> None:
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(STREAM + chunk(b"data: {}\n\n"))
        await writer.drain()
        assert await reader.read() == b""
        closed.set()

    async with server(serve) as url, transport(url) as peer:
        async with peer.request("POST", "/x", {}) as response:
            async for _ in sse_blocks(response, who="peer"):
                break
        await asyncio.wait_for(closed.wait(), PATIENCE_S)
