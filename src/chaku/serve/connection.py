"""One client's connection: bounds on heads, bodies and time, so that slow or endless clients can't hold the others.

uvicorn's protocol has no such limits: 60 MB of headers stay in memory, and half a head stays open for ever.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

SWEEP_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits for one client. Times are in seconds."""

    num_connections: int = 1000
    head_bytes: int = 64 << 10
    """Request line and headers together; 256 KiB are read before the first look."""
    num_headers: int = 100
    head_s: float = 10.0
    """From the first byte of a head, or from the connection, to the end of the head."""
    body_s: float = 30.0
    """To the end of the body, and a second more for each `body_bytes_per_s`."""
    body_bytes_per_s: int = 64 << 10
    drain_s: float = 5.0
    """After an answer that did not wait for the body, its rest is read and dropped for so long."""
    framing_bytes: int = 64 << 10
    """Chunk sizes, extensions and trailers; as many bytes again as the body has are allowed besides."""


class Phase(enum.Enum):
    """The next event that a connection waits for."""

    HEAD = enum.auto()
    BODY = enum.auto()
    ANSWER = enum.auto()
    DRAIN = enum.auto()
    """The answer is complete, the request's body is not."""
    IDLE = enum.auto()
    """Both are complete; uvicorn closes it after five seconds."""


# Looking a member up in its class costs as much as the comparison that it is for.
_HEAD, _BODY, _ANSWER, _DRAIN, _IDLE = Phase.HEAD, Phase.BODY, Phase.ANSWER, Phase.DRAIN, Phase.IDLE
_WAITING = (_HEAD, _DRAIN, _IDLE)


class ConnectionWatch:
    """Looks at every connection once a second, and makes room where there are too many: no timer per request."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._connections: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, connections: set[Any], loop: asyncio.AbstractEventLoop) -> None:
        """Look after `connections` as long as there are any."""
        self._connections = connections
        if self._timer is None:
            self._timer = loop.call_later(SWEEP_EVERY_S, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in list(self._connections):
            connection.check(now)
        self._timer = loop.call_later(SWEEP_EVERY_S, self._sweep, loop) if self._connections else None

    def make_room(self, newcomer: Connection) -> bool:
        """Close the connection that has waited longest for its client. False where every one is being served."""
        if len(self._connections) <= self.limits.num_connections:
            return True
        waiting = (each for each in self._connections if each.phase in _WAITING and each is not newcomer)
        oldest = min(waiting, key=lambda each: each.since, default=None)
        if oldest is None:
            return False
        self._connections.discard(oldest)
        oldest.transport.abort()
        return True


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with limits; streams to HTTP/1.0 clients end with the connection, not in chunks."""

    watch: ConnectionWatch

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection in, or refuse it where all are busy."""
        self.phase = _HEAD
        self.since = self.loop.time()
        self._read_bytes = self._body_bytes = 0
        self._is_refused = False
        super().connection_made(transport)  # type: ignore[arg-type]
        self.watch.begin(self.connections, self.loop)
        if not self.watch.make_room(self):
            self._refuse(503, "too_many_connections", "the gateway has no connection left: try again in a moment")

    def data_received(self, data: bytes) -> None:
        """Parse what came, within the limits."""
        if self._is_refused:
            return
        self._read_bytes += len(data)
        super().data_received(data)
        self._check_size()

    def _check_size(self) -> None:
        limits = self.watch.limits
        if self.phase is _HEAD:
            if self._read_bytes > limits.head_bytes:
                self._refuse_head()
        elif self.phase is not _ANSWER and self._read_bytes > limits.framing_bytes + 2 * self._body_bytes:
            self._refuse(400, "invalid_request", "the body has more chunk extensions and trailers than content")

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        self.phase = _HEAD
        self.since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Start to answer, where the head is within the limits."""
        limits = self.watch.limits
        if self._is_refused:
            return
        if self._read_bytes > limits.head_bytes or len(self.headers) > limits.num_headers:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > limits.head_bytes or len(self.headers) > limits.num_headers:
                self._refuse_head()
                return
        self.phase = _BODY
        self.since = self.loop.time()
        self._read_bytes = self._body_bytes = 0
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0" and self.cycle is not None:
            _send_unchunked(self.cycle)

    def on_body(self, body: bytes) -> None:
        """Pass on a piece of the body."""
        if not self._is_refused:
            self._body_bytes += len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        if self._is_refused:
            return
        if self.phase is _DRAIN:
            self.phase = _IDLE
            self.since = self.loop.time()
        else:
            self.phase = _ANSWER
        self._read_bytes = self._body_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of this one's body."""
        if not self.pipeline and self.phase in (_BODY, _ANSWER):
            self.phase = _DRAIN if self.phase is _BODY else _IDLE
        self.since = self.loop.time()
        super().on_response_complete()

    def check(self, now: float) -> None:
        """Refuse a client that is too slow. `now` is the loop's time."""
        limits = self.watch.limits
        waited_s = now - self.since
        if self.phase is _HEAD and self.cycle is not None and not self.cycle.response_complete:
            self.since = now  # it sends its next request while this one is answered
        elif self.phase is _HEAD and waited_s > limits.head_s:
            self._refuse(408, "request_timeout", f"the request's head did not come within {limits.head_s:g} s")
        elif self.phase is _BODY:
            if self.flow.read_paused:  # it waits for us
                self.since += SWEEP_EVERY_S
            elif waited_s > limits.body_s + self._body_bytes / limits.body_bytes_per_s:
                self._refuse(408, "request_timeout", f"the request's body did not come within {waited_s:.0f} s")
        elif self.phase is _DRAIN and waited_s > limits.drain_s:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(400, "invalid_http", msg)

    def _refuse_head(self) -> None:
        limits = self.watch.limits
        self._refuse(
            431,
            "head_too_large",
            f"the request's head is over {limits.head_bytes >> 10} KiB or {limits.num_headers} headers",
        )

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer once, where no answer has begun, and close."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        cycle = self.cycle
        has_begun = cycle is not None and cycle.response_started and not cycle.response_complete
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        if not has_begun:
            self.transport.write(_answer(status, code, message))
        self.transport.close()


def connections(limits: ConnectionLimits) -> type[Connection]:
    """The protocol class for one server."""
    return type("Connection", (Connection,), {"watch": ConnectionWatch(limits)})


def _answer(status: int, code: str, message: str) -> bytes:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
        *(["retry-after: 2"] if status == 503 else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _send_unchunked(cycle: RequestResponseCycle) -> None:
    """HTTP/1.0 knows no chunks: a body without a length ends with the connection."""
    send = cycle.send

    async def send_unchunked(message: Any) -> None:
        if message["type"] == "http.response.start":
            if not _has_length(message.get("headers", ())):
                cycle.chunked_encoding = False
        elif not cycle.expected_content_length:
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    cycle.send = send_unchunked  # type: ignore[method-assign]


def _has_length(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() == b"content-length" for name, _ in headers)
