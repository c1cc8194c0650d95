"""Events of one battle turn, numbered, for any number of readers that come and go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from chaku.web.streams import Numbered


class Feed:
    """`add` tells all readers; `end` lets them go. Numbers are greater than those of any earlier feed."""

    def __init__(self) -> None:
        self._first = time.time_ns() // 1_000_000
        self._events: list[dict[str, Any]] = []
        self._is_over = False
        self._news = asyncio.Event()

    def add(self, event: Mapping[str, Any]) -> None:
        """One more event."""
        self._events.append(dict(event))
        self._wake()

    def end(self) -> None:
        """No more will come."""
        self._is_over = True
        self._wake()

    async def read(
        self, after: int | None, snapshot: Callable[[], Awaitable[Mapping[str, Any]]]
    ) -> AsyncGenerator[Numbered]:
        """What comes after event `after`; where that is none of these, a snapshot first, and then what is new."""
        at = -1 if after is None else after - self._first
        if not 0 <= at <= len(self._events):
            event = dict(await snapshot())
            at = len(self._events)  # of the moment at which the snapshot was complete: nothing ran in between
            yield self._first + at, event
        while True:
            news = self._news
            while at < len(self._events):
                event = self._events[at]
                at += 1
                yield self._first + at, event
            if self._is_over:
                return
            await news.wait()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
