"""The HTTP listener: responses, takeover, its cap, shutdown, and all of it on real sockets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_twisted
from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    wrapClientTLS,
    wrapServerTLS,
)
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.ssl import CertificateOptions
from twisted.web.resource import Resource
from twisted.web.server import Request

from gatewayd.transport.channel import GatewayChannel
from gatewayd.transport.site import GatewaySite
from tests.transport.http_bench import (
    GET,
    POST,
    Bench,
    assert_error,
    logged_failures,
    serve,
    statuses,
)


@pytest.fixture(name="failures")
def collect_failures() -> Iterator[list[str]]:
    """Collect every traceback that is logged."""
    with logged_failures() as seen:
        yield seen


# ---- responses


def test_response_head(failures: list[str]) -> None:
    """A response names neither Twisted nor a content type that nobody chose."""
    head = Bench().connect(GET).value().partition(b"\r\n\r\n")[0]
    assert b"Server" not in head
    assert b"Content-Type" not in head
    assert failures == []


def test_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response tells the second that it is made in."""
    bench, told = Bench(), list[bytes]()
    for now in (0.5, 0.9, 86400.0):
        monkeypatch.setattr("time.time", lambda now=now: now)
        told += re.findall(rb"\r\nDate: (.*)\r\n", bench.connect(GET).value())
    assert told == [b"Thu, 01 Jan 1970 00:00:00 GMT"] * 2 + [b"Fri, 02 Jan 1970 00:00:00 GMT"]


def test_any_resource() -> None:
    """OPTIONS for no resource in particular is answered."""
    data = Bench().connect(b"OPTIONS * HTTP/1.1\r\nHost: gw\r\n\r\n").value()
    assert data.startswith(b"HTTP/1.1 200 ")
    assert b"Server" not in data


def test_failing_resource(failures: list[str]) -> None:
    """A resource that raises is logged once and answered with 500 in JSON, without details."""
    bench = Bench()
    wire = bench.connect(GET.replace(b"echo", b"fail"))
    assert_error_body = wire.value().partition(b"\r\n\r\n")[2]
    assert json.loads(assert_error_body) == {"error": 500, "message": "Internal Server Error"}
    assert len(failures) == 1
    wire.protocol.dataReceived(GET)
    assert statuses(wire.value()) == [500, 200]


def test_resource_that_fails_late(failures: list[str]) -> None:
    """A response that has begun is cut off, so that it cannot pass for complete."""
    bench = Bench()
    wire = bench.connect(GET.replace(b"echo", b"half"))
    assert wire.disconnected
    assert not wire.value().endswith(b"0\r\n\r\n")
    assert len(failures) == 1
    assert bench.clean


# ---- takeover, limits and shutdown


def test_taken_over_connection_is_forgotten() -> None:
    """Once another protocol has the transport, the channel does nothing any more."""
    bench = Bench()
    wire = bench.connect(GET.replace(b"echo", b"hold"))
    channel = wire.protocol
    wire.unregisterProducer()
    channel.transport = None
    assert bench.clean
    channel.pauseProducing()
    channel.resumeProducing()
    channel.dataReceived(b"x" * 100_000)
    channel.loseConnection()
    channel.abort()
    held = bench.root.held.pop()
    held.write(b"late")
    held.finish()
    bench.advance(100)
    assert wire.value() == b""
    assert wire.producerState == "producing"
    assert not wire.disconnecting
    assert bench.clean


@pytest.mark.parametrize(
    "data", [b"", b"GET", POST + b"Content-Length: 9\r\n\r\na", GET, b"bad\r\n"]
)
def test_lost_connection_leaves_nothing(data: bytes) -> None:
    """However far a request has come, a disconnect leaves no timer and no entry."""
    bench = Bench()
    bench.connect(data).end(ConnectionLost())
    assert bench.clean


def test_connection_cap() -> None:
    """A connection beyond the site's number is closed at once and the others are served."""
    bench = Bench(connections=2)
    first, _second, third = bench.connect(), bench.connect(), bench.connect(GET)
    assert third.disconnected
    assert third.value() == b""
    first.end(ConnectionLost())
    assert statuses(bench.connect(GET).value()) == [200]


def test_shutdown_lets_requests_finish() -> None:
    """At shutdown idle connections close, a running request is answered, new ones are refused."""
    bench = Bench()
    fresh, idle = bench.connect(), bench.connect(GET)
    running = bench.connect(GET.replace(b"echo", b"hold") + GET)
    done: list[None] = []
    bench.site.shutdown(20).addCallback(done.append)
    assert fresh.disconnecting
    assert idle.disconnecting
    assert bench.connect().disconnected
    assert not done
    bench.root.held.pop().finish()
    assert b"Connection: close" in running.value()
    assert statuses(running.value()) == [200]
    assert done == [None]
    assert bench.clean


def test_shutdown_aborts_what_takes_too_long() -> None:
    """After the timeout of the shutdown what still runs is aborted."""
    bench = Bench()
    wire = bench.connect(GET.replace(b"echo", b"hold"))
    done: list[None] = []
    bench.site.shutdown(20).addCallback(done.append)
    bench.advance(19)
    assert not done
    bench.advance(1)
    assert wire.disconnected
    assert done == [None]
    assert bench.clean


def test_shutdown_of_an_empty_site() -> None:
    """Without connections the shutdown is done at once."""
    done: list[None] = []
    Bench().site.shutdown(20).addCallback(done.append)
    assert done == [None]


def test_only_http_1_is_offered() -> None:
    """The TLS handshake never agrees on HTTP/2."""
    assert Bench().site.acceptableProtocols() == [b"http/1.1"]


# ---- real sockets


def tcp() -> IStreamServerEndpoint:
    """A free port of 127.0.0.1."""
    return TCP4ServerEndpoint(real_reactor, 0, interface="127.0.0.1")


LARGE = POST + b"Content-Length: 8388608\r\n\r\n" + b"x" * 8388608


@pytest_twisted.ensureDeferred
async def test_error_reaches_a_client_that_goes_on_sending() -> None:
    """A client that sends a large body regardless can still read why it was refused."""
    served = await serve(tcp())
    client = await served.connect(LARGE)
    assert isinstance(await client.end(), ConnectionDone)
    assert_error(client.received, 413)
    await served.stop()


@pytest.fixture(name="context", scope="module")
def make_context() -> CertificateOptions:
    """Make a TLS context for 127.0.0.1."""
    key: Any = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate: Any = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    ).sign(key, hashes.SHA256())
    return CertificateOptions(privateKey=key, certificate=certificate)


@pytest_twisted.ensureDeferred
async def test_error_over_tls_reaches_a_client_that_goes_on_sending(
    context: CertificateOptions,
) -> None:
    """Over TLS the answer arrives as well, and the connection ends cleanly."""
    served = await serve(wrapServerTLS(context, tcp()))
    port = served.port.getHost().port
    plain = TCP4ClientEndpoint(real_reactor, "127.0.0.1", port)
    client = await served.attach(wrapClientTLS(CertificateOptions(verify=False), plain), LARGE)
    assert isinstance(await client.end(), ConnectionDone)
    assert_error(client.received, 413)
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_cap_over_tls(context: CertificateOptions, failures: list[str]) -> None:
    """A TLS connection beyond the cap is closed without an error of ours."""
    served = await serve(wrapServerTLS(context, tcp()), connections=0)
    client = await served.connect(b"\x16\x03\x01")
    assert isinstance(await client.end(), ConnectionLost)
    assert client.received == b""
    assert failures == []
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_real_client_that_does_not_read() -> None:
    """A client that stops reading a large response is cut off."""
    served = await serve(tcp(), stall_seconds=0.1)
    client = await served.connect(GET.replace(b"echo", b"flood"))
    client.transport.pauseProducing()
    await until_empty(served.site)
    client.transport.resumeProducing()
    assert isinstance(await client.end(), ConnectionLost)
    assert len(client.received) < 64 * 1024 * 1024
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_keep_alive_and_close() -> None:
    """Two requests share a connection, which ends when the client asks for that."""
    served = await serve(tcp())
    client = await served.connect(GET + GET.replace(b"gw", b"gw\r\nConnection: close"))
    assert isinstance(await client.end(), ConnectionDone)
    assert statuses(client.received) == [200, 200]
    await served.stop()
    assert served.site.connections == 0


@pytest_twisted.ensureDeferred
async def test_autobahn_takes_over(failures: list[str]) -> None:
    """Autobahn's resource takes a connection out of the site, for both sides."""
    factory = WebSocketServerFactory()
    factory.protocol = Greeter
    served = await serve(tcp(), Upgrade(factory))
    client = await served.connect(
        b"GET / HTTP/1.1\r\nHost: gw\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    await client.end()
    assert client.received.startswith(b"HTTP/1.1 101 ")
    assert b"\x81\x05hello" in client.received
    assert served.site.connections == 0
    assert failures == []
    await served.stop()


class Greeter(WebSocketServerProtocol):
    """Say hello and leave, telling the network nothing about who serves."""

    def onOpen(self) -> None:
        self.sendMessage(b"hello")
        self.dropConnection(abort=False)


class Upgrade(Resource):
    """Autobahn's resource, with the transport's producer slot freed first."""

    def __init__(self, factory: WebSocketServerFactory) -> None:
        super().__init__()
        self.isLeaf = True
        self._inner = WebSocketResource(factory)

    def render(self, request: Request) -> Any:
        transport: Any = request.channel.transport
        transport.unregisterProducer()
        return self._inner.render(request)


async def until_empty(site: GatewaySite) -> None:
    """Wait, at most ten seconds, until the site has no connection."""
    done: Deferred[None] = Deferred()
    forget = site.forget

    def watched(channel: GatewayChannel) -> None:
        forget(channel)
        if not site.connections and not done.called:
            done.callback(None)

    site.forget = watched  # type: ignore[method-assign]
    await done.addTimeout(10, real_reactor)  # type: ignore[arg-type]
