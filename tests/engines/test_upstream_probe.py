"""Whether an upstream is there, and which model it serves: asked at the start, and again while it is away."""

from __future__ import annotations

import asyncio
import socket

import pytest

from chaku.engines import upstream
from chaku.engines.base import State
from chaku.engines.upstream import UpstreamEngine
from chaku.errors import ConfigError
from chaku.settings import ModelConfig
from engines.raw_upstream import MODELS, WHOLE, RawServer, raw, reply
from gateways import CHAT, chat
from processes import PATIENCE_S


@pytest.mark.parametrize("status", [404, 405])
async def test_a_server_without_a_list_of_models_is_asked_by_the_given_name(status: int) -> None:
    server = RawServer(reply(200, WHOLE), models=reply(status, b"not here", kind="text/plain"))
    async with raw(server, upstream_model=None) as (g, engine):
        assert engine.status().state is State.READY
        assert (await g.post(CHAT, chat()))[0] == 200
    assert server.posts[0]["model"] == "scripted"


async def test_a_lists_only_model_is_taken_without_asking() -> None:
    server = RawServer(reply(200, WHOLE))
    async with raw(server, upstream_model=None) as (g, _):
        await g.post(CHAT, chat())
    assert server.posts[0]["model"] == "theirs"


async def test_an_upstream_that_is_not_there_is_said_once_and_not_with_every_look(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(upstream, "PROBE_EVERY_S", 0.02)
    caplog.set_level("INFO")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens
        engine = UpstreamEngine("away", ModelConfig(source=f"http://127.0.0.1:{closed.getsockname()[1]}/v1"))
        await engine.start()
        await asyncio.sleep(0.3)  # several more looks
        await engine.stop()
    said = [record.getMessage() for record in caplog.records if "chaku" in record.name]
    assert len(said) == 1 and said[0].startswith("upstream unavailable model=away"), said


@pytest.mark.parametrize("models", [b"[]", b'{"data":[{}]}', b'{"data":null}', b'"x"'])
async def test_a_list_of_models_that_is_none_leaves_the_upstream_unavailable(models: bytes) -> None:
    async with raw(RawServer(b"", models=reply(200, models))) as (g, engine):
        assert engine.status().state is State.RESTARTING
        assert (await g.post(CHAT, chat()))[0] == 503


async def test_an_unknown_model_is_a_mistake_that_names_those_there_are() -> None:
    server = RawServer(b"")
    with pytest.raises(ConfigError, match="theirs"):
        async with raw(server, upstream_model="other"):
            pass


async def test_an_upstream_that_was_away_comes_back_by_itself_and_both_are_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(upstream, "PROBE_EVERY_S", 0.05)
    caplog.set_level("INFO")
    server = RawServer(reply(200, WHOLE), models=reply(500, b"booting"))
    async with raw(server) as (g, engine):
        assert (await g.post(CHAT, chat()))[0] == 503
        await asyncio.sleep(0.5)  # several more looks
        assert (caplog.text.count("upstream unavailable"), caplog.text.count("ready")) == (1, 0)
        server.models = reply(200, MODELS)
        async with asyncio.timeout(PATIENCE_S):
            while (await g.post(CHAT, chat()))[0] != 200:
                await asyncio.sleep(0.02)
        assert engine.status().state is State.READY
    assert (caplog.text.count("upstream unavailable"), caplog.text.count("upstream ready")) == (1, 1)


async def test_a_probe_that_fails_in_a_way_nobody_expected_is_logged_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(upstream, "PROBE_EVERY_S", 0.02)
    monkeypatch.setattr("chaku.tasks.PAUSE_S", 0.02)
    server = RawServer(reply(200, WHOLE), models=reply(500, b"booting"))
    async with raw(server) as (_, engine):
        look = engine._look
        outcomes: list[Exception | None] = [KeyError("planted")]

        async def planted() -> None:
            if outcomes:
                raise outcomes.pop()
            await look()

        monkeypatch.setattr(engine, "_look", planted)
        server.models = reply(200, MODELS)
        async with asyncio.timeout(PATIENCE_S):
            while engine.status().state is not State.READY:
                await asyncio.sleep(0.02)
    assert "planted" in caplog.text
