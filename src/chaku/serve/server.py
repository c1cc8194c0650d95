"""Put the gateway together and run it: engines, access, metrics, usage, the socket, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import ipaddress
import logging
import random
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import uvicorn
from fastapi import FastAPI

from chaku import tasks
from chaku.config import DEFAULT_PORT, MAX_PORT
from chaku.errors import ChakuError, UsageError
from chaku.serve.access import Access, ActiveKeys
from chaku.serve.app import build_app
from chaku.serve.connection import ConnectionLimits, connections
from chaku.serve.failover.dispatch import Dispatcher
from chaku.serve.fastchat.registry import FastChatWorkers
from chaku.serve.fastchat.routes import add_fastchat_routes
from chaku.serve.fleet.gauges import WorkerGauges
from chaku.serve.fleet.registry import Fleet
from chaku.serve.fleet.routes import NoteAdmin, add_fleet_routes, note_nothing
from chaku.serve.gateway import Gateway, UsageSink
from chaku.serve.limits import LimitCounters, RateLimits
from chaku.serve.metrics import Metrics
from chaku.serve.moderation.moderator import Moderator
from chaku.serve.moderation.own_api import OwnApi
from chaku.serve.moderation.routes import add_moderation_route
from chaku.serve.ollama import add_ollama_routes
from chaku.serve.routing.router import Router
from chaku.serve.table import ModelTable
from chaku.serve.tls import Tls, read_tls
from chaku.serve.traces import Traces
from chaku.settings import ServeConfig

log = logging.getLogger(__name__)

_ENDINGS = (signal.SIGINT, signal.SIGTERM)
MAX_FILES = 65_536
NEW_OBJECTS = 20_000
"""The garbage collector looks for cycles after so many, a few megabytes."""
GRACE_S = 5
"""Running answers get so long to end after Ctrl-C."""


class Companion(Protocol):
    """A part that starts and stops with the gateway: the page."""

    async def start(self) -> None:
        """Begin; the event loop runs."""

    def end_streams(self) -> None:
        """Close connections that would never end by themselves, since the gateway is about to stop."""

    async def stop(self) -> None:
        """End; requests are over, the store is still open."""


@dataclass
class Serving:
    """A gateway and what belongs to it."""

    table: ModelTable
    app: FastAPI
    gateway: Gateway
    access: Access
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    companions: list[Companion] = field(default_factory=list)
    own_api: OwnApi | None = None
    """The gateway as its own client; it has an address once the gateway listens."""
    moderator: Moderator | None = None
    tls: Tls | None = None
    """The certificate that is shown; None: plain HTTP."""
    fleet: Fleet | None = None
    """The workers that joined; None where none may."""
    drain: Callable[[], Awaitable[None]] | None = None
    """The wait between the first signal and the end: requests are still answered."""
    give_up: Callable[[Exception], None] = lambda error: None
    """Ends a running gateway with an error."""
    end: Callable[[], None] = lambda: None
    """Ends a running gateway as a signal does: it drains first."""


def build(
    config: ServeConfig,
    table: ModelTable,
    keys: ActiveKeys,
    record_usage: UsageSink,
    counters: LimitCounters | None = None,
    note_admin: NoteAdmin = note_nothing,
    *,
    traces: Traces | None = None,
) -> Serving:
    """Wire a gateway over `table`. Without `counters`, no key may have limits. `note_admin` writes the audit log.

    Without `traces` there are none.

    Raises ConfigError where `config` would let strangers in.
    """
    access = Access(config, keys)
    table.default = config.score_model
    metrics = Metrics(table)
    app = build_app(table, metrics)
    connection_limits = ConnectionLimits(num_connections=config.max_connections, body_s=config.body_timeout_s)
    fleet = Fleet(table, access.may_stay) if config.joins else None
    if fleet is not None:
        metrics.add(WorkerGauges(fleet))
        record_usage = fleet.recent.before(record_usage)
    spans = traces or Traces()
    router = Router(config.routing, random.Random())  # noqa: S311 - no secret
    limits = RateLimits(
        counters, config.prices, turns=config.conversation_turns, input_characters=config.input_characters
    )
    tls = read_tls(config)
    own_api = OwnApi(lambda: access.inside_token(None), tls.fingerprint if tls else None)
    moderator = Moderator(config.moderation, metrics.moderation, own_api.ask) if config.moderation else None
    add_moderation_route(app, moderator, limits)
    add_ollama_routes(app, table)
    gateway = Gateway(
        table,
        access,
        metrics,
        record_usage,
        app,
        Dispatcher(router, spans),
        limits,
        moderator,
        spans,
        images=config.image_limits,
        continue_answers=config.continue_answers,
    )
    serving = Serving(table, app, gateway, access, connection_limits, tls=tls, own_api=own_api, moderator=moderator)
    serving.companions.append(access.evictions)
    if traces is not None:
        serving.companions.append(traces)
    if config.fastchat_networks:
        networks = tuple(ipaddress.ip_network(network) for network in config.fastchat_networks)
        workers = FastChatWorkers(table, networks)
        serving.companions.append(workers)
        if fleet is not None:
            fleet.others = workers.rows
        add_fastchat_routes(app, workers, table, access, config.public_url)
    if fleet is not None:
        serving.fleet = fleet
        serving.companions.append(fleet)
        add_fleet_routes(app, fleet, access, note_admin)
    return serving


def settings(serving: Serving, *, grace_s: int = GRACE_S) -> uvicorn.Config:
    """uvicorn's settings for this gateway."""
    return uvicorn.Config(
        serving.gateway,
        loop="none",
        http=connections(serving.limits),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=grace_s,
        ssl_certfile=serving.tls.certificate if serving.tls else None,
        ssl_keyfile=serving.tls.key if serving.tls else None,
    )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UsageError that names the port and the way out."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UsageError(
            f"can't listen on {host}:{port}: {(error.strerror or str(error)).lower()}", fix=_way_out(error, port)
        ) from None
    listener.listen(2048)
    return listener


def _way_out(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        another = f"another with --port {port + 1}, or " if port < MAX_PORT else ""
        return f"take {another}--port 0 for a free one"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"ports below 1024 are the administrator's: take one above, such as --port {DEFAULT_PORT}"
    return "--host takes an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them"


class GatewayServer(uvicorn.Server):
    """Leaves signals to `run`: uvicorn would raise them again at its end, before engines and store are closed."""

    def __init__(self, config: uvicorn.Config, companions: list[Companion]) -> None:
        super().__init__(config)
        self._companions = companions

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for running requests, having ended those that would not."""
        for companion in self._companions:
            companion.end_streams()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def run(serving: Serving, listener: socket.socket, on_listening: Callable[[], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, which are a normal end; a second one does not wait for running answers.

    The API answers at once; models come up beside it. Raises the error of a model that can't be started, after
    stopping everything.
    """
    server = GatewayServer(settings(serving), serving.companions)
    loop = asyncio.get_running_loop()
    ending = _Ending(server, serving.drain)
    for number in _ENDINGS:
        loop.add_signal_handler(number, ending)
    failures: list[Exception] = []

    async def start_models() -> None:
        try:
            await serving.table.start()
        except ChakuError as error:  # the table has logged it
            give_up(error)

    def give_up(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    serving.give_up, serving.end = give_up, ending
    _raise_file_limit()
    # What is loaded by now stays: the collector need not walk it again while requests come and go. By default it walks
    # the rest after every 700 new objects, which is each second or third request, for a tenth of the CPU.
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
    starting = tasks.start(start_models(), "model-start", on_failure=give_up)
    if on_listening is not None:
        loop.call_soon(on_listening)
    try:
        for companion in serving.companions:
            await companion.start()
        await server.serve(sockets=[listener])
    finally:
        await tasks.cancel(starting, ending.draining)
        for companion in serving.companions:
            await tasks.start(companion.stop(), "page-stop")  # a failure here must not leave engines running
        if serving.moderator is not None:
            await serving.moderator.close()
        await serving.table.stop()
        for number in _ENDINGS:
            loop.remove_signal_handler(number)
    if failures:
        raise failures[0]


def _raise_file_limit() -> None:
    """Each connection and each call of an engine is an open file; many systems start programs with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS has a lower limit that it does not name
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Ending:
    """Handles signals: the first drains, where there is something to drain; the next ends; one more does not wait."""

    def __init__(self, server: uvicorn.Server, drain: Callable[[], Awaitable[None]] | None) -> None:
        self._server = server
        self._drain = drain
        self.draining: asyncio.Task[None] | None = None

    def __call__(self) -> None:
        if self._drain is not None and self.draining is None:
            self.draining = tasks.start(self._drain_and_end(self._drain), "drain", on_failure=lambda _: self._end())
        else:
            self._end()

    async def _drain_and_end(self, drain: Callable[[], Awaitable[None]]) -> None:
        await drain()
        self._server.should_exit = True

    def _end(self) -> None:
        self._server.force_exit = self._server.should_exit
        self._server.should_exit = True
