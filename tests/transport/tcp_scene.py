"""A TCP line between real sockets, with a clock that the tests move."""

from __future__ import annotations

import os
import resource
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from gatewayd.core.line import Address, Ending, LinePlan, Wire
from gatewayd.transport.links.gear import Gear
from gatewayd.transport.links.pipes import Pipes
from gatewayd.transport.links.poller import EpollPoller, Pollable, ReactorPoller
from gatewayd.transport.links.ports import PortPool
from gatewayd.transport.links.tcp_line import TcpLine
from tests.transport.conftest import SECONDS

LOCAL = "127.0.0.1"


def descriptors() -> set[int]:
    """The files and sockets that this process has open."""
    listed = os.listdir("/proc/self/fd")  # with the one that lists them
    return {int(each) for each in listed if os.path.lexists(f"/proc/self/fd/{each}")}


@contextmanager
def few_descriptors(left: int = 0) -> Iterator[None]:
    """Leave the process so many descriptors and no more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(descriptors())
    fillers = [os.dup(0)]
    while fillers[-1] < highest:
        fillers.append(os.dup(0))
    os.close(fillers.pop())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + left, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for filler in fillers:
            os.close(filler)


def free_port() -> int:
    """A TCP port that nobody has, out of the range from which the system picks."""
    for port in range(20000 + os.getpid() % 10000, 32000):
        with socket.socket() as probe:
            try:
                probe.bind((LOCAL, port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


def address(named: socket.socket) -> Address:
    """Where a socket is."""
    return Address(*named.getsockname()[:2])


class Peer:
    """A client or a device: a plain socket whose owner decides when it reads.

    :ivar sent: bytes that its kernel has taken.
    """

    def __init__(self, reactor: Any, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.fileno = connection.fileno
        self.sent = 0
        self._reactor = reactor
        self._readable: Deferred[None] | None = None
        self._writable: Deferred[None] | None = None

    def logPrefix(self) -> str:
        return "test"

    def doRead(self) -> None:
        self._reactor.removeReader(self)
        waiting, self._readable = self._readable, None
        if waiting is not None:
            waiting.callback(None)

    def doWrite(self) -> None:
        self._reactor.removeWriter(self)
        waiting, self._writable = self._writable, None
        if waiting is not None:
            waiting.callback(None)

    def connectionLost(self, reason: Any) -> None:
        self.doRead()
        self.doWrite()

    @property
    def address(self) -> Address:
        return address(self.socket)

    async def readable(self) -> None:
        """Wait until there is something to read."""
        self._readable = Deferred()
        self._reactor.addReader(self)
        await self._readable.addTimeout(SECONDS, self._reactor)

    async def writable(self) -> None:
        """Wait until there is room to write."""
        self._writable = Deferred()
        self._reactor.addWriter(self)
        await self._writable.addTimeout(SECONDS, self._reactor)

    async def receive(self, size: int) -> bytes:
        """Wait for so many bytes, or fewer if the other side ends."""
        parts: list[bytes] = []
        while size:
            try:
                part = self.socket.recv(size)
            except BlockingIOError:
                await self.readable()
                continue
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    async def rest(self) -> bytes:
        """Wait for the end, and return what came before."""
        parts = []
        while part := await self.receive(1 << 20):
            parts.append(part)
            if len(part) < 1 << 20:
                break
        return b"".join(parts)

    async def send(self, data: bytes) -> None:
        """Send all of *data*."""
        left = memoryview(data)
        while left:
            sent = self.offer(left)
            left = left[sent:]
            if left:
                await self.writable()

    def offer(self, data: bytes | memoryview) -> int:
        """Send what can be sent now; return how much that was."""
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            return 0
        self.sent += sent
        return sent

    async def is_reset(self) -> bool:
        """Wait for the end; whether it was a reset."""
        try:
            await self.rest()
        except ConnectionResetError:
            return True
        return False

    def end(self) -> None:
        """Send no more."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self.socket.close()


@attrs.define(eq=False)
class Watch:
    """Notes what it is told.

    :ivar then: what is done besides, for instance raise.
    """

    reactor: Any
    told: list[Any] = attrs.field(factory=list)
    then: Callable[[], object] = lambda: None
    _waiting: list[tuple[int, Deferred[None]]] = attrs.field(factory=list)

    async def heard(self, count: int) -> list[Any]:
        """Wait until so much was told, and return all."""
        if len(self.told) < count:
            deferred: Deferred[None] = Deferred()
            self._waiting.append((count, deferred))
            await deferred.addTimeout(SECONDS, self.reactor)
        return self.told

    def client_came(self, client: Address) -> None:
        self._note(client)

    def client_left(self) -> None:
        self._note("left")

    def ended(self, ending: Ending) -> None:
        self._note(ending)

    def _note(self, what: Any) -> None:
        self.told.append(what)
        for entry in tuple(self._waiting):
            if len(self.told) >= entry[0]:
                self._waiting.remove(entry)
                entry[1].callback(None)
        self.then()


class Scene:
    """A device that listens, lines to it, and their clients.

    :ivar blocked: whom lines wait for to take what they hold.
    """

    def __init__(self, kind: str = "splice") -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.before = descriptors()
        self.clock = Clock()
        self.ports = PortPool(20000, 31999, self.clock)
        poller = ReactorPoller(reactor) if kind == "reactor" else EpollPoller(reactor)
        self.blocked: set[Pollable] = set()
        self.gear = Gear(self._noting(poller), self.clock, Pipes() if kind == "splice" else None)
        self.watch = Watch(reactor)
        self.device = Peer(reactor, socket.create_server((LOCAL, 0), backlog=128))
        self.closing: list[Callable[[], object]] = []
        self._lines: list[TcpLine] = []
        self._peers: list[Peer] = []

    @property
    def device_address(self) -> Address:
        return self.device.address

    def open(self, **settings: Any) -> TcpLine:
        """Open a line to the device, or to another one."""
        settings = {"wire": Wire.TCP, "host": LOCAL, "device": self.device_address, **settings}
        plan = LinePlan(**settings)
        port = self.ports.take(Wire.TCP, plan.host)
        self.closing.append(port.close)
        line = TcpLine(plan, self.watch, port, self.gear)
        line.start()
        self._lines.append(line)
        return line

    async def client(
        self, line: TcpLine, source: tuple[str, int] | None = None, room: int = 0
    ) -> Peer:
        """Connect to a line.

        :param source: from where; by default from 127.0.0.1.
        :param room: of the buffers of its socket, in bytes; by default the system's.
        """
        connection = socket.socket()
        if source is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.bind(source)
        if room:
            limit(connection, room)
        peer = self.peer(connection)
        connection.connect_ex((LOCAL, line.port))
        await peer.writable()
        return peer

    async def accept(self) -> Peer:
        """Wait for a connection to the device."""
        while True:
            try:
                connection, _ = self.device.socket.accept()
            except BlockingIOError:
                await self.device.readable()
                continue
            return self.peer(connection)

    async def pair(self, line: TcpLine, room: int = 0) -> tuple[Peer, Peer]:
        """Connect a client through to the device; *room* is as for :meth:`client`."""
        if room:
            # Connections inherit it. Shrinking the window of one that is open makes it crawl.
            limit(self.device.socket, room)
        return await self.client(line, room=room), await self.accept()

    async def offer(self, sender: Peer, data: bytes) -> int:
        """Send until the line takes no more because the other side does not read.

        :returns: how much was taken.
        """
        left = memoryview(data)[sender.sent :]
        full = 0
        while left and full < 50:
            sent = sender.offer(left[: 1 << 20])
            left = left[sent:]
            full = full + 1 if self.blocked and not sent else 0
            await self.turns(1)
        assert self.blocked
        return sender.sent

    async def turns(self, count: int = 20) -> None:
        """Let the reactor go round."""
        for _ in range(count):
            turned: Deferred[None] = Deferred()
            self.reactor.callLater(0, turned.callback, None)
            await turned

    def close(self) -> None:
        """End everything; nothing may be left."""
        for line in self._lines:
            line.close()
        self.gear.close()
        for peer in self._peers:
            peer.close()
        self.device.close()
        for close in self.closing:
            close()
        assert self.clock.getDelayedCalls() == []
        assert descriptors() <= self.before

    def _noting(self, poller: Any) -> Any:
        """Note for whom a poller is told to wait."""
        start, stop, forget = poller.start_writing, poller.stop_writing, poller.forget

        def start_writing(member: Pollable) -> None:
            self.blocked.add(member)
            start(member)

        def stop_writing(member: Pollable) -> None:
            self.blocked.discard(member)
            stop(member)

        def forget_it(member: Pollable) -> None:
            self.blocked.discard(member)
            forget(member)

        poller.start_writing, poller.stop_writing = start_writing, stop_writing
        poller.forget = forget_it
        return poller

    def peer(self, connection: socket.socket) -> Peer:
        """Take a socket into the scene."""
        self._peers.append(Peer(self.reactor, connection))
        return self._peers[-1]


def limit(limited: socket.socket, room: int) -> None:
    """Give a socket buffers of so many bytes."""
    limited.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    limited.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)


@pytest_twisted.async_yield_fixture(params=["splice", "copy", "reactor"])
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    """A device, with every way to move bytes; in the end nothing may be left."""
    made = Scene(request.param)
    yield made
    made.close()


@pytest_twisted.async_yield_fixture
async def stage() -> AsyncIterator[Scene]:
    """A device, for what does not depend on how bytes are moved."""
    made = Scene()
    yield made
    made.close()
