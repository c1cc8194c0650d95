"""Background work: what fails is logged, and the work goes on or its owner hears of it."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from chaku import tasks


async def test_a_task_that_fails_is_logged_and_its_owner_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise RuntimeError("planted")

    failures: list[Exception] = []
    await tasks.start(work(), "loader", on_failure=failures.append)
    assert [str(failure) for failure in failures] == ["planted"]
    assert "task=loader" in caplog.text
    assert "RuntimeError: planted" in caplog.text


async def test_a_repeated_task_runs_again_after_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise RuntimeError(f"planted {runs}")

    await tasks.repeat(work, "probe", pause_s=0.01)
    assert runs == 3
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.ERROR]


async def test_pauses_grow_while_failures_follow_each_other(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        if len(caplog.records) < 4:
            raise RuntimeError("planted")

    await tasks.repeat(work, "probe", pause_s=0.01)
    assert [record.getMessage().split("=")[-1] for record in caplog.records] == ["0.0", "0.0", "0.0", "0.1"]


async def test_cancel_waits_and_logs_what_ends_badly(caplog: pytest.LogCaptureFixture) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise RuntimeError("planted at the end")

    task = asyncio.create_task(stubborn(), name="stubborn")
    await asyncio.sleep(0)
    await tasks.cancel(task, None)
    assert task.done()
    assert "task=stubborn" in caplog.text


def test_a_thread_that_fails_runs_again_until_it_is_stopped(caplog: pytest.LogCaptureFixture) -> None:
    stopping, third = threading.Event(), threading.Event()
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        if len(runs) == 3:
            third.set()
            stopping.wait(10)
            return
        raise RuntimeError("planted")

    thread = tasks.repeat_in_thread(work, "writer", stopping, pause_s=0.01)
    assert third.wait(10)
    stopping.set()
    thread.join(10)
    assert not thread.is_alive()
    assert caplog.text.count("thread=writer") == 2
