"""Which addresses a gateway may connect to because a worker said so.

A join token lets a worker name a URL. It must not turn the gateway into a way to what only the gateway can reach.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any
from urllib.parse import SplitResult, urlsplit

import aiohttp
from aiohttp.resolver import ThreadedResolver

from chaku.errors import InvalidRequest
from chaku.serve.networks import Address, Networks, is_in

_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "169.254.170.2")
)
"""Of AWS, Google, Azure and Oracle; AWS over IPv6; Alibaba; Azure's host; Oracle's old one; AWS containers."""
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""NAT64: an IPv4 address in the last four bytes (RFC 6052)."""


def why_not(address: Address, *, allow_loopback: bool, networks: Networks | None = None) -> str | None:
    """Why the gateway connects to no worker at this address; None where it does.

    With `networks`, it must be in one of them too.
    """
    address = _inner(address)
    if address in _METADATA:
        return "is a cloud's metadata service"
    if address.is_link_local:
        return "is link-local"
    if address.is_unspecified or address.is_multicast or address == ipaddress.ip_address("255.255.255.255"):
        return "is not an address of one machine"
    if address.is_loopback and not allow_loopback:
        return "is loopback, and this worker connects from another machine"
    if networks is not None and not is_in(address, networks):
        return "is in none of the networks that are let in"
    return None


def _inner(address: Address) -> Address:
    """The IPv4 address inside an IPv6 address, where it is one in disguise."""
    if isinstance(address, ipaddress.IPv6Address):
        address = address if address.scope_id is None else ipaddress.IPv6Address(int(address))
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return inner or address
    return address


def check_url(url: str, *, allow_loopback: bool, networks: Networks | None = None) -> str:
    """The URL of a worker as scheme, host and port. Raises InvalidRequest for what can't be one, or may not."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused(url, "is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii():
        raise _refused(url, "is not an http(s) URL")
    if parts.username or parts.password or parts.query or parts.fragment or parts.path not in ("", "/"):
        raise _refused(url, "has more than a scheme, a host and a port")
    if port is None:
        raise _refused(url, "has no port")
    address = _literal(parts)
    if address is not None and (why := why_not(address, allow_loopback=allow_loopback, networks=networks)) is not None:
        raise _refused(url, why)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _literal(parts: SplitResult) -> Address | None:
    try:
        return ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return None


def _refused(url: str, why: str) -> InvalidRequest:
    fix = "--advertise URL names an address that the gateway can reach; docs/fleet.md has the ways through a tunnel"
    return InvalidRequest(f"the worker's address {url[:200]!r} {why}", fix=fix, param="url", code="worker_address")


class CheckedResolver(aiohttp.abc.AbstractResolver):
    """Looks a worker's host name up for every connection, and leaves out what the gateway may not connect to.

    The check belongs to the connection: a name that led somewhere else a moment ago gets no second chance.
    """

    def __init__(self, *, allow_loopback: bool, networks: Networks | None = None) -> None:
        self._allow_loopback = allow_loopback
        self._networks = networks

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[Any]:
        """The addresses of a host. Raises OSError where none is left."""
        found = await ThreadedResolver().resolve(host, port, family)
        reasons: set[str] = set()
        kept = []
        for row in found:
            address = ipaddress.ip_address(row["host"])
            why = why_not(address, allow_loopback=self._allow_loopback, networks=self._networks)
            if why is None:
                kept.append(row)
            else:
                reasons.add(f"{row['host']} {why}")
        if not kept:
            raise OSError(None, f"{host} leads to an address that is refused: {', '.join(sorted(reasons))}")
        return kept

    async def close(self) -> None:
        """Nothing is kept open."""
