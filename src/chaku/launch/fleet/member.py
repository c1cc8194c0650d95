"""A worker of a fleet as its keeper sees it: what runs, when it starts again, and how it is to end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from chaku.launch.fleet.processes import Running
from chaku.launch.fleet.scaling import Restarts
from chaku.launch.fleet.spec import Pool


@dataclass
class Member:
    """One worker that is wanted, or was a moment ago."""

    name: str
    pool: Pool
    start_at: float
    """Monotonic seconds of its next start."""
    running: Running | None = None
    began_at: float = 0.0
    restarts: Restarts = field(default_factory=Restarts)
    failure: str = ""
    """Why it is not started again."""
    state: str = "starting"
    """As the gateway's table has it."""
    end_by: float | None = None
    """When it is asked again to end; None while it is wanted."""
    num_asked: int = 0

    def told(self) -> dict[str, Any]:
        """Its row in the record."""
        return {
            "model": self.pool.model,
            "state": "failed" if self.failure else self.state,
            "place": self.running.place if self.running else "",
            "restarts": self.restarts.number,
            "detail": self.failure,
        }
