"""A worker: the same gateway in front of one engine, with one key, that has joined other gateways."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from chaku import __version__, logs, tasks
from chaku.engines.base import Engine, State
from chaku.engines.worker import told_capabilities
from chaku.errors import ChakuError
from chaku.policies import Limits
from chaku.protocol.fleet import MAX_LOG_LINES, Beat, CommandKind, Join
from chaku.serve.exchange import Exchange
from chaku.serve.served import Served
from chaku.serve.server import Serving
from chaku.serve.worker.machine import address_toward, device_name, resident_bytes
from chaku.serve.worker.membership import Member, Membership

log = logging.getLogger(__name__)

RATE_WINDOW_S = 10.0
MAX_LINE_CHARS = 1000


@dataclass(frozen=True)
class WorkerKey:
    """The one key of a worker, as its gateway's access looks it up; it lives in memory only."""

    token: str
    id: str = "gateway"
    num_active = 1
    num_of_callers = 1
    limits = Limits()

    def __repr__(self) -> str:
        return "WorkerKey(...)"

    def find(self, token: bytes) -> WorkerKey | None:
        """Itself, for the right token."""
        return self if hmac.compare_digest(token, self.token.encode()) else None

    def with_id(self, key_id: str) -> WorkerKey | None:
        """Itself, by its id."""
        return self if key_id == self.id else None

    def has_expired(self, now: datetime) -> bool:
        """It lasts as long as its worker."""
        return False

    def allows(self, scope: str) -> bool:
        """Whether a gateway may do it here."""
        return scope in ("infer", "metrics")


def new_key() -> str:
    """A random key."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True)
class Identity:
    """The facts about a worker that stay as they are."""

    name: str
    key: WorkerKey
    port: int
    scheme: str = "http"
    advertise: str | None = None
    """URL that every gateway is told; None: this machine's address on the way to it."""
    source: str = ""
    certificate: str | None = None
    generation: str = ""

    def url_for(self, gateway: str) -> str:
        """The URL at which a gateway reaches this worker. Raises UsageError."""
        if self.advertise is not None:
            return self.advertise
        address = address_toward(gateway)
        return (
            f"{self.scheme}://[{address}]:{self.port}" if ":" in address else f"{self.scheme}://{address}:{self.port}"
        )


class Throughput:
    """Tokens per second of the answers that ended in the last seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ended: deque[tuple[float, int]] = deque(maxlen=10_000)

    def record(self, exchange: Exchange) -> None:
        """Count a finished exchange."""
        self._ended.append((self._clock(), exchange.completion_tokens))

    def tokens_per_s(self) -> float:
        """The mean over the last ten seconds."""
        since = self._clock() - RATE_WINDOW_S
        return sum(num for at, num in tuple(self._ended) if at >= since) / RATE_WINDOW_S


class WorkerCompanion:
    """Keeps a served model in its gateways. A companion of the gateway in front of the engine."""

    def __init__(
        self,
        identity: Identity,
        serving: Serving,
        served: Served,
        throughput: Throughput,
        new_engine: Callable[[], Engine],
        gateways: tuple[str, ...],
        token: str | None,
        *,
        certificate: str | None = None,
    ) -> None:
        """`new_engine` opens the model again, for a reload."""
        self._identity = identity
        self._serving = serving
        self._served = served
        self._throughput = throughput
        self._new_engine = new_engine
        self._gateways = gateways
        self._refused: set[str] = set()
        self._started = time.monotonic()
        self._device = device_name()
        self._host = socket.gethostname()
        self._is_draining = False
        self._reloading: asyncio.Task[None] | None = None
        self._lines = logs.LastLines(MAX_LOG_LINES)
        self._loop: asyncio.AbstractEventLoop | None = None
        member = Member(self._join, self._beat, self._log_lines, self._take_command, self._take_refusal)
        self._membership = Membership(gateways, token, member, certificate=certificate)
        serving.drain = self.drain
        serving.companions.append(self)

    async def start(self) -> None:
        """Join; the model may still be loading."""
        self._loop = asyncio.get_running_loop()
        logging.getLogger().addHandler(self._lines)
        self._membership.begin()

    def end_streams(self) -> None:
        """No stream here is without an end."""

    async def stop(self) -> None:
        """Leave every gateway."""
        await tasks.cancel(self._reloading)
        await self._membership.leave()
        logging.getLogger().removeHandler(self._lines)

    async def drain(self) -> None:
        """Tell the gateways to send nothing more, and wait until nothing runs or waits here."""
        log.info("draining running=%d waiting=%d", self._num_running, self._num_waiting)
        self._is_draining = True
        await self._membership.told("draining")
        while self._num_running or self._num_waiting:  # noqa: ASYNC110 - both are counts that others keep
            await asyncio.sleep(0.05)
        log.info("drained")

    @property
    def _num_running(self) -> int:
        return self._served.admission.num_running + self._served.embedding_admission.num_running

    @property
    def _num_waiting(self) -> int:
        return self._served.admission.num_waiting + self._served.embedding_admission.num_waiting

    def _beat(self) -> Beat:
        return Beat.model_validate(self._facts())

    def _facts(self) -> dict[str, object]:
        """The fields of a beat. Called from another thread: it only reads."""
        status = self._served.status()
        is_ready = status.state in (State.READY, State.UNLOADED)
        known = self._served.capabilities
        return {
            "name": self._identity.name,
            "generation": self._identity.generation,
            "state": "draining" if self._is_draining else "ready" if is_ready and known else "joining",
            "detail": status.detail[:300],
            "capabilities": told_capabilities(known) if known else None,
            "running": self._num_running,
            "waiting": self._num_waiting,
            "tokens_per_s": self._throughput.tokens_per_s(),
            "memory_bytes": resident_bytes([os.getpid(), *([status.pid] if status.pid else [])]),
            "uptime_s": time.monotonic() - self._started,
        }

    def _join(self, gateway: str) -> Join:
        identity = self._identity
        return Join.model_validate(
            {
                **self._facts(),
                "url": identity.url_for(gateway),
                "key": identity.key.token,
                "certificate": identity.certificate,
                "model": self._served.name,
                "source": identity.source,
                "fallback": self._served.config.fallback,
                "host": self._host[:300],
                "device": self._device[:300],
                "version": __version__,
            }
        )

    def _log_lines(self) -> tuple[str, ...]:
        return tuple(line[:MAX_LINE_CHARS] for line in self._lines.lines())

    def _take_command(self, command: CommandKind) -> None:
        def act() -> None:
            if command == "drain" and not self._is_draining:  # a second end would not wait
                self._is_draining = True
                self._serving.end()
            elif command == "reload" and (self._reloading is None or self._reloading.done()):
                self._reloading = tasks.start(self._reload(), "reload")

        assert self._loop is not None
        self._loop.call_soon_threadsafe(act)

    async def _reload(self) -> None:
        log.info("reloading model=%s", self._served.name)
        for replica in tuple(self._served.replicas):
            removing = tasks.start(self._served.remove(replica), "reload-remove")
            self._membership.beat_now()
            await removing
        await self._served.start(self._new_engine())
        self._membership.beat_now()

    def _take_refusal(self, gateway: str, error: ChakuError) -> None:
        self._refused.add(gateway)
        if self._refused >= {url.rstrip("/") for url in self._gateways}:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._serving.give_up, error)
