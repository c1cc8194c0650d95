"""Ends the work on a request when its client has left, or when it is told to."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from chaku.serve.relay import Receive


class ClientLeft(Exception):
    """The client closed its connection before the answer was complete."""


class client_watch:
    """`async with client_watch(receive): ...` cancels the block when the client leaves, and raises ClientLeft then.

    `end` does the same with another error.

    It counts cancellations as `asyncio.timeout` does. So a deadline, a client that leaves and the server's end may come
    in the same turn of the loop. Nothing else may read from `receive` meanwhile.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._why: Exception | None = None

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._num_cancels_before = task.cancelling()
        self._watch = asyncio.create_task(self._wait(), name="client-watch")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.cancel()
        if self._why and self._task.uncancel() <= self._num_cancels_before and kind is asyncio.CancelledError:
            raise self._why from error

    def end(self, why: Exception) -> None:
        """Cancel the block, which raises `why`; the first reason counts."""
        if self._why is None:
            self._why = why
            self._task.cancel()

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.end(ClientLeft())
