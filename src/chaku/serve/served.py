"""One served model: its queue, and the replicas behind it with the state of each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from chaku.engines.base import Capabilities, Engine, Hold, Route, State, Status
from chaku.errors import ChakuError, EngineUnavailable, InvalidRequest
from chaku.serve import capability
from chaku.serve.admission import Admission
from chaku.serve.routing.breaker import Breaker
from chaku.serve.routing.load import CallLoad, Load
from chaku.settings import ModelConfig

log = logging.getLogger(__name__)

_TAKES_REQUESTS = (State.READY, State.UNLOADED)
COMES_BACK = (State.LOADING, State.RESTARTING)
WAITS_S = 10.0
"""A request waits so long for workers that were there a moment ago, or for a replica in the place of one that died."""
LOOK_EVERY_S = 0.05
_BEST_FIRST = (*_TAKES_REQUESTS, *COMES_BACK, State.FAILED, State.STOPPED)


@dataclass(eq=False)
class Replica:
    """One engine that serves a model, and the requests of this gateway that run there."""

    engine: Engine
    load: Load = field(default_factory=lambda: Load(time.monotonic))
    """The requests of this gateway, and what beats say of others'."""
    breaker: Breaker = field(default_factory=lambda: Breaker(time.monotonic))
    failure: ChakuError | None = None
    """Why it could not be started."""
    is_draining: bool = False
    """It takes no new requests."""
    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    _process: tuple[int | None, int] | None = None
    """Of the engine, as of the last `notice_restart`."""

    def __post_init__(self) -> None:
        self._idle.set()

    @property
    def num_running(self) -> int:
        """Slots that requests of this gateway hold."""
        return self.load.num_running

    def status(self) -> Status:
        """The engine's status, or the failure to start it."""
        if self.failure is not None:
            return Status(State.FAILED, str(self.failure))
        return self.engine.status()

    @property
    def takes_requests(self) -> bool:
        """Whether a new request may go there."""
        if self.is_draining or self.failure is not None:
            return False
        return self.engine.status().state in _TAKES_REQUESTS

    def notice_restart(self) -> None:
        """If the engine's process is another than before, note that its prompt cache is empty."""
        status = self.engine.status()
        process = (status.pid, status.num_restarts)
        if self._process not in (None, process):
            self.load.lose_cache()
        self._process = process

    @contextlib.contextmanager
    def running(self, call: CallLoad, hold: Hold) -> Iterator[None]:
        """Keep a call in the books during the block, and until the engine has stopped working for `hold`."""
        self._idle.clear()
        try:
            yield
        finally:
            hold.when_done(lambda: self._end(call))

    def _end(self, call: CallLoad) -> None:
        call.end()
        if not self.num_running:
            self._idle.set()

    async def drained(self) -> None:
        """Wait until no request runs here."""
        await self._idle.wait()


@dataclass(frozen=True, slots=True)
class Fitting:
    """A request, and the replicas that could honour it when it was checked."""

    route: Route
    body: dict[str, Any]
    generation: int
    """Of the set of available replicas."""
    pairs: list[tuple[Replica, dict[str, Any]]]
    """Each replica with the body as its engine gets it."""


@dataclass(eq=False)
class Served:
    """One model: a queue, and the replicas behind it. Replicas may come and go while requests run."""

    name: str
    config: ModelConfig
    created: int
    replicas: list[Replica] = field(default_factory=list)
    is_configured: bool = False
    """The gateway was started with it; another came with a worker."""

    def __post_init__(self) -> None:
        limit = self.config.queue_limit
        self.admission = Admission(self.name, None, limit)
        self.embedding_admission = Admission(self.name, None, limit)
        """Embeddings have slots of their own, so that they take none from chats."""
        self._available: list[Replica] = []
        """As of the last `refresh`."""
        self._generation = 0
        self._available_at = -WAITS_S

    def admission_of(self, route: Route) -> Admission:
        """The queue that requests of this route wait in."""
        return self.embedding_admission if route == "embeddings" else self.admission

    def status(self) -> Status:
        """The best replica's status; restarts of all replicas together."""
        statuses = [replica.status() for replica in self.replicas] or [Status(State.LOADING, "waits for a replica")]
        best = min(statuses, key=lambda status: _BEST_FIRST.index(status.state))
        num_restarts = sum(status.num_restarts for status in statuses)
        return Status(best.state, best.detail, best.progress, best.retry_after_s, best.pid, num_restarts)

    @property
    def capabilities(self) -> Capabilities | None:
        """The capabilities of the first available replica, its slots included. None while no replica is available.

        `admission.slots` has the slots of all replicas.
        """
        return next((replica.engine.capabilities for replica in self.replicas if replica.takes_requests), None)

    @property
    def failure(self) -> ChakuError | None:
        """The first replica's failure if no replica could be started, else None."""
        failures = [replica.failure for replica in self.replicas]
        return failures[0] if failures and None not in failures else None

    def refresh(self) -> list[Replica]:
        """Look which replicas take requests now, tell the queues their number of slots, and return the replicas.

        While no replica takes requests, the queues keep the last number.
        """
        available = [replica for replica in self.replicas if replica.takes_requests]
        if available:
            self._available_at = time.monotonic()
        if available != self._available:
            self._available = available
            self._generation += 1
            known = [replica.engine.capabilities for replica in available]
            for replica in available:
                replica.load.slots = replica.engine.capabilities.slots
                replica.notice_restart()
            if known:
                self.admission.slots = _sum([one.slots for one in known])
                self.embedding_admission.slots = _sum([one.embedding_slots for one in known])
        return available

    def fit(self, route: Route, body: dict[str, Any]) -> Fitting:
        """The replicas that can honour a request, of those that the last `refresh` found.

        Raises the first replica's InvalidRequest if none can, EngineUnavailable if none is available.
        """
        if not self._available:
            raise self.unavailable()
        pairs: list[tuple[Replica, dict[str, Any]]] = []
        refusal: InvalidRequest | None = None
        for replica in self._available:
            try:
                wanted = capability.fit(self.name, route, body, replica.engine.capabilities)
            except InvalidRequest as error:
                refusal = refusal or error
            else:
                pairs.append((replica, wanted))
        if refusal is not None and not pairs:
            raise refusal
        return Fitting(route, body, self._generation, pairs)

    def refit(self, fitting: Fitting) -> Fitting:
        """The replicas that can honour a request now: some may have come or gone while it waited. Raises as `fit`."""
        self.refresh()
        return fitting if fitting.generation == self._generation else self.fit(fitting.route, fitting.body)

    @property
    def was_just_there(self) -> bool:
        """Whether it is served by workers, and one took requests a moment ago: another may join at any time."""
        return not self.is_configured and time.monotonic() - self._available_at < WAITS_S

    def unavailable(self) -> EngineUnavailable:
        """The error for a request while no replica takes requests: the reason, and when to come back, if ever."""
        if (failure := self.failure) is not None:
            return EngineUnavailable(f"{self.name} could not be started: {failure.message}", fix=failure.fix)
        status = self.status()
        detail = f" ({status.detail})" if status.detail else ""
        retry_after_s = (status.retry_after_s or 2.0) if status.state in COMES_BACK else None
        return EngineUnavailable(f"{self.name} is {status.state}{detail}", retry_after_s=retry_after_s)

    async def start(self, engine: Engine) -> Replica:
        """Add a replica and start its engine; requests go there once it is ready. A failure stays on the replica."""
        replica = Replica(engine)
        self.replicas.append(replica)
        await self.start_replica(replica)
        return replica

    async def start_replica(self, replica: Replica) -> None:
        """Start the engine of a replica that was added before."""
        try:
            await replica.engine.start()
        except ChakuError as error:
            replica.failure = error
            log.error("model failed model=%s error=%s", self.name, error)
            return
        except Exception as error:
            log.exception("model failed model=%s", self.name)
            replica.failure = EngineUnavailable(f"unexpected {type(error).__name__}: {error}", fix="see the log")
            return
        self.refresh()
        if replica.engine.status().state is not State.READY:
            return  # an upstream that is away: the log has its reason, and it comes back by itself
        known = replica.engine.capabilities
        log.info(
            "model ready model=%s slots=%s tokens_per_request=%s %s",
            self.name,
            known.slots or "unknown",
            known.context_tokens or "unknown",
            replica.engine.status().detail,
        )

    async def remove(self, replica: Replica) -> None:
        """Send no more requests to a replica, wait until those that run are over, then stop its engine."""
        replica.is_draining = True
        self.refresh()
        await replica.drained()
        self.replicas.remove(replica)
        await replica.engine.stop()


def _sum(slots: list[int | None]) -> int | None:
    return sum(known) if len(known := [number for number in slots if number is not None]) == len(slots) else None
