"""What lies between clients and a daemon: it can be cut, and it knows what was asked for."""

from __future__ import annotations

import re

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import connectionDone
from twisted.protocols.portforward import ProxyFactory, ProxyServer
from twisted.python.failure import Failure

from tests.harness import reactor

_REQUEST = re.compile(rb"^([A-Z]+) (\S+) HTTP/1\.1\r$", re.MULTILINE)


class _Strand(ProxyServer):
    """One connection of a client, and the one to the daemon behind it."""

    factory: Wire

    def connectionMade(self) -> None:
        if self.factory.is_cut:
            self.transport.abortConnection()  # type: ignore[attr-defined]
            return
        self.factory.strands.add(self)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        self.factory.sent.append(data)
        super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.strands.discard(self)
        super().connectionLost(reason)


class Wire(ProxyFactory):
    """A port that leads to a daemon.

    :ivar strands: its connections. :ivar sent: what the clients have sent.
    :ivar is_cut: whether it leads nowhere for now.
    """

    noisy = False
    protocol = _Strand

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port)
        self.strands: set[_Strand] = set()
        self.sent: list[bytes] = []
        self.is_cut = False
        self._listening: IListeningPort = reactor.listenTCP(0, self, interface="127.0.0.1")

    @property
    def entrance(self) -> int:
        """The port where clients connect."""
        port: int = self._listening.getHost().port  # type: ignore[attr-defined]
        return port

    def requests(self) -> list[tuple[str, str]]:
        """Return the methods and paths that were asked for, without queries."""
        # What is before a request in the same connection need not end with a line.
        found = _REQUEST.findall(b"\n".join(self.sent))
        return [(method.decode(), path.decode().partition("?")[0]) for method, path in found]

    def cut(self) -> None:
        """End all connections at once, without a word, and those that are tried until it is mended.

        One that polls has no connection between two polls.
        """
        self.is_cut = True
        for strand in tuple(self.strands):
            strand.transport.abortConnection()  # type: ignore[attr-defined]

    def mend(self) -> None:
        """Lead to the daemon again."""
        self.is_cut = False

    async def end(self) -> None:
        """Lead nowhere any more."""
        await maybeDeferred(self._listening.stopListening)
        self.cut()
