"""Keeps one child of an engine alive: first start, restarts with growing pauses, unloading when idle, the end.

The `launch` function starts a child and proves that it is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from chaku import tasks
from chaku.engines.base import State, Status
from chaku.engines.process import Child
from chaku.errors import ChakuError, EngineError, EngineUnavailable, ModelError

_log = logging.getLogger(__name__)


class NotEnoughMemory(ModelError):
    """There is too little memory now. Once the model has run, memory may come back, and it is tried again."""


class Running(Protocol):
    """A child that has proved itself, with whatever the engine needs to talk to it."""

    @property
    def child(self) -> Child:
        """The process to watch."""

    async def close(self) -> None:
        """Close connections and stop the child."""


Run = TypeVar("Run", bound=Running)


@dataclass(frozen=True)
class BackOff:
    """Pauses before a restart, in seconds: `first_s`, doubled each time up to `longest_s`, as new after `healthy_s`."""

    first_s: float = 0.5
    longest_s: float = 30.0
    healthy_s: float = 60.0
    most_failures: int = 8
    """The engine is given up after so many failures in a row, none followed by `healthy_s` of life. A restart that
    finds too little memory is no failure."""

    def pause_s(self, failures: int) -> float:
        """The pause after the nth failure in a row, n from 1."""
        return float(min(self.first_s * 2 ** (failures - 1), self.longest_s))


class ChildSupervisor(Generic[Run]):
    """`start`, then `use` for every call, then `stop`."""

    def __init__(
        self,
        name: str,
        launch: Callable[[], Awaitable[Run]],
        *,
        idle_unload_s: float | None = None,
        unload: Callable[[Run], Awaitable[None]] | None = None,
        back_off: BackOff | None = None,
        when_asked: bool = False,
    ) -> None:
        """`launch` starts a child and returns when it is ready. It raises ModelError if trying again is of no use.

        `unload` puts away a child that is idle, by default by closing it. The next call launches, once that is done.
        With `when_asked` there is no need to call `start`: the first `use` does.
        """
        self._name = name
        self._launch = launch
        self._idle_unload_s = idle_unload_s
        self._unload = unload or (lambda run: run.close())
        self._back_off = back_off or BackOff()
        self._state = State.UNLOADED if when_asked else State.STOPPED
        self._detail = ""
        self._retry_at = 0.0
        self._failures = 0
        self._num_restarts = 0
        self._run: Run | None = None
        self._has_run = False
        self._wake_failure: ChakuError | None = None
        self._in_use = 0
        self._last_used = 0.0
        self._starting = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._waker: asyncio.Task[None] | None = None

    def status(self) -> Status:
        """The status of the child."""
        waiting = self._state in (State.LOADING, State.RESTARTING)
        return Status(
            self._state,
            self._detail,
            retry_after_s=max(1.0, self._retry_at - time.monotonic()) if waiting else None,
            pid=self._run.child.pid if self._run else None,
            num_restarts=self._num_restarts,
        )

    @property
    def running(self) -> Run:
        """The running child. Raises EngineUnavailable if there is none."""
        if self._run is None:
            raise self._unavailable()
        return self._run

    async def start(self) -> Run:
        """Launch, or return the running child. Raises what `launch` raises, any other exception as EngineError.

        After a failure the state is FAILED.
        """
        async with self._starting:
            if self._run is not None:
                return self._run
            self._become(State.LOADING, f"loading {self._name}")
            try:
                self._run = await self._launch()
            except asyncio.CancelledError:
                self._become(State.STOPPED)
                raise
            except Exception as error:
                failure = self._as_ours(error)
                self._become(State.FAILED, str(failure))
                raise failure from error
            self._has_run = True
            self._become(State.READY)
            self._last_used = time.monotonic()
            self._keeper = tasks.start(self._keep(self._run), f"{self._name}-keeper", on_failure=self._give_up)
            return self._run

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Run]:
        """Yield the running child, starting an unloaded one. Raises EngineUnavailable while there is none."""
        self._in_use += 1
        try:
            if self._state is State.UNLOADED and self._waker is None:
                self._waker = tasks.start(self._wake(), f"{self._name}-waker")
            if self._waker is not None:
                await asyncio.shield(self._waker)  # other calls wait for it too: one client's hang-up must not end it
            if self._run is None and self._wake_failure is not None:
                raise EngineUnavailable(str(self._wake_failure)) from self._wake_failure
            yield self.running
        finally:
            self._in_use -= 1
            self._last_used = time.monotonic()

    async def _wake(self) -> None:
        self._wake_failure = None
        try:
            await self.start()
        except ChakuError as error:
            self._wake_failure = error
            if self._has_run or not isinstance(error, ModelError) or isinstance(error, NotEnoughMemory):
                self._become(State.UNLOADED, str(error))  # the next call tries again
        finally:
            self._waker = None

    def _as_ours(self, error: Exception) -> ChakuError:
        """The error itself, or an EngineError for one that nobody expected, which is logged."""
        if isinstance(error, ChakuError):
            return error
        _log.error("unexpected error while starting name=%s", self._name, exc_info=error)
        return EngineError(f"{self._name} did not start: {type(error).__name__}: {error}")

    def _give_up(self, error: Exception) -> None:
        self._run = None
        self._become(State.FAILED, f"its supervisor failed: {type(error).__name__}: {error}")

    def _unavailable(self) -> EngineUnavailable:
        status = self.status()
        words = {State.FAILED: "has failed", State.STOPPED: "is stopped"}.get(status.state, f"is {status.state.value}")
        detail = f": {status.detail}" if status.detail else ""
        return EngineUnavailable(f"{self._name} {words}{detail}", retry_after_s=status.retry_after_s)

    async def stop(self) -> None:
        """End the child and whatever watches it; safe to call twice."""
        keeper, self._keeper = self._keeper, None
        await tasks.cancel(keeper, self._waker)
        run, self._run = self._run, None
        self._become(State.STOPPED)
        if run is not None:
            await run.close()

    def _become(self, state: State, detail: str = "") -> None:
        if state is not self._state:
            _log.info("engine %s name=%s%s", state.value, self._name, f" {detail}" if detail else "")
        self._state, self._detail = state, detail

    async def _keep(self, run: Run) -> None:
        """Watch one child after another, until stopped, unloaded or given up."""
        while True:
            since = time.monotonic()
            ended = asyncio.ensure_future(run.child.wait())
            try:
                if await self._idle_or(ended):
                    self._run = None
                    self._become(State.UNLOADED, f"unloaded after {self._idle_unload_s:g} s without a request")
                    async with self._starting:  # the next child has to wait for the memory of this one
                        await self._unload(run)
                    return
                words = run.child.last_words()
                cause = f"the engine {await ended}" + (f" ({words})" if words else "")
            finally:
                ended.cancel()
            if time.monotonic() - since >= self._back_off.healthy_s:
                self._failures = 0
            self._run = None
            self._retry_at = time.monotonic() + 1.0
            self._become(State.RESTARTING, cause)  # before the first await, so that no caller sees it as ready
            try:
                await run.close()
            except Exception:  # what is left of the old child must not keep the new one away
                _log.exception("unexpected error while closing name=%s", self._name)
            next_run = await self._restart(cause)
            if next_run is None:
                return
            run = next_run

    async def _idle_or(self, ended: asyncio.Future[str]) -> bool:
        """True when the child has been idle long enough, False when it has ended."""
        while True:
            patience_s = None
            if self._idle_unload_s is not None:
                patience_s = max(0.05, self._last_used + self._idle_unload_s - time.monotonic())
            await asyncio.wait({ended}, timeout=patience_s)
            if ended.done():
                return False
            if self._in_use == 0 and time.monotonic() - self._last_used >= (self._idle_unload_s or 0):
                return True

    async def _restart(self, cause: str) -> Run | None:
        """The next child, launched after growing pauses; None once the engine is given up."""
        num_short = 0  # tries that found too little memory: their number is not bounded
        self._failures += 1
        while self._failures <= self._back_off.most_failures:
            pause_s = self._back_off.pause_s(self._failures + num_short)
            self._retry_at = time.monotonic() + pause_s + 1.0
            self._become(State.RESTARTING, cause)
            await asyncio.sleep(pause_s)
            self._num_restarts += 1
            try:
                self._run = await self._launch()
            except NotEnoughMemory as error:
                cause = str(error)
                num_short += 1
            except ModelError as error:
                self._become(State.FAILED, str(error))
                return None
            except Exception as error:
                cause = str(self._as_ours(error))
                self._failures += 1
            else:
                self._become(State.READY)
                self._last_used = time.monotonic()
                return self._run
        self._become(State.FAILED, f"gave up after {self._failures} failures in a row; the last: {cause}")
        return None
