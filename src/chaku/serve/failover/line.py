"""The waits of one call for its replica, which end when the replica is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from chaku.errors import EngineError

Result = TypeVar("Result")


class Line:
    """A call's line to its replica. Only its waits are cut, never the sending of what came: that would lose text."""

    def __init__(self) -> None:
        self.heard_at = time.monotonic()
        """Monotonic seconds of the last thing that came."""
        self._scope: asyncio.Timeout | None = None
        self._error: EngineError | None = None

    async def wait(self, what: Awaitable[Result]) -> Result:
        """Await the replica's next word. Raises the error of `cut`."""
        scope = self._scope = asyncio.timeout(0 if self._error is not None else None)
        try:
            async with scope:
                return await what
        except TimeoutError:
            if scope.expired() and self._error is not None:
                raise self._error from None
            raise
        finally:
            self._scope = None
            self.heard_at = time.monotonic()

    def cut(self, error: EngineError) -> None:
        """End the wait, now or when the next begins. Safe to call again."""
        if self._error is not None:
            return
        self._error = error
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())
