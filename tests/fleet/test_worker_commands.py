"""Commands to a worker that joined, and its log lines: who may give them, and how they arrive."""

from __future__ import annotations

import logging

import pytest

from chaku.errors import EngineUnavailable
from chaku.protocol.fleet import Beat, Heard
from chaku.serve.fleet import registry
from fleet.joining import gateway_without_models, said, states
from gateways import Keys, gateway, scripted
from waiting import soon
from workers import worker_here

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize("scope", ["infer", "page", "metrics"])
async def test_only_the_local_user_and_an_admin_steer_workers(scope: str) -> None:
    keys = Keys({"ck": "1", "ck-admin": "2"}, {"ck": {scope}, "ck-admin": {"admin"}})
    async with gateway(scripted(), keys=keys) as g:
        for path in ("drain", "reload"):
            for token, wanted in (("ck", 403), ("ck-admin", 404)):
                headers = {"Authorization": f"Bearer {token}"}
                assert (await g.post(f"/fleet/workers/w/{path}", {}, headers=headers))[0] == wanted
        async with g.http.get(g.url + "/fleet/workers/w/logs", headers={"Authorization": "Bearer ck"}) as response:
            assert response.status == 403
    async with gateway(scripted()) as g:
        assert (await g.post("/fleet/workers/w/drain", {}))[0] == 404


async def test_logs_and_reload_reach_the_worker() -> None:
    async with gateway_without_models() as g, worker_here(g.url) as w:
        await soon(lambda: states(g) == {"w": "ready"})
        logging.getLogger("chaku.test").warning("a line of the worker")
        async with g.http.get(g.url + "/fleet/workers/w/logs") as response:
            lines = (await response.json())["lines"]
        assert any("a line of the worker" in line for line in lines)
        before = w.serving.table.find("m").replicas[0]
        assert (await g.post("/fleet/workers/w/reload", {}))[0] == 202
        await soon(lambda: before not in next(iter(w.serving.table)).replicas)
        await soon(lambda: states(g) == {"w": "ready"})
        assert await said(g) == "You said: hi"


@pytest.mark.parametrize("lost", ["answer", "worker"])
async def test_a_command_is_given_until_it_is_acknowledged_and_taken_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lost: str
) -> None:
    caplog.set_level(logging.INFO, "chaku.serve.worker")
    losses: list[str] = []

    def beat(fleet: registry.Fleet, told: Beat) -> Heard:
        heard = beat_of(fleet, told)
        if heard.commands and len(losses) < 2:
            losses.append(lost)
            if lost == "worker":
                fleet._lose(fleet.find("w"), "the test says so")
            raise EngineUnavailable("this answer is lost")
        return heard

    beat_of = registry.Fleet.beat
    monkeypatch.setattr(registry.Fleet, "beat", beat)
    async with gateway_without_models() as g, worker_here(g.url) as w:
        ends: list[str] = []
        w.serving.end = lambda: ends.append("drain")
        await soon(lambda: states(g) == {"w": "ready"})
        engine = next(iter(w.serving.table)).replicas[0]
        for command in ("reload", "drain"):
            assert (await g.post(f"/fleet/workers/w/{command}", {}))[0] == 202
        await soon(lambda: ends and not g.serving.fleet.find("w").commands)  # type: ignore[union-attr]
        await soon(lambda: engine not in next(iter(w.serving.table)).replicas)
        assert (await g.post("/fleet/workers/w/drain", {}))[0] == 202
        await soon(lambda: not g.serving.fleet.find("w").commands)  # type: ignore[union-attr]
        assert (losses, ends, states(g)) == ([lost] * 2, ["drain"], {"w": "draining"})
        assert sum(line.startswith("reloading") for line in caplog.messages) == 1


async def test_log_lines_whose_beat_is_lost_come_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = [EngineUnavailable("this beat is lost")]

    def beat(fleet: registry.Fleet, told: Beat) -> Heard:
        if told.logs is not None and losses:
            raise losses.pop()
        return beat_of(fleet, told)

    beat_of = registry.Fleet.beat
    monkeypatch.setattr(registry.Fleet, "beat", beat)
    async with gateway_without_models() as g, worker_here(g.url):
        await soon(lambda: states(g) == {"w": "ready"})
        async with g.http.get(g.url + "/fleet/workers/w/logs") as response:
            assert (response.status, losses) == (200, [])
