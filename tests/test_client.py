"""The client that ``gatewayd talk`` and the simulated device share."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock

from gatewayd import client as clients
from gatewayd.client import Address, Client, Credentials, Disconnected, RequestFailed
from tests.fake_server import (
    ACCESS,
    PASSWORD,
    REFRESH,
    SECONDS,
    FakeServer,
)


def test_credentials() -> None:
    """Credentials are of exactly one kind, and never show their secrets."""
    for wrong in ({}, {"login": "a"}, {"password": "b"}, {"login": "a", "access_token": "b"}):
        with pytest.raises(ValueError, match="credentials are"):
            Credentials(**wrong)
    with pytest.raises(ValueError, match="credentials are"):
        Credentials(access_token="a", refresh_token="b")
    shown = [
        repr(Credentials(login="me", password=PASSWORD)),
        repr(Credentials.of_token(ACCESS)),
        repr(Credentials.of_token(REFRESH)),
    ]
    assert not any(secret in each for each in shown for secret in (PASSWORD, ACCESS, REFRESH))


@pytest.mark.parametrize(
    ("url", "shown", "port"),
    [
        ("ws://host", "ws://host/", 80),
        ("wss://host/a?token=x", "wss://host/a", 443),
        ("ws://me:secret@[::1]:8080/a", "ws://[::1]:8080/a", 8080),
    ],
)
def test_address(url: str, shown: str, port: int) -> None:
    """An address knows its port, and shows itself without secrets."""
    address = Address.parse(url)
    assert (address.shown, address.port, address.secure) == (shown, port, url.startswith("wss"))


async def connected(server: FakeServer, clock: Clock | None = None) -> Client:
    met: list[Client] = []
    address = Address.parse(server.url)
    factory: Any = clients.ClientFactory(
        address, server.reactor, clock or server.reactor, met.append
    )
    await address.endpoint(server.reactor).connect(factory)
    return met[0]


@pytest_twisted.ensureDeferred
async def test_reply_without_id(server: FakeServer) -> None:
    """An error that lacks the request's id belongs to the oldest request; other ids to nobody."""
    client = await connected(server)
    await client.opened
    server.silent = {"a"}
    reply = client.request("a")
    await server.expect("a")
    server.peers[0].sendMessage(b'{"status":"success","requestId":99}')
    server.peers[0].sendMessage(b'{"code":400,"status":"error","error":"Malformed"}')
    with pytest.raises(RequestFailed, match="400 Malformed") as failed:
        await reply.addTimeout(SECONDS, server.reactor)
    assert (failed.value.code, failed.value.text) == (400, "Malformed")
    await client.close()
    with pytest.raises(Disconnected, match="not connected"):
        await client.request("a")
    await client.close()


@pytest.mark.parametrize("payload", [b"[1]", b"{", b"[" * 100_000])
@pytest_twisted.ensureDeferred
async def test_no_json(server: FakeServer, payload: bytes) -> None:
    """A server that sends no JSON objects loses the client, and all requests fail."""
    client = await connected(server)
    await client.opened
    server.silent = {"a", "b"}
    replies = [client.request("a"), client.request("b")]
    await server.expect("b")
    server.peers[0].sendMessage(payload)
    for reply in replies:
        with pytest.raises(Disconnected, match="no JSON object"):
            await reply.addTimeout(SECONDS, server.reactor)


@pytest_twisted.ensureDeferred
async def test_mute_server(clean: None) -> None:
    """A server that accepts connections but no handshake is given up after ten seconds."""
    from twisted.internet import reactor

    fake: Any = FakeServer(reactor)
    fake.protocol = Protocol
    clock = Clock()
    client = await connected(fake, clock)
    clock.advance(clients.OPENING_TIMEOUT)
    with pytest.raises(Disconnected, match="no answer to the WebSocket handshake"):
        await client.opened.addTimeout(SECONDS, fake.reactor)
    again = await connected(fake, clock)
    closed = again.close()
    with pytest.raises(Disconnected, match="closed during the handshake"):
        await again.opened.addTimeout(SECONDS, fake.reactor)
    await closed
    await fake.stop()
    assert clock.getDelayedCalls() == []


def notify(method: Any) -> tuple[Any, Deferred[None]]:
    """Wrap a method so that a Deferred fires after its first call."""
    called: Deferred[None] = Deferred()

    def wrapped(*arguments: Any) -> Any:
        result = method(*arguments)
        called.callback(None)
        return result

    return wrapped, called


@pytest.mark.parametrize("by", ["client", "server"])
@pytest_twisted.ensureDeferred
async def test_unfinished_close(server: FakeServer, by: str) -> None:
    """A closing handshake that the server does not finish is cut off after two seconds."""
    clock = Clock()
    client = await connected(server, clock)
    await client.opened
    await server.until(lambda: server.peers)
    peer: Any = server.peers[0]
    peer.onCloseFrame = lambda code, reason: None
    if by == "client":
        closed = client.close()
    else:
        peer.sendCloseFrame(1012)
        client.onCloseFrame, told = notify(client.onCloseFrame)  # type: ignore[method-assign]
        await told.addTimeout(SECONDS, server.reactor)
        closed = client.close()
    clock.advance(clients.CLOSING_TIMEOUT)
    await closed.addTimeout(SECONDS, server.reactor)
    assert clock.getDelayedCalls() == []
