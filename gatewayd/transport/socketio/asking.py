"""What a request asks of Engine.IO, and how it is refused."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import attrs
import msgspec

from gatewayd.transport.endpoint import Refused

POLLING = "polling"
WEBSOCKET = "websocket"

UNKNOWN_TRANSPORT, UNKNOWN_SID, BAD_METHOD, BAD_REQUEST, UNKNOWN_VERSION = 0, 1, 2, 3, 5
_MESSAGES = {
    UNKNOWN_TRANSPORT: "Transport unknown",
    UNKNOWN_SID: "Session ID unknown",
    BAD_METHOD: "Bad handshake method",
    BAD_REQUEST: "Bad request",
    UNKNOWN_VERSION: "Unsupported protocol version",
}
_VERSION = "4"
_MOST_FIELDS = 100


class EngineError(Refused):
    """A request is answered with one of Engine.IO's errors."""

    def __init__(self, code: int) -> None:
        body = msgspec.json.encode({"code": code, "message": _MESSAGES[code]})
        super().__init__(400, body)


@attrs.frozen
class Asking:
    """What a request asks for.

    :ivar query: of its URL; of a field that comes twice, the first.
    :ivar transport: :data:`POLLING` or :data:`WEBSOCKET`.
    :ivar sid: whose client it is; empty for a new one.
    """

    query: dict[str, str]
    transport: str
    sid: str

    @classmethod
    def of(cls, request: Any) -> Asking:
        """Read a request's query. :raises EngineError: it is not for us."""
        text = request.uri.partition(b"?")[2].decode("latin-1")
        try:
            fields = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError:
            raise EngineError(BAD_REQUEST) from None
        query = dict(reversed(fields))
        transport = query.get("transport", "")
        if transport not in (POLLING, WEBSOCKET):
            raise EngineError(UNKNOWN_TRANSPORT)
        return cls(query, transport, query.get("sid", ""))

    def check_version(self) -> None:
        """Look whether a new client speaks what we do. :raises EngineError: it does not."""
        if self.query.get("EIO") != _VERSION:
            raise EngineError(UNKNOWN_VERSION)
