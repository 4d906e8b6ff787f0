"""What one request records in timelines."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from twisted.internet.defer import Deferred, FirstError, gatherResults

from gatewayd.core.access import Principal
from gatewayd.core.model import Event

_LONGEST_KEY = 255


class Keys:
    """Idempotency keys of what a request records.

    A client that repeats a request, its ``X-Request-Id`` included, records nothing twice.
    """

    def __init__(self, request: Any, principal: Principal) -> None:
        given = (request.getHeader(b"X-Request-Id") or b"")[:_LONGEST_KEY]
        self._digest: str | None = None
        if given:
            request.content.seek(0)
            parts = (principal.name.encode(), given, request.content.read())
            self._digest = sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()

    def of(self, number: int) -> str | None:
        """Return the key of one of several records; None when it is not to have any."""
        return None if self._digest is None else f"iotkit/{self._digest}/{number}"


async def all_recorded(records: Sequence[Deferred[Event]]) -> None:
    """Wait until everything is on disk. :raises Exception: what went wrong first."""
    try:
        await gatherResults(records, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()
