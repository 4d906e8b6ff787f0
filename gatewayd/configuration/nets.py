"""IP addresses, networks and ports as an operator writes them."""

from __future__ import annotations

import ipaddress
import re

#: Ports below it are the system's.
LOWEST_PORT = 1024
HIGHEST_PORT = 65535

_RANGE = re.compile("([0-9]{1,5})(?:-([0-9]{1,5}))?")


def parse_ip(value: object) -> str:
    """Return an IP address in its shortest form.

    :raises ValueError: it is none; the text goes on after "the value is".
    """
    try:
        return str(ipaddress.ip_address(value if isinstance(value, str) else ""))
    except ValueError:
        raise ValueError('not an IP address; allowed: as in "127.0.0.1" or "::"') from None


def parse_networks(value: object) -> list[str]:
    """Return networks such as ``"10.0.0.0/8"``, at least one.

    :raises ValueError: something else is given; the text says what is allowed.
    """
    allowed = 'allowed: at least one, as in ["10.0.0.0/8", "fd00::/8"]'
    if not isinstance(value, list) or not value:
        raise ValueError(f"not a list of networks; {allowed}")
    try:
        # Numbers would be taken for addresses.
        return [str(ipaddress.ip_network(each if isinstance(each, str) else "")) for each in value]
    except ValueError as error:
        raise ValueError(f"not a list of networks: {error}; {allowed}") from None


def parse_ports(value: object) -> list[tuple[int, int]]:
    """Return ranges of ports, at least one, from items such as ``22``, ``"22"``, ``"80-90"``.

    :raises ValueError: something else is given; the text says what is allowed.
    """
    ranges = [_range(each) for each in value] if isinstance(value, list) else []
    found = [each for each in ranges if each is not None]
    if not found or len(found) < len(ranges):
        allowed = f'allowed: 1 to {HIGHEST_PORT}, at least one, as in [22, "8000-8100"]'
        raise ValueError(f"not a list of ports; {allowed}")
    return found


def _range(item: object) -> tuple[int, int] | None:
    """Return the range that one item of a list of ports is."""
    if isinstance(item, bool) or not isinstance(item, int | str):
        return None
    match = _RANGE.fullmatch(str(item))
    if match is None:
        return None
    low, high = int(match[1]), int(match[2] or match[1])
    return (low, high) if 1 <= low <= high <= HIGHEST_PORT else None


def parse_port_range(value: object) -> tuple[int, int]:
    """Return the lowest and the highest of ports that are to be listened on.

    :raises ValueError: something else is given; the text says what is allowed.
    """
    if isinstance(value, list) and len(value) == 2 and all(type(each) is int for each in value):
        low, high = value
        if LOWEST_PORT <= low <= high <= HIGHEST_PORT:
            return low, high
    allowed = f"allowed: the lowest and the highest, from {LOWEST_PORT} to {HIGHEST_PORT}"
    raise ValueError(f"not a range of ports; {allowed}, as in [40000, 49999]")
