"""What the opening handshake may say of who opens, and how long nobody may stay nobody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.api.gate import broken
from tests.api.scene import closing, fails, no_failures, ok, token
from tests.harness import PATIENCE, Daemon, make_settings, reactor

PLAIN = token()


class _Raw(Protocol):
    """Sends bytes and keeps what comes."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.received = b""
        self.done: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self.request)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if separator and (b" 101 " in head or body.endswith(b"}")):
            self.transport.loseConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.done.callback(self.received)


async def upgrade(daemon: Daemon, authorization: str, path: str = "/api/websocket") -> bytes:
    """Return the bytes with which a handshake with an Authorization header is answered."""
    request = (
        f"GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
        f"Authorization: {authorization}\r\n\r\n"
    ).encode()
    raw = _Raw(request)
    factory = Factory.forProtocol(lambda: raw)  # type: ignore[arg-type]
    await TCP4ClientEndpoint(reactor, "127.0.0.1", daemon.port).connect(factory)
    return await raw.done.addTimeout(PATIENCE, reactor)


@pytest_twisted.ensureDeferred
async def test_store_is_away(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it cannot be known whose a token is, the handshake may be tried again later."""
    broken(monkeypatch, "users.get", "disk I/O error")
    answer = await upgrade(daemon, f"Bearer {PLAIN}")
    assert answer.startswith(b"HTTP/1.1 503 ")
    monkeypatch.undo()
    await ok(await daemon.connect(Authorization=f"Bearer {PLAIN}"), "device/list")


@pytest_twisted.ensureDeferred
async def test_good_authorization(daemon: Daemon) -> None:
    """A good token in the handshake authenticates the session before its first message."""
    for scheme in ("Bearer", "bearer"):
        socket = await daemon.connect(Authorization=f"{scheme} {PLAIN}")
        await ok(socket, "device/list")


@pytest_twisted.ensureDeferred
async def test_bad_authorization(daemon: Daemon) -> None:
    """A bad token in the handshake refuses the upgrade with the 401 body of the contract."""
    for value, message in (
        ("Bearer x", "Unauthorized"), (f"Bearer {token(e=1)}", "Token expired"), ("Bearer", None),
        (f"Bearer {token(t=0)}", "Unauthorized"), ("Basic YTpi", "Unauthorized"),
        (PLAIN, "Unauthorized"), ("", "Unauthorized"), (f"Bearer {PLAIN[:-1]}", None),
    ):  # fmt: skip
        head, _, body = (await upgrade(daemon, value)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 401 "), value
        told = json.loads(body)
        assert told.pop("timestamp")
        assert told == {
            "status": 401, "error": "Unauthorized", "message": message or "Unauthorized",
            "path": "/api/websocket",
        }  # fmt: skip
    assert (await upgrade(daemon, f"Bearer {PLAIN}")).startswith(b"HTTP/1.1 101 ")


@pytest_twisted.ensureDeferred
async def test_nobody_stays_anonymous(tmp_path: Path) -> None:
    """A socket on which nobody authenticates is closed after the deadline; others stay."""
    daemon = Daemon(make_settings(tmp_path / "gatewayd.db", authentication=0.3))
    await daemon.start()
    try:
        with no_failures():
            staying = await daemon.login()
            silent, talking = await daemon.connect(), await daemon.connect()
            legacy = await daemon.connect("/client")
            await ok(talking, "server/info")
            await fails(talking, "authenticate", token="x")
            await ok(legacy, "device/list", token=PLAIN)
            for socket in (silent, talking):
                assert (await closing(socket))[0] == 1008
            for socket in (staying, legacy):
                await ok(socket, "server/info")
            assert not any(daemon.core.presence._attached.values())
    finally:
        await daemon.stop()
