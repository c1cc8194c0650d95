"""`chaku doctor --exposed`: asks a running gateway what a stranger would, and says what the stranger can reach.

It sends no credential. Every request is one that the gateway refuses or that changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from chaku.cli.checks import Check
from chaku.config import TOKEN_PREFIX
from chaku.errors import EngineUnavailable
from chaku.http_out import reason_of
from chaku.serve.access import is_loopback_host
from chaku.serve.endpoints import ENDPOINTS, Endpoint
from chaku.web.page import SECURITY_HEADERS

TIMEOUT_S = 15.0
_MAX_BYTES = 1 << 20
_SAMPLE = "chaku-doctor"
"""Stands for the star of a path: no model or worker is called so."""
_FOREIGN_ORIGIN = "https://stranger.example"
_FOREIGN_HOST = "stranger.example"
_WRONG_KEY = f"{TOKEN_PREFIX}wrong-key-of-chaku-doctor"
_HEADERS_OF_PROXIES = (
    *("X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username"),
    *("X-Auth-Request-User", "X-Auth-Request-Email", "Remote-User", "X-Remote-User", "X-WEBAUTH-USER"),
)
_MAKE_KEY = "chaku keys create NAME"


@dataclass(frozen=True)
class ProbeAnswer:
    """What a stranger gets."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    """With names in lower case."""
    json: Any = None

    @property
    def is_refusal(self) -> bool:
        """Whether the request went no further for want of a credential."""
        return self.status in (401, 403)


class Stranger:
    """Sends requests without a credential to one gateway."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> ProbeAnswer:
        """Send a request, with `{}` as the body of a POST. Redirects are not followed. Raises EngineUnavailable."""
        body = b"{}" if method == "POST" else None
        sent = {**(headers or {}), **({"Content-Type": "application/json"} if body else {})}
        try:
            async with self._session.request(
                method, self._url + path, headers=sent, data=body, allow_redirects=False
            ) as response:
                content = await response.content.read(_MAX_BYTES)
                found = {name.lower(): value for name, value in response.headers.items()}
                return ProbeAnswer(response.status, found, _parsed(content))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _silent(self._url, error) from None


def _silent(url: str, error: Exception) -> EngineUnavailable:
    why = "no answer in time" if isinstance(error, TimeoutError) else reason_of(error)
    return EngineUnavailable(f"{url} does not answer: {why}", fix="check the address")


def _parsed(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


@contextlib.asynccontextmanager
async def _stranger(url: str) -> AsyncIterator[Stranger]:
    connector = aiohttp.TCPConnector(ssl=False, limit=8)  # `_transport` has judged the certificate
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    # No cookies: a session that the gateway hands out must not let later requests in.
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar) as session:
        yield Stranger(session, url)


async def examine(url: str) -> list[Check]:
    """Every check of the gateway at `url`, in the order they are shown. Raises EngineUnavailable."""
    url = url.rstrip("/").removesuffix("/v1")
    transport = await _transport(url)
    async with _stranger(url) as stranger:
        health = await stranger.ask("GET", "/health")
        if not isinstance(health.json, dict) or not health.json.keys() >= {"status", "version", "models"}:
            found = f"{url}/health answers {health.status}, and not as chaku does"
            return [transport, Check("FAIL", "gateway", found, "check the address, or --allowed-host of the gateway")]
        return [
            Check("ok", "gateway", f"chaku {health.json['version']} at {url}"),
            transport,
            *await _keys(stranger),
            *await _page(stranger),
            *await _names(stranger),
            await _headers(stranger),
        ]


async def _transport(url: str) -> Check:
    """Whether the way there is encrypted, with a certificate that a browser would believe."""
    parts = urlsplit(url)
    if parts.scheme != "https":
        if is_loopback_host(parts.hostname or ""):
            return Check(
                "warn", "TLS", "plain HTTP, which is fit for this machine alone", "chaku serve --tls-cert FILE"
            )
        found = "plain HTTP: keys and chats can be read on the way"
        return Check("FAIL", "TLS", found, "chaku serve --tls-cert FILE --tls-key FILE, or a proxy with TLS")
    connection = None
    try:
        context = await asyncio.to_thread(ssl.create_default_context)
        port = parts.port or 443
        opening = asyncio.open_connection(parts.hostname, port, ssl=context, server_hostname=parts.hostname)
        _, connection = await asyncio.wait_for(opening, TIMEOUT_S)
        return Check("ok", "TLS", f"{connection.get_extra_info('ssl_object').version()}, and the certificate is valid")
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", "") or error.reason or str(error)
        return Check("FAIL", "TLS", f"browsers refuse the certificate: {why}", "take one from a known authority")
    except (OSError, TimeoutError) as error:
        raise _silent(url, error) from None
    finally:
        if connection is not None:
            connection.transport.abort()


async def _keys(stranger: Stranger) -> list[Check]:
    """What of the API is open without a key and with a wrong one, by the gateway's own table of endpoints."""
    rows = [(row, method) for row in ENDPOINTS if row.scope not in ("open", "page") for method in _methods(row)]
    without = await asyncio.gather(*(stranger.ask(method, _path(row)) for row, method in rows))
    wrong = await asyncio.gather(
        *(stranger.ask(method, _path(row), {"Authorization": f"Bearer {_WRONG_KEY}"}) for row, method in rows)
    )
    checks = []
    for about, answers in (("without key", without), ("wrong key", wrong)):
        is_open = [
            row for (row, _), answer in zip(rows, answers, strict=True)
            if not answer.is_refusal and (row.scope, answer.status) != ("fastchat", 404)  # 404: it is switched off
        ]  # fmt: skip
        checks += list(_of_scopes(about, is_open)) or [
            Check("ok", about, f"{len(rows)} of {len(rows)} requests refused")
        ]
    return checks


def _of_scopes(about: str, is_open: list[Endpoint]) -> Iterator[Check]:
    scopes = {
        "infer": ("may ask the models", _MAKE_KEY),
        "metrics": ("may read metrics and workers", _MAKE_KEY),
        "admin": ("may drain and restart workers, and read their logs", _MAKE_KEY),
        "join": ("may add workers, which then see prompts", "chaku serve --no-joins, or chaku keys create NAME"),
        "fastchat": (
            "may ask the models and add workers in FastChat's words",
            "name fewer addresses: --fastchat-network",
        ),
    }
    for scope, (can, fix) in scopes.items():
        if paths := sorted({row.path for row in is_open if row.scope == scope}):
            yield Check("FAIL", about, f"a stranger {can}: {', '.join(paths)}", fix)


def _methods(row: Endpoint) -> list[str]:
    """The methods to try: to read is harmless, and a POST of `{}` is refused once it is read."""
    if "GET" in row.methods:
        return ["GET"]
    return ["POST"]


def _path(row: Endpoint) -> str:
    below = f"{_SAMPLE}/logs" if row.scope == "admin" else _SAMPLE
    return row.path.replace("*", below)


async def _page(stranger: Stranger) -> list[Check]:
    """Whether the page asks for a login, and whether guests are let in."""
    session = await stranger.ask("GET", "/api/session")
    if session.status == 404:
        return [Check("ok", "page", "is not served")]
    told = session.json if isinstance(session.json, dict) else {}
    chats = await stranger.ask("GET", "/api/chats")
    if not chats.is_refusal:
        found = (
            f"a stranger is let in as {(told.get('user') or {}).get('name', 'somebody')!r}, and reads the chats there"
        )
        return [Check("FAIL", "page", found, _MAKE_KEY)]
    checks = [Check("ok", "page", "asks for a login")]
    if notice := told.get("guest_notice"):
        checks.append(Check("warn", "guests", f"may chat without a key. {' '.join(notice)}", "chaku serve --no-guests"))
    else:
        checks.append(Check("ok", "guests", "are not let in"))
    return checks


async def _names(stranger: Stranger) -> list[Check]:
    """Whether pages of other sites, rebound names and invented users are refused."""
    checks = []
    foreign = await stranger.ask("GET", "/health", {"Origin": _FOREIGN_ORIGIN})
    allowed = foreign.headers.get("access-control-allow-origin")
    if allowed is not None:
        fix = "name the origins: chaku serve --cors-origin https://app.example"
        checks.append(Check("FAIL", "CORS", f"every page on the web may call the API from a browser ({allowed})", fix))
    elif foreign.status != 403:
        checks.append(Check("warn", "CORS", f"a page of {_FOREIGN_ORIGIN} gets {foreign.status}", "check the proxy"))
    else:
        checks.append(Check("ok", "CORS", "pages of other sites are refused"))
    rebound = await stranger.ask("GET", "/health", {"Host": _FOREIGN_HOST})
    if rebound.status == 200 and isinstance(rebound.json, dict) and "models" in rebound.json:
        fix = "let the proxy pass the Host header, or answer to its own name alone"
        checks.append(Check("warn", "Host", f"answers to any name, such as {_FOREIGN_HOST}", fix))
    else:
        checks.append(Check("ok", "Host", "answers to its own names"))
    believed = []
    for header in _HEADERS_OF_PROXIES:
        session = await stranger.ask("GET", "/api/session", {header: _SAMPLE})
        user = session.json.get("user") if isinstance(session.json, dict) else None
        if user and user.get("kind") == "user":
            believed.append(header)
    if believed:
        fix = "let the proxy replace that header, and name no network of clients with --trusted-proxy"
        checks.append(Check("FAIL", "user header", f"a stranger may say who he is: {', '.join(believed)}", fix))
    else:
        checks.append(Check("ok", "user header", "a stranger's word counts for nothing"))
    return checks


async def _headers(stranger: Stranger) -> Check:
    """Whether the page comes with the headers that keep hostile text from becoming code."""
    page = await stranger.ask("GET", "/")
    if page.status == 404:
        return Check("ok", "headers", "no page is served")
    absent = [name for name, value in SECURITY_HEADERS.items() if page.headers.get(name) != value]
    if absent:
        return Check(
            "FAIL", "headers", f"absent or changed: {', '.join(absent)}", "let the proxy pass them as they are"
        )
    return Check("ok", "headers", f"all {len(SECURITY_HEADERS)} security headers are there")
