"""The ASGI front of the gateway: checks at the border, then either the hot path of `/v1` inference or the small app.

The hot path reads raw bytes and passes an engine's bytes through: no framework object, no per-chunk parsing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import orjson

from chaku import logs
from chaku.engines.base import Route
from chaku.errors import (
    ChakuError,
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    InvalidRequest,
    Overloaded,
)
from chaku.images.data_url import clean_messages, has_images
from chaku.policies import ImageLimits
from chaku.protocol.errors import body_of
from chaku.protocol.openai import prompts_of
from chaku.serve.access import Access, Caller
from chaku.serve.body import BodyReader
from chaku.serve.client_watch import ClientLeft, client_watch
from chaku.serve.endpoints import EndpointTable
from chaku.serve.exchange import Exchange
from chaku.serve.failover.dispatch import AdmittedRequest, Dispatcher, Sink
from chaku.serve.head import as_get
from chaku.serve.limits import RateLimits, headers_in
from chaku.serve.metrics import Metrics
from chaku.serve.moderation.answer import Filtered, JudgedAnswer, decision_header
from chaku.serve.moderation.moderator import Moderator
from chaku.serve.relay import AsgiMessage, Headers, Receive, Relay, Send, note_headers, send_json
from chaku.serve.routing.load import Work
from chaku.serve.routing.prefix import work_of
from chaku.serve.served import Fitting, Served
from chaku.serve.table import ModelTable
from chaku.serve.traces import Traces
from chaku.serve.wires.base import Translation, Wire

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HUNG_UP = 499  # nginx's number for a client that left first; it only appears in logs and metrics
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


class UsageSink(Protocol):
    """Takes one finished exchange; must cost microseconds. `chaku.store` has the real one."""

    def __call__(self, exchange: Exchange) -> None:
        """Note it."""


class Gateway:
    """An ASGI application over a table of models. `app` answers everything that is not inference."""

    def __init__(
        self,
        table: ModelTable,
        access: Access,
        metrics: Metrics,
        record_usage: UsageSink,
        app: App,
        dispatcher: Dispatcher,
        limits: RateLimits,
        moderator: Moderator | None,
        traces: Traces,
        *,
        images: ImageLimits,
        continue_answers: bool,
    ) -> None:
        """With `continue_answers`, an answer that breaks off is continued unless its request says otherwise."""
        self._table = table
        self._access = access
        self._metrics = metrics
        self._record_usage = record_usage
        self._app = app
        self._dispatcher = dispatcher
        self._limits = limits
        self._moderator = moderator
        self._traces = traces
        self._images = images
        self._continue_answers = continue_answers
        self._bodies = BodyReader()
        self._endpoints = EndpointTable()

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
        request_id = given_id.decode() if _REQUEST_ID.fullmatch(given_id) else f"req-{os.urandom(8).hex()}"
        logs.request_id.set(request_id)
        base_headers: Headers = [(b"x-request-id", request_id.encode())]
        exchange = Exchange(request_id, "other")
        wire: Wire | None = None
        translation: Translation | None = None
        span = contextlib.ExitStack()
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
            endpoint = self._endpoints.find(scope["path"], scope["method"])
            wire = endpoint.wire
            if wire is not None:
                exchange.route = wire.route
            caller = self._access.admit(endpoint.scope, scope.get("client"), headers)
            exchange.key_id = caller.key_id
            scope["chaku_caller"] = caller
            if wire is None:
                reply = _with_headers(send, base_headers, exchange)
                passed = (scope, receive, reply) if scope["method"] != "HEAD" else as_get(scope, receive, reply)
                await self._app(*passed)
            else:
                request = await self._bodies.read(wire.request, wire.limits, headers, receive)
                translation = wire.translate(request, headers)
                continues = self._continues(headers.get(b"x-chaku-continue"))
                exchange.route = translation.route
                work = _Work(caller, translation.route, translation, continues)
                span.enter_context(self._traces.request(exchange, headers))
                await self._infer(exchange, work, receive, send, base_headers)
        except ChakuError as error:
            await self._refuse(exchange, error, wire, translation, send, base_headers)
        except Exception:
            log.exception("request failed path=%r", scope["path"])
            failure = ChakuError("the gateway failed on this request; its log has the details under the request id")
            await self._refuse(exchange, failure, wire, translation, send, base_headers)
        finally:
            if wire is not None:
                self._account(exchange)
            span.close()

    def _continues(self, header: bytes | None) -> bool:
        """Whether an answer that breaks off is continued elsewhere: as the request says, or by default."""
        if header not in (None, b"on", b"off"):
            raise InvalidRequest("x-chaku-continue is neither on nor off", param="x-chaku-continue")
        return self._continue_answers if header is None else header == b"on"

    async def _infer(self, exchange: Exchange, work: _Work, receive: Receive, send: Send, headers: Headers) -> None:
        translation = work.translation
        exchange.is_stream = translation.is_stream
        limits = work.caller.limits
        if "model" not in translation.body:
            translation.body["model"] = self._table.default_name(limits)
        asked = exchange.model = translation.body["model"]
        served = self._table.get(asked, limits)
        exchange.is_known_model = True
        served = await self._table.available_soon(served, limits)
        headers = headers + note_headers(translation.notes)
        try:
            async with client_watch(receive) as watch, asyncio.timeout(served.config.deadline_s):
                with self._access.evictions.holding(work.caller.key_id, watch.end):
                    while True:
                        if served.name != asked:
                            exchange.model = translation.body["model"] = served.name
                            headers = [*headers, (b"x-chaku-fallback", served.name.encode())]
                        try:
                            await self._run(exchange, served, work, Relay(exchange, send, headers, translation))
                            return
                        except EngineError:
                            another = self._table.fallback_of(served, limits)
                            if exchange.has_headers_sent or served.refresh() or another is None:
                                raise
                            served = another
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

    async def _run(self, exchange: Exchange, served: Served, work: _Work, relay: Relay) -> None:
        body = work.translation.body
        self._limits.check_body(work.caller, body)
        fitting = served.fit(work.route, body)  # what no replica can honour is refused before anything is counted
        if has_images(messages := body.get("messages", ())):
            await asyncio.to_thread(clean_messages, messages, self._images)
            fitting = served.fit(work.route, body)
        asked = work_of(served.name, body, num_answers(body))
        reservation = await self._limits.reserve(work.caller, work.route, served.name, body, asked.num_slots)
        if reservation is not None:
            relay.add_headers(reservation.headers)
            relay.before_end(partial(self._limits.settle, reservation, exchange, has_failed=False))
        has_failed = False
        try:
            sink: Sink = relay
            if self._moderator is not None and served.name != self._moderator.policy.guard:
                relay.add_headers(decision_header(await self._moderator.read_request(body)))
                fitting = served.fit(work.route, body)  # texts may have been hidden in it
                if self._moderator.policy.output:
                    sink = JudgedAnswer(self._moderator, relay, work.route, asked.num_slots)
            await self._answer(exchange, served, work, fitting, asked, sink)
            await relay.end()
        except Filtered:
            pass  # the client has the end of its answer
        except ChakuError:
            has_failed = True
            raise
        finally:
            if reservation is not None:
                await self._limits.settle(reservation, exchange, has_failed=has_failed)

    async def _answer(
        self, exchange: Exchange, served: Served, work: _Work, fitting: Fitting, asked: Work, sink: Sink
    ) -> None:
        async with served.admission_of(work.route).hold(asked.num_slots) as hold:
            exchange.queue_s = exchange.since_start_s()
            request = AdmittedRequest(
                served, fitting, asked, exchange.is_stream, exchange.request_id, continues=work.continues
            )
            exchange.is_asked = True  # until it ends: a client may leave at any moment
            try:
                await self._dispatcher.run(request, hold, sink)
            except (EngineError, Overloaded):
                if isinstance(sink, JudgedAnswer):
                    await sink.flush()  # what the client was not sent yet, so that nothing is lost but the rest
                raise
            finally:
                exchange.is_asked = request.is_asked
                exchange.num_retries = request.num_retries
                exchange.num_continued = request.num_continued

    async def _refuse(
        self,
        exchange: Exchange,
        error: ChakuError,
        wire: Wire | None,
        translation: Translation | None,
        send: Send,
        base_headers: Headers,
    ) -> None:
        exchange.error_code = (error.code or error.type)[:64]
        exchange.error_kind = type(error).code if error.is_foreign else error.code
        exchange.status = error.http_status
        if exchange.has_headers_sent:
            if translation is not None:  # a stream has begun: the last event says why it ends
                await send({"type": "http.response.body", "body": translation.error_event(error)})
            return  # the application has answered, or broken off: the server closes the connection
        headers = list(base_headers)
        if error.retry_after_s is not None:
            headers.append((b"retry-after", str(max(1, round(error.retry_after_s))).encode()))
        headers += headers_in(error)
        if error.http_status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if error.http_status == 405:
            headers.append((b"allow", b"POST"))
        body = wire.error(error) if wire is not None else orjson.dumps(body_of(error))
        await send_json(send, error.http_status, body, headers)

    def _account(self, exchange: Exchange) -> None:
        exchange.duration_s = exchange.since_start_s()
        price = self._limits.price_of(exchange.model)
        exchange.dollars = price.dollars(exchange.prompt_tokens, exchange.completion_tokens, exchange.cached_tokens)
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


@dataclass(frozen=True, slots=True)
class _Work:
    """What a client asks for, whichever model answers."""

    caller: Caller
    route: Route
    translation: Translation
    continues: bool


def num_answers(body: dict[str, Any]) -> int:
    """The number of answers that are generated side by side, one slot for each: n for every prompt."""
    return len(prompts_of(body.get("input") or body.get("prompt"))) * (body.get("n") or 1)


_EXPOSED = ", ".join(
    [
        "x-request-id, x-chaku-note, x-chaku-fallback, retry-after",
        *(f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
    ]
).encode()
"""Headers that a page of another origin may read."""


def _cors_headers(origin: str, headers: dict[bytes, bytes]) -> Headers:
    allowed = [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"origin")]
    if b"access-control-request-method" in headers:
        allowed += [
            (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
            (b"access-control-allow-headers", headers.get(b"access-control-request-headers", b"authorization")),
            (b"access-control-max-age", b"600"),
        ]
    else:
        allowed.append((b"access-control-expose-headers", _EXPOSED))
    return allowed


def _with_headers(send: Send, extra: Headers, exchange: Exchange) -> Send:
    async def send_with_headers(message: AsgiMessage) -> None:
        if message["type"] == "http.response.start":
            exchange.begin(message["status"])
            message["headers"] = [*message.get("headers", ()), *extra]
        await send(message)

    return send_with_headers
