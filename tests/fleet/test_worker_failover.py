"""Workers that are lost under running answers: what their streams become, over real sockets in one process."""

from __future__ import annotations

import asyncio
import time

import orjson

from chaku.engines.scripted import Reply
from chaku.serve.fleet.registry import LEASE_S
from gateways import Running, chat, gateway
from waiting import soon
from workers import worker_here

TEXT = "one two three four five six seven eight nine ten"
SLOW = (Reply(text=TEXT, token_delay_s=0.1),)


async def streamed(g: Running) -> str:
    async with g.http.post(g.url + "/v1/chat/completions", json=chat(stream=True) | {"model": "m"}) as response:
        assert response.status == 200, await response.text()
        events = [event.removeprefix("data: ") for event in (await response.text()).split("\n\n") if event]
    assert events[-1] == "[DONE]", events[-1]
    return "".join(c["delta"].get("content", "") for event in events[:-1] for c in orjson.loads(event)["choices"])


def lose(g: Running, name: str) -> None:
    fleet = g.serving.fleet
    assert fleet is not None
    fleet._lose(fleet.find(name), "the test says so")


async def test_answers_of_a_lost_worker_are_continued_by_another() -> None:
    async with gateway(bare=True, continue_answers=True) as g:
        async with worker_here(g.url, name="a", replies=SLOW), worker_here(g.url, name="b", replies=SLOW):
            fleet = g.serving.fleet
            assert fleet is not None
            await soon(lambda: [row["state"] for row in fleet.rows()] == ["ready", "ready"])
            streams = [asyncio.create_task(streamed(g)) for _ in range(4)]
            served = next(iter(g.serving.table))
            await soon(lambda: all(replica.num_running for replica in served.replicas))
            await asyncio.sleep(0.3)
            lose(g, "a")
            assert {await stream for stream in streams} == {TEXT}
        assert sum(exchange.num_continued for exchange in g.exchanges) > 0
        assert not any(exchange.error_code for exchange in g.exchanges)


async def test_requests_wait_for_workers_that_were_there_a_moment_ago() -> None:
    async with gateway(bare=True, continue_answers=True) as g:
        fleet = g.serving.fleet
        assert fleet is not None
        async with worker_here(g.url, name="a", replies=SLOW):
            await soon(lambda: [row["state"] for row in fleet.rows()] == ["ready"])
            assert await streamed(g) == TEXT
            running = asyncio.create_task(streamed(g))
            await soon(lambda: next(iter(g.serving.table)).replicas[0].num_running)
            await asyncio.sleep(0.3)
            lose(g, "a")
            new = asyncio.create_task(streamed(g))
            await asyncio.sleep(0.2)
            async with worker_here(g.url, name="b", replies=SLOW):
                assert (await running, await new) == (TEXT, TEXT)


async def test_a_worker_whose_beats_are_late_is_kept_while_its_answers_come() -> None:
    async with gateway(bare=True) as g:
        fleet = g.serving.fleet
        assert fleet is not None
        async with worker_here(g.url, name="a", replies=SLOW):
            await soon(lambda: [row["state"] for row in fleet.rows()] == ["ready"])
            running = asyncio.create_task(streamed(g))
            await soon(lambda: fleet.find("a").engine.answered_at)
            while not running.done():
                fleet.find("a").heard_at = -1000.0  # no beat has come for long
                fleet._look(time.monotonic())
                assert fleet.rows()[0]["state"] == "ready"
                await asyncio.sleep(0.02)
            assert await running == TEXT
            fleet.find("a").heard_at = -1000.0
            fleet._look(time.monotonic() + LEASE_S + 1)
            assert fleet.rows()[0]["state"] == "gone", "neither beats nor answers"
