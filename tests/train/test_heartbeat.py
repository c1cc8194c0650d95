"""A process that is lost ends the others, though they wait where no signal and no exception reaches them."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from typing import Any

import pytest
from torch.distributed import TCPStore

from chaku.errors import TrainingError
from chaku.train import heartbeat
from train import small


def started(number: int, work: Any) -> list[int]:
    """Run `work(rank, store)` in forked processes that meet in a store; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def child(rank: int) -> None:
        work(rank, TCPStore("127.0.0.1", port, number, is_master=rank == 0, wait_for_workers=True))

    children = []
    for rank in range(number):
        if (process := os.fork()) == 0:
            os._exit(max(0, small.in_fork(lambda: child(rank))))  # noqa: B023 (this child leaves the loop here)
        children.append(process)
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in children]


def test_processes_that_hang_in_c_end_when_another_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_LEAVE_WITHIN_S", 0.2)

    def work(rank: int, store: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with heartbeat.heartbeat(store, rank, 3, every_s=0.05, lost_after_s=1.0):
            if rank == 2:
                time.sleep(0.3)
                small.kill_self()
            threading.Event().wait(60)  # as a collective would, for ever

    began = time.monotonic()
    codes = started(3, work)
    assert codes[:2] == [TrainingError.exit_code] * 2
    assert time.monotonic() - began < 30


def test_an_error_in_one_process_is_told_to_the_others() -> None:
    def work(rank: int, store: Any) -> None:
        with heartbeat.heartbeat(store, rank, 2, every_s=0.05, lost_after_s=30) as beat:
            if rank == 1:
                raise TrainingError("out of memory")
            while beat.lost is None:
                time.sleep(0.01)
            beat.check()

    assert started(2, work) == [TrainingError.exit_code] * 2


def test_processes_that_end_one_after_another_lose_nobody() -> None:
    def work(rank: int, store: Any) -> None:
        with heartbeat.heartbeat(store, rank, 2, every_s=0.05, lost_after_s=0.5) as beat:
            if rank == 0:
                time.sleep(1.2)
                assert beat.lost is None
        time.sleep(1.5 * rank)  # the store is in process 0: it may not go first

    assert started(2, work)[0] == 0


def test_one_process_watches_nothing() -> None:
    before = threading.active_count()
    with heartbeat.heartbeat(None, 0, 1) as beat:
        assert threading.active_count() == before and beat.lost is None
