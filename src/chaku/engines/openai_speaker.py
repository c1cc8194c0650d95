"""Speaks to a server with OpenAI's API: turns a call into a request, and its bytes into an answer.

It starts nothing and watches nothing. A URL somewhere else (`upstream`) and a child on this machine are spoken to in
the same way; where a server differs from OpenAI's API, its `Dialect` says how.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import aiohttp
import orjson

from chaku.engines.base import PROMPT_FIELD, Answer, Block, Call, Route
from chaku.engines.blocks import blocks_of_events
from chaku.engines.sse_blocks import sse_blocks
from chaku.errors import ChakuError, ContextOverflow, EngineError
from chaku.http_out import Retries, Transport, read_json
from chaku.protocol.answers import event
from chaku.protocol.errors import error_from, error_in_stream, retry_after_s

Given = TypeVar("Given")
Taken = TypeVar("Taken")
_ONCE = Retries(limit=0)
"""For a look that is repeated anyway."""


class Conforms(Protocol):
    """Makes one answer of a server conform to OpenAI's API."""

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The complete answer."""

    def events(self, events: bytes) -> list[Block]:
        """Whole server-sent events as blocks."""


@dataclass(frozen=True)
class Dialect:
    """The differences of a server from OpenAI's API."""

    renamed: Mapping[str, str] = field(default_factory=dict)
    """Request fields that have another name there, such as repetition_penalty."""
    added: Mapping[str, Any] = field(default_factory=dict)
    """Fields that every request there needs."""
    paths: Mapping[Route, str] = field(
        default_factory=lambda: {
            "chat": "/chat/completions",
            "completions": "/completions",
            "embeddings": "/embeddings",
        }
    )
    """After the base URL."""
    conforming: Callable[[str, Call], Conforms] | None = None
    """Rewrites the answers of a server whose answers differ, by our name of the model and the call."""


class OpenAiSpeaker:
    """One model at one server. The server's refusal of a request is the caller's; trouble with our key is not."""

    def __init__(
        self, name: str, transport: Transport, *, model: str | None = None, dialect: Dialect | None = None
    ) -> None:
        """`name` is what clients call the model, `model` what the server calls it; None: the same."""
        self.name = name
        self.model = model
        self._transport = transport
        self._dialect = dialect or Dialect()

    async def models(self) -> list[str] | None:
        """Names of the models that the server lists; None if it has no list. Asks once. Raises EngineError."""
        status, answer = await self._transport.json("GET", "/models", retries=_ONCE)
        answer = self._without_key(answer)
        if status in (404, 405, 501):
            return None
        if status != 200:
            raise EngineError(f"GET /models answered {status}: {_message(status, answer)}")
        try:
            return [str(row["id"]) for row in answer["data"]]
        except (TypeError, KeyError):
            raise EngineError("GET /models answered something that is not a list of models") from None

    @asynccontextmanager
    async def ask(self, call: Call) -> AsyncIterator[Answer]:
        """Send a call; entered when the server answers with 200. Raises what its refusal means, or as `Transport`."""
        model = self.model or self.name
        body = {self._dialect.renamed.get(name, name): value for name, value in call.body.items()}
        body = {**body, **self._dialect.added, "model": model}
        if call.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        async with self._transport.request("POST", self._dialect.paths[call.route], body) as response:
            if response.status != 200:
                raise await self._refusal(response, call.route)
            conforms = self._dialect.conforming(self.name, call) if self._dialect.conforming else None
            yield _PassedAnswer(response, self.name, self._transport, renames=model != self.name, conforms=conforms)

    async def _refusal(self, response: aiohttp.ClientResponse, route: Route) -> ChakuError:
        if response.status < 400:
            what = "redirects, which is not followed" if response.status >= 300 else f"answered {response.status}"
            return EngineError(f"{self.name}: the upstream {what}", fix="give its final URL")
        answer = self._without_key(await read_json(response, who=self._transport.who))
        error = error_from(response.status, answer)
        if response.status in (401, 403):
            error = EngineError(
                f"{self.name}: the upstream refuses chaku's key: {error.message}", fix="check api_key_env of this model"
            )
        elif response.status == 404:
            error = EngineError(f"{self.name}: {error.message}", fix="check upstream_model of this model")
        else:
            error.retry_after_s = retry_after_s(response.headers.get("Retry-After"))
        if isinstance(error, ContextOverflow):
            error.param = PROMPT_FIELD[route]  # vLLM names input_tokens, which no request has
        error.quotes_server = True
        return error

    def _without_key(self, answer: Any) -> Any:
        """What a server answered, without the key that chaku sent it: callers of chaku read its errors."""
        return orjson.loads(self._transport.hide_key(orjson.dumps(answer)))


class _PassedAnswer(Answer):
    def __init__(
        self,
        response: aiohttp.ClientResponse,
        name: str,
        transport: Transport,
        *,
        renames: bool,
        conforms: Conforms | None = None,
    ) -> None:
        self._response = response
        self._name = name
        self._who = transport.who
        self._hide_key = transport.hide_key
        self._renames = renames
        self._conforms = conforms

    async def whole(self) -> dict[str, Any]:
        """The server's object under our model name."""
        answer = await read_json(self._response, who=self._who)
        if not isinstance(answer, dict) or not isinstance(answer.get("choices", answer.get("data")), list):
            raise EngineError(f"{self._who} answered something that is neither a completion nor an embedding")
        if self._conforms is not None:
            return self._conform(self._conforms.whole, answer)
        return {**answer, "model": self._name}

    async def blocks(self) -> AsyncIterator[Block]:
        """The server's bytes, rewritten only if its name for the model is another. Its error event is raised."""
        async for block in sse_blocks(self._response, who=self._who):
            error: ChakuError | None = None
            if b'"error"' in block:
                block, error = _split_at_error(self._hide_key(block), self._who)
            if block:
                for whole_events in self._read(block):
                    yield whole_events
            if error is not None:
                raise error

    def _conform(self, rewrite: Callable[[Given], Taken], content: Given) -> Taken:
        """What the rewriting makes of it. Raises EngineError for content that has another shape than any answer."""
        try:
            return rewrite(content)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise EngineError(f"{self._who} sent an answer in a shape that is not OpenAI's") from None

    def _read(self, events: bytes) -> list[Block]:
        if self._conforms is not None:
            return self._conform(self._conforms.events, events)
        if self._renames:
            events = _rename(events, self._name, self._who)
        try:
            return blocks_of_events(events)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise EngineError(f"{self._who} sent token counts in an event that is not a JSON object") from None


def _rename(block: bytes, name: str, who: str) -> bytes:
    events = []
    for text in block.split(b"\n\n"):
        if text.startswith(b"data: {"):
            chunk = _object_in(text, who)
            chunk["model"] = name
            events.append(event(chunk))
        elif text:
            events.append(text + b"\n\n")
    return b"".join(events)


def _split_at_error(block: bytes, who: str) -> tuple[bytes, ChakuError | None]:
    """The events before an error event, and the error."""
    at = 0
    for text in block.split(b"\n\n"):
        if text.startswith((b'data: {"error"', b'error: {"')):
            return block[:at], error_in_stream(_object_in(text, who))
        at += len(text) + 2
    return block, None


def _object_in(line: bytes, who: str) -> dict[str, Any]:
    """The JSON object after `data: ` or `error: `. Raises EngineError naming the server."""
    try:
        content = orjson.loads(line.split(b": ", 1)[1])
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise EngineError(f"{who} sent an event that is not a JSON object: {line[:80].decode(errors='replace')!r}")
    return content


def _message(status: int, answer: Any) -> str:
    return error_from(status, answer).message
