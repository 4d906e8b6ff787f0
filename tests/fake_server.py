"""A server that speaks DeviceHive's WebSocket protocol as a test tells it to."""

from __future__ import annotations

import base64
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from gatewayd.client import Message

SECONDS = 30  # after which a test fails
PASSWORD = "pass word"
FAILED = {"status": "error", "code": 401, "error": "Invalid credentials"}


class Peer(WebSocketServerProtocol):
    """The server's end of a connection."""

    factory: FakeServer

    def onConnect(self, request: Any) -> None:
        if self.factory.denied:
            raise ConnectionDeny(ConnectionDeny.NOT_FOUND, "no such page")

    def onOpen(self) -> None:
        self.factory.peers.append(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.factory.take(self, json.loads(payload))

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:
        if self in self.factory.peers:
            self.factory.peers.remove(self)
        self.factory.look()


class FakeServer(WebSocketServerFactory):
    """A DeviceHive server that replies as it is told, on a real port.

    :ivar replies: what to reply to an action; by default it succeeds.
    :ivar silent: actions that get no reply.
    :ivar denied: whether the handshake is refused.
    :ivar requests: all that came.
    """

    protocol: Any = Peer

    def __init__(self, reactor: Any, tls: CertificateOptions | None = None) -> None:
        super().__init__(reactor=reactor)
        self.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
        self.replies: dict[str, Message] = {
            "token": {"accessToken": "access", "refreshToken": "refresh"},
            "token/refresh": {"accessToken": "renewed"},
        }
        self.silent: set[str] = set()
        self.denied = False
        self.peers: list[Peer] = []
        self.requests: list[Message] = []
        self._unread: list[Message] = []
        self._waiting: list[tuple[Any, Deferred[Any]]] = []
        served: Any = self if tls is None else TLSMemoryBIOFactory(tls, False, self)
        self.port = reactor.listenTCP(0, served, interface="127.0.0.1")
        scheme = "ws" if tls is None else "wss"
        self.url = f"{scheme}://127.0.0.1:{self.port.getHost().port}/websocket"

    def take(self, peer: Peer, request: Message) -> None:
        self.requests.append(request)
        self._unread.append(request)
        if request["action"] not in self.silent:
            self.reply(peer, request)
        self.look()

    def reply(self, peer: Peer, request: Message) -> None:
        fields = self.replies.get(request["action"], {})
        kept = {"action": request["action"], "requestId": request["requestId"]}
        peer.sendMessage(json.dumps({**kept, "status": "success", **fields}).encode())

    def push(self, action: str, **fields: Any) -> None:
        message = {"action": action, "subscriptionId": 1, **fields}
        self.peers[-1].sendMessage(json.dumps(message).encode())

    async def expect(self, action: str) -> Message:
        """Wait for the next request of an action."""

        def find() -> Message | None:
            return next((each for each in self._unread if each["action"] == action), None)

        request: Message = await self.until(find)
        self._unread.remove(request)
        return request

    def until(self, found: Any) -> Deferred[Any]:
        """Wait until *found* returns something true, and return that."""
        deferred: Deferred[Any] = Deferred()
        self._waiting.append((found, deferred))
        self.look()
        return deferred.addTimeout(SECONDS, self.reactor)

    def look(self) -> None:
        for entry in tuple(self._waiting):
            if (value := entry[0]()) and entry in self._waiting:
                self._waiting.remove(entry)
                entry[1].callback(value)

    async def stop(self) -> None:
        """Stop listening, and check that all connections end."""
        await maybeDeferred(self.port.stopListening)
        await self.until(lambda: not self.peers)


def delayed_calls() -> list[Any]:
    """What the reactor is still to do."""
    from twisted.internet import reactor

    return list(reactor.getDelayedCalls())  # type: ignore[attr-defined]


def certificate() -> tuple[Certificate, CertificateOptions]:
    """A certificate for 127.0.0.1, and what a server with it needs."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gatewayd test")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = signed.public_bytes(Encoding.PEM)
    return Certificate.loadPEM(public), PrivateCertificate.loadPEM(public + private).options()


class Command(ProcessProtocol):
    """The command as a process.

    :ivar exited: fires with its exit code.
    :ivar output: all that it wrote.
    """

    def __init__(self, server: FakeServer, *arguments: str) -> None:
        self.output = b""
        self.exited: Deferred[int] = Deferred()
        self.exited.addTimeout(SECONDS, server.reactor)
        whole = [sys.executable, "-m", "gatewayd", *arguments]
        server.reactor.spawnProcess(self, sys.executable, whole, env=os.environ)

    def outReceived(self, data: bytes) -> None:
        self.output += data

    def errReceived(self, data: bytes) -> None:
        self.output += data

    def processEnded(self, reason: Failure) -> None:
        ended: Any = reason.value
        self.exited.callback(ended.exitCode)

    def signal(self, name: str) -> Deferred[int]:
        """Send a signal; return the exit code."""
        transport: Any = self.transport
        transport.signalProcess(name)
        return self.exited


def token(kind: int) -> str:
    payload = base64.urlsafe_b64encode(json.dumps({"payload": {"t": kind}}).encode())
    return f"e30.{payload.decode().rstrip('=')}.c2ln"


ACCESS, REFRESH = token(1), token(0)
