"""Sends a request to a replica, and to another when that fails. Reference: docs/routing.md.

Nothing goes to the client before the first token, so a failure until then is repeated elsewhere unseen. After it, an
answer is continued from the text that was sent, or ends with an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from chaku import tasks
from chaku.engines.base import Block, Call, Hold, State
from chaku.errors import ChakuError, EngineError, EngineUnavailable, Overloaded
from chaku.http_out import NotSent
from chaku.serve.failover.continuation import Continuation, can_be_continued
from chaku.serve.failover.line import Line
from chaku.serve.routing.breaker import RetryBudget
from chaku.serve.routing.load import CallLoad, Work
from chaku.serve.routing.router import Router
from chaku.serve.served import COMES_BACK, LOOK_EVERY_S, WAITS_S, Fitting, Replica, Served
from chaku.serve.traces import Traces

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""Tries until the first token, not counting replicas that could not be reached."""
MAX_CONTINUED = 5
MAX_UNREACHED = 20
_WATCH_EVERY_S = 0.25
SILENT_S = 2.0
"""A call is taken from a replica that is down, once nothing came for so long."""
_DOWN = (State.RESTARTING, State.FAILED, State.STOPPED)


class Sink(Protocol):
    """Takes an answer to the client."""

    async def block(self, block: Block, notes: tuple[str, ...]) -> None:
        """Send a block of a stream; the first call sends the headers."""

    async def whole(self, answer: dict[str, Any], notes: tuple[str, ...]) -> None:
        """Send a complete answer."""


class _NotDelivered(Exception):
    """The sink could not send what a replica said. The replica is not at fault, and another would not help."""

    def __init__(self, error: ChakuError) -> None:
        super().__init__(str(error))
        self.error = error


async def _delivered(sending: Awaitable[None]) -> None:
    """Wait for the sink. Its errors, unlike the engine's, must not look like the replica's."""
    try:
        await sending
    except (EngineError, Overloaded) as error:
        raise _NotDelivered(error) from error


@dataclass
class AdmittedRequest:
    """A request that has its slots, and what became of it so far."""

    served: Served
    fitting: Fitting
    work: Work
    is_stream: bool
    request_id: str
    continues: bool
    """Whether an answer that broke off may be continued."""
    is_asked: bool = False
    """A replica may be working on it, or has worked on what the client got."""
    num_retries: int = 0
    num_attempts: int = 0
    num_unreached: int = 0
    """Attempts that found no connection."""
    has_begun: bool = False
    """The client has a part of the answer."""
    failed: set[Replica] = field(default_factory=set)
    """Replicas that failed it, and have not gone away and come back since."""
    continuation: Continuation | None = None

    def __post_init__(self) -> None:
        if self.is_stream and self.continues and can_be_continued(self.fitting.route, self.fitting.body):
            self.continuation = Continuation()

    @property
    def num_continued(self) -> int:
        """How often its answer was continued."""
        return self.continuation.num_continued if self.continuation is not None else 0


@dataclass(eq=False)
class _Attempt:
    """One try at one replica."""

    request: AdmittedRequest
    replica: Replica
    body: dict[str, Any]
    entry: CallLoad
    began: int
    """As its breaker counts."""
    line: Line = field(default_factory=Line)
    has_token: bool = False


class Dispatcher:
    """Chooses replicas by a router, and repeats what may be repeated."""

    def __init__(self, router: Router, traces: Traces, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._router = router
        self._traces = traces
        self._budget = RetryBudget(clock)
        self._attempts: set[_Attempt] = set()
        self._watch: asyncio.Task[None] | None = None

    async def run(self, request: AdmittedRequest, hold: Hold, sink: Sink) -> None:
        """Answer a request, by as many replicas as it takes. Raises the last failure if no more may be tried.

        The slots of `hold` are kept while any replica still works on it.
        """
        self._budget.earn()
        while True:
            attempt = self._begin(request)
            try:
                with self._traces.attempt(request.served.name, attempt.replica.status().detail, request.num_attempts):
                    await self._try(attempt, hold, sink)
            except _NotDelivered as failure:
                raise failure.error from None
            except (EngineError, Overloaded) as error:
                log.warning("replica failed model=%s why=%r", request.served.name, error.for_log)
                await self._prepare_next(request, attempt, error, sink)
                if request.continuation is not None and request.continuation.is_finished:
                    return
            else:
                return

    def _begin(self, request: AdmittedRequest) -> _Attempt:
        pairs = [pair for pair in request.served.refit(request.fitting).pairs if pair[0] not in request.failed]
        if request.has_begun and request.continuation is not None:
            pairs = [pair for pair in pairs if request.continuation.fits(pair[0].engine.capabilities)]
        if not pairs:
            raise request.served.unavailable()
        pairs = [pair for pair in pairs if pair[0].breaker.allows] or pairs  # where all fail, each may be tried
        index, entry = self._router.send([replica.load for replica, _ in pairs], request.work)
        replica, body = pairs[index]
        if request.has_begun and request.continuation is not None:
            body = request.continuation.resume(body)
        request.num_attempts += 1
        return _Attempt(request, replica, body, entry, replica.breaker.begin())

    async def _try(self, attempt: _Attempt, hold: Hold, sink: Sink) -> None:
        request, replica = attempt.request, attempt.replica
        its_hold = Hold()
        call = Call(request.fitting.route, attempt.body, request.is_stream, request.request_id, its_hold)
        self._watched(attempt)
        request.is_asked = True
        try:
            with replica.running(attempt.entry, its_hold):
                try:
                    async with contextlib.AsyncExitStack() as stack:
                        wait = attempt.line.wait
                        answer = await wait(stack.enter_async_context(replica.engine.ask(call)))
                        if request.is_stream:
                            blocks = aiter(answer.blocks())
                            await self._pass_on(attempt, lambda: wait(anext(blocks, None)), answer.notes, sink)
                        else:
                            whole = await wait(answer.whole())
                            self._note_first(attempt)
                            await _delivered(sink.whole(whole, answer.notes))
                finally:
                    hold.keep_while(its_hold)
        except (EngineError, Overloaded) as error:
            request.is_asked = request.has_begun
            if isinstance(error, EngineError):
                replica.breaker.fail(attempt.began)
            else:
                replica.breaker.leave()
            raise
        except BaseException:
            replica.breaker.leave()
            raise
        finally:
            self._unwatched(attempt)

    async def _pass_on(
        self, attempt: _Attempt, following: Callable[[], Awaitable[Block | None]], notes: tuple[str, ...], sink: Sink
    ) -> None:
        """Send the blocks of an answer; those before its first token wait for it."""
        request, continuation = attempt.request, attempt.request.continuation
        held: list[Block] = []
        while (block := await following()) is not None:
            if not attempt.has_token and not block.num_tokens and not block.is_last:
                held.append(block)
                continue
            if not attempt.has_token:
                self._note_first(attempt)
                request.has_begun = True
            for part in (*held, block):
                if continuation is None:
                    await _delivered(sink.block(part, notes))
                    continue
                for adapted in continuation.adapt(part):
                    continuation.note(adapted)  # first: what is cut off while it is sent was sent
                    await _delivered(sink.block(adapted, notes))
            held.clear()

    def _note_first(self, attempt: _Attempt) -> None:
        attempt.has_token = True
        attempt.entry.read()
        attempt.replica.breaker.succeed()

    async def _prepare_next(self, request: AdmittedRequest, attempt: _Attempt, error: ChakuError, sink: Sink) -> None:
        """Wait until there is a replica for the next try. Raises `error` where there is none to be."""
        request.failed.add(attempt.replica)
        continuation = request.continuation
        if request.has_begun:
            if continuation is None or continuation.num_continued >= MAX_CONTINUED:
                raise error
            if continuation.is_finished or continuation.is_at_limit(request.fitting.body):
                reason = None if continuation.is_finished else "length"
                for block in continuation.ending(finish_reason=reason):
                    await sink.block(block, ())
                continuation.is_finished = True
                return
        if isinstance(error, NotSent):
            request.num_unreached += 1
            if request.num_unreached > MAX_UNREACHED:
                raise error
        elif not request.has_begun and request.num_attempts - request.num_unreached >= MAX_ATTEMPTS:
            raise error
        elif not self._budget.spend(request.served.admission.slots or 0):
            log.warning("no retries left model=%s", request.served.name)
            raise error
        was_accepted = request.num_attempts > request.num_unreached
        if not await self._found_another(request, patient=was_accepted or request.served.was_just_there):
            raise error
        request.num_retries += 1

    async def _found_another(self, request: AdmittedRequest, *, patient: bool) -> bool:
        """Whether there is a replica for the next try, now or, for the `patient`, within WAITS_S."""
        served = request.served
        give_up_at = time.monotonic() + WAITS_S
        while True:
            request.failed = {replica for replica in request.failed if replica.takes_requests}
            if any(self._may_take(request, replica) for replica in served.refresh()):
                return True
            states = (replica.status().state for replica in served.replicas)
            returns = served.was_just_there or any(state in COMES_BACK for state in states)
            if not patient or not returns or time.monotonic() > give_up_at:
                return False
            await asyncio.sleep(LOOK_EVERY_S)

    @staticmethod
    def _may_take(request: AdmittedRequest, replica: Replica) -> bool:
        if replica in request.failed:
            return False
        continuation = request.continuation if request.has_begun else None
        return continuation is None or continuation.fits(replica.engine.capabilities)

    def _watched(self, attempt: _Attempt) -> None:
        self._attempts.add(attempt)
        if self._watch is None:
            self._watch = tasks.repeat(self._keep_watching, "replica-watch")

    def _unwatched(self, attempt: _Attempt) -> None:
        self._attempts.discard(attempt)
        if not self._attempts and self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def _keep_watching(self) -> None:
        """Take calls from replicas that are down and say nothing, where another could take them."""
        while True:
            await asyncio.sleep(_WATCH_EVERY_S)
            silent_since = time.monotonic() - SILENT_S
            for attempt in self._attempts:
                replica = attempt.replica
                if attempt.line.heard_at < silent_since and replica.status().state in _DOWN:
                    others = attempt.request.served.replicas
                    if any(other is not replica and other.takes_requests for other in others):
                        attempt.line.cut(EngineUnavailable(f"{attempt.request.served.name}: {replica.status().detail}"))
