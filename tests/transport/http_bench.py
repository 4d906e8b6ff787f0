"""A site in memory or on a port, and clients for it, for the tests of the HTTP listener."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from gatewayd.transport.channel import GatewayChannel
from gatewayd.transport.site import GatewaySite, HttpLimits

GET = b"GET /echo HTTP/1.1\r\nHost: gw\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: gw\r\n"


class Root(Resource):
    """Echo bodies, or do what the first segment of the path says."""

    def __init__(self) -> None:
        super().__init__()
        self.isLeaf = True
        self.held: list[Request] = []

    def render(self, request: Request) -> Any:
        assert request.postpath is not None
        assert request.content is not None
        match request.postpath[0]:
            case b"hold":
                self.held.append(request)
                return NOT_DONE_YET
            case b"fail":
                raise RuntimeError("a resource's bug")
            case b"half":
                request.write(b"begun")
                raise RuntimeError("a late bug")
            case b"flood":
                request.setHeader("Content-Length", str(64 * 1024 * 1024))
                request.write(b"x" * 64 * 1024 * 1024)
                request.finish()
                return NOT_DONE_YET
        return b"echo:" + bytes(request.content.read())


class Wire(StringTransport):
    """A transport in memory that tells its protocol about the end, as a real one does."""

    half_closed = False
    stuck = False

    def __init__(self, protocol: GatewayChannel) -> None:
        super().__init__(lenient=True)
        self.protocol = protocol

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def loseConnection(self) -> None:
        super().loseConnection()
        if not self.stuck:
            self.end(ConnectionDone())

    def abortConnection(self) -> None:
        self.stuck = False
        self.disconnected = True
        self.end(ConnectionAborted())

    def end(self, reason: Exception) -> None:
        if self.connected:
            self.connected = False
            self.protocol.connectionLost(Failure(reason))


class Bench:
    """A site on a fake clock, and connections to it."""

    def __init__(self, resource: Resource | None = None, **limits: Any) -> None:
        self.clock = Clock()
        self.root = Root()
        self.site = GatewaySite(resource or self.root, HttpLimits(**limits), self.clock)

    def connect(self, data: bytes = b"") -> Wire:
        protocol: Any = self.site.buildProtocol(None)  # type: ignore[arg-type]
        wire = Wire(protocol)
        protocol.makeConnection(wire)
        if data:
            protocol.dataReceived(data)
        return wire

    def advance(self, seconds: float) -> None:
        self.clock.pump([0.5] * round(seconds * 2))

    @property
    def clean(self) -> bool:
        return self.site.connections == 0 and not self.clock.getDelayedCalls()


def statuses(data: bytes) -> list[int]:
    """Read the status of every response in a stream whose bodies contain no status line."""
    return [int(part[1:4]) for part in data.split(b"HTTP/1.1")[1:]]


def assert_error(data: bytes, code: int) -> None:
    """Check that the stream is one complete JSON error."""
    head, _, body = data.partition(b"\r\n\r\n")
    assert statuses(head) == [code]
    assert b"\r\nContent-Type: application/json" in head
    assert b"\r\nContent-Length: %d\r\n" % len(body) in head
    answer = json.loads(body)
    assert answer["error"] == code
    assert answer["message"]


@contextmanager
def logged_failures() -> Iterator[list[str]]:
    """Collect every traceback that is logged."""
    seen: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        if "log_failure" in event:
            seen.append(event["log_failure"].getTraceback())

    globalLogPublisher.addObserver(observe)
    try:
        yield seen
    finally:
        globalLogPublisher.removeObserver(observe)


class Client(Protocol):
    """Collect what comes until the end."""

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.ended: Deferred[BaseException] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert reason.value is not None
        self.ended.callback(reason.value)

    async def end(self) -> BaseException:
        """Wait, at most ten seconds, until the connection is over, and say how it ended."""
        return await self.ended.addTimeout(10, real_reactor)  # type: ignore[arg-type]


@attrs.define
class Served:
    """A site on a port of 127.0.0.1."""

    site: GatewaySite
    port: Any

    async def connect(self, data: bytes) -> Client:
        """Connect over TCP and send."""
        return await self.attach(f"tcp:127.0.0.1:{self.port.getHost().port}", data)

    async def attach(self, endpoint: Any, data: bytes) -> Client:
        """Connect through an endpoint or its description and send."""
        if isinstance(endpoint, str):
            endpoint = clientFromString(real_reactor, endpoint)
        client: Client = await connectProtocol(endpoint, Client())
        client.transport.write(data)
        return client

    async def stop(self) -> None:
        """Stop listening and end all connections."""
        await self.port.stopListening()
        await self.site.shutdown(5)


async def serve(
    endpoint: IStreamServerEndpoint, root: Resource | None = None, **limits: Any
) -> Served:
    """Serve a resource tree on the real reactor."""
    clock: Any = real_reactor
    site = GatewaySite(root or Root(), HttpLimits(**limits), clock)
    return Served(site, await endpoint.listen(site))
