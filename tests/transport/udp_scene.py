"""A UDP line between real sockets, with a clock that the tests move."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from gatewayd.core.line import Address, Ending, LinePlan, Wire
from gatewayd.transport.links.datagrams import Batch
from gatewayd.transport.links.udp_line import UdpLine
from tests.transport.conftest import SECONDS
from tests.transport.test_datagrams import KINDS

LOCAL = "127.0.0.1"


def descriptors() -> int:
    """How many files and sockets this process has open."""
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0


def bound(host: str = LOCAL, port: int = 0) -> socket.socket:
    """A UDP socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
    if host == "::":
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.bind((host, port))
    return made


@implementer(IReadDescriptor)
class Peer:
    """A client or a device: a socket that notes what it gets.

    :ivar received: datagrams. :ivar senders: from where each came.
    """

    def __init__(self, reactor: Any, host: str = LOCAL, port: int = 0) -> None:
        self.socket = bound(host, port)
        self.received: list[bytes] = []
        self.senders: list[tuple[Any, ...]] = []
        self._reactor = reactor
        self._waiting: list[tuple[int, Deferred[None]]] = []
        reactor.addReader(self)

    @property
    def address(self) -> Address:
        return Address(*self.socket.getsockname()[:2])

    def send(self, data: bytes, to: tuple[Any, ...]) -> None:
        self.socket.sendto(data, to)

    async def got(self, count: int = 1) -> list[bytes]:
        """Wait for so many datagrams, and take them."""
        if len(self.received) < count:
            deferred: Deferred[None] = Deferred()
            self._waiting.append((count, deferred))
            await deferred.addTimeout(SECONDS, self._reactor)
        taken = self.received[:count]
        del self.received[:count]
        return taken

    def close(self) -> None:
        self._reactor.removeReader(self)
        self.socket.close()

    def fileno(self) -> int:
        return self.socket.fileno()

    def logPrefix(self) -> str:
        return "peer"

    def doRead(self) -> None:
        while True:
            try:
                data, sender = self.socket.recvfrom(70_000)
            except BlockingIOError:
                break
            self.received.append(data)
            self.senders.append(sender)
        for entry in tuple(self._waiting):
            if len(self.received) >= entry[0]:
                self._waiting.remove(entry)
                entry[1].callback(None)

    def connectionLost(self, reason: Failure) -> None:
        self.close()


class Hands(Clock):
    """The timers of a clock and the descriptors of the real reactor.

    :ivar readers: what waits for datagrams.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self._reactor = reactor
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)
        self._reactor.addReader(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers = [each for each in self.readers if each is not reader]
        self._reactor.removeReader(reader)


@attrs.define
class Watch:
    """Notes what it is told.

    :ivar then: what is done besides, for instance raise.
    """

    told: list[Any] = attrs.field(factory=list)
    then: Callable[[], object] = lambda: None

    def _note(self, what: Any) -> None:
        self.told.append(what)
        self.then()

    def client_came(self, client: Address) -> None:
        self._note(client)

    def client_left(self) -> None:
        self._note("left")

    def ended(self, ending: Ending) -> None:
        self._note(ending)

    def released(self) -> None:
        """Stand for who has given the port."""
        self._note("released")


class Scene:
    """A device, a client, a stranger, and a line when it is opened."""

    def __init__(self, batch: Batch) -> None:
        from twisted.internet import reactor

        self.before = descriptors()
        self.reactor: Any = reactor
        self.batch = batch
        self.hands = Hands(reactor)
        self.watch = Watch()
        self._peers: list[Peer] = []
        self._lines: list[UdpLine] = []
        self.device = self.peer()
        self.client = self.peer()
        self.stranger = self.peer()

    def peer(self, host: str = LOCAL, port: int = 0) -> Peer:
        self._peers.append(Peer(self.reactor, host, port))
        return self._peers[-1]

    def open(self, host: str = LOCAL, **settings: Any) -> UdpLine:
        """Open a line to the device, or another one."""
        settings = {"device": self.device.address, "host": host, **settings}
        client = bound(host)
        try:
            line = UdpLine(
                LinePlan(wire=Wire.UDP, **settings),
                self.watch,
                client,
                self.hands,
                released=self.watch.released,
                batch=self.batch,
            )
        except BaseException:
            client.close()
            raise
        self._lines.append(line)
        return line

    async def meet(self, line: UdpLine, data: bytes = b"hello") -> tuple[Any, ...]:
        """Let the client send something; return where the device can answer to."""
        self.client.send(data, (LOCAL, line.port))
        assert await self.device.got() == [data]
        return self.device.senders[-1]

    async def turn(self) -> None:
        """Let the reactor go round once."""
        turned: Deferred[None] = Deferred()
        self.reactor.callLater(0, turned.callback, None)
        await turned

    async def stop(self) -> None:
        """Close everything; no timer and no descriptor may be left."""
        for line in self._lines:
            await line.close()
        for peer in self._peers:
            peer.close()
        assert self.hands.getDelayedCalls() == []
        assert self.hands.readers == []
        assert descriptors() == self.before


@pytest.fixture(params=KINDS)
def batch(request: pytest.FixtureRequest) -> Batch:
    made: Batch = request.param()
    return made


@pytest_twisted.async_yield_fixture
async def scene(batch: Batch, failures: list[Failure]) -> AsyncIterator[Scene]:
    """A device, a client and a stranger; in the end nothing may be left, nor have been logged."""
    made = Scene(batch)
    yield made
    await made.stop()
    assert failures == []
