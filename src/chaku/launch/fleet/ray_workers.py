"""Workers as actors of Ray. The keeper's side: Ray itself is only loaded in the child `ray_host`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from chaku import tasks
from chaku.engines.process import Child, python_argv
from chaku.errors import UsageError
from chaku.launch.fleet.spec import FleetConfig, Pool

_PAUSE_S = 1.0
_LOST = 1
"""Exit code of workers whose host is gone."""


@dataclass
class ActorWorker:
    """One worker, as its host saw it last."""

    name: str
    host: RayWorkers
    exit_code: int | None = None
    place: str = "Ray"
    lines: list[str] = field(default_factory=list)

    def ask_to_end(self) -> None:
        """Have it drain and end."""
        self.host.send({"do": "end", "name": self.name})

    def kill(self) -> None:
        """End it at once."""
        self.host.send({"do": "kill", "name": self.name})

    def last_lines(self) -> list[str]:
        """The end of its log."""
        return self.lines


class RayWorkers:
    """Starts workers through a child process that speaks to Ray, and starts that again when it is lost."""

    def __init__(self, fleet: FleetConfig, token: str | None) -> None:
        self._config = {"address": fleet.ray.address, "name": fleet.name, "token": token}
        self._child: Child | None = None
        self._workers: dict[str, ActorWorker] = {}
        self._unsent: list[dict[str, Any]] = []
        self._running: asyncio.Task[None] | None = None
        self.node_address = ""
        """This machine's address among the nodes."""

    async def open(self) -> None:
        """Connect to Ray. Raises UsageError with its last words where that fails."""
        connected = asyncio.Event()
        self._running = tasks.repeat(lambda: self._run(connected), "ray-host", pause_s=_PAUSE_S)
        waiting = asyncio.create_task(connected.wait())
        while not waiting.done():
            await asyncio.wait({waiting}, timeout=0.1)
            if self._child is not None and not self._child.is_running and not connected.is_set():
                waiting.cancel()
                why = self._child.last_words() or next(reversed(self._child.tail), "it ended")
                raise UsageError(f"Ray can't be reached: {why}", fix="start a node with: ray start --head")

    async def _run(self, connected: asyncio.Event) -> None:
        """One life of the child."""
        child = await Child.spawn(python_argv("chaku.launch.fleet.ray_host"), config=self._config, name="ray")
        self._child = child
        try:
            while (message := await child.next_message()) is not None:
                if "is_connected" in message:
                    self.node_address = message["address"]
                    connected.set()
                    unsent, self._unsent = self._unsent, []
                    for command in unsent:
                        child.send(command)
                else:
                    self._take(message)
        finally:
            for worker in self._workers.values():
                worker.exit_code = _LOST if worker.exit_code is None else worker.exit_code
            await child.stop()
        raise ConnectionResetError(f"the process that speaks to Ray ended: {child.last_words()}")

    def _take(self, message: dict[str, Any]) -> None:
        worker = self._workers.get(message["name"])
        if worker is None:
            return
        worker.exit_code, worker.lines = message["code"], message["lines"]
        pid = message.get("pid")
        worker.place = f"Ray, process {pid}" if pid else "Ray, waits for a node"

    def send(self, command: dict[str, Any]) -> None:
        """Have the child do something, now or once it is there."""
        if self._child is not None and self._child.is_running and self.node_address:
            self._child.send(command)
        else:
            self._unsent.append(command)

    def start(self, name: str, pool: Pool, settings: dict[str, Any]) -> ActorWorker:
        """Have Ray place a worker where what it needs is free."""
        resources = {
            "num_cpus": pool.cpus or 1,
            "num_gpus": pool.gpus,
            **({"memory": int(pool.memory_gb * 1e9)} if pool.memory_gb else {}),
            **({"accelerator_type": pool.gpu} if pool.gpu else {}),
        }
        worker = self._workers[name] = ActorWorker(name, self)
        self.send({"do": "start", "name": name, "settings": settings, "resources": resources})
        return worker

    async def close(self) -> None:
        """Disconnect: what is left of the actors ends."""
        await tasks.cancel(self._running)
        if self._child is not None:
            await self._child.stop()
