"""Who may run and who waits: one line per model, first come first served, bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from chaku.errors import Overloaded


@dataclass(eq=False)
class _Turn:
    num_slots: int
    granted: asyncio.Future[None]


class Admission:
    """Lets `slots` requests run at once and `queue_limit` more wait; one more is refused with Overloaded.

    `slots` None means that nobody knows how many the engine takes at once (an upstream): nobody waits.
    """

    def __init__(self, model: str, slots: int | None, queue_limit: int) -> None:
        self.model = model
        self.slots = slots
        self.queue_limit = queue_limit
        self.num_running = 0
        self._waiting: deque[_Turn] = deque()
        self._mean_service_s = 5.0

    @property
    def num_waiting(self) -> int:
        """Requests in line."""
        return len(self._waiting)

    async def enter(self, num_slots: int = 1) -> None:
        """Take `num_slots` slots (a request with n answers takes n), waiting in line for them."""
        wanted = min(num_slots, self.slots) if self.slots is not None else num_slots
        if not self._waiting and self._fits(wanted):
            self.num_running += wanted
            return
        if len(self._waiting) >= self.queue_limit:
            raise Overloaded(
                f"{self.model} is busy: {self.num_running} slots in use and {len(self._waiting)} requests waiting, "
                f"the queue takes {self.queue_limit}",
                fix="try again later, or serve it with more --slots or a larger --queue-limit",
                retry_after_s=self._expected_wait_s(),
            )
        turn = _Turn(wanted, asyncio.get_running_loop().create_future())
        self._waiting.append(turn)
        try:
            await turn.granted
        except asyncio.CancelledError:
            if turn.granted.done() and not turn.granted.cancelled():
                self.leave(wanted)  # the turn came in the same instant: hand it on
            else:
                self._waiting.remove(turn)
                self._wake()
            raise

    def leave(self, num_slots: int = 1, service_s: float | None = None) -> None:
        """Give slots back; `service_s` is how long they were held and feeds Retry-After."""
        self.num_running -= min(num_slots, self.slots) if self.slots is not None else num_slots
        if service_s is not None:
            self._mean_service_s += 0.1 * (service_s - self._mean_service_s)
        self._wake()

    def _fits(self, num_slots: int) -> bool:
        return self.slots is None or self.num_running + num_slots <= self.slots

    def _wake(self) -> None:
        while self._waiting and self._fits(self._waiting[0].num_slots):
            turn = self._waiting.popleft()
            if not turn.granted.done():
                self.num_running += turn.num_slots
                turn.granted.set_result(None)

    def _expected_wait_s(self) -> float:
        rounds = (self.num_waiting + 1) / max(self.slots or 1, 1)
        return max(1.0, round(rounds * self._mean_service_s))
