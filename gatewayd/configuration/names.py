"""UUIDs and names of nodes as an operator writes them."""

from __future__ import annotations

import re

_NODE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def parse_uuid(value: object) -> str:
    """Return a UUID in lower case.

    :raises ValueError: it is none; the text goes on after "the value is".
    """
    if isinstance(value, str) and _UUID.fullmatch(value.lower()):
        return value.lower()
    raise ValueError('not a UUID; allowed: as in "c4715841-bb1e-4c87-ad78-2376fe596a11"')


def parse_node_name(value: object) -> str:
    """Return the name of a node.

    :raises ValueError: it is none; the text goes on after "the value is".
    """
    if isinstance(value, str) and _NODE.fullmatch(value):
        return value
    raise ValueError("not the name of a node; allowed: 1 to 64 letters, digits, dots, _ and -")
