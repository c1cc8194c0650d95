"""How many workers a model needs, from what runs and waits. Pure: clock and figures are passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass

IDLE_S = 60.0
"""A worker that was not needed for so long goes."""


@dataclass(frozen=True)
class Demand:
    """The requests of one model at a gateway, and the slots that its workers have together."""

    running: int
    waiting: int
    slots: int | None


@dataclass
class Scaler:
    """Moves a number of workers between two bounds.

    It grows at once by what the queue would fill, and shrinks by one worker after a minute in which fewer would do.
    """

    fewest: int
    most: int
    number: int
    _needed_since: float | None = None
    """Since when fewer workers would do."""

    def look(self, demand: Demand, num_ready: int, now: float) -> int:
        """The number of workers from now on; `now` is in monotonic seconds.

        Nothing moves before the workers that are wanted are there: those that load would be counted twice.
        """
        per_worker = max(1, (demand.slots or 0) // num_ready) if num_ready else 1
        needed = math.ceil((demand.running + demand.waiting) / per_worker)
        if demand.waiting and num_ready >= self.number:
            self.number = min(self.most, max(self.number + 1, needed))
        if needed >= self.number or demand.waiting:
            self._needed_since = None
        elif self._needed_since is None:
            self._needed_since = now
        elif now - self._needed_since >= IDLE_S and self.number > self.fewest:
            self.number -= 1
            self._needed_since = now
        self.number = min(self.most, max(self.fewest, self.number))
        return self.number


@dataclass
class Restarts:
    """The pauses between the starts of one process: 1, 2, 4 ... 30 s while it keeps ending; 1 s after a long life."""

    number: int = 0
    _in_a_row: int = 0

    def pause_s(self, lived_s: float) -> float:
        """The pause before the next start of a process that lived for so long."""
        self._in_a_row = 0 if lived_s > LONG_LIFE_S else self._in_a_row
        pause = min(FIRST_PAUSE_S * 2.0**self._in_a_row, LONGEST_PAUSE_S)
        self.number += 1
        self._in_a_row += 1
        return pause


FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
LONG_LIFE_S = 60.0
