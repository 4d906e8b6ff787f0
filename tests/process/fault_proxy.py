"""A TCP proxy that delays, loses and holds back what it passes on."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.process.daemon import reactor


class _End(Protocol):
    """One of the two connections of a pair."""

    other: _End | None = None

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self._early: list[bytes] = []
        self.transport: Any = None

    def connectionMade(self) -> None:
        self._proxy.ends.add(self)
        if self._proxy.frozen:
            self.transport.pauseProducing()

    def join(self, other: _End) -> None:
        """Pass everything on to another connection from now on."""
        self.other = other
        for data in self._early:
            other.send(data)
        self._early.clear()

    def dataReceived(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        elif self._proxy.delay:
            # Delays are all the same, so that the order stays.
            reactor.callLater(self._proxy.delay, self.other.send, data)
        else:
            self.other.send(data)

    def send(self, data: bytes) -> None:
        """Send something, unless the connection is gone."""
        if self in self._proxy.ends:
            self.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._proxy.ends.discard(self)
        if self.other is not None and not self._proxy.frozen:
            self.other.transport.abortConnection()


class FaultProxy:
    """Stands between a node and its database.

    :ivar delay: seconds, in each direction. :ivar frozen: whether nothing passes, and nobody is
        told.
    """

    def __init__(self, port: int) -> None:
        self.delay = 0.0
        self.frozen = False
        self.ends: set[_End] = set()
        self._target = port
        self._port: IListeningPort | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._port is not None
        port: int = self._port.getHost().port  # type: ignore[attr-defined]
        return port

    def start(self) -> None:
        """Begin to listen."""
        factory = Factory()
        factory.buildProtocol = self._accept  # type: ignore[method-assign,assignment]
        self._port = reactor.listenTCP(0, factory, interface="127.0.0.1")

    def _accept(self, address: object) -> _End:
        near = _End(self)

        def joined(far: _End) -> None:
            far.join(near)
            near.join(far)

        def failed(failure: Failure) -> None:
            if near.transport is not None:
                near.transport.abortConnection()

        dialed: Deferred[Any] = TCP4ClientEndpoint(reactor, "127.0.0.1", self._target).connect(
            Factory.forProtocol(lambda: _End(self))  # type: ignore[arg-type]
        )
        dialed.addCallbacks(joined, failed)
        return near

    def cut(self) -> None:
        """Break all connections."""
        for end in tuple(self.ends):
            end.transport.abortConnection()

    def freeze(self) -> None:
        """Let nothing pass; connections look as if they were there, new ones too."""
        self.frozen = True
        for end in tuple(self.ends):
            end.transport.pauseProducing()

    def thaw(self) -> None:
        """Break what stood still, as a network does in the end, and let new connections pass."""
        self.frozen = False
        self.cut()

    async def stop(self) -> None:
        """Leave nothing behind."""
        self.frozen = False
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
        self.cut()
        while self.ends:
            waited: Deferred[None] = Deferred()
            reactor.callLater(0.01, waited.callback, None)
            await waited
