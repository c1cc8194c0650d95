"""The ASGI front of the gateway: checks at the border, then either the hot path of `/v1` inference or the small app.

The hot path reads raw bytes and passes an engine's bytes through: no framework object, no per-chunk parsing.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Protocol

import orjson
from pydantic import BaseModel

from chaku import logs
from chaku.engines.base import Call, Route
from chaku.errors import (
    ChakuError,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    MethodNotAllowed,
)
from chaku.protocol.errors import body_of, event_of
from chaku.protocol.json_scan import JsonLimits
from chaku.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest, prompts_of
from chaku.serve import capability
from chaku.serve.access import Access
from chaku.serve.body import CHAT_LIMITS, TEXT_LIMITS, BodyReader
from chaku.serve.client_watch import ClientLeft, client_watch
from chaku.serve.exchange import Exchange
from chaku.serve.metrics import Metrics
from chaku.serve.relay import AsgiMessage, Receive, Send, relay
from chaku.serve.table import ModelTable, Served

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

HUNG_UP = 499  # nginx's number for a client that left first; it only appears in logs and metrics
_ROUTES: dict[str, tuple[Route, type[BaseModel], JsonLimits]] = {
    "/v1/chat/completions": ("chat", ChatRequest, CHAT_LIMITS),
    "/v1/completions": ("completions", CompletionRequest, TEXT_LIMITS),
    "/v1/embeddings": ("embeddings", EmbeddingRequest, TEXT_LIMITS),
}
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


class UsageSink(Protocol):
    """Takes one finished exchange; must cost microseconds. `chaku.store` has the real one."""

    def __call__(self, exchange: Exchange) -> None:
        """Note it."""


class Gateway:
    """An ASGI application over a table of models. `app` answers everything that is not inference."""

    def __init__(self, table: ModelTable, access: Access, metrics: Metrics, record_usage: UsageSink, app: App) -> None:
        self._table = table
        self._access = access
        self._metrics = metrics
        self._record_usage = record_usage
        self._app = app
        self._bodies = BodyReader()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given_id = headers.get(b"x-request-id", b"")
        request_id = given_id.decode() if _REQUEST_ID.fullmatch(given_id) else f"req-{secrets.token_hex(8)}"
        logs.request_id.set(request_id)
        base_headers: Headers = [(b"x-request-id", request_id.encode())]
        route = _ROUTES.get(scope["path"])
        exchange = Exchange(request_id, route[0] if route else "other")
        try:
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            host = hosts[0] if len(hosts) == 1 else None
            self._access.check_host(host)
            origin = self._access.check_origin(headers.get(b"origin"), host)
            if origin is not None:
                base_headers += _cors_headers(origin, headers)
                if scope["method"] == "OPTIONS":
                    await send({"type": "http.response.start", "status": 204, "headers": base_headers})
                    await send({"type": "http.response.body", "body": b""})
                    return
            if route is not None:
                if scope["method"] != "POST":
                    raise MethodNotAllowed(f"{scope['path']} takes POST, not {scope['method']}")
                exchange.key_id = self._access.identify(headers.get(b"authorization")).key_id
                await self._infer(exchange, route, headers, receive, send, base_headers)
            else:
                if scope["path"].startswith("/v1/") or scope["path"] == "/metrics":
                    self._access.identify(headers.get(b"authorization"))
                await self._app(scope, receive, _with_headers(send, base_headers))
        except ChakuError as error:
            await self._refuse(exchange, error, send, base_headers)
        except Exception:
            log.exception("request failed path=%r", scope["path"])
            failure = ChakuError("the gateway failed on this request; its log has the details under the request id")
            await self._refuse(exchange, failure, send, base_headers)
        finally:
            if route is not None:
                self._account(exchange)

    async def _infer(
        self,
        exchange: Exchange,
        route: tuple[Route, type[BaseModel], JsonLimits],
        headers: dict[bytes, bytes],
        receive: Receive,
        send: Send,
        base_headers: Headers,
    ) -> None:
        request = await self._bodies.read(route[1], route[2], headers, receive)
        body = request.body
        base_headers = base_headers + _note_headers(request.notes)
        exchange.model = body["model"]
        served = self._table.find(exchange.model)
        exchange.is_known_model = True
        exchange.is_stream = bool(body.get("stream"))
        shows_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        if body.get("stream_options") is not None and not exchange.is_stream:
            raise InvalidRequest("stream_options needs stream: true", param="stream_options")
        wanted = capability.fit(exchange.model, route[0], body, served.engine.capabilities)
        try:
            async with client_watch(receive), asyncio.timeout(served.config.deadline_s):
                await self._run(exchange, served, wanted, shows_usage, send, base_headers)
        except TimeoutError:
            raise DeadlineExceeded(
                f"{exchange.model} did not finish within {served.config.deadline_s:g} s",
                fix="lower max_tokens, or serve it with a larger deadline_s",
            ) from None
        except ClientLeft:
            if not exchange.is_complete:
                exchange.status = HUNG_UP
        except asyncio.CancelledError:  # the server's own doing: its grace for running answers is over
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            raise EngineUnavailable("the gateway is stopping", retry_after_s=5) from None

    async def _run(
        self,
        exchange: Exchange,
        served: Served,
        body: dict[str, Any],
        shows_usage: bool,
        send: Send,
        base_headers: Headers,
    ) -> None:
        route: Route = exchange.route  # type: ignore[assignment]
        admission = served.embedding_admission if route == "embeddings" else served.admission
        async with admission.hold(num_answers(route, body)) as hold:
            exchange.queue_s = exchange.since_start_s()
            call = Call(route, body, exchange.is_stream, exchange.request_id, hold)
            async with served.engine.ask(call) as answer:
                headers = base_headers + _note_headers(answer.notes)
                if call.stream:
                    await relay(answer.blocks(), exchange, send, headers, shows_usage=shows_usage)
                else:
                    whole = await answer.whole()
                    exchange.take_usage(whole.get("usage"))
                    exchange.status = 200
                    exchange.has_headers_sent = True
                    await _send_bytes(send, 200, orjson.dumps(whole), headers)
                    exchange.is_complete = True

    async def _refuse(self, exchange: Exchange, error: ChakuError, send: Send, base_headers: Headers) -> None:
        exchange.error_code = error.code or error.type
        if exchange.has_headers_sent:  # a stream is under way: the last event says why it ends
            exchange.status = error.http_status
            await send({"type": "http.response.body", "body": event_of(error)})
            return
        exchange.status = error.http_status
        headers = list(base_headers)
        if error.retry_after_s is not None:
            headers.append((b"retry-after", str(max(1, round(error.retry_after_s))).encode()))
        if error.http_status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if error.http_status == 405:
            headers.append((b"allow", b"POST"))
        await _send_bytes(send, error.http_status, orjson.dumps(body_of(error)), headers)

    def _account(self, exchange: Exchange) -> None:
        exchange.duration_s = exchange.since_start_s()
        self._metrics.count(exchange)
        if exchange.is_known_model:  # and so its caller is known: strangers and slips of the pen cost nothing
            self._record_usage(exchange)
        log.info(
            "answered route=%s model=%r status=%d stream=%s prompt=%d completion=%d seconds=%.3f error=%s",
            exchange.route,
            exchange.model[:256],
            exchange.status,
            exchange.is_stream,
            exchange.prompt_tokens,
            exchange.completion_tokens,
            exchange.duration_s,
            exchange.error_code,
        )


def num_answers(route: Route, body: dict[str, Any]) -> int:
    """How many answers are generated side by side, each in a slot of its own: n for every prompt."""
    prompt = body.get("input" if route == "embeddings" else "prompt")
    return len(prompts_of(prompt)) * int(body.get("n", 1))


async def _send_bytes(send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", str(len(body)).encode())
    kind = (b"content-type", b"application/json")
    await send({"type": "http.response.start", "status": status, "headers": [kind, length, *headers]})
    await send({"type": "http.response.body", "body": body})


def _note_headers(notes: Iterable[str]) -> Headers:
    return [(b"x-chaku-note", note.encode("ascii", "replace")) for note in notes]


def _cors_headers(origin: str, headers: dict[bytes, bytes]) -> Headers:
    allowed = [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"origin")]
    if b"access-control-request-method" in headers:
        allowed += [
            (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
            (b"access-control-allow-headers", headers.get(b"access-control-request-headers", b"authorization")),
            (b"access-control-max-age", b"600"),
        ]
    else:
        allowed.append((b"access-control-expose-headers", b"x-request-id, x-chaku-note, retry-after"))
    return allowed


def _with_headers(send: Send, extra: Headers) -> Send:
    async def send_with_headers(message: AsgiMessage) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *extra]
        await send(message)

    return send_with_headers
