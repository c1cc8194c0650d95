"""The HTTP side of engines that speak OpenAI's API: one pooled session, JSON posts that survive a closed connection,
and server-sent events handed on in blocks. It knows nothing of what the events mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import orjson

from chaku.errors import EngineError, EngineUnavailable
from chaku.protocol.answers import DONE
from chaku.protocol.sse import MAX_EVENT_BYTES

_log = logging.getLogger(__name__)

_DRAIN_S = 0.05
"""How long a stream may take to end with its last event, so that its connection can be used again."""
_NO_SPACE = re.compile(rb"^data:(?=[{\[])", re.MULTILINE)
_KEEPALIVE_S = 4.0
"""Below the 5 s after which common servers close an idle connection, so that a reused one is seldom found closed."""

_UNSEEN = (aiohttp.ServerDisconnectedError, aiohttp.ClientConnectorError, aiohttp.ClientOSError)
"""The request was refused or closed without one byte of answer, so repeating it can't be noticed."""


class _Connector(aiohttp.TCPConnector):
    """Counts the connections it makes: a request during which none was made went over a pooled one.

    aiohttp's own traces tell the same, at the price of a call for each of their events.
    """

    num_made = 0

    async def _create_connection(self, *args: Any, **kwargs: Any) -> Any:
        _Connector.num_made += 1
        return await super()._create_connection(*args, **kwargs)


class Unreachable(EngineUnavailable):
    """Nothing takes connections there: no request was sent."""


class Transport:
    """Posts JSON to one server. Build it anywhere; sockets appear with the first request, on the running loop."""

    def __init__(
        self,
        base_url: str,
        *,
        who: str,
        headers: Mapping[str, str] | None = None,
        tries: int = 3,
        sends_once: bool = False,
        idle_timeout_s: float | None = 600.0,
        keepalive: bool = True,
    ) -> None:
        """`who` names the server in errors. `idle_timeout_s` bounds silence before and between bytes, where given.

        Without `keepalive` every request has a connection of its own. With `sends_once` a POST that the server may have
        worked on (and charges for) is not repeated: only one that was refused a connection, or, once, one whose pooled
        connection was closed before any byte, as servers close idle ones just when they are used again.
        """
        self.base_url = base_url.rstrip("/")
        self._who = who
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._tries = tries
        self._sends_once = sends_once
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=idle_timeout_s)
        self._keepalive = keepalive
        self._pooled: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        self._is_closed = False

    def _session(self, *, fresh: bool) -> aiohttp.ClientSession:
        if self._is_closed:
            raise EngineUnavailable(f"{self._who} is gone", retry_after_s=1.0)
        if fresh or not self._keepalive:
            if self._fresh is None:
                self._fresh = self._open(_Connector(limit=0, force_close=True))
            return self._fresh
        if self._pooled is None:
            self._pooled = self._open(_Connector(limit=0, keepalive_timeout=_KEEPALIVE_S))
        return self._pooled

    def _open(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            headers=self._headers,
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    @contextlib.asynccontextmanager
    async def request(self, method: str, path: str, body: Any = None) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield the response, its body unread; leaving before its end closes the connection.

        Raises Unreachable when nothing listens, EngineUnavailable when it closes every try, EngineError when it breaks
        off or falls silent.
        """
        data = None if body is None else orjson.dumps(body)
        response = await self._first_answer(method, path, data)
        try:
            yield response
        except aiohttp.ServerTimeoutError as error:
            raise EngineError(f"{self._who} sent nothing for {self._timeout.sock_read:g} s") from error
        except aiohttp.ClientError as error:
            raise EngineError(f"{self._who} broke off its answer") from error
        finally:
            response.close()  # gives the connection back to the pool where the body was read to its end

    async def _first_answer(self, method: str, path: str, data: bytes | None) -> aiohttp.ClientResponse:
        for attempt in range(1, self._tries + 1):
            session = self._session(fresh=attempt > 1)
            num_connections = _Connector.num_made
            try:
                return await session.request(method, self.base_url + path, data=data, allow_redirects=False)
            except aiohttp.ConnectionTimeoutError as error:
                raise Unreachable(f"{self._who} takes no connections", retry_after_s=1.0) from error
            except aiohttp.ServerTimeoutError as error:
                raise EngineError(f"{self._who} did not answer in time") from error
            except _UNSEEN as error:
                was_refused = isinstance(error, aiohttp.ClientConnectorError)
                is_reused = _Connector.num_made == num_connections
                if self._sends_once and method == "POST" and not (was_refused or is_reused):
                    raise EngineError(f"{self._who} closed the connection without an answer") from error
                if attempt == self._tries:
                    kind = Unreachable if was_refused else EngineUnavailable
                    raise kind(f"{self._who} closes or refuses connections", retry_after_s=1.0) from error
                _log.info("repeating a request unseen who=%s path=%s attempt=%d", self._who, path, attempt)
                await asyncio.sleep(0.02 * attempt)
            except aiohttp.ClientError as error:
                raise EngineError(f"{self._who} answered something that is not HTTP") from error
        raise AssertionError("unreachable")

    async def json(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and decoded body of a small request. Raises as `request` does."""
        async with self.request(method, path, body) as response:
            return response.status, await read_json(response, who=self._who)

    async def close(self) -> None:
        """Drop every connection, for good."""
        self._is_closed = True
        sessions, self._pooled, self._fresh = (self._pooled, self._fresh), None, None
        for session in sessions:
            if session is not None:
                await session.close()


async def read_json(response: aiohttp.ClientResponse, *, who: str) -> Any:
    """The decoded body; text that is not JSON comes back as a string. Raises EngineError for a success without JSON."""
    content = await response.read()
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        if response.status < 400:
            raise EngineError(f"{who} answered {response.status} with something that is not JSON") from None
        return content[:500].decode(errors="replace")


async def sse_blocks(response: aiohttp.ClientResponse, *, who: str) -> AsyncIterator[bytes]:
    """Yield the body in blocks of whole events, line ends made `\\n`, one block per piece that the network delivered.

    `data: [DONE]` is the last event, whatever follows it. Raises EngineError where the stream ends before, or where an
    event is longer than 16 MiB.
    """
    rest = b""
    async for piece in response.content.iter_any():
        block = rest + piece if rest else piece
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n")
        if block.startswith(b"data:") and block[5:6] != b" ":  # the space may be left out
            block = _NO_SPACE.sub(b"data: ", block)
        if block.endswith(b"\n\n"):
            rest = b""
        else:
            cut = block.rfind(b"\n\n") + 2
            if cut == 1:
                if len(block) > MAX_EVENT_BYTES:
                    raise EngineError(f"{who} sent an event of more than {MAX_EVENT_BYTES:,} bytes")
                rest = block
                continue
            block, rest = block[:cut], block[cut:]
        if (end := block.find(DONE)) >= 0:
            await _drain(response)  # first, so that the connection is back when the client asks again
            yield block[: end + len(DONE)]
            return
        yield block
    raise EngineError(f"{who} ended its stream before it was complete")


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read on to the end of the body, for a moment: it carries nothing more."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in response.content.iter_any():
                pass
