"""The server's start and end: what nobody expected is logged, and the rest is still stopped in order."""

from __future__ import annotations

import asyncio

import pytest

from chaku.engines.scripted import Script, ScriptedEngine
from chaku.serve.server import bind, build, run
from chaku.serve.table import ModelTable
from chaku.settings import ModelConfig, ServeConfig
from gateways import Keys


class Watched(ScriptedEngine):
    """A scripted engine that knows whether it was stopped."""

    num_stops = 0

    async def stop(self) -> None:
        self.num_stops += 1
        await super().stop()


class FailsToStop(Watched):
    async def stop(self) -> None:
        raise RuntimeError("planted")


class Companion:
    """Fails at the end."""

    async def start(self) -> None:
        """Begin."""

    def end_streams(self) -> None:
        """Has none."""

    async def stop(self) -> None:
        raise RuntimeError("planted in the page")


async def test_an_unexpected_error_at_the_start_ends_the_server_with_it_and_stops_every_engine(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def planted(self: ModelTable) -> None:
        raise RuntimeError("planted at the start")

    monkeypatch.setattr(ModelTable, "start", planted)
    table = ModelTable()
    engines = [FailsToStop("a", Script()), Watched("b", Script())]
    for engine in engines:
        table.add(engine, ModelConfig(source="test"), created=0)
    serving = build(ServeConfig(), table, Keys(), lambda exchange: None)
    serving.companions.append(Companion())
    listener = bind("127.0.0.1", 0)
    with pytest.raises(RuntimeError, match="planted at the start"):
        async with asyncio.timeout(20):
            await run(serving, listener)
    listener.close()
    assert engines[1].num_stops == 1
    for said in ("task=model-start", "task=page-stop", "engine did not stop model=a"):
        assert said in caplog.text
