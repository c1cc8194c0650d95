"""Chooses the replica that takes a request. Pure: numbers in, an index out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Load:
    """The facts about a replica that a policy sees."""

    num_running: int
    """Slots that this gateway's own requests hold there."""
    slots: int | None = None
    """Slots it has. None: unknown."""


def least_loaded(loads: Sequence[Load], random: Random) -> int:
    """The replica with the smallest share of its slots taken; one of unknown size counts as large. Ties: by chance."""
    if len(loads) == 1:
        return 0
    shares = [load.num_running / (load.slots or 64) for load in loads]
    least = min(shares)
    return random.choice([index for index, share in enumerate(shares) if share == least])
