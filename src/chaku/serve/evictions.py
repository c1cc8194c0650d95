"""Ends the running requests of callers who are shut out meanwhile.

Their key was revoked or has expired, or they were blocked or deleted. Nothing else ends an answer here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Set

from chaku import tasks
from chaku.errors import AuthenticationFailed, StoreError

LOOK_EVERY_S = 1.0

End = Callable[[Exception], None]
"""Ends a request with an error."""


class Evictions:
    """The callers of running requests, of whom a task asks every second who is shut out."""

    def __init__(self, shut_out: Callable[[Set[str]], Set[str]]) -> None:
        """`shut_out` gives those of some callers who may no longer ask. It may block, and runs in a thread."""
        self._shut_out = shut_out
        self._running: dict[str, set[End]] = {}
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def holding(self, key_id: str | None, end: End) -> Iterator[None]:
        """During the block: `end` it with an AuthenticationFailed once this caller is shut out."""
        if key_id is None:
            yield
            return
        running = self._running.setdefault(key_id, set())
        running.add(end)
        try:
            yield
        finally:
            running.discard(end)
            if not running:
                del self._running[key_id]

    async def start(self) -> None:
        """Begin to look."""
        self._task = tasks.repeat(self._look, "evictions", pause_s=LOOK_EVERY_S)

    def end_streams(self) -> None:
        """Nothing: requests end by themselves."""

    async def stop(self) -> None:
        """Look no more."""
        await tasks.cancel(self._task)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if not (callers := frozenset(self._running)):
                continue
            try:
                shut_out = await asyncio.to_thread(self._shut_out, callers)
            except StoreError:  # the key ring logs it: while the database is away, no revocation arrives
                continue
            for key_id in shut_out:
                for end in list(self._running.get(key_id, ())):
                    end(AuthenticationFailed("the access was withdrawn, or expired, while the answer was written"))
