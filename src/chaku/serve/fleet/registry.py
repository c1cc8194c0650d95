"""The workers of a gateway: each joins, beats every two seconds, and leaves or is lost.

A worker that has joined is a replica of its model. What it may be asked follows from its beats; who gets a call is
decided elsewhere.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import Callable

from chaku import tasks
from chaku.engines.worker import WorkerEngine
from chaku.errors import Conflict, EngineUnavailable, InvalidRequest, NotFound, Overloaded
from chaku.nearest import did_you_mean
from chaku.protocol.fleet import BEAT_EVERY_S, MISSED_BEATS, Beat, Heard, Join, Joined, Leave
from chaku.serve.fleet.addresses import CheckedResolver, check_url
from chaku.serve.fleet.callback import call_back
from chaku.serve.fleet.recent import RecentRequests, RequestRow
from chaku.serve.fleet.worker import Worker, WorkerRow
from chaku.serve.served import Replica
from chaku.serve.table import ModelTable
from chaku.settings import ModelConfig

log = logging.getLogger(__name__)

LEASE_S = BEAT_EVERY_S * MISSED_BEATS
SUSPECT_S = BEAT_EVERY_S * 1.5 + 0.5
"""A worker that is silent for so long gets no new requests."""
LOOK_EVERY_S = 0.25
KEPT_GONE_S = 600.0
"""A worker that is gone stays in the table for so long."""
MAX_WORKERS = 1000
MAX_CALL_BACKS = 16
LOGS_S = 3 * BEAT_EVERY_S


class Fleet:
    """The workers by name. Starts and stops with the gateway."""

    def __init__(self, table: ModelTable, may_stay: Callable[[str | None], bool] = lambda key_id: True) -> None:
        """`may_stay` takes the id of a worker's join token (None: it needed none): does it still let it in?"""
        self._table = table
        self._may_stay = may_stay
        self.recent = RecentRequests()
        self.others: Callable[[], list[WorkerRow]] = list
        """Rows of workers that joined by another protocol; they take no commands."""
        self._workers: dict[str, Worker] = {}
        self._call_backs = asyncio.Semaphore(MAX_CALL_BACKS)
        self._looking: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to look for workers that fell silent."""
        self._looking = tasks.repeat(self._keep_looking, "fleet-watcher")

    def end_streams(self) -> None:
        """Nobody waits for logs any more."""
        for worker in self._workers.values():
            for wanted in worker.logs_wanted:
                wanted.cancel()

    async def stop(self) -> None:
        """End. The workers live on, and join the next gateway at this address."""
        await tasks.cancel(self._looking, *self._ending)

    def rows(self) -> list[WorkerRow]:
        """The table, in the order of joining; those that are gone too, for a while."""
        now = time.monotonic()
        return [*(worker.row(now) for worker in self._workers.values()), *self.others()]

    def requests(self) -> list[RequestRow]:
        """The last requests of this gateway, the newest first."""
        return self.recent.rows()

    async def join(self, join: Join, *, is_local: bool, key_id: str | None = None) -> Joined:
        """Take a worker in, after a call-back to its URL; `is_local` says that it connects from this machine.

        `key_id` is of its join token: once that is revoked, the worker is gone, and answers that run there break off.

        Raises InvalidRequest where it can't be reached or may not be, Conflict where another has its name, Overloaded.
        """
        join = join.model_copy(update={"url": check_url(join.url, allow_loopback=is_local)})
        if len(self._workers) >= MAX_WORKERS and join.name not in self._workers:
            raise Overloaded(f"this gateway has {MAX_WORKERS} workers already", retry_after_s=60)
        async with self._call_backs:
            await call_back(join, allow_loopback=is_local)
            await self._check_name(join)
        known = self._workers.get(join.name)
        if known is not None and known.why_gone is None:
            if (known.join.generation, known.join.url) == (join.generation, join.url):
                return self._renew(known, join, key_id)
            self._lose(known, "a newer process has its name")
        worker = self._take_in(join, CheckedResolver(allow_loopback=is_local), key_id)
        log.info("worker joined worker=%s model=%s url=%s state=%s", join.name, join.model, join.url, join.state)
        if join.fallback is not None and join.fallback not in self._table:
            log.warning("worker's fallback is not served (yet) worker=%s fallback=%r", join.name, join.fallback)
        return Joined(lease=worker.lease)

    async def _check_name(self, join: Join) -> None:
        """Raises Conflict if another process with this name still answers at its URL."""
        known = self._workers.get(join.name)
        if known is None or known.why_gone is not None or known.join.generation == join.generation:
            return
        try:
            await call_back(known.join, allow_loopback=True)
        except InvalidRequest:
            return
        raise Conflict(
            f"another worker is called {join.name!r}, and answers at {known.join.url}",
            fix="choose another with --name NAME",
            param="name",
            code="worker_name_taken",
        )

    def _renew(self, worker: Worker, join: Join, key_id: str | None) -> Joined:
        worker.key_id = key_id
        worker.lease = secrets.token_urlsafe(32)
        self._take_beat(worker, join)
        return Joined(lease=worker.lease)

    def _take_in(self, join: Join, resolver: CheckedResolver, key_id: str | None) -> Worker:
        config = ModelConfig(source=join.source or join.model, fallback=join.fallback)
        served = self._table.serve(join.model, config, created=int(time.time()))
        if not served.is_configured:  # of a model that only workers serve, the newest one says it
            served.config = served.config.model_copy(update={"fallback": join.fallback})
        engine = WorkerEngine(join, resolver, silence_s=served.config.deadline_s, on_call=self.recent.sent)
        replica = Replica(engine)
        served.replicas.append(replica)
        worker = Worker(join, engine, served, replica, secrets.token_urlsafe(32), time.monotonic(), key_id)
        gone = self._workers.pop(join.name, None)
        if gone is not None and gone.join.generation == join.generation:  # the same process: its commands still hold
            worker.is_draining = replica.is_draining = gone.is_draining
            worker.commands = gone.commands
            worker.acknowledge(join.taken)
        self._workers[join.name] = worker
        served.refresh()
        return worker

    def beat(self, beat: Beat) -> Heard:
        """Take a beat; the answer has the commands that the worker has not acknowledged.

        Raises NotFound for a worker that has to join again, Conflict for one that another process has replaced.
        """
        worker = self._find(beat)
        self._take_beat(worker, beat)
        return Heard(commands=tuple(worker.commands.values()))

    def leave(self, leave: Leave) -> None:
        """Let a worker go: what runs there may end. Raises as `beat`."""
        worker = self._find(leave)
        worker.why_gone = "it left"
        log.info("worker left worker=%s model=%s", worker.name, worker.join.model)
        self._end(worker, breaks=False)

    def _find(self, message: Beat | Leave) -> Worker:
        worker = self._workers.get(message.name)
        if worker is None or worker.why_gone is not None:
            raise NotFound(f"no worker {message.name!r} is here", fix="join again", code="not_joined")
        if worker.join.generation != message.generation:
            raise Conflict(f"another process is worker {message.name!r} now", code="superseded")
        if not hmac.compare_digest(worker.lease.encode(), message.lease.encode("utf-8", "surrogatepass")):
            raise NotFound(f"worker {message.name!r} has another lease", fix="join again", code="not_joined")
        return worker

    def _take_beat(self, worker: Worker, beat: Beat) -> None:
        before = worker.state
        worker.heard_at = time.monotonic()
        worker.acknowledge(beat.taken)
        worker.engine.hear(beat)
        worker.replica.load.hear(beat.running + beat.waiting)
        worker.served.refresh()
        if beat.logs is not None:
            for wanted in worker.logs_wanted:
                if not wanted.done():
                    wanted.set_result(beat.logs)
            worker.logs_wanted.clear()
        if worker.state != before:
            log.info("worker is %s worker=%s before=%s", worker.state, worker.name, before)

    def drain(self, name: str) -> None:
        """Send a worker no new requests; it ends once its running ones are over. Raises NotFound."""
        worker = self.find(name)
        worker.is_draining = worker.replica.is_draining = True
        worker.served.refresh()
        worker.command("drain")
        log.info("worker drains worker=%s", name)

    def reload(self, name: str) -> None:
        """Have a worker restart its engine, once its running requests are over. Raises NotFound."""
        self.find(name).command("reload")
        log.info("worker reloads worker=%s", name)

    async def logs(self, name: str) -> tuple[str, ...]:
        """The last log lines of a worker, with its next beat. Raises NotFound, EngineUnavailable if no beat comes."""
        worker = self.find(name)
        wanted: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        worker.logs_wanted.append(wanted)
        worker.command("logs")
        try:
            async with asyncio.timeout(LOGS_S):
                return await wanted
        except TimeoutError:
            raise EngineUnavailable(f"worker {name!r} sent no beat for {LOGS_S:g} s", retry_after_s=LOGS_S) from None
        finally:
            if wanted in worker.logs_wanted:
                worker.logs_wanted.remove(wanted)

    def find(self, name: str) -> Worker:
        """The worker of that name, which is not gone. Raises NotFound with the nearest name."""
        worker = self._workers.get(name)
        if worker is None or worker.why_gone is not None:
            here = [other.name for other in self._workers.values() if other.why_gone is None]
            fix = did_you_mean(name, here, f"workers here: {', '.join(here) or 'none'}")
            raise NotFound(f"no worker {name[:100]!r} is here", fix=fix)
        return worker

    async def _keep_looking(self) -> None:
        expected = time.monotonic()
        while True:
            now = time.monotonic()
            if (late_s := now - expected) > BEAT_EVERY_S / 2:  # this process slept: the beats wait in its sockets
                for worker in self._workers.values():
                    worker.heard_at += late_s
            self._look(now)
            expected = now + LOOK_EVERY_S
            await asyncio.sleep(LOOK_EVERY_S)

    def _look(self, now: float) -> None:
        """Suspect who is silent, lose who stays silent or may not stay, forget who is gone for long."""
        for worker in list(self._workers.values()):
            silent_s = now - max(worker.heard_at, worker.engine.answered_at)
            if worker.why_gone is not None:
                if silent_s > KEPT_GONE_S:
                    self._forget(worker)
            elif not self._may_stay(worker.key_id):  # its beats are refused, but parts of its answers count as beats
                self._lose(
                    worker, "its join token is no longer valid" if worker.key_id else "joining needs a token now"
                )
            elif silent_s > LEASE_S:
                self._lose(worker, f"no beat for {silent_s:.0f} s")
            elif silent_s > SUSPECT_S and not worker.engine.is_lost:
                worker.engine.lose(f"no beat for {silent_s:.0f} s")
                worker.served.refresh()
                log.warning("worker is suspect worker=%s silent_s=%.1f", worker.name, silent_s)

    def _lose(self, worker: Worker, why: str) -> None:
        log.warning("worker is gone worker=%s model=%s why=%r", worker.name, worker.join.model, why)
        worker.why_gone = why
        self._end(worker, breaks=True)

    def _end(self, worker: Worker, *, breaks: bool) -> None:
        """Take its replica out; with `breaks`, answers under way there break off at once."""
        worker.replica.is_draining = True
        worker.served.refresh()

        async def end() -> None:
            if breaks:
                await worker.engine.stop()
            await worker.served.remove(worker.replica)

        task = tasks.start(end(), f"{worker.name}-end")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _forget(self, worker: Worker) -> None:
        del self._workers[worker.name]
        self._table.forget(worker.served)
