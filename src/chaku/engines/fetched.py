"""An engine whose model file is fetched, converted and planned when it starts, while the gateway already answers."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import replace

from chaku.engines.base import Answer, Call, Capabilities, Engine, State, Status
from chaku.engines.llamacpp.resources import Resources
from chaku.engines.opening import check_settings, choose_engine, open_engine
from chaku.errors import EngineUnavailable
from chaku.models.fetch.progress import DESCRIPTIONS, Phase, Progress
from chaku.models.fetch.pull import pull
from chaku.models.reference import Reference
from chaku.settings import ModelConfig

log = logging.getLogger(__name__)

_STOP_S = 3.0
"""`stop` waits for so long until a fetch has ended its child processes."""

_RETRY_AFTER_S = 5.0

Drawer = Callable[[str], AbstractContextManager[Progress]]
"""Draws the progress of the model of that name."""


class Opener:
    """Opens the models of one gateway: fetched one after the other, they share its memory and cores."""

    def __init__(self, resources: Resources, draw: Drawer) -> None:
        self.resources = resources
        self.draw = draw
        self.turn = asyncio.Lock()

    def engine(self, name: str, config: ModelConfig, reference: Reference) -> Engine:
        """The engine of a model; one that needs no file is opened now. Raises ConfigError or ModelError."""
        if not choose_engine(name, config, reference).kind.needs_gguf:
            return open_engine(name, config, reference, None, self.resources)
        check_settings(name, config, reference)
        return FetchedEngine(name, config, reference, self)


class _Stopped(Exception):
    """Ends a fetch from inside its progress callback."""


class FetchedEngine(Engine):
    """Fetches its file in a thread, then is the engine that was opened with it."""

    def __init__(self, name: str, config: ModelConfig, reference: Reference, opener: Opener) -> None:
        self.name = name
        self._config = config
        self._reference = reference
        self._opener = opener
        self._engine: Engine | None = None
        self._status = Status(State.LOADING, "waits for its turn", retry_after_s=_RETRY_AFTER_S)
        self._stopping = threading.Event()
        self._fetching: asyncio.Future[Engine] | None = None

    async def start(self) -> None:
        """Fetch, open and start. Raises what `pull`, `open_engine` and the engine's own `start` raise."""
        if self._engine is None:
            async with self._opener.turn:
                self._engine = await self._fetch()
        await self._engine.start()

    async def _fetch(self) -> Engine:
        loop = asyncio.get_running_loop()
        fetching: asyncio.Future[Engine] = loop.create_future()

        def finish(engine: Engine | None, error: BaseException | None) -> None:
            if fetching.done():
                return
            if engine is not None:
                fetching.set_result(engine)
            elif error is not None:
                fetching.set_exception(error)

        def run() -> None:
            engine: Engine | None = None
            failure: BaseException | None = None
            try:
                engine = self._open()
            except BaseException as error:
                failure = error
            try:
                loop.call_soon_threadsafe(finish, engine, failure)
            except RuntimeError:  # the loop is closed: nobody waits any more
                log.info("fetch ended late model=%s", self.name)

        self._fetching = fetching
        # A daemon, not the loop's executor: a connection that hangs must not keep the process from ending.
        threading.Thread(target=run, name=f"{self.name}-fetch", daemon=True).start()
        return await asyncio.shield(fetching)

    def _open(self) -> Engine:
        with self._opener.draw(self.name) as drawn:

            def progress(phase: Phase, done_bytes: int, total_bytes: int | None) -> None:
                if self._stopping.is_set():
                    raise _Stopped
                share = min(1.0, done_bytes / total_bytes) if total_bytes else None
                self._status = replace(self._status, detail=DESCRIPTIONS[phase], progress=share)
                drawn(phase, done_bytes, total_bytes)

            path = pull(self._reference, progress=progress, quant=self._config.quant).path
        self._status = replace(self._status, detail="planning its memory", progress=None)
        return open_engine(self.name, self._config, self._reference, path, self._opener.resources)

    @property
    def capabilities(self) -> Capabilities:
        """The opened engine's."""
        return self._opened.capabilities

    def status(self) -> Status:
        """Progress of the fetch, then the opened engine's status."""
        if self._stopping.is_set() and self._engine is None:
            return Status(State.STOPPED)
        return self._engine.status() if self._engine is not None else self._status

    def ask(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        """Ask the opened engine. Raises EngineUnavailable before there is one."""
        return self._opened.ask(call)

    @property
    def _opened(self) -> Engine:
        if self._engine is None:
            raise EngineUnavailable(f"{self.name} is {self._status.detail}", retry_after_s=_RETRY_AFTER_S)
        return self._engine

    async def stop(self) -> None:
        """End the fetch with its child processes, or the opened engine."""
        self._stopping.set()
        if self._fetching is not None and self._engine is None:
            done, _ = await asyncio.wait({self._fetching}, timeout=_STOP_S)
            if not done:
                log.warning("fetch still waits for its connection; the process ends without it model=%s", self.name)
            elif self._fetching.exception() is None:
                self._engine = self._fetching.result()
        if self._engine is not None:
            await self._engine.stop()
