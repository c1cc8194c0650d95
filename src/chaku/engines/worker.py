"""A worker on another machine as an engine: chaku itself, with one engine behind it.

The worker's gateway has done what its engine needs, so the bytes of an answer are passed through. Its state comes from
its beats: whoever hears them calls `hear` and `lose`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import aiohttp

from chaku.engines.base import Answer, Block, Call, Capabilities, Engine, State, Status
from chaku.engines.openai_speaker import OpenAiSpeaker
from chaku.http_out import NEVER_AGAIN, BrokenOff, NotSent, Transport
from chaku.protocol.fleet import BEAT_EVERY_S, Beat, Join, ToldCapabilities

CONNECT_S = 3.0


class _Heard(Answer):
    """An answer that notes when a part of it came."""

    def __init__(self, answer: Answer, note: Callable[[], None]) -> None:
        self.notes = answer.notes
        self._answer = answer
        self._note = note

    async def whole(self) -> dict[str, Any]:
        """As the answer itself."""
        found = await self._answer.whole()
        self._note()
        return found

    async def blocks(self) -> AsyncIterator[Block]:
        """As the answer itself."""
        async for block in self._answer.blocks():
            self._note()
            yield block


class WorkerEngine(Engine):
    """One model at one worker process. A restarted worker is another engine."""

    def __init__(
        self,
        join: Join,
        resolver: aiohttp.abc.AbstractResolver | None = None,
        *,
        silence_s: float | None = 600.0,
        on_call: Callable[[str, str], None] = lambda request_id, worker: None,
    ) -> None:
        """`resolver` bounds the addresses that the worker's host name may lead to.

        `on_call` is told of every call: the request's id and this worker's name.
        """
        self.name = join.model
        self.worker = join.name
        self.generation = join.generation
        self.beat: Beat = join
        """The last one that was heard."""
        self.answered_at = 0.0
        """Monotonic seconds of the last part of an answer: a worker that answers lives, however late its beats are."""
        self._transport = Transport(
            join.url + "/v1",
            who=f"worker {join.name}",
            headers={"Authorization": f"Bearer {join.key}"},
            retries=NEVER_AGAIN,
            connect_s=CONNECT_S,
            silence_s=silence_s,
            resolver=resolver,
            certificate=join.certificate,
        )
        self._speaker = OpenAiSpeaker(join.model, self._transport)
        self._capabilities = capabilities_of(join.capabilities)
        self._why_lost: str | None = None
        self._is_stopped = False
        self._on_call = on_call
        self._bounds: set[asyncio.Timeout] = set()
        """One for each call under way; it has no limit until the engine is stopped."""

    async def start(self) -> None:
        """Nothing to start: the worker runs."""

    @property
    def capabilities(self) -> Capabilities:
        """As the worker's last beat said."""
        return self._capabilities

    def hear(self, beat: Beat) -> None:
        """Take a beat: it is the worker's state from now on."""
        self.beat = beat
        self._why_lost = None
        if beat.capabilities is not None:
            self._capabilities = capabilities_of(beat.capabilities)

    def lose(self, why: str) -> None:
        """Send nothing there until its next beat."""
        self._why_lost = why

    def _note_answer(self) -> None:
        self.answered_at = time.monotonic()

    @property
    def is_lost(self) -> bool:
        """Whether something went wrong since its last beat."""
        return self._why_lost is not None

    def status(self) -> Status:
        """Ready, if its last beat said so and nothing went wrong since."""
        if self._is_stopped:
            return Status(State.STOPPED, f"worker {self.worker} is gone")
        if self._why_lost is not None:
            return Status(State.RESTARTING, f"worker {self.worker}: {self._why_lost}", retry_after_s=BEAT_EVERY_S)
        if self.beat.state == "ready":
            return Status(State.READY, f"worker {self.worker}")
        detail = f": {self.beat.detail}" if self.beat.detail else ""
        return Status(State.LOADING, f"worker {self.worker} is {self.beat.state}{detail}", retry_after_s=BEAT_EVERY_S)

    @asynccontextmanager
    async def ask(self, call: Call) -> AsyncIterator[Answer]:
        """Send it on. A worker that can't be reached gets no more calls until its next beat.

        Raises BrokenOff as soon as the engine is stopped, besides what the speaker raises.
        """
        self._on_call(call.request_id, self.worker)
        try:
            async with asyncio.timeout(None) as bound:
                self._bounds.add(bound)
                async with self._speaker.ask(call) as answer:
                    yield _Heard(answer, self._note_answer)
        except NotSent as error:
            self.lose(error.message)
            raise
        except TimeoutError:
            if not bound.expired():
                raise
            raise BrokenOff(f"worker {self.worker} is gone") from None
        finally:
            self._bounds.discard(bound)

    async def stop(self) -> None:
        """Close the connections. Answers under way break off at once: a frozen worker would never end them."""
        self._is_stopped = True
        now = asyncio.get_running_loop().time()
        for bound in tuple(self._bounds):
            bound.reschedule(now)
        await self._transport.close()


def capabilities_of(told: ToldCapabilities | None) -> Capabilities:
    """What a worker said of its model; nothing while it loads."""
    if told is None:
        return Capabilities(routes=frozenset())
    fields = told.model_dump()
    return Capabilities(
        **{**fields, "routes": frozenset(told.routes), "parameters": frozenset(told.parameters)},
    )


def told_capabilities(known: Capabilities) -> ToldCapabilities:
    """The same, as a worker says it."""
    return ToldCapabilities.model_validate(
        {**asdict(known), "routes": sorted(known.routes), "parameters": sorted(known.parameters)}
    )
