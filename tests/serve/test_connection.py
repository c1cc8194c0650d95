"""Slow, endless and crooked clients, over real sockets: none of them takes more than its share."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chaku.engines.scripted import Reply
from chaku.serve.connection import ConnectionLimits
from chaku.serve.server import Serving
from gateways import CHAT, Keys, Running, chat, gateway, scripted
from processes import PATIENCE_S

HOST = b"Host: 127.0.0.1\r\n"


@contextlib.asynccontextmanager
async def limited(**limits: Any) -> AsyncIterator[Running]:
    """A gateway with these limits; the sweep is every second."""

    def extend(serving: Serving, url: str) -> None:
        serving.limits = ConnectionLimits(**limits)

    async with gateway(extend=extend) as running:
        yield running


async def connect(g: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(g.url.rsplit(":", 1)[1]))


async def said(reader: asyncio.StreamReader) -> bytes:
    """Everything until the server closes; nothing where it just did."""
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def talk(g: Running, *pieces: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes and read until the server closes: status, headers, body."""
    reader, writer = await connect(g)
    try:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
        answer = await said(reader)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]) if answer else 0, headers, body


def post(body: bytes, *, version: str = "1.1", headers: bytes = b"Connection: close\r\n") -> bytes:
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    return f"POST {CHAT} HTTP/{version}\r\n".encode() + HOST + headers + length + body


async def test_endless_headers_are_refused_and_not_kept() -> None:
    async with limited() as g:
        tracemalloc.start()
        try:
            header = b"X-More: " + b"a" * 65_000 + b"\r\n"
            status, _, body = await talk(g, b"GET /health HTTP/1.1\r\n" + HOST, *[header] * 200)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert status in (431, 0)  # 0: the refusal was lost with what was still under way
        assert peak_bytes < 4 << 20
        status, _, body = await talk(g, b"GET /health HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 70_000 + b"\r\n\r\n")
        assert (status, json.loads(body)["error"]["code"]) == (431, "head_too_large")
        many = b"".join(b"X-%d: a\r\n" % number for number in range(200))
        assert (await talk(g, b"GET /health HTTP/1.1\r\n" + HOST + many + b"\r\n"))[0] == 431
        assert (await talk(g, b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"))[0] == 431


async def test_a_head_of_honest_size_passes() -> None:
    cookies = b"Cookie: " + b"a=b; " * 8000 + b"\r\n"
    async with limited() as g:
        status, _, _ = await talk(g, b"GET /health HTTP/1.1\r\nConnection: close\r\n" + HOST + cookies + b"\r\n")
    assert status == 200


async def test_half_a_head_and_half_a_body_are_given_up() -> None:
    async with limited(head_s=0.3, body_s=0.3, drain_s=0.3) as g:
        silent, half_head, half_body = await asyncio.gather(
            talk(g),
            talk(g, b"GET /health HTTP/1.1\r\nHo"),
            talk(g, post(b"x" * 10)[:-5]),
        )
        for status, _, body in (silent, half_head, half_body):
            assert (status, json.loads(body)["error"]["code"]) == (408, "request_timeout")
        # A body that nobody waits for is dropped, not waited for.
        status, _, _ = await talk(g, b"POST /v1/none HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nx")
        assert status in (404, 405)


async def test_a_body_that_keeps_coming_is_waited_for() -> None:
    request = post(json.dumps(chat()).encode())
    middle = len(request) - 40

    async with limited(body_s=2.5) as g:
        reader, writer = await connect(g)
        for piece in (request[:middle], request[middle:-20], request[-20:]):
            writer.write(piece)
            await asyncio.sleep(0.6)
        assert (await said(reader)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_slow_clients_hold_no_place_from_others() -> None:
    async with limited(num_connections=20) as g:
        slow = [await connect(g) for _ in range(40)]
        for _, writer in slow:
            with contextlib.suppress(ConnectionError):
                writer.write(b"GET /health HTTP/1.1\r\n")
        status, _, _ = await g.post(CHAT, chat())
        assert status == 200
        closed = [reader for reader, _ in slow[:15]]
        assert all([not await said(reader) for reader in closed])
        for _, writer in slow:
            writer.close()


async def test_where_every_connection_is_served_a_new_one_is_told_to_come_back() -> None:
    hanging = scripted(Reply(text="a b", fault="hang", fault_after_tokens=1), slots=8)

    def extend(serving: Serving, url: str) -> None:
        serving.limits = ConnectionLimits(num_connections=2)

    async with gateway(hanging, extend=extend) as g:
        streams = [await g.http.post(g.url + CHAT, json=chat(stream=True)) for _ in range(2)]
        for stream in streams:
            await stream.content.readany()
        status, headers, body = await talk(g)
        assert (status, json.loads(body)["error"]["code"]) == (503, "too_many_connections")
        assert headers["retry-after"]
        for stream in streams:
            stream.close()


async def test_trailers_and_chunk_extensions_are_bounded() -> None:
    head = f"POST {CHAT} HTTP/1.1\r\n".encode() + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    async with limited() as g:
        reader, writer = await connect(g)
        writer.write(head + b"1;")
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                writer.write(b"a" * 60_000)
                await writer.drain()
        assert (await said(reader))[:12] in (b"HTTP/1.1 400", b"")
        writer.close()


async def test_a_stream_to_an_old_client_is_not_chunked_and_ends_with_the_connection() -> None:
    async with gateway() as g:
        request = post(json.dumps(chat("one two", stream=True)).encode(), version="1.0", headers=b"")
        status, headers, body = await talk(g, request)
        assert status == 200
        assert "transfer-encoding" not in headers
        assert body.startswith(b"data: {")
        assert body.endswith(b"data: [DONE]\n\n")
        whole = await talk(g, post(json.dumps(chat()).encode(), version="1.0", headers=b""))
        assert json.loads(whole[2])["object"] == "chat.completion"


async def test_what_is_no_http_is_refused_in_the_apis_own_shape() -> None:
    async with gateway() as g:
        status, _, body = await talk(g, b"\x16\x03\x01 hello\r\n\r\n")
    assert (status, json.loads(body)["error"]["code"]) == (400, "invalid_http")


async def test_requests_that_come_at_once_are_answered_in_turn() -> None:
    bodies = [json.dumps(chat(str(number))).encode() for number in range(3)]
    async with limited(head_s=0.2) as g:
        requests = [post(body, headers=b"") for body in bodies[:2]] + [post(bodies[2])]
        reader, writer = await connect(g)
        writer.write(b"".join(requests))
        answer = await said(reader)
        writer.close()
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert [answer.find(b"You said: %d" % number) > 0 for number in range(3)] == [True] * 3


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_packed_body_is_read(encoding: str) -> None:
    body = json.dumps(chat("hello " * 2000)).encode()
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    async with gateway() as g:
        async with g.http.post(g.url + CHAT, data=packed, headers={"Content-Encoding": encoding}) as response:
            assert response.status == 200
        for wrong in (packed[:-20], b"hello", b""):
            async with g.http.post(g.url + CHAT, data=wrong, headers={"Content-Encoding": encoding}) as response:
                assert (response.status, (await response.json())["error"]["type"]) == (400, "invalid_request_error")


async def test_a_bomb_and_an_unknown_packing_are_refused() -> None:
    bomb = io.BytesIO(gzip.compress(b" " * (40 << 20), 1))
    async with gateway() as g:
        async with g.http.post(g.url + CHAT, data=bomb, headers={"Content-Encoding": "gzip"}) as response:
            assert response.status == 413
        async with g.http.post(g.url + CHAT, data=b"x", headers={"Content-Encoding": "br"}) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (415, "unsupported_media_type")


async def test_a_stranger_is_refused_before_the_body_is_read() -> None:
    async with gateway(keys=Keys({"ck-a": "a"})) as g:
        reader, writer = await connect(g)
        writer.write(f"POST {CHAT} HTTP/1.1\r\n".encode() + HOST + b"Content-Length: 30000000\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            assert b" 401 " in (await reader.readuntil(b"\r\n"))
        writer.close()
