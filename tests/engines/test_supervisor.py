"""Children that serve a model are restarted, given up, unloaded and started again."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from chaku.engines.base import State
from chaku.engines.supervisor import BackOff, NotEnoughMemory
from chaku.errors import EngineError, EngineUnavailable, ModelError
from engines.sleeper import Sleeper, launch, supervised
from processes import is_alive
from waiting import soon


async def test_a_killed_child_is_restarted_and_calls_meanwhile_are_told_when_to_come_back() -> None:
    async with supervised(back_off=BackOff(first_s=0.3)) as supervisor:
        first = await supervisor.start()
        os.kill(first.child.pid, signal.SIGKILL)
        await soon(lambda: supervisor.status().state is State.RESTARTING)
        assert "SIGKILL" in supervisor.status().detail
        with pytest.raises(EngineUnavailable) as caught:
            async with supervisor.use():
                pass
        assert caught.value.retry_after_s is not None
        await soon(lambda: supervisor.status().state is State.READY)
        assert supervisor.status().num_restarts == 1
        async with supervisor.use() as second:
            assert second.child.pid != first.child.pid
    assert not is_alive(second.child.pid)


async def test_a_dead_child_that_is_still_being_tidied_up_is_not_called_ready() -> None:
    tidied = asyncio.Event()

    class SlowToClose(Sleeper):
        async def close(self) -> None:
            await tidied.wait()
            await super().close()

    async def launch_slow() -> Sleeper:
        return SlowToClose((await launch()).child)

    async with supervised(launch_slow) as supervisor:
        run = await supervisor.start()
        os.kill(run.child.pid, signal.SIGKILL)
        try:
            await soon(lambda: supervisor.status().pid is None)
            with pytest.raises(EngineUnavailable, match="sleeper is restarting") as caught:
                async with supervisor.use():
                    pass
            assert (caught.value.retry_after_s or 0) >= 1
        finally:
            tidied.set()


def test_pauses_double_up_to_a_limit() -> None:
    pauses = [BackOff(first_s=0.5, longest_s=30).pause_s(n) for n in range(1, 10)]
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


async def test_an_engine_that_keeps_failing_is_given_up_with_the_cause() -> None:
    launches = 0

    async def failing() -> Sleeper:
        nonlocal launches
        launches += 1
        if launches > 1:
            raise EngineError("the dog ate it")
        return await launch()

    async with supervised(failing, back_off=BackOff(first_s=0.01, most_failures=3)) as supervisor:
        os.kill((await supervisor.start()).child.pid, signal.SIGKILL)
        await soon(lambda: supervisor.status().state is State.FAILED)
        assert launches == 4
        with pytest.raises(EngineUnavailable, match="the dog ate it") as caught:
            async with supervisor.use():
                pass
        assert caught.value.retry_after_s is None


async def test_a_first_start_that_fails_raises_and_stays_failed() -> None:
    async def failing() -> Sleeper:
        raise ModelError("no such file")

    async with supervised(failing) as supervisor:
        with pytest.raises(ModelError):
            await supervisor.start()
        assert supervisor.status().state is State.FAILED


@pytest.mark.parametrize("planted", [KeyError("planted"), RuntimeError("planted")])
async def test_a_restart_that_fails_in_a_way_nobody_expected_is_logged_and_tried_again(
    planted: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes: list[Exception | None] = [None, planted, None]

    async def fickle() -> Sleeper:
        if outcome := outcomes.pop(0):
            raise outcome
        return await launch()

    async with supervised(fickle, back_off=BackOff(first_s=0.01)) as supervisor:
        os.kill((await supervisor.start()).child.pid, signal.SIGKILL)
        await soon(lambda: not outcomes and supervisor.status().state is State.READY)
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None and record.exc_info[1] is planted


async def test_a_first_start_that_fails_in_a_way_nobody_expected_is_logged_and_not_loading_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken() -> Sleeper:
        raise KeyError("planted")

    async with supervised(broken) as supervisor:
        with pytest.raises(EngineError, match="planted"):
            await supervisor.start()
        assert supervisor.status().state is State.FAILED
        assert supervisor.status().retry_after_s is None
    assert "planted" in caplog.text
    async with supervised(broken, when_asked=True) as supervisor:
        for _ in range(2):
            with pytest.raises(EngineUnavailable, match="planted"):
                async with supervisor.use():
                    pass
            assert supervisor.status().state is State.UNLOADED


async def test_an_old_child_that_can_t_be_closed_does_not_keep_the_new_one_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stuck(Sleeper):
        async def close(self) -> None:
            await super().close()
            raise KeyError("planted")

    launched = 0

    async def launch_stuck() -> Sleeper:
        nonlocal launched
        launched += 1
        return Stuck((await launch()).child) if launched == 1 else await launch()

    async with supervised(launch_stuck, back_off=BackOff(first_s=0.01)) as supervisor:
        os.kill((await supervisor.start()).child.pid, signal.SIGKILL)
        await soon(lambda: launched == 2 and supervisor.status().state is State.READY)
    assert "planted" in caplog.text


async def test_a_supervisor_that_fails_itself_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def planted(*_: object) -> None:
        raise KeyError("planted")

    async with supervised() as supervisor:
        monkeypatch.setattr(supervisor, "_restart", planted)
        os.kill((await supervisor.start()).child.pid, signal.SIGKILL)
        await soon(lambda: supervisor.status().state is State.FAILED)
        assert "planted" in supervisor.status().detail
    assert "planted" in caplog.text


async def test_too_little_memory_at_a_restart_is_waited_out() -> None:
    launches = 0

    async def short_of_memory() -> Sleeper:
        nonlocal launches
        launches += 1
        if 1 < launches < 8:
            raise NotEnoughMemory("not enough memory")
        return await launch()

    back_off = BackOff(first_s=0.01, longest_s=0.01, most_failures=2)
    async with supervised(short_of_memory, back_off=back_off, idle_unload_s=30) as supervisor:
        os.kill((await supervisor.start()).child.pid, signal.SIGKILL)
        await soon(lambda: supervisor.status().state is State.RESTARTING)
        assert supervisor.status().retry_after_s is not None
        await soon(lambda: launches == 8 and supervisor.status().state is State.READY)


async def test_too_little_memory_after_idling_is_tried_again_by_the_next_call() -> None:
    has_memory = True

    async def sometimes() -> Sleeper:
        if not has_memory:
            raise NotEnoughMemory("not enough memory")
        return await launch()

    async with supervised(sometimes, idle_unload_s=0.05) as supervisor:
        await supervisor.start()
        await soon(lambda: supervisor.status().state is State.UNLOADED)
        has_memory = False
        with pytest.raises(EngineUnavailable, match="not enough memory"):
            async with supervisor.use():
                pass
        has_memory = True
        async with supervisor.use() as run:
            assert run.child.is_running


async def test_too_little_memory_at_the_first_start_is_final() -> None:
    async def short_of_memory() -> Sleeper:
        raise NotEnoughMemory("not enough memory")

    async with supervised(short_of_memory) as supervisor:
        with pytest.raises(ModelError):
            await supervisor.start()
        assert supervisor.status().state is State.FAILED


async def test_an_idle_child_is_unloaded_and_the_next_call_starts_it_for_all_who_wait() -> None:
    launches = 0

    async def counted() -> Sleeper:
        nonlocal launches
        launches += 1
        return await launch()

    async with supervised(counted, idle_unload_s=0.2) as supervisor:
        first = await supervisor.start()
        async with supervisor.use():
            await asyncio.sleep(0.4)
            assert supervisor.status().state is State.READY
        await soon(lambda: supervisor.status().state is State.UNLOADED)
        await soon(lambda: not is_alive(first.child.pid))

        async def call() -> int:
            async with supervisor.use() as run:
                return run.child.pid

        hung_up = asyncio.create_task(call())
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(call()) for _ in range(3)]
        await asyncio.sleep(0)
        hung_up.cancel()
        assert len(set(await asyncio.gather(*waiting))) == 1
        assert launches == 2


async def test_a_call_while_an_idle_child_is_put_away_never_has_two_in_memory() -> None:
    alive: list[Sleeper] = []

    async def counted() -> Sleeper:
        assert not [run for run in alive if run.child.is_running]
        alive.append(await launch())
        return alive[-1]

    async def slowly(run: Sleeper) -> None:
        await asyncio.sleep(0.1)
        await run.close()

    async with supervised(counted, idle_unload_s=0.05, unload=slowly) as supervisor:
        await supervisor.start()
        await soon(lambda: supervisor.status().state is State.UNLOADED)
        assert alive[0].child.is_running
        async with supervisor.use() as run:
            assert run is alive[1]


async def test_what_starts_when_asked_needs_no_start() -> None:
    async with supervised(when_asked=True) as supervisor:
        assert supervisor.status().state is State.UNLOADED
        async with supervisor.use() as run:
            assert run.child.is_running
