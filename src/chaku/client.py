"""An asynchronous client for any OpenAI-compatible API. chaku itself reaches every model through it.

An answer either ends with a finish_reason or raises, so a broken one is never taken for a whole one. Light to import:
aiohttp and orjson.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import orjson

from chaku.errors import ConfigError, EngineError, InvalidRequest
from chaku.http_out import BrokenOff, Retries, Transport, refusal
from chaku.protocol.deltas import Completion, Delta, TokenUsage, ToolCallPart, delta_of_choice, deltas_of_event
from chaku.protocol.errors import error_in_stream
from chaku.protocol.sse import Parser

__all__ = ["Client", "Completion", "Delta", "Message", "Retries", "Timeouts", "TokenUsage", "ToolCallPart"]

Message = Mapping[str, Any]
_V1_HINT = "a base URL usually ends in /v1"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. There is no limit on a whole answer: a long one is fine as long as it keeps coming."""

    connect_s: float = 5.0
    silence_s: float = 600.0
    """Longest wait for the next byte, the first one (a long prompt on a slow machine) included."""


class Client:
    """`async with Client("http://127.0.0.1:8000/v1") as client: ...`

    Redirects are not followed, so a key is only ever sent to `base_url`. Every call raises the classes of
    `chaku.errors` and nothing else. Raises ConfigError for a base_url that is not an http(s) address.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeouts: Timeouts | None = None,
        retries: Retries | None = None,
        certificate: str | None = None,
    ) -> None:
        """With `certificate`, the sha256 of a certificate in hex, only a server that shows it is spoken to."""
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"base URL {base_url!r} is not an http(s) address", fix="give one like http://127.0.0.1:8000/v1"
            )
        self.base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._timeouts = timeouts or Timeouts()
        self._retries = retries
        self._certificate = certificate
        self._transport: Transport | None = None

    async def __aenter__(self) -> Self:
        self._transport = Transport(
            self.base_url,
            who=self.base_url,
            headers={"Authorization": f"Bearer {self._api_key}"} if self._api_key else None,
            retries=self._retries,
            connect_s=self._timeouts.connect_s,
            silence_s=self._timeouts.silence_s,
            certificate=self._certificate,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._transport is not None:
            await self._transport.close()
            self._transport = None

    async def models(self) -> list[str]:
        """The names that `model` may take, in the server's order."""
        return list(await self.model_rows())

    async def model_rows(self) -> dict[str, dict[str, Any]]:
        """Name to row of the server's list of models, in its order; a row may say more than OpenAI's fields."""
        content = await self._object("GET", "/models")
        try:
            return {str(row["id"]): row for row in content["data"]}
        except (KeyError, TypeError):
            raise EngineError(f"{self.base_url}/models is not a list of models", fix=_V1_HINT) from None

    async def chat(self, messages: Sequence[Message], model: str, **sampling: Any) -> Completion:
        """One whole answer. `sampling` is OpenAI's request fields; a None is left out."""
        content = await self._object("POST", "/chat/completions", _body(messages, model, sampling))
        if content.get("error"):
            raise error_in_stream(content["error"])
        try:
            choice = content["choices"][0]
            delta = delta_of_choice(choice, choice["message"], content.get("usage"))
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            raise EngineError(f"{self.base_url} sent something that is not a chat completion", fix=_V1_HINT) from None
        if delta.finish_reason is None:
            raise BrokenOff(f"{self.base_url} broke off its answer: it came without a finish_reason")
        return Completion(
            text=delta.text,
            finish_reason=delta.finish_reason,
            reasoning=delta.reasoning,
            tool_calls=delta.tool_calls,
            usage=delta.usage,
            logprobs=delta.logprobs,
            model=str(content.get("model") or model),
        )

    async def stream(self, messages: Sequence[Message], model: str, **sampling: Any) -> AsyncGenerator[Delta]:
        """An answer as it comes. Closing the generator (`contextlib.aclosing`) aborts it at the engine.

        Raises EngineError "broke off its answer" when the bytes end before a finish_reason: never ends in silence.
        """
        fields = {"stream_options": {"include_usage": True}, **sampling, "stream": True}
        body = _body(messages, model, fields)
        async with self._answer("POST", "/chat/completions", body) as response:
            if response.content_type != "text/event-stream":
                raise EngineError(f"{self.base_url} answered with {response.content_type} where a stream was asked for")
            finished, parser = False, Parser()
            async for piece in response.content.iter_any():
                for event in parser.feed(piece):
                    if event.data == "[DONE]":
                        break
                    for delta in deltas_of_event(event.data):
                        finished = finished or delta.finish_reason is not None
                        yield delta
                else:
                    continue
                break
        if not finished:
            raise BrokenOff(f"{self.base_url} broke off its answer: the stream ended without a finish_reason")

    async def _object(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        async with self._answer(method, path, body) as response:
            raw = await response.read()
        try:
            content = orjson.loads(raw)
        except orjson.JSONDecodeError:
            content = None
        if not isinstance(content, dict):
            raise EngineError(f"{response.url} answered, but not with a JSON object", fix=_V1_HINT)
        return content

    @contextlib.asynccontextmanager
    async def _answer(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The response whose status is 200, its body unread."""
        assert self._transport is not None, "use `async with Client(...)`"
        async with self._transport.request(method, path, body) as response:
            if response.status != 200:
                raise await refusal(response)
            yield response


def _body(messages: Sequence[Message], model: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    if fields.get("n") not in (None, 1):
        raise InvalidRequest(
            f"n is {fields['n']!r}: this client takes one answer per call", fix="call it n times", param="n"
        )
    given = {name: value for name, value in fields.items() if value is not None}
    return {"model": model, "messages": list(messages), **given}
