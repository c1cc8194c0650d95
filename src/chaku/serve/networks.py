"""Whether an address is in one of the networks that were named."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


def is_in(address: Address | str, networks: Networks) -> bool:
    """Whether an address is in one of the networks; a text that is no address is in none.

    An IPv4 address that a socket for both kinds shows as IPv6 (::ffff:10.0.0.1) counts as itself. Other IPv4 addresses
    inside IPv6 do not: whoever has the outer address need not have the inner one.
    """
    if not networks:
        return False
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in networks)
