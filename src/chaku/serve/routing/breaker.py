"""Limits on repeated tries: a breaker per replica, a budget of retries per gateway. Pure: the clock is passed in."""

from __future__ import annotations

from collections.abc import Callable

FAILURES_TO_OPEN = 5
OPEN_S = 30.0
SUCCESSES_TO_CLOSE = 2
RETRIES_PER_REQUEST = 0.2
RETRIES_PER_S = 1.0
RESERVE = 100.0
"""Retries that are allowed at once: the calls that one dying replica leaves at the same moment."""


class Breaker:
    """Spares a replica that failed five times in a row for 30 s; then it gets one call at a time, until two succeed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` counts seconds."""
        self._clock = clock
        self._num_failures = 0
        self._num_events = 0
        """Failures that counted, ever."""
        self._num_successes = 0
        self._opened_at: float | None = None
        self._has_probe = False

    @property
    def allows(self) -> bool:
        """Whether a call may go there."""
        if self._opened_at is None:
            return True
        return not self._has_probe and self._clock() - self._opened_at >= OPEN_S

    @property
    def is_open(self) -> bool:
        """Whether it has failed too often, and not yet succeeded since."""
        return self._opened_at is not None

    def begin(self) -> int:
        """Note that a call goes there. One of `succeed`, `fail` (with what this returns) and `leave` follows."""
        self._has_probe = self._opened_at is not None
        return self._num_events

    def succeed(self) -> None:
        """Note that a call got its first token."""
        self._num_failures = 0
        self._has_probe = False
        if self._opened_at is not None:
            self._num_successes += 1
            if self._num_successes >= SUCCESSES_TO_CLOSE:
                self._opened_at = None

    def fail(self, began: int) -> None:
        """Note that a call failed by the replica's fault. Calls that one event breaks off together count once."""
        if began != self._num_events:
            return
        self._num_events += 1
        self._num_failures += 1
        self._num_successes = 0
        self._has_probe = False
        if self._opened_at is not None or self._num_failures >= FAILURES_TO_OPEN:
            self._opened_at = self._clock()

    def leave(self) -> None:
        """Note that a call ended without a verdict: its client left."""
        self._has_probe = False


class RetryBudget:
    """Retries are at most a fifth of the requests, beyond a reserve: a failing fleet gets no storm on top."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` counts seconds."""
        self._clock = clock
        self._left = RESERVE
        self._filled_at = clock()

    def earn(self) -> None:
        """Note a request."""
        self._left = min(RESERVE, self._left + RETRIES_PER_REQUEST)

    def spend(self, reserve: int) -> bool:
        """Take one retry, if there is one. The budget is never smaller than `reserve` slots that can fail at once."""
        now = self._clock()
        self._left = min(RESERVE, self._left + (now - self._filled_at) * RETRIES_PER_S)
        self._filled_at = now
        if self._left + max(0.0, reserve - RESERVE) < 1 - 1e-9:
            return False
        self._left -= 1
        return True
