"""What stands in an index for what may be too long for one: PostgreSQL takes about 2700 bytes."""

from __future__ import annotations

from hashlib import sha256

import msgspec


def digest(*parts: str | int | None) -> bytes:
    """Return a digest of some values in their order."""
    return sha256(msgspec.json.encode(parts)).digest()
