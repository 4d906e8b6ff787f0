"""Socket addresses in the one form in which they can be compared."""

from __future__ import annotations

from typing import Any

from gatewayd.core.addresses import parse_address
from gatewayd.core.line import Address


def canonical(address: Address) -> Address:
    """Return *address* with its host in the shortest form; IPv4 inside of IPv6 becomes IPv4.

    :raises ValueError: the host is no IP address.
    """
    host = parse_address(address.host)
    if host is None:
        raise ValueError(f"{address.host!r} is no IP address")
    return Address(str(host), address.port)


def peer(name: tuple[Any, ...]) -> Address:
    """Return the address that a socket call has named, in its canonical form."""
    host, port = name[:2]
    return canonical(Address(host, port)) if ":" in host else Address(host, port)
