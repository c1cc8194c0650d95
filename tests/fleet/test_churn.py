"""Workers that come and go under load: revoked, drained, lost and back. No answer is lost, and no counter leaks."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator

import orjson
import pytest

from chaku.engines.scripted import Reply
from chaku.serve.fleet import registry
from chaku.serve.routing.load import Load
from chaku.serve.worker import membership
from gateways import Keys, Running, chat, gateway
from processes import PATIENCE_S
from waiting import soon
from workers import worker_here

TEXT = " ".join(f"w{i}" for i in range(20))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Beats and looks at a tenth of their length."""
    monkeypatch.setattr(membership, "BEAT_EVERY_S", 0.2)
    monkeypatch.setattr(membership, "RETRY_S", 0.1)
    monkeypatch.setattr(registry, "LOOK_EVERY_S", 0.02)
    yield


def states(g: Running) -> dict[str, str]:
    assert g.serving.fleet is not None
    return {row["name"]: row["state"] for row in g.serving.fleet.rows()}


async def streamed(g: Running, *, hangs_up: bool = False) -> str | None:
    """The text of an answer; None where the client hung up after its first part."""
    async with g.http.post(g.url + "/v1/chat/completions", json=chat(stream=True) | {"model": "m"}) as response:
        assert response.status == 200, await response.text()
        if hangs_up:
            await response.content.readany()
            response.close()
            return None
        events = [event.removeprefix("data: ") for event in (await response.text()).split("\n\n") if event]
    assert events[-1] == "[DONE]", events[-1]
    return "".join(c["delta"].get("content", "") for event in events[:-1] for c in orjson.loads(event)["choices"])


@pytest.mark.parametrize(
    ("reply", "continues"),
    [(Reply(text=TEXT, delay_s=1.0), False), (Reply(text=TEXT, token_delay_s=0.1), True)],
    ids=["before the first token", "while tokens come"],
)
async def test_workers_of_a_revoked_token_are_out_under_load_and_no_answer_is_lost(
    reply: Reply, continues: bool
) -> None:
    tokens = {"ck-a": "id-a", "ck-b": "id-b"}
    keys = Keys(dict(tokens), {token: {"join"} for token in tokens})
    async with gateway(bare=True, keys=keys, continue_answers=continues) as g, contextlib.AsyncExitStack() as stack:
        for name in ("a", "b"):
            worker = worker_here(g.url, name=name, token=f"ck-{name}", replies=(reply,))
            await stack.enter_async_context(worker)
        await soon(lambda: states(g) == {"a": "ready", "b": "ready"})
        streams = [asyncio.create_task(streamed(g)) for _ in range(4)]
        assert g.serving.fleet is not None
        left = g.serving.fleet.find("a")
        await soon(lambda: left.replica.num_running and (left.engine.answered_at or not continues))

        del keys.known["ck-a"]
        await soon(lambda: states(g) == {"a": "gone", "b": "ready"})
        assert not any(stream.done() for stream in streams), "it was out only once it had nothing to say"
        assert await asyncio.gather(*streams) == [TEXT] * 4
        await soon(lambda: not left.replica.num_running)
        assert sum(exchange.num_continued for exchange in g.exchanges) > 0 or not continues
        assert states(g) == {"a": "gone", "b": "ready"}, "it can't come back with that token"


async def test_a_worker_without_a_token_is_out_once_a_key_exists() -> None:
    keys = Keys()
    async with gateway(bare=True, keys=keys) as g, worker_here(g.url, replies=(Reply(text=TEXT, token_delay_s=0.1),)):
        await soon(lambda: states(g) == {"w": "ready"})
        stream = asyncio.create_task(streamed(g))
        assert g.serving.fleet is not None
        await soon(lambda: g.serving.fleet.find("w").engine.answered_at)  # type: ignore[union-attr]
        keys.known["ck-new"] = "id-new"
        await soon(lambda: states(g) == {"w": "gone"})
        with pytest.raises(AssertionError, match="worker w is gone"):
            await stream


async def test_after_a_soak_with_churn_nothing_is_in_flight_and_every_counter_is_at_zero() -> None:
    dice = random.Random(13)
    reply = Reply(text=TEXT, delay_s=0.02, token_delay_s=0.005)
    over = asyncio.Event()
    texts: list[str | None] = []
    loads: list[Load] = []
    async with gateway(bare=True, continue_answers=True) as g:
        fleet = g.serving.fleet
        assert fleet is not None

        async def client() -> None:
            while not over.is_set():
                texts.append(await streamed(g, hangs_up=dice.random() < 0.2))

        async def machine(name: str) -> None:
            """A worker that joins, is drained, lost or leaves, and joins again."""
            for end in dice.sample(["drain", "lose", "leave"], 3):
                async with worker_here(g.url, name=name, replies=(reply,)):
                    await soon(lambda: states(g).get(name) == "ready")
                    await serve_until(name, end)

        async def serve_until(name: str, end: str) -> None:
            member = fleet.find(name)
            loads.append(member.replica.load)
            await soon(lambda: member.replica.num_running)
            await asyncio.sleep(dice.uniform(0.1, 0.4))
            if end == "drain":
                fleet.drain(name)
                await member.replica.drained()
            elif end == "lose":
                fleet._lose(fleet.find(name), "the test says so")

        async with worker_here(g.url, name="stays", replies=(reply,)):
            await soon(lambda: states(g) == {"stays": "ready"})
            loads.append(fleet.find("stays").replica.load)
            clients = [asyncio.create_task(client()) for _ in range(6)]
            await asyncio.gather(*(machine(name) for name in ("a", "b")))
            async with asyncio.timeout(PATIENCE_S):
                while not any(exchange.num_continued for exchange in g.exchanges):  # until a loss hit an answer
                    await machine("a")
            over.set()
            await asyncio.gather(*clients)
            whole = [text for text in texts if text is not None]
            assert set(whole) == {TEXT}
            assert len(whole) < len(texts), "nobody hung up"

            (served,) = g.serving.table
            await soon(lambda: not served.admission.num_running and not fleet._ending)
            assert served.admission.num_waiting == 0
            assert len(served.replicas) == 1 and len(loads) >= 7
            assert [(load.num_running, load.unread_tokens) for load in loads] == [(0, 0)] * len(loads)
            assert {name: state for name, state in states(g).items() if state != "gone"} == {"stays": "ready"}
            async with g.http.get(g.url + "/metrics") as response:
                lines = (await response.text()).splitlines()
            in_flight = [line for line in lines if line.startswith(("chaku_slots_in_use", "chaku_queue_length"))]
            assert in_flight == ['chaku_slots_in_use{model="m"} 0.0', 'chaku_queue_length{model="m"} 0.0']
