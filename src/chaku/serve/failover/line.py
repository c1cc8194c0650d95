"""The waits of one call for its replica, which end when the replica is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from chaku.errors import EngineError

Result = TypeVar("Result")


class Line:
    """A call's line to its replica. Only its waits are cut, never the sending of what came: that would lose text.

    It counts cancellations as `asyncio.timeout` does, at a tenth of the price: there is a wait for every chunk.
    """

    def __init__(self) -> None:
        self.heard_at = time.monotonic()
        """Monotonic seconds of the last thing that came."""
        self._waiting: asyncio.Task[object] | None = None
        """The task that waits at this moment."""
        self._error: EngineError | None = None
        self._is_cancelling = False
        """This line has cancelled the task that waits."""

    async def wait(self, what: Awaitable[Result]) -> Result:
        """Await the replica's next word. Raises the error of `cut`."""
        task = asyncio.current_task()
        assert task is not None
        num_cancels_before = task.cancelling()
        self._waiting = task
        if self._error is not None:  # not at once: what is here already is taken
            asyncio.get_running_loop().call_soon(self._end_wait)
        try:
            return await what
        except asyncio.CancelledError:
            if self._is_cancelling and task.cancelling() - 1 <= num_cancels_before:
                assert self._error is not None
                raise self._error from None
            raise
        finally:
            self._waiting = None
            if self._is_cancelling:
                self._is_cancelling = False
                task.uncancel()
            self.heard_at = time.monotonic()

    def cut(self, error: EngineError) -> None:
        """End the wait, now or when the next begins. Safe to call again."""
        if self._error is None:
            self._error = error
            self._end_wait()

    def _end_wait(self) -> None:
        if self._waiting is not None and not self._is_cancelling:
            self._is_cancelling = True
            self._waiting.cancel()
