"""Writing past the reactor: to real connections, of which the test reads the other end."""

from __future__ import annotations

import select
import socket
from typing import Any

import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from gatewayd.transport import direct

reactor: Any = _reactor
PATIENCE = 5


class End(Protocol):
    """Our end of a connection."""

    def __init__(self) -> None:
        self.lost: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class Pair:
    """A connection: a transport at one end, a plain socket at the other."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        self.theirs.setblocking(False)
        self.end = End()
        factory: Any = Factory()
        factory.buildProtocol = lambda address: self.end
        ours.setblocking(False)
        reactor.adoptStreamConnection(ours.fileno(), socket.AF_INET, factory)
        ours.close()
        self.transport: Any = self.end.transport

    @property
    def there(self) -> bytes:
        """What the other end receives next, while the reactor does nothing."""
        assert select.select([self.theirs], [], [], PATIENCE)[0]
        return self.theirs.recv(2**20)

    async def received(self, size: int) -> bytes:
        """Return so much, or what comes until the end; the reactor runs meanwhile."""
        data = bytearray()
        for _ in range(PATIENCE * 1000):
            try:
                more = self.theirs.recv(2**20)
            except BlockingIOError:
                await deferLater(reactor, 0.001)
                continue
            data += more
            if not more or len(data) >= size:
                break
        return bytes(data)

    async def close(self) -> None:
        self.theirs.close()
        self.transport.abortConnection()
        if not self.end.lost.called:
            await self.end.lost


@pytest_twisted.ensureDeferred
async def test_at_once() -> None:
    """What is written is there without a turn of the reactor, in order."""
    pair = Pair()
    direct.write(pair.transport, b"one ")
    direct.write(pair.transport, b"two")
    assert pair.there == b"one two"
    await pair.close()


@pytest_twisted.ensureDeferred
async def test_behind_what_waits() -> None:
    """Nothing overtakes what was given to the transport before."""
    pair = Pair()
    pair.transport.write(b"first, ")
    direct.write(pair.transport, b"second, ")
    pair.transport.write(b"third")
    assert await pair.received(20) == b"first, second, third"
    direct.write(pair.transport, b"fourth")
    assert pair.there == b"fourth"
    await pair.close()


@pytest_twisted.ensureDeferred
async def test_more_than_is_taken() -> None:
    """What the kernel does not take follows, once, when the other end reads."""
    pair = Pair()
    pieces = [bytes([number]) * 300_000 for number in range(40)]
    for piece in pieces:
        direct.write(pair.transport, piece)
    whole = b"".join(pieces)
    assert await pair.received(len(whole)) == whole
    await pair.close()


@pytest_twisted.ensureDeferred
async def test_before_the_end() -> None:
    """What is written before a half-close arrives, what is written after it does not."""
    pair = Pair()
    pair.transport.write(b"first")
    pair.transport.loseWriteConnection()
    direct.write(pair.transport, b", second")
    assert await pair.received(100) == b"first, second"
    direct.write(pair.transport, b"late")
    assert pair.there == b""
    await pair.close()


@pytest_twisted.ensureDeferred
async def test_lost() -> None:
    """A connection that is found to be lost ends by the reactor, not within the call."""
    pair = Pair()
    pair.transport.pauseProducing()
    pair.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    pair.theirs.close()
    direct.write(pair.transport, b"x")
    direct.write(pair.transport, b"x")
    assert not pair.end.lost.called
    await pair.end.lost.addTimeout(PATIENCE, reactor)
    direct.write(pair.transport, b"x")


def test_any_transport() -> None:
    """A transport of another kind is written to as usual."""
    transport = StringTransport()
    direct.write(transport, b"x")
    assert transport.value() == b"x"
