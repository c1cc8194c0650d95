"""Admission: requests run or wait in one bounded queue per model, first come first served."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from chaku.engines.base import Hold
from chaku.errors import Overloaded


@dataclass(eq=False)
class _Turn:
    """One request in the queue."""

    num_wanted: int
    granted: asyncio.Future[None]
    num_taken: int = 0


class Admission:
    """Lets requests run while their slots fit, and `queue_limit` more wait; one more is refused with Overloaded.

    `slots` may change at any time. None means that nobody knows how many requests the engine takes at once (an
    upstream): nobody waits.
    """

    def __init__(self, model: str, slots: int | None, queue_limit: int) -> None:
        self.model = model
        self.queue_limit = queue_limit
        self.num_running = 0
        """Slots taken. More than `slots` for a while after `slots` was reduced."""
        self._slots = slots
        self._waiting: deque[_Turn] = deque()
        self._mean_service_s = 5.0

    @property
    def slots(self) -> int | None:
        """Slots that requests may take at once."""
        return self._slots

    @slots.setter
    def slots(self, slots: int | None) -> None:
        self._slots = slots
        self._grant()

    @property
    def num_waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @contextlib.asynccontextmanager
    async def hold(self, num_slots: int = 1) -> AsyncIterator[Hold]:
        """Wait for `num_slots` slots (a request with n answers takes n) and hold them in the block.

        A request for more slots than there are takes all of them. After the block the slots come back when everything
        that was passed to `Hold.keep_until` is done; nobody waits for that. Raises Overloaded when the queue is full.
        """
        num_taken = await self._take(num_slots)
        since = time.monotonic()
        hold = Hold()
        try:
            yield hold
        finally:
            hold.when_done(lambda: self._give_back(num_taken, time.monotonic() - since))

    async def _take(self, num_wanted: int) -> int:
        if not self._waiting and (num_fitting := self._fitting(num_wanted)) is not None:
            self.num_running += num_fitting
            return num_fitting
        if len(self._waiting) >= self.queue_limit:
            raise Overloaded(
                f"{self.model} is busy: {self.num_running} slots in use and {len(self._waiting)} requests waiting, "
                f"the queue takes {self.queue_limit}",
                fix="try again later, or serve it with more --slots or a larger --queue-limit",
                retry_after_s=self._expected_wait_s(),
            )
        turn = _Turn(num_wanted, asyncio.get_running_loop().create_future())
        self._waiting.append(turn)
        try:
            await turn.granted
        except BaseException:
            # The slots may have been granted in the same loop turn in which the caller gave up.
            if turn.num_taken:
                self.num_running -= turn.num_taken
            else:
                self._waiting.remove(turn)
            self._grant()
            raise
        return turn.num_taken

    def _give_back(self, num_taken: int, service_s: float) -> None:
        self.num_running -= num_taken
        self._mean_service_s += 0.1 * (service_s - self._mean_service_s)
        self._grant()

    def _fitting(self, num_wanted: int) -> int | None:
        """The number of slots that the request would take now; None if it has to wait."""
        if self._slots is None:
            return num_wanted
        num_taken = max(1, min(num_wanted, self._slots))
        return num_taken if self.num_running + num_taken <= self._slots else None

    def _grant(self) -> None:
        """Let requests in from the front while they fit. If a caller gave up, its turn stays until it removes it."""
        given_up: list[_Turn] = []
        while self._waiting:
            turn = self._waiting[0]
            if turn.granted.done():
                given_up.append(self._waiting.popleft())
                continue
            num_taken = self._fitting(turn.num_wanted)
            if num_taken is None:
                break
            self._waiting.popleft()
            turn.num_taken = num_taken
            self.num_running += num_taken
            turn.granted.set_result(None)
        self._waiting.extendleft(reversed(given_up))

    def _expected_wait_s(self) -> float:
        rounds = (self.num_waiting + 1) / max(self._slots or 1, 1)
        return max(1.0, round(rounds * self._mean_service_s))
