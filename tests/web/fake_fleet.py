"""The workers of a gateway as the page is told of them, without a gateway."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from chaku.errors import NotFound
from chaku.serve.fleet.recent import RequestRow
from chaku.serve.fleet.worker import WorkerRow


def worker_row(name: str, state: str = "ready", **changed: Any) -> WorkerRow:
    """A row of GET /fleet."""
    row: WorkerRow = {
        "name": name, "state": state, "detail": "", "models": ["vicuna-7b"], "url": "http://10.0.0.7:9001",
        "host": "gpu-box", "device": "NVIDIA A100", "version": "0.1.0", "slots": 4, "running": 1, "waiting": 0,
        "tokens_per_s": 41.5, "memory_bytes": 900 * 2**20, "uptime_s": 4000.0, "last_beat_s": 0.7, "generation": "1",
    }  # fmt: skip
    return {**row, **changed}  # type: ignore[typeddict-item]


def request_row(number: int) -> RequestRow:
    """A finished request."""
    return {
        "id": f"req-{number}", "time": 1_795_000_000.0 + number, "model": "vicuna-7b", "route": "chat",
        "workers": ["gpu-1", "gpu-2"] if number % 2 else [], "status": 200, "error": None, "queue_s": 0.01,
        "first_token_s": 0.25, "duration_s": 1.5, "prompt_tokens": 20, "cached_tokens": 8, "completion_tokens": 60,
    }  # fmt: skip


@dataclass
class FakeFleet:
    """Tells what it is given, and notes what it is told."""

    workers: list[WorkerRow] = field(default_factory=list)
    finished: list[RequestRow] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)

    def rows(self) -> list[WorkerRow]:
        return self.workers

    def requests(self) -> list[RequestRow]:
        return self.finished

    def drain(self, name: str) -> None:
        self._tell("drain", name)

    def reload(self, name: str) -> None:
        self._tell("reload", name)

    async def logs(self, name: str) -> list[str]:
        self._tell("logs", name)
        return ["12:00:00 INFO  joined gateway", "12:00:01 INFO  <b>answered</b>"]

    def _tell(self, what: str, name: str) -> None:
        if name not in {row["name"] for row in self.workers}:
            raise NotFound(f"no worker {name!r} is here")
        self.told.append((what, name))
