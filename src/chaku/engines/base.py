"""The engine seam: what the gateway knows of whatever produces tokens.

An engine is started, says what it can do, answers calls as streams of OpenAI-shaped events, and is stopped. Adding
one (vLLM, transformers, a remote worker) means one new module here; the gateway does not change.
"""

from __future__ import annotations

import asyncio
import enum
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

from chaku.protocol.answers import CompletionUsage, choices_of, chunks_of
from chaku.protocol.deltas import text_in

Route = Literal["chat", "completions", "embeddings"]
PROMPT_FIELD: dict[Route, str] = {"chat": "messages", "completions": "prompt", "embeddings": "input"}
"""The field of a request that holds what the model reads; an error about its length names it."""


class State(enum.StrEnum):
    """The state of an engine."""

    LOADING = "loading"
    READY = "ready"
    UNLOADED = "unloaded"  # stopped after idling; the next call starts it
    RESTARTING = "restarting"
    FAILED = "failed"  # will not come back by itself
    STOPPED = "stopped"


@dataclass(frozen=True)
class Status:
    """The current status of an engine."""

    state: State
    detail: str = ""
    """One line for a person: what is loading, why it failed."""
    progress: float | None = None
    """Share of loading done, 0 to 1, where it is known."""
    retry_after_s: float | None = None
    """When to ask again, where it is not ready."""
    pid: int | None = None
    """Process id of the engine's child, where it has one."""
    num_restarts: int = 0


@dataclass(frozen=True)
class Capabilities:
    """The features that one model in one engine honours. The gateway refuses anything else with the reason.

    Read from the engine and from the model's chat template, never guessed from a name.
    """

    routes: frozenset[Route] = frozenset({"chat", "completions"})
    parameters: frozenset[str] = frozenset()
    """Request fields beyond the plain ones (model, messages, prompt, input, stream, ...) that are honoured."""
    tools: bool = False
    vision: bool = False
    remote_images: bool = False
    """Whether image URLs may be passed on for the engine to fetch (an upstream's own business)."""
    reasoning: bool = False
    scores_prompts: bool = False
    """Whether `echo` with `logprobs` gives the log probabilities of the prompt, and `max_tokens: 0` these alone."""
    labels: bool = False
    """Whether it gets fields that do not change the answer: user, metadata, safety_identifier, service_tier, ..."""
    context_tokens: int | None = None
    """Tokens one request may use, prompt and answer together. None: unknown (an upstream)."""
    slots: int | None = None
    """Requests decoded at once. None: unknown."""
    embedding_slots: int | None = None
    """Inputs embedded at once, beside the chats. None: unknown."""
    num_parameters: int | None = None
    """Weights of the model. None: unknown (an upstream)."""
    why_not: dict[str, str] = field(default_factory=dict)
    """Field name to the reason why it is refused, for the error message."""


class Hold:
    """The slots that one call holds. They come back when the call is over and the engine has stopped working on it."""

    def __init__(self) -> None:
        self._working: list[asyncio.Future[None]] = []

    @property
    def is_working(self) -> bool:
        """Whether the engine still works on the call."""
        return any(not future.done() for future in self._working)

    def keep_until(self, stopped: asyncio.Future[None]) -> None:
        """Keep the slots until `stopped` is done: the engine works on although the caller has left."""
        self._working.append(stopped)

    def keep_while(self, other: Hold) -> None:
        """Keep the slots while the engine works on the call of another hold."""
        self._working += other._working

    def when_done(self, give_back: Callable[[], None]) -> None:
        """Call `give_back` once, as soon as the engine does no more work: at once where it does none now."""
        waiting_for = {future for future in self._working if not future.done()}
        if not waiting_for:
            give_back()
            return

        def done(future: asyncio.Future[None]) -> None:
            waiting_for.discard(future)
            if not waiting_for:
                give_back()

        for future in tuple(waiting_for):
            future.add_done_callback(done)


@dataclass(frozen=True)
class Call:
    """One request as the gateway hands it to an engine: validated, in OpenAI's shape, with the API's names."""

    route: Route
    body: dict[str, Any]
    stream: bool
    request_id: str
    hold: Hold = field(default_factory=Hold, compare=False)


class Block:
    """A piece of a stream: one or more whole server-sent events, and what accounting needs to know of them."""

    __slots__ = ("data", "is_last", "is_usage_only", "num_tokens", "usage")

    def __init__(
        self,
        data: bytes,
        *,
        num_tokens: int = 0,
        usage: CompletionUsage | None = None,
        is_usage_only: bool = False,
        is_last: bool = False,
    ) -> None:
        """Take whole events; a chunk with token counts is always a block of its own.

        `num_tokens` is how many pieces of the answer the events carry: a lower bound of their tokens. With
        `is_usage_only` the block holds token counts and no choices: a client that did not ask for it does not get it.
        """
        self.data = data
        self.num_tokens = num_tokens
        self.usage = usage
        self.is_usage_only = is_usage_only
        self.is_last = is_last

    @property
    def text(self) -> str:
        """The answer's text in these events: content of a chat or text of a completion, of its first choice."""
        return "".join(_texts(self.data))


def _texts(data: bytes) -> Iterator[str]:
    for chunk in chunks_of(data):
        for choice in choices_of(chunk):
            if not choice.get("index"):
                yield text_in(choice.get("text") or (choice.get("delta") or {}).get("content"))


class Answer(ABC):
    """An answer under way. Exactly one of `whole` and `blocks` is used, according to `Call.stream`."""

    notes: tuple[str, ...] = ()
    """Notes for the caller on how the request was treated: short ASCII phrases, for a response header."""

    @abstractmethod
    async def whole(self) -> dict[str, Any]:
        """The complete response object in OpenAI's shape, with usage. Raises EngineError."""

    @abstractmethod
    def blocks(self) -> AsyncIterator[Block]:
        """The answer as blocks of server-sent events (`data: ...` and an empty line).

        Every chunk is complete per OpenAI's schema. The last block but one holds only the chunk with `usage` and empty
        `choices`, whether the client asked for it or not; the last block ends with `data: [DONE]`. Raises EngineError
        when the engine dies on the way.
        """


class Engine(ABC):
    """One model, ready to be asked. `name` is what clients call it."""

    name: str

    @abstractmethod
    async def start(self) -> None:
        """Bring the engine up; return when it has generated a token. Raises ModelError or EngineError."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """Known once `start` has returned."""

    @abstractmethod
    def status(self) -> Status:
        """Never blocks."""

    @abstractmethod
    def ask(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        """Send a call; the context is entered when the engine has begun to answer.

        Leaving the context early aborts the generation and returns at once. Where the engine works on for a while, it
        says so with `call.hold.keep_until`. Raises InvalidRequest (the engine's own refusal, in our words),
        ContextOverflow, EngineUnavailable or EngineError. A connection that fails before the first byte is tried again
        inside, where that costs nothing.
        """

    @abstractmethod
    async def stop(self) -> None:
        """End the engine and every process it started; safe to call twice."""
