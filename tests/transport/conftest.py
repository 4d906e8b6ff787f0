"""WebSocket clients for the tests of the transport layer, in memory and on real sockets."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import Site
from zope.interface import implementer

from gatewayd.transport.frames import binary_frame
from gatewayd.transport.root import Root
from gatewayd.transport.websocket import (
    WebSocketFactory,
    WebSocketLimits,
    WebSocketResource,
    WebSocketSession,
)

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MASK = b"\x37\xfa\x21\x3d"
SECONDS = 30  # after which a test on real sockets fails

Frame = tuple[int, bytes]

HEADERS = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def handshake(
    *extra: tuple[str, str], method: str = "GET", path: str = "/", without: Sequence[str] = ()
) -> bytes:
    """An opening handshake, with headers added, and those named in *without* or added left out."""
    dropped = {*without, *(name for name, _ in extra)}
    kept = [(name, value) for name, value in HEADERS.items() if name not in dropped]
    lines = [f"{name}: {value}" for name, value in (*kept, *extra)]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()


def client_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    length: bytes | None = None,
) -> bytes:
    """A frame as a client sends it; *length* replaces the length bytes (without the mask bit)."""
    if length is None:
        size = len(payload)
        if size < 126:
            length = bytes((size,))
        elif size < 65536:
            length = b"\x7e" + struct.pack("!H", size)
        else:
            length = b"\x7f" + struct.pack("!Q", size)
    head = bytes((fin << 7 | rsv << 4 | opcode, length[0] | (0x80 if mask is not None else 0)))
    if mask is None:
        return head + length[1:] + payload
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    masked = bytes(left ^ right for left, right in zip(payload, key, strict=True))
    return head + length[1:] + mask + masked


def client_close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    """A client's close frame."""
    return client_frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def server_frames(data: bytes) -> list[Frame]:
    """The (opcode, payload) of each frame in *data*, which must be whole, plain server frames."""
    frames = []
    while data:
        assert data[0] & 0xF0 == 0x80
        size, start = data[1], 2
        if size == 126:
            size, start = struct.unpack("!H", data[2:4])[0], 4
        elif size == 127:
            size, start = struct.unpack("!Q", data[2:10])[0], 10
        assert len(data) >= start + size
        frames.append((data[0] & 15, data[start : start + size]))
        data = data[start + size :]
    return frames


def after_head(data: bytes) -> bytes:
    """What follows the head of an HTTP response."""
    return data.partition(b"\r\n\r\n")[2]


class Session(WebSocketSession):
    """Notes what its hooks are called with, echoes, and obeys a few texts."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def opened(self) -> None:
        self.events.append("opened")

    def text_received(self, payload: bytes) -> None:
        self.events.append((TEXT, payload))
        if payload == b"boom":
            raise RuntimeError("boom")
        if payload == b"close":
            self.close(4001, "as asked")
        elif payload == b"pause":
            self.pause_reading()
        else:
            self.send_text(payload)

    def pinging(self) -> None:
        self.events.append("pinging")

    def ponged(self) -> None:
        self.events.append("ponged")

    def closed(self) -> None:
        self.events.append("closed")


class Echo(WebSocketSession):
    """Sends every message back."""

    def text_received(self, payload: bytes) -> None:
        self.send_text(payload)

    def binary_received(self, payload: bytes) -> None:
        self.send_frame(binary_frame(payload))


@attrs.frozen
class OneMount:
    """A mount with one WebSocket resource for all paths."""

    endpoint: WebSocketResource | None
    page: IResource | None = None

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
        return self.endpoint

    def resource(self, path: str) -> IResource | None:
        return self.page


# Its annotations do not fit a transport that changes its producer.
_StringTransport: Any = StringTransport


class Wire(_StringTransport):
    """A transport in memory that knows how a real one ends.

    :ivar half_closed: whether our side has been closed.
    :ivar aborted: whether it was cut.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.protocol: Any = None
        self.half_closed = False
        self.aborted = False
        self.lost = False
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        super().write(data)

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True
        self._clock.callLater(0, self.lose, ConnectionAborted())

    def lose(self, reason: Exception | None = None) -> None:
        """Tell the protocol that the connection is gone."""
        if not self.lost:
            self.lost = True
            self.protocol.connectionLost(Failure(reason or ConnectionDone()))

    def taken(self) -> bytes:
        """What has been written since the last call."""
        data: bytes = self.value()
        self.clear()
        return data


@attrs.define
class Memory:
    """A WebSocket API on a listener in memory."""

    clock: Clock
    factory: WebSocketFactory
    resource: WebSocketResource

    def request(self, data: bytes) -> Wire:
        """Connect and send *data*."""
        wire = Wire(self.clock)
        site = Site(Root([OneMount(self.resource)]), timeout=None, reactor=self.clock)
        wire.protocol = site.buildProtocol(wire.getPeer())
        wire.protocol.makeConnection(wire)
        wire.protocol.dataReceived(data)
        return wire

    def connect(self, data: bytes | None = None) -> tuple[Any, Wire]:
        """Connect, shake hands, and return the session and its transport."""
        wire = self.request(data or handshake())
        head, _, frames = wire.taken().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        wire.io.write(frames)
        return wire.protocol, wire

    @classmethod
    def make(
        cls,
        session: Callable[[], WebSocketSession] = Session,
        accept: Callable[[Any], Awaitable[Any] | Any] | None = None,
        **limits: Any,
    ) -> Memory:
        """Make a WebSocket API."""
        clock = Clock()
        factory = WebSocketFactory(session, WebSocketLimits(**limits), clock)
        factory.start()
        return cls(clock, factory, WebSocketResource(factory, accept))

    def check_clean(self) -> None:
        """End all connections; no session and no delayed call may be left."""
        for session in tuple(self.factory.sessions):
            session.transport.lose()
        self.factory.stop()
        self.clock.advance(0)
        assert not self.factory.sessions
        assert not self.clock.getDelayedCalls()


MakeMemory = Callable[..., Memory]


@pytest.fixture
def memory() -> Iterator[MakeMemory]:
    """Make WebSocket APIs in memory; in the end no session and no delayed call may be left."""
    made: list[Memory] = []

    def make(*arguments: Any, **options: Any) -> Memory:
        made.append(Memory.make(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.check_clean()


@pytest.fixture
def failures() -> Iterator[list[Failure]]:
    """The exceptions that are logged."""
    seen: list[Failure] = []

    @implementer(ILogObserver)
    def observe(event: dict[str, Any]) -> None:
        if "log_failure" in event:
            seen.append(event["log_failure"])

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


class RawClient(Protocol):
    """A TCP client that notes what it gets.

    :ivar received: all bytes.
    :ivar ended: fires with the reason when the connection is gone.
    """

    def __init__(self) -> None:
        self.received = b""
        self.ended: Deferred[Any] = Deferred()
        self._wanted: list[tuple[Callable[[bytes], bool], Deferred[bytes]]] = []

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        for entry in tuple(self._wanted):
            if entry[0](self.received):
                self._wanted.remove(entry)
                entry[1].callback(self.received)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(reason.value)

    def until(self, enough: Callable[[bytes], bool]) -> Deferred[bytes]:
        """Wait until *enough* says so of all that was received."""
        deferred: Deferred[bytes] = Deferred()
        if enough(self.received):
            deferred.callback(self.received)
        else:
            self._wanted.append((enough, deferred))
        return deferred


@attrs.define
class Listener:
    """A WebSocket API on a real port of 127.0.0.1."""

    reactor: Any
    factory: WebSocketFactory
    port: Any
    tls: Any = None

    @classmethod
    def open(
        cls, session: Callable[[], WebSocketSession] = Echo, tls: Any = None, **limits: Any
    ) -> Listener:
        """Listen, with TLS if its options are given."""
        from twisted.internet import reactor

        clock: Any = reactor
        factory = WebSocketFactory(session, WebSocketLimits(**limits), clock)
        site: Any = Site(Root([OneMount(WebSocketResource(factory))]), reactor=clock)
        if tls is not None:
            site = TLSMemoryBIOFactory(tls, False, site)
        return cls(clock, factory, clock.listenTCP(0, site, interface="127.0.0.1"), tls)

    async def connect(self, data: bytes | None = None) -> RawClient:
        """Connect and send *data*, by default a handshake whose answer is awaited."""
        endpoint: Any = HostnameEndpoint(self.reactor, "127.0.0.1", self.port.getHost().port)
        if self.tls is not None:
            endpoint = wrapClientTLS(CertificateOptions(), endpoint)
        client: RawClient = await endpoint.connect(Factory.forProtocol(RawClient))
        transport: Any = client.transport
        transport.write(data or handshake())
        if data is None:
            await self.bounded(client.until(lambda received: b"\r\n\r\n" in received))
        return client

    def bounded(self, deferred: Deferred[Any]) -> Deferred[Any]:
        """Let *deferred* fail when it takes too long."""
        return deferred.addTimeout(SECONDS, self.reactor)

    async def turn(self) -> None:
        """Let the reactor go round once."""
        turned: Deferred[None] = Deferred()
        self.reactor.callLater(0, turned.callback, None)
        await turned

    async def stop(self) -> None:
        """Stop listening and end all sessions."""
        await self.port.stopListening()
        await self.bounded(self.factory.shutdown(1))
        self.factory.stop()
