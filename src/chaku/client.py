"""The way chaku itself reaches a model: an asynchronous client for any OpenAI-compatible API.

It tells a whole answer from a broken one: an answer either ends with a finish_reason or raises. Light to import
(aiohttp and orjson); what happens to the answer is the caller's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import orjson

from chaku import __version__
from chaku.errors import ChakuError, ConfigError, DeadlineExceeded, EngineError, EngineUnavailable, InvalidRequest
from chaku.protocol.deltas import Completion, Delta, TokenUsage, ToolCallPart, delta_of_choice, deltas_of_event
from chaku.protocol.errors import error_from, error_in_stream, retry_after_s
from chaku.protocol.sse import Parser

__all__ = ["Client", "Completion", "Delta", "Message", "Retries", "Timeouts", "TokenUsage", "ToolCallPart"]

Message = Mapping[str, Any]
MAX_ERROR_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. There is no limit on a whole answer: a long one is fine as long as it keeps coming."""

    connect_s: float = 5.0
    silence_s: float = 600.0
    """Longest wait for the next byte, the first one (a long prompt on a slow machine) included."""


@dataclass(frozen=True, slots=True)
class Retries:
    """What may be asked again: only what has not sent one byte of an answer."""

    limit: int = 3
    budget_s: float = 30.0
    """Seconds from the first try until the last may begin; a longer Retry-After raises at once."""
    first_pause_s: float = 0.2
    """Doubled each time, with up to half of it added by chance; a Retry-After wins."""


class Client:
    """`async with Client("http://127.0.0.1:8000/v1") as client: ...`

    Redirects are not followed, so a key is only ever sent to `base_url`. Every call raises the classes of
    `chaku.errors` and nothing else. Raises ConfigError for a base_url that is no http(s) address.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeouts: Timeouts | None = None,
        retries: Retries | None = None,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"base URL {base_url!r} is no http(s) address", fix="give one like http://127.0.0.1:8000/v1"
            )
        self.base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._timeouts = timeouts or Timeouts()
        self._retries = retries or Retries()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"User-Agent": f"chaku/{__version__}", "Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._timeouts.connect_s, sock_read=self._timeouts.silence_s
            ),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def models(self) -> list[str]:
        """The names that `model` may take, in the server's order."""
        response = await self._send("GET", "/models")
        content = await self._json(response)
        try:
            return [str(model["id"]) for model in content["data"]]
        except (KeyError, TypeError):
            raise EngineError(f"{self.base_url}/models is no list of models", fix=_V1_HINT) from None

    async def chat(self, messages: Sequence[Message], model: str, **sampling: Any) -> Completion:
        """One whole answer. `sampling` is OpenAI's request fields; a None is left out."""
        response = await self._send("POST", "/chat/completions", _body(messages, model, sampling))
        content = await self._json(response)
        if content.get("error"):
            raise error_in_stream(content["error"])
        try:
            choice = content["choices"][0]
            delta = delta_of_choice(choice, choice["message"], content.get("usage"))
        except (KeyError, IndexError, TypeError, ValueError):
            raise EngineError(f"{self.base_url} sent something that is no chat completion") from None
        if delta.finish_reason is None:
            raise EngineError("answer broke off: it came without a finish_reason")
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

        Raises EngineError "answer broke off" when the bytes end before a finish_reason: never ends in silence.
        """
        fields = {"stream_options": {"include_usage": True}, **sampling, "stream": True}
        response = await self._send("POST", "/chat/completions", _body(messages, model, fields))
        try:
            if response.content_type != "text/event-stream":
                raise EngineError(f"{self.base_url} answered with {response.content_type} where a stream was asked for")
            finished = False
            async with contextlib.aclosing(self._events(response)) as events:
                async for data in events:
                    if data == "[DONE]":
                        break
                    for delta in deltas_of_event(data):
                        finished = finished or delta.finish_reason is not None
                        yield delta
            if not finished:
                raise EngineError("answer broke off: the stream ended without a finish_reason")
        finally:
            response.close()

    async def _events(self, response: aiohttp.ClientResponse) -> AsyncGenerator[str]:
        parser = Parser()
        try:
            async for piece in response.content.iter_any():
                for event in parser.feed(piece):
                    yield event.data
        except TimeoutError:
            raise DeadlineExceeded(f"answer broke off: nothing came for {self._timeouts.silence_s:g} s") from None
        except aiohttp.ClientError as error:
            raise EngineError(f"answer broke off: {_reason(error)}") from None

    async def _json(self, response: aiohttp.ClientResponse) -> dict[str, Any]:
        try:
            raw = await response.read()
        except TimeoutError:
            raise DeadlineExceeded(f"answer broke off: nothing came for {self._timeouts.silence_s:g} s") from None
        except aiohttp.ClientError as error:
            raise EngineError(f"answer broke off: {_reason(error)}") from None
        try:
            content = orjson.loads(raw)
        except orjson.JSONDecodeError:
            content = None
        if not isinstance(content, dict):
            raise EngineError(f"{response.url} answered, but not with a JSON object", fix=_V1_HINT)
        return content

    async def _send(self, method: str, path: str, body: bytes | None = None) -> aiohttp.ClientResponse:
        """The response whose status is 200. What has not sent a byte is asked again, within the budget."""
        assert self._session is not None, "use `async with Client(...)`"
        start = time.monotonic()
        attempt = 0
        while True:
            try:
                response = await self._session.request(
                    method, self.base_url + path, data=body, allow_redirects=False, raise_for_status=False
                )
                if response.status == 200:
                    return response
                failure = await _refusal(response)
                if response.status not in (429, 503) or failure.code == "insufficient_quota":
                    raise failure
            except (aiohttp.ClientError, TimeoutError) as error:
                failure = self._unanswered(error)
                if isinstance(failure, DeadlineExceeded | ConfigError):
                    raise failure from None
            pause = failure.retry_after_s
            if pause is None:
                pause = self._retries.first_pause_s * 2**attempt * random.uniform(1.0, 1.5)  # noqa: S311 (no secret)
            attempt += 1
            if attempt > self._retries.limit or time.monotonic() + pause - start > self._retries.budget_s:
                raise failure
            await asyncio.sleep(pause)

    def _unanswered(self, error: Exception) -> ChakuError:
        if isinstance(error, aiohttp.InvalidURL):
            return ConfigError(f"base URL {self.base_url!r} is no http(s) address")
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            reason = _reason(error) if isinstance(error, aiohttp.ClientConnectorError) else "no connection in time"
            return EngineUnavailable(
                f"can't reach {self.base_url}: {reason}", fix="check the address, and that the server is running"
            )
        if isinstance(error, TimeoutError):
            return DeadlineExceeded(f"{self.base_url} sent nothing for {self._timeouts.silence_s:g} s")
        return EngineUnavailable(f"{self.base_url} closed the connection without an answer: {_reason(error)}")


_V1_HINT = "a base URL usually ends in /v1"


def _body(messages: Sequence[Message], model: str, fields: Mapping[str, Any]) -> bytes:
    if fields.get("n") not in (None, 1):
        raise InvalidRequest(
            f"n is {fields['n']!r}: this client takes one answer a call", fix="call it n times", param="n"
        )
    given = {name: value for name, value in fields.items() if value is not None}
    return orjson.dumps({"model": model, "messages": list(messages), **given})


async def _refusal(response: aiohttp.ClientResponse) -> ChakuError:
    """The error that a response other than 200 stands for. Reads at most MAX_ERROR_BYTES and gives the response up."""
    async with response:
        if 300 <= response.status < 400:
            target = response.headers.get("Location", "nowhere")
            return EngineError(f"{response.url} redirects to {target}", fix="give that address as base URL")
        raw = await response.content.read(MAX_ERROR_BYTES)
    try:
        content = orjson.loads(raw)
    except orjson.JSONDecodeError:
        content = None
    payload = content.get("error", content) if isinstance(content, dict) else None
    failure = error_from(response.status, payload or {"message": f"{response.url} answered {response.status}"})
    if response.status == 404 and payload is None:
        failure.fix = _V1_HINT
    failure.retry_after_s = retry_after_s(response.headers.get("Retry-After"))
    return failure


def _reason(error: Exception) -> str:
    """What went wrong in a few words, without the URL that is named anyway."""
    cause = getattr(error, "os_error", None) or error
    if isinstance(cause, OSError) and cause.errno and cause.errno > 0:  # below zero: the resolver's own numbers
        return os.strerror(cause.errno)
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
