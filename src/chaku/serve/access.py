"""Access to the gateway: checks of Host and Origin (DNS rebinding, foreign pages), CORS, and API keys."""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import urlsplit

from chaku.config import LOOPBACK_HOSTS, ORIGIN
from chaku.errors import AuthenticationFailed, ConfigError, NotFound, PermissionRefused
from chaku.policies import NO_LIMITS, Limits
from chaku.serve.evictions import Evictions
from chaku.serve.networks import is_in
from chaku.settings import ServeConfig

_HOST = re.compile(r"(?:\[([0-9a-f:.]+(?:%[\w~-]+)?)\]|([a-z0-9_.-]+))(?::\d{1,5})?", re.ASCII)
"""An address in brackets or a name, and perhaps a port: nothing else is a Host."""


class ApiKey(Protocol):
    """A key that was found; `chaku.store` has the real one."""

    @property
    def id(self) -> str:
        """The id that usage is booked under."""

    @property
    def limits(self) -> Limits:
        """What its holder may use."""

    def has_expired(self, now: datetime) -> bool:
        """Whether its time is over."""

    def allows(self, scope: str) -> bool:
        """Whether its holder has the right `scope`."""


class ActiveKeys(Protocol):
    """Looks API keys up in memory; `chaku.store` has the real one."""

    @property
    def num_active(self) -> int:
        """Active keys of any scope."""

    @property
    def num_of_callers(self) -> int:
        """Active keys of callers and visitors. With 0, nobody on this machine needs one."""

    def find(self, token: bytes) -> ApiKey | None:
        """The active key of this token, in constant time with regard to its value. It may have expired."""

    def with_id(self, key_id: str) -> ApiKey | None:
        """The active key of this id. It may have expired."""


class KnownVisitors(Protocol):
    """Visitors without a key who have just been at the page; `chaku.store.guests` and `users` have the real ones."""

    def with_id(self, visitor_id: str) -> ApiKey | None:
        """The visitor of this id, who is not blocked."""

    def welcome(self, visitor_ids: Set[str]) -> set[str]:
        """Those of these visitors who have no key, and are neither blocked nor deleted. Reads the database."""


@dataclass(frozen=True)
class Caller:
    """The sender of a request: a key's id, or None for the local user while no key exists."""

    key_id: str | None
    limits: Limits = field(default_factory=Limits)


LOCAL = Caller(None)
"""The local user, and whoever asks for what needs no key."""


class Access:
    """The checks that every request passes before anything is read from it."""

    def __init__(self, config: ServeConfig, keys: ActiveKeys) -> None:
        self._keys = keys
        self._cors_origins = frozenset(origin.rstrip("/").lower() for origin in config.cors_origins)
        self._any_origin = "*" in self._cors_origins
        names = {*LOOPBACK_HOSTS, config.host, socket.gethostname(), *config.allowed_hosts}
        if config.public_url is not None:
            names.add(urlsplit(config.public_url).hostname or "")
        self._host_names = {name.lower() for name in names}
        self._known_hosts: dict[bytes, bool] = {}
        lets_nobody_in = not keys.num_of_callers and config.guests is None and config.user_header is None
        if not is_loopback_host(config.host) and lets_nobody_in:
            raise ConfigError(
                f"--host {config.host} can be reached by others, and no API key exists",
                fix="create one (`chaku keys create NAME`), let guests in (--guests), or leave --host at 127.0.0.1",
                param="host",
            )
        if config.public_url is not None and lets_nobody_in:
            raise ConfigError(
                f"--public-url {config.public_url} can be reached by others, and no API key exists",
                fix="create one (`chaku keys create NAME`), let guests in (--guests), or leave --public-url out",
                param="public_url",
            )
        self._trusted = tuple(map(ipaddress.ip_network, config.trusted_proxies))
        self._fastchat_networks = tuple(map(ipaddress.ip_network, config.fastchat_networks))
        self._key_needed_always = not is_loopback_host(config.host) or (
            config.public_url,
            config.guests,
            config.user_header,
        ) != (None, None, None)
        self.visitors: tuple[KnownVisitors, ...] = ()
        """Set by the page, which lets them in."""
        self.evictions = Evictions(self._shut_out)
        self._inside = secrets.token_urlsafe(32)

    @property
    def needs_key(self) -> bool:
        """Whether callers need an API key. If not, every caller (over loopback) is the local user."""
        return bool(self._keys.num_of_callers) or self._key_needed_always

    def inside_token(self, key_id: str | None) -> str:
        """What the page, which runs in this process, sends for a key: it has seen the session, never the key's token.

        Random, made at start, kept in memory only.
        """
        return f"{self._inside}.{key_id or ''}"

    def check_host(self, host: bytes | None) -> None:
        """Refuse a Host that a rebinding page could have chosen: names are ours or configured, addresses are free."""
        if host is None:
            raise PermissionRefused("the request needs one Host header")
        known = self._known_hosts.get(host)
        if known is None:
            known = self._is_known(host.decode("latin-1"))
            if len(self._known_hosts) < 1000:
                self._known_hosts[host] = known
        if not known:
            text = host.decode("latin-1")[:100]
            name = host_name(text)
            fix = f"if it leads here, start with --allowed-host {name}" if name else None
            raise PermissionRefused(f"Host {text!r} is not one of this gateway's names", fix=fix)

    def client_of(self, peer: str, forwarded_for: str) -> str:
        """The client's address: the peer's, or the last one in X-Forwarded-For that is not a trusted proxy's."""
        address = peer
        for hop in reversed(forwarded_for.split(",")):
            if not self.trusts(address):
                break
            try:
                address = str(ipaddress.ip_address(hop.strip()))
            except ValueError:
                break
        return address

    def trusts(self, peer: str) -> bool:
        """Whether an address is a trusted proxy's."""
        return is_in(peer, self._trusted)

    def _is_known(self, host: str) -> bool:
        name = host_name(host).removesuffix(".")
        # Names below localhost lead to this machine wherever they are asked for: RFC 6761, 6.3.
        if name in self._host_names or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def check_origin(self, origin: bytes | None, host: bytes | None) -> str | None:
        """The Origin to name in CORS headers, or None for a request of no page or of our own page."""
        if origin is None:
            return None
        text = origin.decode("latin-1")
        if self._any_origin or text.lower() in self._cors_origins:
            return text
        scheme, _, own = text.lower().partition("://")
        if host is not None and scheme in ("http", "https") and own == host.decode("latin-1").lower():
            return None
        fix = f"allow them with --cors-origin {text}" if len(text) <= 100 and re.fullmatch(ORIGIN, text) else None
        raise PermissionRefused(f"pages of {text[:100]!r} may not call this gateway", fix=fix)

    def admit(self, scope: str, client: tuple[str, int] | None, headers: Mapping[bytes, bytes]) -> Caller:
        """Check that a request has the right `scope`; its caller, which is LOCAL where it needed no key.

        Raises AuthenticationFailed or PermissionRefused; NotFound for `fastchat` where nobody may use it. Nothing is
        checked for `open`, nor for `page`, which checks its sessions itself.
        """
        authorization = _credential(headers)
        if scope in ("infer", "metrics", "admin"):
            return self.identify(authorization, scope)
        if scope == "fastchat":
            self._check_fastchat(client[0] if client else "", headers)
        if scope == "join":
            return self.check_join(authorization, is_local=self.is_local(client[0] if client else "", headers))
        return LOCAL

    def _check_fastchat(self, peer: str, headers: Mapping[bytes, bytes]) -> None:
        """FastChat's programs have no key: their address must be in a network that was named for them."""
        if not self._fastchat_networks:
            raise NotFound("FastChat's protocol is not served here", fix="start with --fastchat-network CIDR")
        address = self.client_of(peer, headers.get(b"x-forwarded-for", b"").decode("latin-1"))
        is_hidden = any(name in headers for name in _OF_PROXIES) if address == peer else self.trusts(address)
        if is_hidden or not is_in(address, self._fastchat_networks):
            what = "came through a proxy that is not trusted" if is_hidden else "is in no network that was let in"
            raise PermissionRefused(
                f"{address or 'this address'} {what}",
                fix="start with --fastchat-network CIDR; no proxy between",
            )

    def identify(self, authorization: bytes | None, scope: str = "infer") -> Caller:
        """The caller that an Authorization header names, who may do what `scope` says.

        While callers need no key (loopback only), any header will do. Raises AuthenticationFailed or PermissionRefused.
        """
        if not self.needs_key:
            return LOCAL
        token = _bearer(authorization)
        inside, _, key_id = token.partition(b".")
        is_inside = hmac.compare_digest(inside, self._inside.encode())
        if is_inside and not key_id:
            return LOCAL
        key = self._of_the_page(key_id.decode()) if is_inside else self._keys.find(token)
        if key is None:
            raise AuthenticationFailed("this API key is unknown or revoked", fix="see `chaku keys list`")
        _check_expiry(key)
        if not is_inside and not key.allows(scope):  # the page asks for holders of `page`, who need no `infer`
            raise _without_right(scope)
        return Caller(key.id, key.limits)

    def _of_the_page(self, visitor_id: str) -> ApiKey | None:
        known: tuple[ActiveKeys | KnownVisitors, ...] = (self._keys, *self.visitors)
        return next((visitor for of in known if (visitor := of.with_id(visitor_id)) is not None), None)

    def _shut_out(self, caller_ids: Set[str]) -> Set[str]:
        """Callers whose key was revoked or has expired, and visitors who were blocked or deleted."""
        now = datetime.now(UTC)
        keys = ((caller_id, self._keys.with_id(caller_id)) for caller_id in caller_ids)
        without_key = {caller_id for caller_id, key in keys if key is None or key.has_expired(now)}
        for visitors in self.visitors:
            without_key -= visitors.welcome(without_key)
        return without_key

    def limits_of(self, visitor_id: str | None) -> Limits | None:
        """What a visitor of the page may do: the local user has no limits; None for a visitor who is not known now."""
        if visitor_id is None:
            return NO_LIMITS
        visitor = self._of_the_page(visitor_id)
        return visitor.limits if visitor is not None else None

    def may_infer(self, key_id: str) -> bool:
        """Whether the holder of this key may ask models now."""
        key = self._keys.with_id(key_id)
        return key is not None and key.allows("infer") and not key.has_expired(datetime.now(UTC))

    def check_join(self, authorization: bytes | None, *, is_local: bool) -> Caller:
        """Let a worker in: with a join token, or from this machine (`is_local`) while no key of any kind exists.

        Raises AuthenticationFailed or PermissionRefused.
        """
        if is_local and self.may_stay(None):
            return LOCAL
        key = self._keys.find(_bearer(authorization, fix=_JOIN_FIX))
        if key is None:
            raise AuthenticationFailed("this join token is unknown or revoked", fix=_JOIN_FIX)
        _check_expiry(key)
        if not key.allows("join"):
            raise PermissionRefused("this API key is not a join token", fix=_JOIN_FIX)
        return Caller(key.id)

    def may_stay(self, key_id: str | None) -> bool:
        """Whether a worker that joined with this key, or with none, would be let in now."""
        if key_id is None:
            return not self._keys.num_active and not self._key_needed_always
        key = self._keys.with_id(key_id)
        return key is not None and key.allows("join") and not key.has_expired(datetime.now(UTC))

    def is_local(self, peer: str, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request comes from this machine: over loopback, to a loopback name, and through no proxy."""
        if any(name in headers for name in _OF_PROXIES):
            return False
        host = host_name(headers.get(b"host", b"").decode("latin-1"))
        return is_loopback_host(peer) and is_loopback_host(host)


_JOIN_FIX = "`chaku fleet token create NAME` on the gateway's machine makes one: --token TOKEN, or CHAKU_JOIN_TOKEN"
_OF_PROXIES = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via", b"cf-connecting-ip")


def _bearer(authorization: bytes | None, *, fix: str | None = None) -> bytes:
    """The token in an Authorization header. Raises AuthenticationFailed where there is none."""
    if authorization is None or authorization[:7].lower() != b"bearer ":
        make = "send it as `Authorization: Bearer ck-...`; `chaku keys create` makes one"
        raise AuthenticationFailed("no join token was sent" if fix else "no API key was sent", fix=fix or make)
    return authorization[7:].strip()


def _check_expiry(key: ApiKey) -> None:
    if key.has_expired(datetime.now(UTC)):
        raise AuthenticationFailed(
            "this API key has expired", fix="`chaku keys edit NAME --expires DATE` prolongs it", code="api_key_expired"
        )


def _without_right(scope: str) -> PermissionRefused:
    return PermissionRefused(
        f"this API key has no scope {scope!r}", fix=f"`chaku keys create NAME --scope {scope}` makes one that has it"
    )


def is_loopback_host(name: str) -> bool:
    """Whether a host name or address always leads to the machine that asks."""
    name = name.removesuffix(".")
    if name in LOOPBACK_HOSTS or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _credential(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The Authorization header, or Anthropic's `x-api-key` as one; None where neither was sent."""
    authorization = headers.get(b"authorization")
    if authorization is None and (key := headers.get(b"x-api-key")) is not None:
        return b"Bearer " + key
    return authorization


def host_name(host: str) -> str:
    """The name or address in a Host header, without port and brackets, in lower case; "" where it is malformed."""
    match = _HOST.fullmatch(host.lower())
    return (match[1] or match[2]) if match else ""
