"""One HTTP request, with a bounded body and JSON instead of HTML in its errors."""

from __future__ import annotations

from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING

import msgspec
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server

if TYPE_CHECKING:
    from gatewayd.transport.channel import GatewayChannel


def error_body(code: int, message: str = "") -> bytes:
    """Encode the body of an error that the HTTP layer itself answers.

    :param code: the HTTP status.
    :param message: what to say; the status's own phrase when empty.
    """
    return msgspec.json.encode({"error": code, "message": message or HTTPStatus(code).phrase})


class GatewayRequest(server.Request):
    """A request whose body is kept in memory, up to the site's limit.

    There is no default content type: Twisted's ``text/html`` would be wrong for every API here.
    """

    channel: GatewayChannel
    content: BytesIO
    defaultContentType = None
    _log = Logger()
    _room = 0

    @property
    def gone(self) -> bool:
        """Whether the client has disconnected, so that nobody reads the answer."""
        return bool(self._disconnected)

    def gotLength(self, length: int | None) -> None:
        """Make room for the body; Twisted would open a temporary file for each chunked one."""
        self.content = BytesIO()
        self._room = self.channel.site.limits.body

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a piece of the body, or refuse the request once there is too much of it."""
        self._room -= len(data)
        if self._room < 0:
            self.channel.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            self.content.write(data)

    def processingFailed(self, reason: Failure) -> Failure:
        """Log what a resource raised and answer 500, if there is still somebody to answer.

        A response that has begun already cannot become an error: it is cut off, so that the
        client does not take a part for the whole.
        """
        self._log.failure("A resource failed", failure=reason)
        if self._disconnected or self.finished or self.channel.transport is None:
            return reason
        if self.startedWriting:
            self.channel.abort()
            return reason
        body = error_body(HTTPStatus.INTERNAL_SERVER_ERROR)
        self.setResponseCode(HTTPStatus.INTERNAL_SERVER_ERROR)
        self.setHeader(b"Content-Type", b"application/json")
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()
        return reason
