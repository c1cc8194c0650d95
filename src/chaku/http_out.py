"""How chaku sends HTTP requests: sessions that keep connections, typed failures, one retry policy.

Used by `client` and by the engines. What a request asks and what an answer means is the caller's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import random
import ssl
import time
import weakref
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from chaku import __version__
from chaku.errors import ChakuError, ConfigError, DeadlineExceeded, EngineError, EngineUnavailable
from chaku.protocol.errors import error_from, retry_after_s

_log = logging.getLogger(__name__)

MAX_ERROR_BYTES = 64 << 10
_LARGE_BYTES = 1 << 20
_KEEPALIVE_S = 4.0
"""Below the 5 s after which common servers close an idle connection, so that a reused one is seldom found closed."""


class NotSent(EngineUnavailable):
    """There was no connection: the server has not seen the request."""


class Unanswered(EngineError):
    """The server closed the connection without one byte of an answer. It may have worked on the request."""

    is_stale = False
    """It was a kept connection, as servers close them just when they are used again."""


class BrokenOff(EngineError):
    """The answer began and did not come to its end."""


@dataclass(frozen=True, slots=True)
class Retries:
    """Which requests are sent again, and when. A request is never sent again once its answer has begun.

    A request that found a kept connection closed is sent once more, at once and over a new one, whatever stands here.
    """

    limit: int = 3
    """How often a request is sent again."""
    budget_s: float = 30.0
    """Seconds from the first try until the last may begin; a longer Retry-After raises at once."""
    first_pause_s: float = 0.2
    """Doubled each time, with up to half of it added by chance; a Retry-After wins."""
    unanswered: bool = True
    """Also what was `Unanswered`. Not where a request costs money each time."""
    statuses: frozenset[int] = frozenset({429, 503})
    """Also what was refused with one of these, unless a quota is used up."""

    def pause_s(self, attempt: int, asked_s: float | None) -> float:
        """The pause after a failed attempt (from 1); `asked_s` is the server's Retry-After."""
        if asked_s is not None:
            return asked_s
        return self.first_pause_s * 2.0 ** (attempt - 1) * random.uniform(1.0, 1.5)  # noqa: S311 - no secret


NEVER_AGAIN = Retries(limit=0, unanswered=False, statuses=frozenset())
"""Send once, whatever happens: the caller decides about another try. A refusal is an answer, not an error."""


class Transport:
    """Sends requests to one server. Build it anywhere; sockets appear with the first request, on the running loop."""

    def __init__(
        self,
        base_url: str,
        *,
        who: str,
        headers: Mapping[str, str] | None = None,
        retries: Retries | None = None,
        connect_s: float = 10.0,
        silence_s: float | None = 600.0,
        keepalive: bool = True,
        resolver: aiohttp.abc.AbstractResolver | None = None,
        certificate: str | None = None,
    ) -> None:
        """`who` names the server in errors. `silence_s` bounds the wait for each next byte; None is no limit.

        Without `keepalive` every request has a connection of its own. `resolver` looks host names up. With
        `certificate`, its sha256 in hex, no other certificate is accepted, and no authority is asked.
        """
        self.base_url = base_url.rstrip("/")
        self.who = who
        self._silence = f"{silence_s:g} s" if silence_s is not None else "long"
        self._key = (headers or {}).get("Authorization", "").removeprefix("Bearer ").encode()
        self._headers = {"Content-Type": "application/json", "User-Agent": f"chaku/{__version__}", **(headers or {})}
        self._retries = retries or Retries()
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_s, sock_read=silence_s)
        self._keepalive = keepalive
        self._resolver = resolver
        self._ssl = aiohttp.Fingerprint(bytes.fromhex(certificate)) if certificate is not None else True
        self._kept: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        self._is_closed = False

    def hide_key(self, content: bytes) -> bytes:
        """Content that a server sent, without the key that it was sent."""
        return content.replace(self._key, b"[key]") if self._key else content

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, path: str, body: Any = None, *, retries: Retries | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield the response, its body unread; leaving before its end closes the connection.

        Redirects are not followed. `retries` holds for this request alone.
        Raises NotSent, Unanswered or BrokenOff; EngineUnavailable after several tries without an answer;
        DeadlineExceeded after a silence; EngineError for what is not HTTP; and what a status in `retries.statuses`
        stands for.
        """
        data = None if body is None else orjson.dumps(body)
        response = await self._send(method, path, data, retries or self._retries)
        try:
            yield response
        except aiohttp.ServerTimeoutError as error:
            raise DeadlineExceeded(f"{self.who} broke off its answer: nothing came for {self._silence}") from error
        except aiohttp.ClientError as error:
            raise BrokenOff(f"{self.who} broke off its answer: {reason_of(error)}") from error
        except RuntimeError as error:  # aiohttp's, for a read from a session that was closed meanwhile
            if not self._is_closed:
                raise
            raise BrokenOff(f"{self.who} is gone, and its answer with it") from error
        finally:
            response.close()  # gives the connection back to the pool if the body was read to its end

    async def json(
        self, method: str, path: str, body: Any = None, *, retries: Retries | None = None
    ) -> tuple[int, Any]:
        """Status and decoded body of a small request. Raises as `request` does."""
        async with self.request(method, path, body, retries=retries) as response:
            return response.status, await read_json(response, who=self.who)

    async def close(self) -> None:
        """Close every connection, for good."""
        self._is_closed = True
        sessions, self._kept, self._fresh = (self._kept, self._fresh), None, None
        for session in sessions:
            if session is not None:
                await session.close()

    async def _send(self, method: str, path: str, data: bytes | None, retries: Retries) -> aiohttp.ClientResponse:
        since = time.monotonic()
        attempt, fresh = 0, False
        while True:
            try:
                response = await self._try(method, path, data, fresh=fresh)
                if response.status not in retries.statuses:
                    return response
                failure = await refusal(response)
                if failure.code == "insufficient_quota":
                    raise failure
            except Unanswered as error:
                if error.is_stale:
                    fresh = True
                    continue
                if not retries.unanswered:
                    raise
                failure = EngineUnavailable(error.message, retry_after_s=None)
            except NotSent as error:
                failure = error
            attempt += 1
            pause_s = retries.pause_s(attempt, failure.retry_after_s)
            if attempt > retries.limit or time.monotonic() + pause_s - since > retries.budget_s:
                if failure.retry_after_s is None and isinstance(failure, EngineUnavailable):
                    failure.retry_after_s = 1.0
                raise failure
            _log.info("sending again who=%s path=%s attempt=%d reason=%r", self.who, path, attempt, failure.message)
            await asyncio.sleep(pause_s)
            fresh = True

    async def _try(self, method: str, path: str, data: bytes | None, *, fresh: bool) -> aiohttp.ClientResponse:
        _is_reused.set(False)
        body = io.BytesIO(data) if data is not None and len(data) > _LARGE_BYTES else data  # sent piece by piece
        try:
            return await self._session(fresh=fresh).request(
                method, self.base_url + path, data=body, headers=sent_along.get(), allow_redirects=False
            )
        except aiohttp.InvalidURL:
            fix = "write it such as http://127.0.0.1:8000/v1"
            raise ConfigError(f"{self.base_url!r} is not an http(s) address", fix=fix) from None
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            reason = reason_of(error) if isinstance(error, aiohttp.ClientConnectorError) else "no connection in time"
            fix = "check the address, and that the server is running"
            if isinstance(error, aiohttp.ClientConnectorDNSError):
                reason, fix = f"there is no host {error.host!r}", "check the address, and the connection to the network"
            elif isinstance(error, aiohttp.ClientConnectorCertificateError):
                fix = "point SSL_CERT_FILE to its certificate, or to that of its authority"
            raise NotSent(f"can't reach {self.who}: {reason}", fix=fix) from error
        except aiohttp.ServerFingerprintMismatch as error:
            why = f"can't reach {self.who}: its certificate is another one than was named"
            raise NotSent(why, fix="check the address, and the sha256 of the certificate") from error
        except aiohttp.ServerTimeoutError as error:
            raise DeadlineExceeded(f"{self.who} did not answer in time: it sent nothing for {self._silence}") from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            unanswered = Unanswered(f"{self.who} closed the connection without an answer: {reason_of(error)}")
            unanswered.is_stale = _is_reused.get()
            raise unanswered from error
        except aiohttp.ClientError as error:
            raise EngineError(f"{self.who} answered something that is not HTTP") from error

    def _session(self, *, fresh: bool) -> aiohttp.ClientSession:
        if self._is_closed:
            raise EngineUnavailable(f"{self.who} is gone", retry_after_s=1.0)
        if fresh or not self._keepalive:
            if self._fresh is None:
                self._fresh = self._open(
                    aiohttp.TCPConnector(limit=0, force_close=True, resolver=self._resolver, ssl=self._ssl)
                )
            return self._fresh
        if self._kept is None:
            self._kept = self._open(
                _Connector(limit=0, keepalive_timeout=_KEEPALIVE_S, resolver=self._resolver, ssl=self._ssl)
            )
        return self._kept

    def _open(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            headers=self._headers,
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding",),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )


sent_along: ContextVar[Mapping[str, str] | None] = ContextVar("sent_along", default=None)
"""Headers of every request that is sent from here on in this context: those of a trace."""
_is_reused: ContextVar[bool] = ContextVar("is_reused")
"""Whether the request of this task went over a kept connection."""


class _Connector(aiohttp.TCPConnector):
    """Notes of each request whether its connection was kept: others open connections meanwhile.

    aiohttp's own traces say it too, but cost 8 % of the CPU of a request.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    async def connect(self, *arguments: Any, **named: Any) -> aiohttp.connector.Connection:
        """A connection for a request, as aiohttp asks for it."""
        connection = await super().connect(*arguments, **named)
        _is_reused.set(connection.protocol in self._known)
        self._known.add(connection.protocol)
        return connection


async def refusal(response: aiohttp.ClientResponse) -> ChakuError:
    """The error that a response other than 200 stands for. Reads at most MAX_ERROR_BYTES and gives the response up."""
    async with response:
        if 300 <= response.status < 400:
            target = response.headers.get("Location", "nowhere")
            return EngineError(f"{response.url} redirects to {target}", fix="give that address as base URL")
        try:
            raw = await response.content.read(MAX_ERROR_BYTES)
        except (aiohttp.ClientError, TimeoutError):
            raw = b""
    try:
        content = orjson.loads(raw)
    except orjson.JSONDecodeError:
        content = None
    payload = content.get("error", content) if isinstance(content, dict) else None
    failure = error_from(response.status, payload or {"message": f"{response.url} answered {response.status}"})
    if response.status == 404 and payload is None:
        failure.fix = "a base URL usually ends in /v1"
    failure.retry_after_s = retry_after_s(response.headers.get("Retry-After"))
    return failure


async def read_json(response: aiohttp.ClientResponse, *, who: str) -> Any:
    """The decoded body; text that is not JSON comes back as a string. Raises EngineError for a success without JSON."""
    content = await response.read()
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        if response.status < 400:
            raise EngineError(f"{who} answered {response.status} with something that is not JSON") from None
        return content[:500].decode(errors="replace")


def reason_of(error: Exception) -> str:
    """What went wrong in a few words, without the URL that is named anyway."""
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection was closed"
    cause = getattr(error, "os_error", None) or error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted ({getattr(error.certificate_error, 'verify_message', error)})"
    if isinstance(cause, ssl.SSLError):
        return f"no TLS connection ({(cause.reason or str(cause)).replace('_', ' ').lower()})"
    if isinstance(cause, OSError) and cause.errno and cause.errno > 0:  # below zero: the resolver's own numbers
        return os.strerror(cause.errno)
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
