"""Who hears how a build goes on: a progress bar, a log, a benchmark, or nobody."""

from __future__ import annotations

from typing import Protocol

from chaku.data.ledger import StageCounts


class Watcher(Protocol):
    """Hears how a build goes on."""

    def note(self, line: str) -> None:
        """A fact worth telling."""

    def began(self, phase: str, total: int | None) -> None:
        """A phase of so many shards begins; None: how many is not known yet."""

    def advanced(self, phase: str, done: int, counts: dict[str, StageCounts]) -> None:
        """A shard was worked on, `done` are there now; `counts` are of this shard."""


class Silent:
    """Tells nobody."""

    def note(self, line: str) -> None:
        """Nothing."""

    def began(self, phase: str, total: int | None) -> None:
        """Nothing."""

    def advanced(self, phase: str, done: int, counts: dict[str, StageCounts]) -> None:
        """Nothing."""
