"""Who is let in by the handshake of echo-protocol (iotkit contract, A2)."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from tests.api.iotkit import PONG, Kit, set_up  # noqa: F401 - the fixture "kit"
from tests.api.scene import ok, token
from tests.harness import PATIENCE, reactor

UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
)


class _Raw(Protocol):
    """Sends bytes and keeps what comes until the other side closes, or has switched."""

    def __init__(self, request: str) -> None:
        self.request = request
        self.received = b""
        self.done: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self.request.encode())  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if b" 101 " in self.received and self.received.endswith(b"\r\n\r\n"):
            self.transport.abortConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.done.callback(self.received)


class _Rest(Resource):
    def getChild(self, path: bytes, request: object) -> Resource:
        return self

    def render(self, request: object) -> bytes:
        return b"rest"


async def answer(port: int, headers: str = "", path: str = "/", method: str = "GET") -> str:
    """Return the whole answer to a request on a connection of its own."""
    raw = _Raw(f"{method} {path} HTTP/1.1\r\nHost: h\r\n{headers}\r\n")
    factory = Factory.forProtocol(lambda: raw)  # type: ignore[arg-type]
    await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)
    return (await raw.done.addTimeout(PATIENCE, reactor)).decode()


@pytest.mark.parametrize("path", ["/", "/ws", "/a/b%20c?d=e", "//", "/websocket"])
@pytest_twisted.ensureDeferred
async def test_any_path(kit: Kit, path: str) -> None:
    """The protocol is spoken on any path, alone and beside others."""
    await kit.start()
    for port in (kit.port, kit.shared):
        client = await kit.connect(path, port=port)
        assert client.websocket_protocol_in_use == "echo-protocol"
        client.send({"type": "ping"})
        assert await client.next() == PONG


@pytest_twisted.ensureDeferred
async def test_spelling(kit: Kit) -> None:
    """The protocol is found among others in any spelling, which the client gets back."""
    await kit.start()
    for offer in ("Echo-Protocol", "ECHO-PROTOCOL, x", "x, echo-Protocol"):
        head = await answer(kit.port, f"{UPGRADE}Sec-WebSocket-Protocol: {offer}\r\n")
        chosen = next(each for each in offer.split(", ") if each != "x")
        assert head.startswith("HTTP/1.1 101 ")
        assert f"Sec-WebSocket-Protocol: {chosen}\r\n" in head


@pytest.mark.parametrize("offer", ["", "Sec-WebSocket-Protocol: echo, protocol\r\n"])
@pytest_twisted.ensureDeferred
async def test_other_protocols(kit: Kit, offer: str) -> None:
    """An upgrade without the protocol is 403 without a body, and the connection is closed."""
    await kit.start()
    head, _, body = (await answer(kit.port, UPGRADE + offer)).partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 403 ")
    assert "\r\nConnection: close" in head
    assert "\r\nContent-Length: 0" in head
    assert "Content-Type" not in head
    assert body == ""
    assert not kit.sessions()


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("POST", "/x"), ("GET", "/v1/api")])
@pytest_twisted.ensureDeferred
async def test_no_upgrade(kit: Kit, method: str, path: str) -> None:
    """Any other request is 404 without a body."""
    await kit.start()
    head, _, body = (await answer(kit.port, "", path, method)).partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 404 ")
    assert "Content-Type" not in head
    assert body == ""


@pytest_twisted.ensureDeferred
async def test_rest(kit: Kit) -> None:
    """REST is where it belongs, and nowhere else."""
    await kit.start(rest=_Rest())
    for port in (kit.port, kit.shared):
        for path in ("/v1/api", "/v1/api/devices/x"):
            head = await answer(port, "Connection: close\r\n", path)
            assert head.endswith("\r\n\r\nrest")
        for path in ("/v1/apix", "/v1", "/x/v1/api"):
            head = await answer(port, "Connection: close\r\n", path)
            assert head.startswith("HTTP/1.1 404 ")


@pytest_twisted.ensureDeferred
async def test_beside_others(kit: Kit) -> None:
    """On a shared listener, whoever does not offer the protocol is another API's."""
    await kit.start()
    client = await kit.connect("/websocket", (), kit.shared)
    await ok(client, "authenticate", token=token())
    head = await answer(kit.shared, f"Connection: close\r\n{UPGRADE}", "/")
    assert head.startswith("HTTP/1.1 404 ")
    assert "error" in head
