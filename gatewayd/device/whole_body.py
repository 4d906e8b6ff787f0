"""The body of an answer, in one piece."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from gatewayd.errors import TooLarge


def read_whole(response: Any, largest: int) -> Deferred[bytes]:
    """Return the body of a response of Twisted's client; cancelling drops the connection.

    :param largest: its bytes. :raises TooLarge: ``"answer"``: it has more.
    """
    body = _Body(largest)
    response.deliverBody(body)
    return body.whole


class _Body(Protocol):
    """Takes a body up to a limit, and drops the connection when nobody wants it any more.

    :ivar whole: fires with it.
    """

    transport: Any

    def __init__(self, largest: int) -> None:
        self.whole: Deferred[bytes] = Deferred(lambda _: self.transport.loseConnection())
        self._largest = largest
        self._body = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """Keep a piece."""
        if self.whole.called:
            return
        self._body += data
        if len(self._body) > self._largest:
            self.whole.errback(TooLarge("answer"))
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Be done; a body whose length nobody told ends with the connection."""
        if self.whole.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.whole.callback(bytes(self._body))
        else:
            self.whole.errback(reason)
