"""A worker as its gateway sees it: what it told of itself, and its row in the table."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field

from typing_extensions import TypedDict

from chaku.engines.worker import WorkerEngine
from chaku.protocol.fleet import Command, CommandKind, Join
from chaku.serve.served import Replica, Served


class WorkerRow(TypedDict):
    """A row of GET /fleet."""

    name: str
    state: str
    detail: str
    models: list[str]
    url: str
    host: str
    device: str
    version: str
    slots: int | None
    running: int
    waiting: int
    tokens_per_s: float
    memory_bytes: int | None
    uptime_s: float
    last_beat_s: float
    generation: str


@dataclass(eq=False)
class Worker:
    """A worker that joined, as this gateway sees it."""

    join: Join
    engine: WorkerEngine
    served: Served
    replica: Replica
    lease: str
    heard_at: float
    """Monotonic seconds of the last beat."""
    key_id: str | None
    """Of the join token it came with; None: it needed none."""
    is_draining: bool = False
    """By this gateway's command."""
    why_gone: str | None = None
    commands: dict[CommandKind, Command] = field(default_factory=dict)
    """Given with every answer to a beat, until a beat acknowledges them: an answer may be lost."""
    logs_wanted: list[asyncio.Future[tuple[str, ...]]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Unique among those that are not gone."""
        return self.join.name

    @property
    def state(self) -> str:
        """joining, ready, draining, suspect or gone."""
        if self.why_gone is not None:
            return "gone"
        if self.engine.is_lost:
            return "suspect"
        return "draining" if self.is_draining else self.engine.beat.state

    def command(self, kind: CommandKind) -> None:
        """Have it do something; what it has not acknowledged yet is not commanded twice."""
        self.commands.setdefault(kind, Command(id=secrets.token_hex(8), kind=kind))

    def acknowledge(self, taken: tuple[str, ...]) -> None:
        """Drop the commands with these ids."""
        self.commands = {kind: command for kind, command in self.commands.items() if command.id not in taken}

    def row(self, now: float) -> WorkerRow:
        """The row of GET /fleet; `now` is in monotonic seconds."""
        join, beat = self.join, self.engine.beat
        known = beat.capabilities or join.capabilities
        silent_s = max(0.0, now - self.heard_at)
        return {
            "name": join.name,
            "state": self.state,
            "detail": self.why_gone or (self.engine.status().detail if self.engine.is_lost else beat.detail),
            "models": [join.model],
            "url": join.url,
            "host": join.host,
            "device": join.device,
            "version": join.version,
            "slots": known.slots if known else None,
            "running": beat.running,
            "waiting": beat.waiting,
            "tokens_per_s": round(beat.tokens_per_s, 2),
            "memory_bytes": beat.memory_bytes,
            "uptime_s": round(beat.uptime_s, 1),
            "last_beat_s": round(silent_s, 2),
            "generation": join.generation,
        }
