"""Joining a local connection with a link."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IHalfCloseableProtocol)
class End(Protocol):
    """One of two connections that are joined: what it receives, the other sends.

    Nothing is received before they are joined, and no faster than the other sends. The end of one
    direction is passed on, as is a connection that breaks.

    :ivar sent: fires when it has sent all that it ever will.
    :ivar cut: whether it broke.
    """

    transport: Any
    cut = False

    def __init__(self) -> None:
        self.sent: Deferred[None] = Deferred()
        self._other: End | None = None
        self._received_all = self._sent_all = False

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """Wait for the other."""
        self.transport.pauseProducing()

    def join(self, other: End) -> None:
        """Pass on both ways from now on."""
        self._follow(other)
        other._follow(self)

    def _follow(self, other: End) -> None:
        self._other = other
        other.transport.registerProducer(self.transport, True)
        self.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Pass on."""
        assert self._other is not None
        self._other.transport.write(data)

    def readConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """Pass the end of this direction on."""
        self._received_all = True
        if self._other is not None:
            self._other.transport.unregisterProducer()
            self._other.transport.loseWriteConnection()
        self._finish()

    def writeConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """Close when the other direction has ended, too."""
        self._sent()
        self._finish()

    def _sent(self) -> None:
        if not self._sent_all:
            self._sent_all = True
            self.sent.callback(None)

    def _finish(self) -> None:
        if self._received_all and self._sent_all:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        """Break the other one, unless both directions ended as they should."""
        self.cut = not reason.check(ConnectionDone)
        other, self._other = self._other, None
        if other is not None and not (self._received_all and self._sent_all):
            other.end(clean=not self.cut)
        self._sent()

    def end(self, *, clean: bool) -> None:
        """End because the other has ended, after what was received was sent if that was clean."""
        self.transport.unregisterProducer()
        abort = getattr(self.transport, "abortConnection", self.transport.loseConnection)
        (self.transport.loseConnection if clean else abort)()


class Forward(Factory):
    """Joins each connection that comes with one of its own to a link.

    :param failed: called when the link does not take a connection.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        failed: Callable[[Failure], None] = lambda failure: None,
    ) -> None:
        self._endpoint = HostnameEndpoint(reactor, host, port)
        self._failed = failed
        self._ends: WeakSet[End] = WeakSet()

    def buildProtocol(self, addr: object) -> End:  # noqa: N802 - Twisted's name
        """Make an end of a connection, and connect to the link for it."""
        local = End()
        self._ends.add(local)
        self.connect().addCallbacks(
            lambda remote: remote.join(local), self._refused, errbackArgs=(local,)
        )
        return local

    def connect(self) -> Deferred[End]:
        """Connect to the link."""
        connecting: Deferred[Any] = self._endpoint.connect(Factory.forProtocol(End))
        return connecting

    def _refused(self, failure: Failure, local: End) -> None:
        local.transport.abortConnection()
        self._failed(failure)

    def close(self) -> None:
        """Break every connection."""
        for end in self._ends:
            end.transport.abortConnection()
