"""Visitors of the page: the local user while no key exists, else holders of keys, guests, and users of a proxy."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from starlette.requests import Request
from starlette.responses import Response

from chaku.errors import AuthenticationFailed, Overloaded, PermissionRefused
from chaku.policies import Limits
from chaku.store.guests import Guests
from chaku.store.keyring import KeyRing
from chaku.store.sessions import MAX_IDLE, Sessions
from chaku.store.users import MAX_NAME_LENGTH, Users

COOKIE = "chaku_session"
MAX_FAILURES = 10
FAILURE_WINDOW_S = 60.0
GUEST_WINDOW_S = 3600.0
_MAX_ADDRESSES = 10_000


class GatewayAccess(Protocol):
    """The part of the gateway's access that the page needs; `chaku.serve.access.Access` implements it."""

    visitors: Any
    """Where the gateway looks up visitors without a key."""

    @property
    def needs_key(self) -> bool:
        """Whether there are keys, so that visitors must log in."""

    def client_of(self, peer: str, forwarded_for: str) -> str:
        """The client's address, looking through trusted proxies."""

    def trusts(self, peer: str) -> bool:
        """Whether an address is a trusted proxy's."""

    def inside_token(self, key_id: str | None) -> str:
        """The API key with which the page asks the gateway on behalf of a key."""

    def limits_of(self, visitor_id: str | None) -> Limits | None:
        """What a visitor may do, the local user without an id; None for one who is not known now."""


@dataclass(frozen=True)
class Visitor:
    """The sender of a request. `key_id` (or the guest's or user's id) owns the chats; None is the local user."""

    key_id: str | None
    name: str
    is_admin: bool = False
    """The local user, or the holder of a key of scope `admin`."""
    kind: Literal["local", "key", "guest", "user"] = "local"


class Logins:
    """Knows visitors by their cookie, or by the header of a trusted proxy."""

    def __init__(
        self,
        access: GatewayAccess,
        keys: KeyRing,
        sessions: Sessions,
        guests: Guests | None,
        *,
        new_per_hour: int,
        users: Users | None = None,
        user_header: str | None = None,
    ) -> None:
        """With `guests`, visitors may begin without a key: `new_per_hour` of them from one address.

        With `users`, trusted proxies name them in `user_header`.
        """
        self._guests = guests
        self._users = users
        self._user_header = user_header
        self._new_guests = RecentByAddress(new_per_hour, GUEST_WINDOW_S)
        self._access = access
        self._keys = keys
        self._sessions = sessions
        self._failures = RecentByAddress(MAX_FAILURES, FAILURE_WINDOW_S)

    @property
    def must_log_in(self) -> bool:
        """Whether there is more than the one local user."""
        return self._access.needs_key

    async def find(self, request: Request) -> Visitor | None:
        """The visitor, None for one who has to log in. Raises AuthenticationFailed where a proxy's word is unclear."""
        if not self.must_log_in:
            return Visitor(None, "local", is_admin=True)
        # The proxy's word goes before a cookie, which may be that of somebody who used this browser earlier.
        if self._users is not None and (name := self._named_by_proxy(request)) is not None:
            user = await asyncio.to_thread(self._users.find, name, now=datetime.now(UTC))
            return Visitor(user.id, user.name, kind="user") if user else None
        token = request.cookies.get(COOKIE)
        if not token:
            return None
        session = await asyncio.to_thread(self._sessions.find, token, now=datetime.now(UTC))
        if session is not None:
            return Visitor(session.key_id, session.key_name, session.is_admin, "key")
        if self._guests is None:
            return None
        guest = await asyncio.to_thread(self._guests.find, token, now=datetime.now(UTC))
        return Visitor(guest.id, guest.name, kind="guest") if guest else None

    async def begin_as_guest(self, request: Request) -> tuple[Visitor, str]:
        """Let a visitor in without a key; the visitor and the cookie's token.

        Raises PermissionRefused where guests are not let in, Overloaded for too many from one address.
        """
        if self._guests is None:
            raise PermissionRefused("guests are not let in here", fix="log in with an API key")
        address = self._address(request)
        self._new_guests.check(address, "too many guests began from your address within the hour", "too_many_guests")
        self._new_guests.add(address)
        await self.log_out(request)
        new = await asyncio.to_thread(self._guests.create, now=datetime.now(UTC))
        return Visitor(new.key.id, new.key.name, kind="guest"), new.token

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
        address = self._address(request)
        self._failures.check(address, f"{MAX_FAILURES} wrong keys within {FAILURE_WINDOW_S:g} s", "too_many_logins")
        token = key.strip()
        found = self._keys.find(token)
        if found is None:  # made a moment ago, perhaps
            await asyncio.to_thread(self._keys.refresh)
            found = self._keys.find(token)
        if found is None:
            self._failures.add(address)
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
        return Visitor(found.id, found.name, found.allows("admin"), "key"), session

    def came_over_tls(self, request: Request) -> bool:
        """Whether the browser's connection was encrypted, by this server's or a trusted proxy's word."""
        if self._access.trusts(_peer(request)):
            return request.headers.get("x-forwarded-proto", "").split(",")[-1].strip().lower() == "https"
        return request.url.scheme == "https"

    async def log_out(self, request: Request) -> None:
        """End the session that the request shows, if any."""
        if token := request.cookies.get(COOKIE):
            await asyncio.to_thread(self._sessions.close, token)

    def _named_by_proxy(self, request: Request) -> str | None:
        """The user whom a trusted proxy names; None where it names nobody. Raises AuthenticationFailed."""
        assert self._user_header is not None
        if not self._access.trusts(_peer(request)):
            return None
        values = request.headers.getlist(self._user_header)
        if not any(value.strip() for value in values):
            return None
        try:
            name = values[0].encode("latin-1").decode("utf-8").strip()
        except UnicodeDecodeError:
            name = ""
        # A comma may join two headers: the one that the browser sent, and the proxy's.
        if len(values) > 1 or "," in name or not name.isprintable() or not 0 < len(name) <= MAX_NAME_LENGTH:
            raise AuthenticationFailed(
                f"{self._user_header} does not name one user",
                fix="let the proxy replace the header that a browser sends, not add to it",
                code="user_header_unclear",
            )
        return name

    def _address(self, request: Request) -> str:
        return self._access.client_of(_peer(request), request.headers.get("x-forwarded-for", ""))


class RecentByAddress:
    """Counts events by address within a window. Kept in memory only, and forgotten with the window."""

    def __init__(self, most: int, window_s: float) -> None:
        self._most = most
        self._window_s = window_s
        self._events: dict[str, deque[float]] = {}

    def add(self, address: str) -> None:
        """Note an event."""
        self._events.setdefault(address, deque(maxlen=self._most)).append(time.monotonic())

    def check(self, address: str, what: str, code: str) -> None:
        """Raises Overloaded where `most` events lie within the window."""
        now = time.monotonic()
        if len(self._events) > _MAX_ADDRESSES:
            self._events = {known: times for known, times in self._events.items() if times[-1] > now - self._window_s}
        times = self._events.get(address)
        if times and len(times) == self._most and times[0] > now - self._window_s:
            wait_s = times[0] + self._window_s - now
            raise Overloaded(what, fix="wait a while, then try again", code=code, retry_after_s=wait_s)


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
