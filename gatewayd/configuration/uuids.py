"""UUIDs as an operator writes them."""

from __future__ import annotations

import re

_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def parse_uuid(value: object) -> str:
    """Return a UUID in lower case.

    :raises ValueError: it is none; the text goes on after "the value is".
    """
    if isinstance(value, str) and _UUID.fullmatch(value.lower()):
        return value.lower()
    raise ValueError('not a UUID; allowed: as in "c4715841-bb1e-4c87-ad78-2376fe596a11"')
