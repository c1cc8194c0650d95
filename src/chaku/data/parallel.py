"""Worker processes, and a map over them whose results come in order with a bounded number of tasks under way."""

from __future__ import annotations

import collections
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from chaku.errors import ChakuError

Task = TypeVar("Task")
Result = TypeVar("Result")


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """The processes of one build. They begin with the first task and serve every stage, so that each imports once."""

    def __init__(self, processes: int) -> None:
        """With one process the tasks run in this one."""
        self.processes = processes
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def ordered_map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[tuple[Task, Result]]:
        """Yield (task, function(task)) in the order of the tasks; at most 2 x processes are read ahead.

        `function` must be importable by name. Raises what `function` raises; tasks that were begun end first.
        """
        if self.processes == 1:
            for task in tasks:
                yield task, function(task)
            return
        waiting: collections.deque[tuple[Task, Future[Result]]] = collections.deque()
        try:
            for task in tasks:
                waiting.append((task, self._started().submit(function, task)))
                if len(waiting) >= 2 * self.processes:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        except BrokenProcessPool:
            raise ChakuError(
                "a worker process died (out of memory?)",
                fix="run the same command again to resume, perhaps with fewer --processes",
            ) from None
        finally:
            begun = [future for _, future in waiting if not future.cancel()]
            wait(begun)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # spawn: a forked child would inherit the locks of threads that Rust and Arrow started here
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.processes, mp_context=context, initializer=_end_with_parent)
        return self._pool


def _end_with_parent() -> None:
    """A worker must not outlive a build that was killed: it could write into the folder of the next one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; begun shards are finished
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
