"""How requests are sent: what is sent again, what is not, and how a failure is called."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from certificates import certificate, needs_openssl
from chaku.errors import DeadlineExceeded, EngineUnavailable, Overloaded
from chaku.http_out import BrokenOff, NotSent, Retries, Unanswered
from raw_http import OK, read_request, server, transport

QUICK = Retries(limit=2, first_pause_s=0.01)
ONCE = Retries(limit=2, first_pause_s=0.01, unanswered=False)


async def test_a_connection_closed_without_a_byte_is_repeated_unseen() -> None:
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await read_request(reader))
        if len(bodies) > 2:
            writer.write(OK)
            await writer.drain()

    async with server(serve) as url, transport(url, retries=QUICK) as peer:
        assert await peer.json("POST", "/x", {"a": 1}) == (200, {})
    assert bodies == [b'{"a":1}'] * 3


async def test_a_server_that_never_answers_is_unavailable_and_says_when_to_come_back() -> None:
    tries = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await read_request(reader)

    async with server(serve) as url, transport(url, retries=QUICK) as peer:
        with pytest.raises(EngineUnavailable) as caught:
            await peer.json("POST", "/x", {})
    assert caught.value.retry_after_s is not None
    assert tries == 3


async def test_a_refused_connection_means_that_nothing_was_sent() -> None:
    async with server(lambda reader, writer: asyncio.sleep(0)) as url:
        pass
    async with transport(url, retries=QUICK) as peer:
        with pytest.raises(NotSent, match=r"can't reach peer: Conn.* refused") as caught:
            await peer.json("GET", "/x")
    assert caught.value.retry_after_s is not None


async def test_a_host_that_does_not_exist_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    async with transport("http://nosuch.example/v1", retries=QUICK) as peer:
        with pytest.raises(NotSent, match=r"can't reach peer: there is no host 'nosuch\.example'") as caught:
            await peer.json("GET", "/x")
    assert caught.value.fix == "check the address, and the connection to the network"


@needs_openssl
@pytest.mark.parametrize(
    ("scheme", "named", "why"),
    [
        ("https", None, r"its certificate is not trusted \(self.signed certificate\)"),
        ("https", "00" * 32, "its certificate is another one than was named"),
        ("http", None, r"no TLS connection \(wrong version number\)"),
    ],
)
async def test_a_connection_that_fails_at_its_certificate_says_so(
    tmp_path: Path, scheme: str, named: str | None, why: str
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate(tmp_path, "peer"))

    def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context if scheme == "https" else None)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        async with transport(f"https://127.0.0.1:{port}", retries=QUICK, certificate=named) as peer:
            with pytest.raises(NotSent, match=f"can't reach peer: {why}"):
                await peer.json("GET", "/x")


async def test_an_answer_that_breaks_off_is_not_repeated() -> None:
    tries = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await read_request(reader)
        writer.write(OK.replace(b"Length: 2", b"Length: 9"))
        await writer.drain()

    async with server(serve) as url, transport(url, retries=QUICK) as peer:
        with pytest.raises(BrokenOff, match="broke off its answer: the connection was closed"):
            await peer.json("POST", "/x", {})
    assert tries == 1


async def test_silence_is_a_passed_deadline() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()

    async with server(serve) as url, transport(url, silence_s=0.1) as peer:
        with pytest.raises(DeadlineExceeded, match="in time"):
            await peer.json("POST", "/x", {})


async def test_what_may_cost_is_sent_once() -> None:
    tries = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await read_request(reader)

    async with server(serve) as url, transport(url, retries=ONCE) as peer:
        with pytest.raises(Unanswered, match="closed the connection without an answer"):
            await peer.json("POST", "/x", {})
    assert tries == 1


async def test_a_refusal_that_says_when_to_come_back_is_heeded() -> None:
    full = b"HTTP/1.1 429 X\r\nRetry-After: 0.01\r\nContent-Length: 2\r\n\r\n{}"
    answers = [full, OK, full.replace(b"0.01", b"99")]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answers.pop(0))
        await writer.drain()

    async with server(serve) as url, transport(url, retries=QUICK) as peer:
        assert await peer.json("POST", "/x", {}) == (200, {})
        with pytest.raises(Overloaded) as caught:
            await peer.json("POST", "/x", {})
    assert caught.value.retry_after_s == 99


@pytest.mark.parametrize("also_new", [0, 40])
async def test_kept_connections_that_were_closed_meanwhile_cost_nobody_his_answer(also_new: int) -> None:
    """The server closes each connection just when it is used again, while others open connections of their own."""
    num_served = 0
    first_round = asyncio.Barrier(40)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_served
        await read_request(reader)
        num_served += 1
        if num_served <= 40:
            await first_round.wait()  # so that each of the 40 has a connection of its own
            writer.write(OK)
            await writer.drain()
            await reader.readuntil(b"\r\n")  # the next request has begun: hang up
            writer.transport.abort()
            return
        writer.write(OK)
        await writer.drain()

    async with server(serve) as url, transport(url, retries=ONCE) as peer, transport(url, retries=ONCE) as other:
        await asyncio.gather(*(peer.json("POST", "/x", {}) for _ in range(40)))
        answers = await asyncio.gather(
            *(peer.json("POST", "/x", {}) for _ in range(40)), *(other.json("POST", "/x", {}) for _ in range(also_new))
        )
    assert answers == [(200, {})] * (40 + also_new)


async def test_an_answer_whose_transport_is_closed_meanwhile_breaks_off() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK.replace(b"Length: 2", b"Length: 9"))
        await writer.drain()
        await reader.read()

    async with server(serve) as url, transport(url, retries=QUICK) as peer:
        with pytest.raises(BrokenOff):
            async with peer.request("GET", "/") as response:
                await response.content.readany()
                await peer.close()
                await response.content.readany()
                await response.content.readany()
