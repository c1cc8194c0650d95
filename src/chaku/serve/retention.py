"""The job that deletes what has been kept for long enough; it runs with the gateway, with and without a page."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from chaku import tasks

log = logging.getLogger(__name__)

EVERY_S = 3600.0


class RetentionJob:
    """Calls `forget` at the start and every hour; it says how many rows of each kind are gone."""

    def __init__(self, forget: Callable[[datetime], Mapping[str, int]], every_s: float = EVERY_S) -> None:
        self._forget = forget
        self._every_s = every_s
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._running = tasks.repeat(self._keep_forgetting, "retention")

    def end_streams(self) -> None:
        """There are none."""

    async def stop(self) -> None:
        """End."""
        await tasks.cancel(self._running)

    async def _keep_forgetting(self) -> None:
        while True:
            gone = await asyncio.to_thread(self._forget, datetime.now(UTC))
            if any(gone.values()):
                log.info("old data deleted %s", " ".join(f"{kind}={number}" for kind, number in gone.items()))
            await asyncio.sleep(self._every_s)
