"""Several engines behind one name: they share the queue, and come and go while requests run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chaku.engines.base import State, Status
from chaku.engines.scripted import Reply, Script, ScriptedEngine
from chaku.errors import EngineUnavailable, ModelError
from chaku.serve.served import Served
from chaku.serve.table import ModelTable
from chaku.settings import ModelConfig
from gateways import CHAT, chat, gateway, scripted
from processes import PATIENCE_S


class Ailing(ScriptedEngine):
    """An engine whose state a test sets."""

    state = State.READY

    def status(self) -> Status:
        return Status(self.state, "as the test says")


class Unstartable(ScriptedEngine):
    """Can't be started, for a reason that chaku knows or for one that it does not."""

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(name, Script())
        self.error = error

    async def start(self) -> None:
        raise self.error


class Unstoppable(ScriptedEngine):
    async def stop(self) -> None:
        raise RuntimeError("planted at the end")


def speaking(text: str, **script: Any) -> ScriptedEngine:
    return scripted(Reply(text=text), **script)


async def said(g: Any) -> str:
    status, answer, _ = await g.post(CHAT, chat())
    assert status == 200, answer
    text: str = answer["choices"][0]["message"]["content"]
    return text


async def test_two_replicas_are_one_model_with_the_slots_of_both() -> None:
    async with gateway(speaking("left", slots=2), speaking("right", slots=3)) as g:
        async with g.http.get(g.url + "/v1/models") as response:
            (row,) = (await response.json())["data"]
        assert (row["id"], row["state"], row["slots"]) == ("scripted", "ready", 5)
        assert {await said(g) for _ in range(30)} == {"left", "right"}


async def test_requests_go_where_the_smallest_share_is_taken() -> None:
    slow = Reply(text="a b", fault="hang", fault_after_tokens=1)
    async with gateway(scripted(slow, slots=1), scripted(slow, slots=3)) as g:
        served = g.serving.table.find("scripted")
        streams = []
        for _ in range(4):
            streams.append(await g.http.post(g.url + CHAT, json=chat(stream=True)))
        assert [replica.num_running for replica in served.replicas] == [1, 3]
        for stream in streams:
            stream.close()
        async with asyncio.timeout(PATIENCE_S):
            while any(replica.num_running for replica in served.replicas):
                await asyncio.sleep(0.01)


async def test_a_replica_added_while_requests_wait_takes_them() -> None:
    slow = Reply(text="a b", fault="hang", fault_after_tokens=1)
    async with gateway(scripted(slow, slots=1)) as g:
        served = g.serving.table.find("scripted")
        first = await g.http.post(g.url + CHAT, json=chat(stream=True))
        waiting = asyncio.create_task(said(g))
        async with asyncio.timeout(PATIENCE_S):
            while not served.admission.num_waiting:
                await asyncio.sleep(0.01)
            await served.start(speaking("new", slots=1))
            assert await waiting == "new"
        first.close()


async def test_a_replica_is_removed_once_its_requests_are_over() -> None:
    slow = scripted(Reply(text="one two three", token_delay_s=0.1), slots=1)
    async with gateway(slow) as g:
        served = g.serving.table.find("scripted")
        stream = asyncio.create_task(g.events(CHAT, chat(stream=True)))
        async with asyncio.timeout(PATIENCE_S):
            while not served.replicas[0].num_running:
                await asyncio.sleep(0.01)
            await served.start(speaking("other", slots=1))
            await served.remove(served.replicas[0])
            assert "[DONE]" in await stream
        assert slow.status().state is State.STOPPED
        assert await said(g) == "other"


async def test_a_replica_that_is_down_gets_nothing_and_the_model_stays_up() -> None:
    down = Ailing("scripted", Script(replies=(Reply(text="down"),), slots=4))
    async with gateway(down, speaking("up", slots=2)) as g:
        down.state = State.RESTARTING
        assert {await said(g) for _ in range(10)} == {"up"}
        assert g.serving.table.find("scripted").admission.slots == 2
        down.state = State.READY
        assert {await said(g) for _ in range(30)} == {"down", "up"}


@pytest.mark.parametrize(
    ("state", "retry_after"), [(State.FAILED, None), (State.RESTARTING, "2"), (State.STOPPED, None)]
)
async def test_only_a_model_that_comes_back_says_when(state: State, retry_after: str | None) -> None:
    engine = Ailing("scripted", Script())
    async with gateway(engine) as g:
        engine.state = state
        status, _, headers = await g.post(CHAT, chat())
    assert (status, headers.get("retry-after")) == (503, retry_after)


@pytest.mark.parametrize("error", [ModelError("no such file"), RuntimeError("planted")])
async def test_a_replica_that_cant_start_is_logged_and_the_others_serve(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(Unstartable("scripted", error), speaking("fine")) as g:
        assert await said(g) == "fine"
    assert str(error) in caplog.text


async def test_a_request_goes_to_a_replica_that_can_honour_it() -> None:
    small = speaking("small", slots=1)
    large = speaking("large", slots=8)
    async with gateway(small, large) as g:
        status, answer, _ = await g.post(CHAT, chat(n=4))
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "large")
        status, answer, _ = await g.post(CHAT, chat(n=9))
        assert (status, answer["error"]["param"]) == (400, "n")


async def test_stop_reaches_every_engine_although_one_raises(caplog: pytest.LogCaptureFixture) -> None:
    table = ModelTable()
    good = speaking("good")
    for engine in (Unstoppable("bad", Script()), good):
        table.add(engine, ModelConfig(source="test"), created=0)
    await table.start()
    await table.stop()
    assert good.status().state is State.STOPPED
    assert "planted at the end" in caplog.text


async def test_a_model_without_replicas_says_so() -> None:
    served = Served("m", ModelConfig(source="test"), 0)
    assert served.status().state is State.LOADING
    with pytest.raises(EngineUnavailable, match="waits for a replica"):
        served.fit("chat", {})
