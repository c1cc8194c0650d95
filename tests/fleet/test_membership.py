"""A worker's bonds with its gateways: what one gateway answers never keeps beats from another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from chaku.protocol.fleet import Beat, Join
from chaku.serve.worker import membership
from chaku.serve.worker.membership import Member, Membership
from waiting import soon

ABOUT = {"name": "w", "generation": "1", "state": "ready"}
JOIN = Join.model_validate({**ABOUT, "url": "http://127.0.0.1:1", "key": "k" * 32, "model": "m"})
BEAT = Beat.model_validate(ABOUT)


@dataclass
class StandIn:
    """A gateway that answers joins and beats with what a test says."""

    joined: Any = field(default_factory=lambda: {"lease": "lease"})
    heard: Any = field(default_factory=lambda: {"commands": []})
    num_joins: int = 0
    beats: list[Any] = field(default_factory=list)
    url: str = ""

    @property
    def num_beats(self) -> int:
        return len(self.beats)

    async def join(self, request: web.Request) -> web.Response:
        self.num_joins += 1
        return web.json_response(self.joined)

    async def beat(self, request: web.Request) -> web.Response:
        self.beats.append(await request.json())
        return web.json_response(self.heard)

    async def leave(self, request: web.Request) -> web.Response:
        return web.Response(status=204)


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "RETRY_S", 0.02)
    monkeypatch.setattr(membership, "BEAT_EVERY_S", 0.5)


@asynccontextmanager
async def joined(
    *gateways: StandIn, beat: Any = lambda: BEAT, on_command: Any = lambda command: None
) -> AsyncIterator[None]:
    """A worker that joins them."""
    runners = []
    for gateway in gateways:
        app = web.Application()
        app.add_routes([web.post(f"/fleet/{name}", getattr(gateway, name)) for name in ("join", "beat", "leave")])
        runners.append(runner := web.AppRunner(app))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        gateway.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    member = Member(join=lambda url: JOIN, beat=beat, logs=lambda: (), on_command=on_command)
    worker = Membership(tuple(gateway.url for gateway in gateways), None, member)
    worker.begin()
    try:
        yield
    finally:
        await worker.leave()
        for runner in runners:
            await runner.cleanup()


@pytest.mark.parametrize("answer", [{"ok": True}, []])
async def test_a_gateway_that_answers_something_else_is_asked_again_and_others_hear_beats(answer: Any) -> None:
    good, odd = StandIn(), StandIn(joined=answer)
    async with joined(good, odd):
        await soon(lambda: good.num_beats > 1 and odd.num_joins > 2)
        odd.joined = {"lease": "lease"}
        await soon(lambda: odd.num_beats)
    assert good.num_joins == 1


async def test_a_command_of_a_newer_gateway_does_not_end_the_beats() -> None:
    newer = StandIn(heard={"commands": [{"id": "1", "kind": "dance"}]})
    async with joined(newer):
        await soon(lambda: newer.num_beats > 2)
    assert newer.num_joins == 1


async def test_a_command_that_is_given_again_is_taken_once_and_acknowledged_each_time() -> None:
    gateway = StandIn(heard={"commands": [{"id": "1", "kind": "reload"}]})
    taken: list[str] = []
    async with joined(gateway, on_command=taken.append):
        await soon(lambda: gateway.num_beats > 2)
    assert taken == ["reload"]
    assert [beat["taken"] for beat in gateway.beats[:3]] == [[], ["1"], ["1"]]


async def test_a_beat_that_can_not_be_made_is_made_later() -> None:
    failures = iter([RuntimeError("not yet")])

    def beat() -> Beat:
        for failure in failures:
            raise failure
        return BEAT

    gateway = StandIn()
    async with joined(gateway, beat=beat):
        await soon(lambda: gateway.num_beats > 1)
