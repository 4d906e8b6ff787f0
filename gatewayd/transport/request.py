"""One HTTP request, with a bounded body and JSON instead of HTML in its errors."""

from __future__ import annotations

from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote_to_bytes

import msgspec
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server

from gatewayd.transport.body import BodyRules, NoRoom

if TYPE_CHECKING:
    from gatewayd.transport.channel import GatewayChannel

#: Tells a client whose body has no place when to try again; the seconds are a guess.
RETRY = {"Retry-After": "5"}


def error_body(code: int, message: str = "") -> bytes:
    """Encode the body of an error that the HTTP layer itself answers.

    :param code: the HTTP status.
    :param message: what to say; the status's own phrase when empty.
    """
    return msgspec.json.encode({"error": code, "message": message or HTTPStatus(code).phrase})


class GatewayRequest(server.Request):
    """A request whose body is kept within rules: in memory, or in a temporary file.

    There is no default content type: Twisted's ``text/html`` would be wrong for every API here.

    :ivar content: the body; it is closed when the request is finished, refused or lost.
    """

    channel: GatewayChannel
    content: BinaryIO
    defaultContentType = None
    _log = Logger()
    _left = 0

    @property
    def gone(self) -> bool:
        """Whether the client has disconnected, so that nobody reads the answer."""
        return bool(self._disconnected)

    # ---- the body

    def announce(self, method: bytes, target: bytes, version: bytes) -> None:
        """Take over the request line, which Twisted sets only when the body is complete."""
        self.method, self.uri, self.clientproto = method, target, version
        self.path = target.partition(b"?")[0]

    def open_body(self, rules: BodyRules, length: int | None) -> None:
        """Make room for the body.

        :param length: its bytes; None: nobody knows.
        :raises NoRoom: there is none.
        """
        self._left = rules.largest
        self.content = rules.open(length)

    def gotLength(self, length: int | None) -> None:
        """Be empty without a body; for any other, :meth:`open_body` was called."""
        if length == 0:
            self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a piece of the body, or refuse the request once there is too much of it."""
        if self.content.closed:
            return  # refused, while the decoder still had some
        self._left -= len(data)
        if self._left < 0:
            self.channel.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        try:
            self.content.write(data)
        except NoRoom:
            self.channel.refuse(HTTPStatus.SERVICE_UNAVAILABLE, RETRY)
        except OSError:
            self._log.failure("A request's body cannot be kept")
            self.channel.refuse(HTTPStatus.SERVICE_UNAVAILABLE, RETRY)

    def take_body(self) -> BinaryIO:
        """Return the body as the caller's own, to close: it may outlive the request."""
        body, self.content = self.content, BytesIO()
        return body

    def close_body(self) -> None:
        """Let the body go; again does nothing."""
        if self.content is not None:
            self.content.close()

    # ---- the answer

    def process(self) -> None:
        """Let the resource answer, as Twisted does; the head says when, but not by what."""
        if self.path == b"*":
            super().process()
            return
        self.site = self.channel.site
        self.setHeader(b"Date", self.site.date())
        self.prepath = []
        self.postpath = [unquote_to_bytes(each) for each in self.path[1:].split(b"/")]
        try:
            self.render(self.site.getResourceFor(self))
        except BaseException:
            self.processingFailed(Failure())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let a producer write the answer; it is stopped if there is nobody to read it."""
        if self._disconnected:
            producer.stopProducing()
        else:
            super().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """Forget the producer, which has written everything, or has found that nobody reads it."""
        if self._disconnected:
            self.producer = None
        else:
            super().unregisterProducer()

    def connectionLost(self, reason: Failure) -> None:
        """Tell whoever works on the answer that the client is gone, and stop its producer."""
        super().connectionLost(reason)
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()

    def cut_off(self) -> None:
        """Drop the connection in the middle of the answer.

        The client must not take a part of it for the whole.
        """
        if not (self._disconnected or self.finished):
            self.channel.abort()

    def processingFailed(self, reason: Failure) -> Failure:
        """Log what a resource raised and answer 500, if there is still somebody to answer.

        A response that has begun already cannot become an error: it is cut off.
        """
        self._log.failure("A resource failed", failure=reason)
        if self._disconnected or self.finished or self.channel.transport is None:
            return reason
        if self.startedWriting:
            self.cut_off()
            return reason
        body = error_body(HTTPStatus.INTERNAL_SERVER_ERROR)
        self.setResponseCode(HTTPStatus.INTERNAL_SERVER_ERROR)
        self.setHeader(b"Content-Type", b"application/json")
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()
        return reason
