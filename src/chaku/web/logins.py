"""Visitors of the page: the one local user if no key exists, otherwise the holder of a key who has logged in."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from chaku.errors import AuthenticationFailed, Overloaded, PermissionRefused
from chaku.store.keyring import KeyRing
from chaku.store.sessions import MAX_IDLE, Sessions

COOKIE = "chaku_session"
MAX_FAILURES = 10
FAILURE_WINDOW_S = 60.0
_MAX_ADDRESSES = 10_000


class GatewayAccess(Protocol):
    """The part of the gateway's access that the page needs; `chaku.serve.access.Access` implements it."""

    @property
    def needs_key(self) -> bool:
        """Whether there are keys, so that visitors must log in."""

    def client_of(self, peer: str, forwarded_for: str) -> str:
        """The client's address, looking through trusted proxies."""

    def trusts(self, peer: str) -> bool:
        """Whether an address is a trusted proxy's."""

    def inside_token(self, key_id: str | None) -> str:
        """The API key with which the page asks the gateway on behalf of a key."""


@dataclass(frozen=True)
class Visitor:
    """The sender of a request. `key_id` owns the chats; None is the local user."""

    key_id: str | None
    name: str
    is_admin: bool = False
    """The local user, or the holder of a key of scope `admin`."""


class Logins:
    """Knows visitors by their cookie."""

    def __init__(self, access: GatewayAccess, keys: KeyRing, sessions: Sessions) -> None:
        self._access = access
        self._keys = keys
        self._sessions = sessions
        self._failures: dict[str, deque[float]] = {}

    @property
    def must_log_in(self) -> bool:
        """Whether there is more than the one local user."""
        return self._access.needs_key

    async def find(self, request: Request) -> Visitor | None:
        """The visitor, None for one who has to log in."""
        if not self.must_log_in:
            return Visitor(None, "local", is_admin=True)
        token = request.cookies.get(COOKIE)
        if not token:
            return None
        session = await asyncio.to_thread(self._sessions.find, token, now=datetime.now(UTC))
        return Visitor(session.key_id, session.key_name, session.is_admin) if session else None

    async def who(self, request: Request) -> Visitor:
        """The visitor. Raises AuthenticationFailed with code login_required."""
        visitor = await self.find(request)
        if visitor is None:
            raise AuthenticationFailed("nobody is logged in", fix="log in with an API key", code="login_required")
        return visitor

    async def log_in(self, request: Request, key: str) -> tuple[Visitor, str]:
        """Begin a session; the visitor and the cookie's token.

        Raises AuthenticationFailed, PermissionRefused for a key without the scope `page`, Overloaded.
        """
        if not self.must_log_in:
            return Visitor(None, "local", is_admin=True), ""
        address = self._access.client_of(_peer(request), request.headers.get("x-forwarded-for", ""))
        self._check_failures(address)
        token = key.strip()
        found = self._keys.find(token)
        if found is None:  # made a moment ago, perhaps
            await asyncio.to_thread(self._keys.refresh)
            found = self._keys.find(token)
        if found is None:
            self._failures.setdefault(address, deque(maxlen=MAX_FAILURES)).append(time.monotonic())
            raise AuthenticationFailed(
                "this API key is unknown or revoked",
                fix="`chaku keys list` shows the keys, `chaku keys create` makes one",
            )
        if found.has_expired(datetime.now(UTC)):
            raise AuthenticationFailed(
                "this API key has expired",
                fix="`chaku keys edit NAME --expires DATE` prolongs it",
                code="api_key_expired",
            )
        if not found.allows("page"):
            raise PermissionRefused(
                "this API key has no scope 'page'", fix="`chaku keys create NAME` makes a key that may log in"
            )
        await self.log_out(request)
        session = await asyncio.to_thread(self._sessions.open, found.id, now=datetime.now(UTC))
        return Visitor(found.id, found.name, found.allows("admin")), session

    def came_over_tls(self, request: Request) -> bool:
        """Whether the browser's connection was encrypted, by this server's or a trusted proxy's word."""
        if self._access.trusts(_peer(request)):
            return request.headers.get("x-forwarded-proto", "").split(",")[-1].strip().lower() == "https"
        return request.url.scheme == "https"

    async def log_out(self, request: Request) -> None:
        """End the session that the request shows, if any."""
        if token := request.cookies.get(COOKIE):
            await asyncio.to_thread(self._sessions.close, token)

    def _check_failures(self, address: str) -> None:
        now = time.monotonic()
        if len(self._failures) > _MAX_ADDRESSES:
            self._failures = {
                known: failures for known, failures in self._failures.items() if failures[-1] > now - FAILURE_WINDOW_S
            }
        failures = self._failures.get(address)
        if failures and len(failures) == MAX_FAILURES and failures[0] > now - FAILURE_WINDOW_S:
            raise Overloaded(
                f"{MAX_FAILURES} wrong keys within {FAILURE_WINDOW_S:g} s",
                fix="wait a minute",
                code="too_many_logins",
                retry_after_s=failures[0] + FAILURE_WINDOW_S - now,
            )


def _peer(request: Request) -> str:
    return request.client.host if request.client else ""


def set_cookie(response: Response, token: str, *, is_secure: bool) -> None:
    """Let the browser show the session again: to this site only, never to a script, over TLS only if `is_secure`."""
    response.set_cookie(
        COOKIE,
        token,
        max_age=int(MAX_IDLE.total_seconds()),
        path="/",
        secure=is_secure,
        httponly=True,
        samesite="strict",
    )


def check_same_site(request: Request) -> None:
    """Refuse what a page of another site sends, and any change without the page's own header.

    That header can't be set from elsewhere without a preflight, which is then refused here by its Origin; origins
    configured for the API have no say. Raises PermissionRefused.
    """
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    is_foreign = origin is not None and origin.partition("://")[2].lower() != host.lower()
    if is_foreign or request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise PermissionRefused("only chaku's own page may do this", fix="call /v1 with an API key instead")
    if request.method not in ("GET", "HEAD") and request.headers.get("x-chaku") != "1":
        raise PermissionRefused("the header X-Chaku is missing", fix="send `X-Chaku: 1`", code="csrf")
