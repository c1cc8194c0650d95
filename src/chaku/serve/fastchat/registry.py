"""The FastChat workers of a gateway, by URL: each registers, beats every 45 seconds, and is lost after 90 of silence.

They have no token. The networks of the setting bound who may call, and which addresses are called back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field

from chaku import tasks
from chaku.engines.base import State
from chaku.engines.fastchat import FastChatEngine
from chaku.errors import InvalidRequest, Overloaded
from chaku.protocol.fastchat import BEAT_LEASE_S, HeartBeat, Registration
from chaku.serve.fleet.addresses import CheckedResolver, check_url
from chaku.serve.fleet.worker import WorkerRow
from chaku.serve.networks import Networks
from chaku.serve.served import Replica, Served
from chaku.serve.table import ModelTable
from chaku.settings import ModelConfig

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
MAX_WORKERS = 200


@dataclass(eq=False)
class FastChatWorker:
    """A worker that registered, with one replica for each of its models."""

    url: str
    replicas: list[tuple[Served, Replica]]
    heard_at: float
    """Monotonic seconds of the last beat."""
    beats: bool
    """Whether it sends beats at all."""
    starting: list[asyncio.Task[None]] = field(default_factory=list)
    registered_at: float = field(default_factory=time.monotonic)

    def row(self, now: float) -> WorkerRow:
        """The row of GET /fleet; `now` is in monotonic seconds. Its name is its address."""
        place = self.url.partition("://")[2]
        status = self.replicas[0][1].engine.status()
        return {
            "name": place,
            "state": "ready" if status.state is State.READY else "suspect",
            "detail": status.detail,
            "models": [served.name for served, _ in self.replicas],
            "url": self.url,
            "host": place.rpartition(":")[0] or place,
            "device": "",
            "version": "FastChat",
            "slots": None,
            "running": sum(replica.load.num_running for _, replica in self.replicas),
            "waiting": 0,
            "tokens_per_s": 0.0,
            "memory_bytes": None,
            "uptime_s": round(now - self.registered_at, 1),
            "last_beat_s": round(max(0.0, now - self.heard_at), 2),
            "generation": "",
        }


class FastChatWorkers:
    """The workers by URL. Starts and stops with the gateway."""

    def __init__(self, table: ModelTable, networks: Networks) -> None:
        self._table = table
        self._networks = networks
        self._workers: dict[str, FastChatWorker] = {}
        self._looking: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to look for workers that fell silent."""
        self._looking = tasks.repeat(self._keep_looking, "fastchat-watcher")

    def end_streams(self) -> None:
        """None is kept open."""

    async def stop(self) -> None:
        """End. The workers live on, and register with the next gateway at this address."""
        starting = [task for worker in self._workers.values() for task in worker.starting]
        await tasks.cancel(self._looking, *starting, *self._ending)

    def register(self, told: Registration, *, is_local: bool) -> None:
        """Take a worker in. Its models answer once it has been called back at its URL.

        A worker at the same URL is replaced: it is another process. Raises InvalidRequest for an address that is
        refused, and for a registration without a model; Overloaded.
        """
        url = check_url(told.worker_name, allow_loopback=is_local, networks=self._networks)
        names = told.worker_status.model_names if told.worker_status else ()
        if not names:
            raise InvalidRequest("the registration names no model", param="worker_status.model_names")
        if (known := self._workers.get(url)) is not None:
            self._lose(known, "it registered again")
        if len(self._workers) >= MAX_WORKERS:
            raise Overloaded(f"this gateway has {MAX_WORKERS} FastChat workers already", retry_after_s=60)
        worker = FastChatWorker(url, [], time.monotonic(), told.check_heart_beat)
        for name in dict.fromkeys(names):
            served = self._table.serve(name, ModelConfig(source=name), created=int(time.time()))
            resolver = CheckedResolver(allow_loopback=is_local, networks=self._networks)
            engine = FastChatEngine(name, url, resolver, model=name, silence_s=served.config.deadline_s)
            replica = Replica(engine)
            served.replicas.append(replica)
            worker.replicas.append((served, replica))
            worker.starting.append(tasks.start(served.start_replica(replica), f"{name}-fastchat-start"))
        self._workers[url] = worker
        log.info("FastChat worker registered url=%s models=%s", url, ",".join(names))

    def beat(self, told: HeartBeat) -> bool:
        """Take a beat; False tells the worker to register again."""
        try:
            url = check_url(told.worker_name, allow_loopback=True, networks=self._networks)
        except InvalidRequest:
            return False
        worker = self._workers.get(url)
        if worker is None:
            return False
        worker.heard_at = time.monotonic()
        for _, replica in worker.replicas:
            replica.load.hear(told.queue_length)
        return True

    def rows(self) -> list[WorkerRow]:
        """The workers as rows of GET /fleet. Their protocol tells neither slots nor memory nor speed."""
        now = time.monotonic()
        return [worker.row(now) for worker in self._workers.values()]

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = time.monotonic()
            for worker in tuple(self._workers.values()):
                if not worker.beats and any(
                    replica.engine.status().state is State.READY for _, replica in worker.replicas
                ):
                    worker.heard_at = now
                if now - worker.heard_at > BEAT_LEASE_S:
                    self._lose(worker, f"no beat for {now - worker.heard_at:.0f} s")

    def _lose(self, worker: FastChatWorker, why: str) -> None:
        log.warning("FastChat worker is gone url=%s why=%r", worker.url, why)
        self._workers.pop(worker.url, None)
        for served, replica in worker.replicas:
            replica.is_draining = True
            served.refresh()
            task = tasks.start(self._end(served, replica), f"{served.name}-fastchat-end")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _end(self, served: Served, replica: Replica) -> None:
        await replica.engine.stop()  # first: what runs at a worker that is gone never ends by itself
        await served.remove(replica)
        self._table.forget(served)
