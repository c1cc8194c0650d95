"""The engine seam: what the gateway knows of whatever produces tokens.

An engine is started, says what it can do, answers calls as streams of OpenAI-shaped events, and is stopped. Adding
one (vLLM, transformers, a remote worker) means one new module here; the gateway does not change.
"""

from __future__ import annotations

import asyncio
import enum
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

Route = Literal["chat", "completions", "embeddings"]


class State(enum.StrEnum):
    """Where an engine is in its life."""

    LOADING = "loading"
    READY = "ready"
    UNLOADED = "unloaded"  # stopped after idling; the next call starts it
    RESTARTING = "restarting"
    FAILED = "failed"  # will not come back by itself
    STOPPED = "stopped"


@dataclass(frozen=True)
class Status:
    """What an engine is doing right now."""

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
    """What one model behind one engine honours; anything else is refused by the gateway with the reason.

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
    labels: bool = False
    """Whether it is told what asks for no other answer: user, metadata, safety_identifier, service_tier, ..."""
    context_tokens: int | None = None
    """Tokens one request may use, prompt and answer together. None: unknown (an upstream)."""
    slots: int | None = None
    """Requests decoded at once. None: unknown."""
    embedding_slots: int | None = None
    """Inputs embedded at once, beside the chats. None: unknown."""
    why_not: dict[str, str] = field(default_factory=dict)
    """Field name to the reason why it is refused, for the error message."""


@dataclass(frozen=True)
class Call:
    """One request as the gateway hands it to an engine: validated, in OpenAI's shape, with the API's names."""

    route: Route
    body: dict[str, Any]
    stream: bool
    request_id: str


class Answer(ABC):
    """An answer under way. Exactly one of `whole` and `blocks` is used, according to `Call.stream`."""

    notes: tuple[str, ...] = ()
    """What the caller should know about how the request was treated: short ASCII phrases, for a response header."""

    @abstractmethod
    async def whole(self) -> dict[str, Any]:
        """The complete response object in OpenAI's shape, with usage. Raises EngineError."""

    @abstractmethod
    def blocks(self) -> AsyncIterator[bytes]:
        """Server-sent events as bytes; each block is one or more complete events (`data: ...` and an empty line).

        Every chunk is complete per OpenAI's schema; the last but one carries `usage` with empty `choices`, whether the
        client asked for it or not; the last is `data: [DONE]`. Raises EngineError when the engine dies on the way.
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

        Leaving the context early aborts the generation and returns at once: `settling` has the rest. Raises
        InvalidRequest (the engine's own refusal, in our words), ContextOverflow, EngineUnavailable or EngineError. A
        connection that fails before the first byte is tried again inside, where that costs nothing.
        """

    def settling(self, call: Call) -> asyncio.Future[None] | None:
        """What is done when nothing works any more for a call whose `ask` was left early; None where nothing does."""
        return None

    @abstractmethod
    async def stop(self) -> None:
        """End the engine and every process it started; safe to call twice."""
