from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from chaku.engines.http import Transport, sse_blocks
from chaku.errors import EngineError, EngineUnavailable
from processes import PATIENCE_S

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[str]:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(closing, "127.0.0.1", 0)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def transport(url: str, **options: object) -> AsyncIterator[Transport]:
    made = Transport(url, who="peer", **options)
    try:
        yield made
    finally:
        await made.close()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[16:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: ")), 0)
    return await reader.readexactly(length)


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


async def test_a_connection_closed_without_a_byte_is_repeated_unseen() -> None:
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await read_request(reader))
        if len(bodies) > 2:
            writer.write(OK)
            await writer.drain()

    async with server(serve) as url, transport(url) as peer:
        assert await peer.json("POST", "/x", {"a": 1}) == (200, {})
    assert bodies == [b'{"a":1}'] * 3


async def test_a_server_that_never_answers_is_unavailable_and_says_when_to_come_back() -> None:
    tries = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await read_request(reader)

    async with server(serve) as url, transport(url) as peer:
        with pytest.raises(EngineUnavailable) as caught:
            await peer.json("POST", "/x", {})
    assert caught.value.retry_after_s is not None
    assert tries == 3


async def test_a_refused_connection_is_unavailable() -> None:
    async with server(lambda reader, writer: asyncio.sleep(0)) as url:
        pass
    async with transport(url) as peer:
        with pytest.raises(EngineUnavailable):
            await peer.json("GET", "/x")


async def test_an_answer_that_breaks_off_is_not_repeated() -> None:
    tries = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await read_request(reader)
        writer.write(OK.replace(b"Length: 2", b"Length: 9"))
        await writer.drain()

    async with server(serve) as url, transport(url) as peer:
        with pytest.raises(EngineError, match="broke off"):
            await peer.json("POST", "/x", {})
    assert tries == 1


async def test_silence_is_an_engine_error() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()

    async with server(serve) as url, transport(url, idle_timeout_s=0.1) as peer:
        with pytest.raises(EngineError, match="in time"):
            await peer.json("POST", "/x", {})


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_blocks_are_whole_events_wherever_the_network_cuts(size: int, line_end: bytes) -> None:
    body = b'data: {"a":1}\n\ndata: {"b":"\xc3\xa9"}\n\ndata: [DONE]\n\n'
    sent = body.replace(b"\n", line_end)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(STREAM)
        for start in range(0, len(sent), size):
            writer.write(chunk(sent[start : start + size]))
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(chunk(b""))
        await writer.drain()

    async with server(serve) as url, transport(url) as peer, peer.request("POST", "/x", {}) as response:
        blocks = [block async for block in sse_blocks(response, who="peer")]
    assert all(block.endswith(b"\n\n") for block in blocks)
    assert b"".join(blocks) == body


@pytest.mark.parametrize("sent", [b"", b"data: {}\n\n", b"data: {}\n\ndata: [DO"])
async def test_a_stream_without_its_end_is_an_engine_error(sent: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(STREAM + (chunk(sent) if sent else b"") + chunk(b""))
        await writer.drain()

    async with server(serve) as url, transport(url) as peer, peer.request("POST", "/x", {}) as response:
        with pytest.raises(EngineError, match="complete"):
            _ = [block async for block in sse_blocks(response, who="peer")]


@pytest.mark.parametrize("in_one", [True, False])
async def test_nothing_counts_after_the_last_event(in_one: bool) -> None:
    body, more = b"data: {}\n\ndata: [DONE]\n\n", b": bye\n\ndata: {}\n\n\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(STREAM)
        for piece in [body + more] if in_one else [body, more]:
            writer.write(chunk(piece))
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.write(chunk(b""))
        await writer.drain()

    async with server(serve) as url, transport(url) as peer, peer.request("POST", "/x", {}) as response:
        assert b"".join([block async for block in sse_blocks(response, who="peer")]) == body


async def test_an_event_without_end_is_an_engine_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaku.engines.http.MAX_EVENT_BYTES", 1000)

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
