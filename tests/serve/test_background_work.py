"""Background work of the gateway that fails in a way nobody expected: it is logged, and goes on or ends loudly.

Each service is told here with its own task; those of engines, store and page stand beside their other tests.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chaku import tasks
from chaku.engines.fastchat import FastChatEngine
from chaku.launch.fleet.keeper import Keeper
from chaku.serve.batches.runner import BatchRunner, _Run
from chaku.serve.failover.dispatch import Dispatcher
from chaku.serve.fastchat.registry import FastChatWorkers
from chaku.serve.fleet.registry import Fleet
from chaku.serve.server import _Ending
from chaku.serve.table import ModelTable
from chaku.serve.worker.membership import Membership
from chaku.store.database import open_store

PATIENCE_S = 20


class FailsOnce:
    """Work that raises first, and says when it runs again."""

    def __init__(self) -> None:
        self.runs = 0
        self.again = asyncio.Event()

    async def __call__(self, *_: object) -> None:
        self.runs += 1
        if self.runs == 1:
            raise RuntimeError("planted")
        self.again.set()


async def begin_fleet(work: FailsOnce) -> Callable[[], Awaitable[None]]:
    fleet = Fleet(ModelTable())
    fleet._keep_looking = work  # type: ignore[method-assign]
    await fleet.start()
    return fleet.stop


async def begin_fastchat_workers(work: FailsOnce) -> Callable[[], Awaitable[None]]:
    workers = FastChatWorkers(ModelTable(), ())
    workers._keep_looking = work  # type: ignore[method-assign]
    await workers.start()
    return workers.stop


async def begin_fastchat_engine(work: FailsOnce) -> Callable[[], Awaitable[None]]:
    engine = FastChatEngine("m", "http://127.0.0.1:9", None, model="m", silence_s=1)  # type: ignore[arg-type]
    engine._keep_looking = work  # type: ignore[method-assign]
    await engine.start()
    return engine.stop


async def begin_dispatcher(work: FailsOnce) -> Callable[[], Awaitable[None]]:
    dispatcher = Dispatcher(None, None)  # type: ignore[arg-type]
    dispatcher._keep_watching = work  # type: ignore[method-assign]
    attempt: Any = object()
    dispatcher._watched(attempt)

    async def stop() -> None:
        dispatcher._unwatched(attempt)

    return stop


@pytest.mark.parametrize(
    ("begin", "name"),
    [
        (begin_fleet, "fleet-watcher"),
        (begin_fastchat_workers, "fastchat-watcher"),
        (begin_fastchat_engine, "m-fastchat-probe"),
        (begin_dispatcher, "replica-watch"),
    ],
)
async def test_a_watcher_that_fails_is_logged_and_watches_again(
    begin: Callable[[FailsOnce], Awaitable[Callable[[], Awaitable[None]]]],
    name: str,
    caplog: pytest.LogCaptureFixture,
    without_pauses: None,
) -> None:
    work = FailsOnce()
    stop = await begin(work)
    await asyncio.wait_for(work.again.wait(), PATIENCE_S)
    await stop()
    assert f"task={name}" in caplog.text and "RuntimeError: planted" in caplog.text


@pytest.fixture
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaku.tasks._Pauses.after", lambda self, ran_s: 0.0)


async def test_batches_are_looked_for_again(
    database: Path, caplog: pytest.LogCaptureFixture, without_pauses: None
) -> None:
    work = FailsOnce()
    with open_store(f"sqlite:///{database}") as store:
        runner = BatchRunner(store, ModelTable(), None, None, parallel=1)  # type: ignore[arg-type]
        runner._keep_looking = work  # type: ignore[method-assign]
        await runner.start()
        await asyncio.wait_for(work.again.wait(), PATIENCE_S)
        await runner.stop()
    assert "task=batches" in caplog.text and "RuntimeError: planted" in caplog.text


async def test_a_batch_goes_on_renewing_its_claim_and_gives_it_back_whatever_it_raises(
    caplog: pytest.LogCaptureFixture, without_pauses: None
) -> None:
    renewed = asyncio.Event()
    released: list[object] = []
    loop, outcomes = asyncio.get_running_loop(), [RuntimeError("planted")]
    claimed: Any = SimpleNamespace(batch=SimpleNamespace(id="batch_1"))

    def renew(_: object) -> object:
        if outcomes:
            raise outcomes.pop()
        loop.call_soon_threadsafe(renewed.set)
        return claimed.batch

    runner: Any = SimpleNamespace(batches=SimpleNamespace(renew=renew, release=released.append), renew_every_s=0.001)
    run = _Run(runner, claimed)

    async def advance() -> None:
        await asyncio.wait_for(renewed.wait(), PATIENCE_S)
        raise LookupError("planted in the batch")

    run._advance = advance  # type: ignore[method-assign]
    with pytest.raises(LookupError, match="planted in the batch"):  # its task logs it
        await run.to_its_end()
    assert released == [claimed]
    assert "task=batch-claim" in caplog.text and "RuntimeError: planted" in caplog.text


async def test_a_drain_that_fails_ends_the_server_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    server: Any = SimpleNamespace(should_exit=False, force_exit=False)
    ending = _Ending(server, FailsOnce())
    ending()
    assert ending.draining is not None
    await ending.draining
    assert server.should_exit and not server.force_exit
    assert "task=drain" in caplog.text and "RuntimeError: planted" in caplog.text


async def test_the_keeper_of_a_fleet_watches_and_asks_again(
    caplog: pytest.LogCaptureFixture, without_pauses: None
) -> None:
    async def nothing() -> object:
        return SimpleNamespace(url="http://127.0.0.1:9")

    workers: Any = SimpleNamespace(open=nothing)
    keeper: Any = Keeper(SimpleNamespace(workers=()), None, workers, None, str)  # type: ignore[arg-type]
    keeper._start_gateway, keeper._follow, keeper._tell, keeper._end = nothing, str, str, tasks.cancel
    keeper._watch_gateway, keeper._keep_asking = watching, asking = FailsOnce(), FailsOnce()
    running = asyncio.create_task(keeper.run())
    async with asyncio.timeout(PATIENCE_S):
        await watching.again.wait()
        await asking.again.wait()
    keeper.stop()
    await asyncio.wait_for(running, PATIENCE_S)
    assert "task=fleet-gateway" in caplog.text and "task=fleet-asker" in caplog.text


async def test_a_worker_goes_on_beating(caplog: pytest.LogCaptureFixture, without_pauses: None) -> None:
    membership = Membership(("http://127.0.0.1:9",), None, None)  # type: ignore[arg-type]
    runs: list[int] = []
    again = threading.Event()

    async def run(closing: threading.Event) -> None:
        runs.append(1)
        if len(runs) == 1:
            raise RuntimeError("planted")
        again.set()

    membership._bonds[0].run = run  # type: ignore[method-assign]
    membership.begin()
    assert await asyncio.to_thread(again.wait, PATIENCE_S)
    await membership.leave()
    assert "task=beats http://127.0.0.1:9" in caplog.text and "RuntimeError: planted" in caplog.text
