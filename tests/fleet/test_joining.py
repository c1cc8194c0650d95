"""Who may join a gateway, and how it knows: tokens, the call-back, addresses, names and generations."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaku.errors import AuthenticationFailed, PermissionRefused
from chaku.protocol.fleet import Proof, as_json, is_proof, proof_of
from chaku.serve.access import Access
from chaku.serve.worker.companion import WorkerKey
from chaku.settings import ServeConfig
from fleet.joining import gateway_without_models, join_of, said, states
from gateways import Keys, chat, gateway, scripted
from waiting import soon
from workers import worker_here

pytestmark = pytest.mark.usefixtures("quick")

LOCAL = {b"host": b"127.0.0.1:8000"}
JOINER = Keys({"ck-join": "j"}, {"ck-join": {"join"}})


@contextlib.asynccontextmanager
async def listener(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers every request with these bytes; its URL, and the requests that came."""
    came: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.read(65536))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", came


async def test_a_worker_joins_serves_and_leaves() -> None:
    async with gateway_without_models() as g:
        async with worker_here(g.url) as w:
            await soon(lambda: states(g) == {"w": "ready"})
            assert await said(g) == "You said: hi"
            assert w.exchanges[0].key_id == "gateway"
            (row,) = g.serving.fleet.rows()  # type: ignore[union-attr]
            assert (row["models"], row["slots"], row["url"]) == (["m"], 4, w.url)
            status, _, _ = await w.post("/v1/chat/completions", chat("hi") | {"model": "m"})
            assert status == 401, "a worker answers its gateway alone"
        assert states(g) == {"w": "gone"}
        status, answer, headers = await g.post("/v1/chat/completions", chat("hi") | {"model": "m"})
        assert (status, headers["retry-after"]) == (503, "2"), answer


async def test_a_worker_names_the_model_that_answers_while_no_worker_is_there() -> None:
    async with gateway(scripted(name="spare")) as g:
        async with worker_here(g.url, fallback="spare"):
            await soon(lambda: states(g) == {"w": "ready"})
            _, answer, headers = await g.post("/v1/chat/completions", chat("hi") | {"model": "m"})
            assert (answer["model"], headers.get("x-chaku-fallback")) == ("m", None)
        assert g.serving.fleet is not None
        g.serving.fleet._forget(g.serving.fleet._workers["w"])
        status, answer, headers = await g.post("/v1/chat/completions", chat("hi") | {"model": "m"})
        assert (status, answer["model"], headers["x-chaku-fallback"]) == (200, "spare", "spare")


@pytest.mark.parametrize("fallback", ["spare", "sparse"])
async def test_a_worker_whose_fallback_is_not_served_is_in_the_log(
    fallback: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(scripted(name="spare")) as g, worker_here(g.url, fallback=fallback):
        await soon(lambda: states(g) == {"w": "ready"})
    told = [record.getMessage() for record in caplog.records if "fallback" in record.getMessage()]
    assert told == ([] if fallback == "spare" else ["worker's fallback is not served (yet) worker=w fallback='sparse'"])


async def test_a_worker_that_joined_two_gateways_serves_both_and_joins_a_restarted_one_again() -> None:
    async with gateway_without_models() as first, contextlib.AsyncExitStack() as stack:
        async with gateway_without_models() as second:
            port = int(second.url.rpartition(":")[2])
            await stack.enter_async_context(worker_here(first.url, second.url))
            for g in (first, second):
                await soon(lambda g=g: states(g) == {"w": "ready"})
                assert await said(g) == "You said: hi"
        async with gateway_without_models(port=port) as restarted:
            await soon(lambda: states(restarted) == {"w": "ready"})
            assert await said(restarted) == "You said: hi"
        assert states(first) == {"w": "ready"}


async def test_with_any_key_only_a_join_token_lets_a_worker_in(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    keys = Keys({"ck-join": "j", "ck-infer": "i"}, {"ck-join": {"join"}})
    async with gateway_without_models(keys=keys) as g, listener(b"") as (trap, came):
        for token, wanted in ((None, 401), ("ck-wrong", 401), ("ck-infer", 403)):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            status, answer, _ = await g.post("/fleet/join", as_json(join_of(trap)), headers=headers)
            assert status == wanted
            assert "chaku fleet token create" in answer["error"]["message"]
        assert not came, "nothing is fetched for strangers"
        async with worker_here(g.url, token="ck-join") as w:
            await soon(lambda: states(g) == {"w": "ready"})
            del keys.known["ck-join"]  # revoked
            await soon(lambda: states(g) == {"w": "gone"})
            key = w.serving.access._keys
            assert isinstance(key, WorkerKey)
    assert key.token not in caplog.text
    assert key.token not in repr(key) + repr(join_of("http://h:1", lease=key.token))


async def test_a_join_token_does_not_make_callers_need_a_key() -> None:
    async with gateway(scripted(), keys=JOINER) as g:
        assert not g.serving.access.needs_key
        assert (await g.post("/v1/chat/completions", chat()))[0] == 200
        assert (await g.post("/fleet/join", as_json(join_of("http://127.0.0.1:1"))))[0] == 401
    with pytest.raises(PermissionRefused, match="no scope 'infer'"):
        keys = Keys({"ck-join": "j", "ck": "i"}, {"ck-join": {"join"}})
        Access(ServeConfig(), keys).identify(b"Bearer ck-join")


@contextlib.asynccontextmanager
async def tunnel(target: asyncio.Future[str]) -> AsyncIterator[str]:
    """Forwards connections to `target`, once it is known, as `ssh -L` and `ssh -R` do; its URL."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = urlsplit(await target)
        there_reader, there_writer = await asyncio.open_connection(there.hostname, there.port)
        await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_worker_joins_through_a_tunnel_in_both_directions() -> None:
    gateway_url, worker_url = asyncio.Future[str](), asyncio.Future[str]()
    async with (
        gateway_without_models() as g,
        tunnel(gateway_url) as to_gateway,
        tunnel(worker_url) as to_worker,
        worker_here(to_gateway, advertise=to_worker) as w,
    ):
        gateway_url.set_result(g.url)
        worker_url.set_result(w.url)
        await soon(lambda: states(g) == {"w": "ready"})
        assert await said(g) == "You said: hi"
        assert g.serving.fleet is not None
        assert g.serving.fleet.rows()[0]["url"] == to_worker


@pytest.mark.parametrize(
    ("peer", "headers", "is_local"),
    [
        ("127.0.0.1", LOCAL, True),
        ("::1", {b"host": b"localhost:8000"}, True),
        ("127.0.0.1", {b"host": b"gateway.lan:8000"}, False),
        ("10.0.0.7", LOCAL, False),
        ("", LOCAL, False),
        ("127.0.0.1", {**LOCAL, b"x-forwarded-for": b"10.0.0.7"}, False),
        ("127.0.0.1", {**LOCAL, b"forwarded": b"for=10.0.0.7"}, False),
        ("127.0.0.1", {**LOCAL, b"cf-connecting-ip": b"1.2.3.4"}, False),
    ],
)
def test_from_this_machine_is_who_comes_over_loopback_through_no_proxy(
    peer: str, headers: dict[bytes, bytes], is_local: bool
) -> None:
    access = Access(ServeConfig(), Keys())
    assert access.is_local(peer, headers) is is_local
    with contextlib.nullcontext() if is_local else pytest.raises(AuthenticationFailed):
        access.admit("join", (peer, 1), headers)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: TRAP\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000,
        b'HTTP/1.1 200 OK\r\nContent-Length: 48\r\n\r\n{"name":"w","generation":"1","proof":"deadbeef"}',
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
)
async def test_only_the_process_that_sent_the_join_passes_the_call_back(answer: bytes) -> None:
    async with gateway_without_models() as g, listener(b"") as (trap, came):
        async with listener(answer.replace(b"TRAP", trap.encode())) as (url, calls):
            status, told, _ = await g.post("/fleet/join", as_json(join_of(url)))
        assert (status, told["error"]["code"]) == (400, "worker_unreachable")
        assert url in told["error"]["message"] and "--advertise" in told["error"]["message"]
        assert len(calls) <= 2 and not came, "one request, twice where it was not answered; no redirect is followed"
        assert b"k" * 43 not in calls[0], "the key is not sent"
        assert states(g) == {} and len(g.serving.table) == 0


async def test_a_live_worker_keeps_its_name_and_an_old_process_cant_speak_for_a_new_one() -> None:
    async with gateway_without_models() as g:
        fleet = g.serving.fleet
        assert fleet is not None
        async with worker_here(g.url) as w:
            await soon(lambda: states(g) == {"w": "ready"})
            known = fleet.find("w")
            generation = known.join.generation
            async with worker_here(g.url) as other:
                refused = await soon(lambda: other.serving.companions[-1]._refused)  # type: ignore[attr-defined]
                assert refused == {g.url}
                assert fleet.find("w").join.generation == generation
            beat = {"name": "w", "generation": "0", "lease": known.lease}
            assert (await g.post("/fleet/beat", beat))[0] == 409
            assert (await g.post("/fleet/beat", {**beat, "generation": generation, "lease": "guess"}))[0] == 404
            assert (await g.post("/fleet/leave", {**beat, "generation": generation, "lease": ""}))[0] == 404
            assert states(g) == {"w": "ready"}
            assert w.url


async def test_a_worker_that_falls_silent_is_suspect_then_gone_and_answers_there_break_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from chaku.engines.scripted import Reply

    slow = Reply(text="a b", fault="hang", fault_after_tokens=1)
    async with gateway_without_models() as g, worker_here(g.url, replies=(slow,)) as w:
        await soon(lambda: states(g) == {"w": "ready"})
        stream = asyncio.create_task(g.events("/v1/chat/completions", chat("hi", stream=True) | {"model": "m"}))
        await soon(lambda: w.serving.table.find("m").admission.num_running)
        (bond,) = w.serving.companions[-1]._membership._bonds  # type: ignore[attr-defined]
        silent = asyncio.Event()

        async def no_beat(transport: Any) -> float:
            silent.set()
            return 60.0

        monkeypatch.setattr(bond, "_try", no_beat)
        await soon(lambda: states(g) == {"w": "suspect"})
        await soon(lambda: states(g) == {"w": "gone"})
        async with asyncio.timeout(10):
            events = await stream
        assert "error" in events[-1]
        assert not [replica for served in g.serving.table for replica in served.replicas]


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20), st.text(max_size=40))
def test_a_proof_is_of_one_key_name_generation_and_nonce(key: str, generation: str, nonce: str) -> None:
    proof = Proof(name="w", generation=generation, proof=proof_of(key, "w", generation, nonce))
    assert is_proof(proof, key, "w", generation, nonce)
    assert not is_proof(proof, key + "x", "w", generation, nonce)
    assert not is_proof(proof, key, "w", generation, nonce + "x")
    assert not is_proof(proof, key, "w", generation + "x", nonce)
