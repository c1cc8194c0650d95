"""Background work that never dies in silence: asyncio tasks and threads with a name and a log line for every failure.

An exception that nobody expected is logged with its traceback. Then the work runs again after a pause (`repeat`,
`repeat_in_thread`), or its owner is told (`start`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

_log = logging.getLogger(__name__)

PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


def start(
    work: Coroutine[Any, Any, None], name: str, *, on_failure: Callable[[Exception], None] | None = None
) -> asyncio.Task[None]:
    """Run `work` once as a task. An exception is logged, passed to `on_failure`, and never raised to whoever awaits."""

    async def run() -> None:
        try:
            await work
        except Exception as error:
            _log.exception("background task failed task=%s", name)
            if on_failure is not None:
                on_failure(error)

    return asyncio.create_task(run(), name=name)


def repeat(work: Callable[[], Awaitable[None]], name: str, *, pause_s: float = PAUSE_S) -> asyncio.Task[None]:
    """Run `work` until it returns. After an exception, log it and run `work` again after a growing pause.

    `work` is usually a loop without an end. The pause doubles up to 30 s while failures follow each other.
    """

    async def run() -> None:
        loop = asyncio.get_running_loop()
        pauses = _Pauses(pause_s)
        while True:
            began = loop.time()
            try:
                return await work()
            except Exception:
                pause = pauses.after(loop.time() - began)
                _log.exception("background task failed task=%s again_in_s=%.1f", name, pause)
                await asyncio.sleep(pause)

    return asyncio.create_task(run(), name=name)


def repeat_in_thread(
    work: Callable[[], None], name: str, stopping: threading.Event, *, pause_s: float = PAUSE_S
) -> threading.Thread:
    """The same as `repeat` in a started daemon thread; `stopping` ends a pause early and work is not repeated."""

    def run() -> None:
        pauses = _Pauses(pause_s)
        while not stopping.is_set():
            began = time.monotonic()
            try:
                return work()
            except Exception:
                pause = pauses.after(time.monotonic() - began)
                _log.exception("background thread failed thread=%s again_in_s=%.1f", name, pause)
                stopping.wait(pause)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


async def cancel(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and wait for their end. What they raise on the way is logged, not raised."""
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    for task, outcome in zip(running, await asyncio.gather(*running, return_exceptions=True), strict=True):
        if isinstance(outcome, Exception):
            _log.error("background task failed while it ended task=%s", task.get_name(), exc_info=outcome)


async def wait_for(event: asyncio.Event, timeout_s: float) -> None:
    """Wait until an event is set, or for so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()


class _Pauses:
    """Doubles from `first_s` up to LONGEST_PAUSE_S; starts again after work that ran for longer than the longest."""

    def __init__(self, first_s: float) -> None:
        self._first_s = first_s
        self._next_s = first_s

    def after(self, ran_s: float) -> float:
        """The pause after a failure of work that ran for so long."""
        if ran_s > LONGEST_PAUSE_S:
            self._next_s = self._first_s
        pause, self._next_s = self._next_s, min(2 * self._next_s, LONGEST_PAUSE_S)
        return pause
