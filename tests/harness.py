"""A whole gateway inside the test process, on real sockets, and a plain WebSocket client."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from socket import socket as open_tcp
from tempfile import TemporaryDirectory
from typing import Any, cast

import msgspec
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import deferLater

from gatewayd.configuration import DeviceHive, Limits, Listen, Node, Secret, Service, Settings
from gatewayd.service import Gateway, wall_ms
from gatewayd.storage.pg.store import PostgresStore
from tests.stores import stores

reactor: Any = _reactor

ADMIN = "dhadmin"
PASSWORD = "dhadmin_#911"
SECRET = "devicehive"
#: Seconds that anything may take before the test fails.
PATIENCE = 30.0
#: Whether a gateway of the tests is two nodes on one store, which is in PostgreSQL then.
TWO_NODES = os.environ.get("GATEWAYD_TEST_NODES", "1") == "2"
_NAMES = ("a", "b")
_DEVICEHIVE = DeviceHive(jwt_secret=Secret(SECRET), admin_password=Secret(PASSWORD))


def make_settings(path: Path, **limits: Any) -> Settings:
    """Return settings for a gateway on free ports with the store of ``path``."""
    return Settings(
        listen=[
            Listen(endpoint="tcp:0:interface=127.0.0.1", serve=["devicehive"]),
            Listen(endpoint="tcp:0:interface=127.0.0.1", serve=["ops"]),
        ],
        storage=stores.storage(path),
        node=_node(_NAMES[0]) if TWO_NODES else Node(),
        devicehive=_DEVICEHIVE,
        limits=Limits(**limits),
        service=Service(drain_timeout=2.0),
    )


def _node(name: str) -> Node:
    """Return the settings of one of two nodes."""
    with open_tcp() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return Node(
        name=name, internal=f"tcp:{port}:interface=127.0.0.1",
        advertise=f"http://127.0.0.1:{port}", cluster_key=Secret("what the nodes have in common"),
    )  # fmt: skip


class Socket(WebSocketClientProtocol):
    """A client that speaks JSON; everything it receives waits in a queue."""

    def __init__(self) -> None:
        super().__init__()
        self.ready: Deferred[Socket] = Deferred()
        self.gone: Deferred[tuple[int, str]] = Deferred()
        self.received: DeferredQueue[Any] = DeferredQueue()
        self.pushes: list[dict[str, Any]] = []

    def onOpen(self) -> None:
        self.ready.callback(self)

    def onMessage(self, payload: bytes, is_binary: bool) -> None:
        self.received.put(json.loads(payload))

    def onClose(self, was_clean: bool, code: int, reason: str) -> None:
        if not self.ready.called:
            self.ready.errback(ConnectionError(f"{code} {reason}"))
        self.gone.callback((code, reason))

    def send(self, message: dict[str, Any] | str | bytes) -> None:
        """Send a message: an object as JSON, or text as it is."""
        if isinstance(message, dict):
            message = json.dumps(message)
        if isinstance(message, str):
            message = message.encode()
        self.sendMessage(message)

    def next(self) -> Deferred[Any]:
        """Return the next message."""
        return self.received.get().addTimeout(PATIENCE, reactor)

    async def ask(self, action: str, **fields: Any) -> dict[str, Any]:
        """Send a request and return its reply; pushes on the way are kept in ``pushes``."""
        fields.setdefault("requestId", f"r{id(fields)}")
        self.send({"action": action, **fields})
        while True:
            message: dict[str, Any] = await self.next()
            if "status" in message and "subscriptionId" not in message.get("command", {}):
                return message
            self.pushes.append(message)

    async def push(self) -> dict[str, Any]:
        """Return the next push."""
        if self.pushes:
            return self.pushes.pop(0)
        message: dict[str, Any] = await self.next()
        return message

    async def bye(self) -> None:
        """Close cleanly."""
        if self.state == self.STATE_OPEN:
            self.sendClose()
        await self.gone.addTimeout(PATIENCE, reactor)


async def open_socket(port: int, path: str = "/websocket", **headers: str) -> Socket:
    """Open a WebSocket to a gateway on loopback."""
    factory = WebSocketClientFactory(
        f"ws://127.0.0.1:{port}{path}", headers=headers or None, reactor=reactor
    )
    factory.protocol = Socket
    factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
    protocol = await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)
    assert isinstance(protocol, Socket)
    await protocol.ready.addTimeout(PATIENCE, reactor)
    return protocol


class Daemon:
    """A gateway that runs in this process.

    :param clock: its reactor. :param wall: its time of day in ms.
    :ivar far: the gateway of the other side, device or client, in tests that are marked
        ``cross_node``: another node on the same store where there are two of them, else itself.
    """

    _other: Daemon | None = None

    def __init__(
        self, settings: Settings, clock: Any = reactor, wall: Callable[[], int] = wall_ms
    ) -> None:
        self.gateway = Gateway(settings, clock, wall)
        self.core = self.gateway.core
        self.sockets: list[Socket] = []

    @property
    def far(self) -> Daemon:
        return self._other or self

    async def start(self) -> None:
        """Start it; a store that is not there yet is what a first start leaves."""
        storage = self.gateway.settings.storage
        if self._usual and not stores.exists(storage):
            await administrator_token()
            stores.furnish(storage)
        await self.run()

    async def run(self) -> None:
        """Start it with the store that is there; without one, for the first time."""
        storage = self.gateway.settings.storage
        if not stores.exists(storage):
            stores.create(storage)
        if self.core.membership is not None:
            # A lease is in the time of the database, which no test puts forward.
            self.core.membership._clock = reactor
        self.gateway.privilegedStartService()
        self.gateway.startService()
        await self.gateway.ready.addTimeout(PATIENCE, reactor)
        if TWO_NODES and self.gateway.settings.node.name == _NAMES[0]:
            settings = msgspec.structs.replace(self.gateway.settings, node=_node(_NAMES[1]))
            self._other = Daemon(settings, self.gateway.reactor, self.core.wall)
            await self._other.run()
            assert self.core.membership is not None
            # Or it would hear of the other one at its next renewal, seconds later.
            await self.core.membership._renew()

    async def stop(self) -> None:
        """Close what the test left open, and stop."""
        for socket in self.sockets:
            await socket.bye()
        if self._other is not None:
            other, self._other = self._other, None
            await other.stop()
        await self.gateway.stopService().addTimeout(PATIENCE, reactor)

    @property
    def _usual(self) -> bool:
        """Whether its administrator and its secret are the usual ones."""
        return self.gateway.settings.devicehive == _DEVICEHIVE

    @property
    def port(self) -> int:
        """The TCP port of the APIs."""
        port: int = self.gateway.ports[0].getHost().port  # type: ignore[attr-defined]
        return port

    @property
    def ops_port(self) -> int:
        """The TCP port of the health pages."""
        port: int = self.gateway.ports[1].getHost().port  # type: ignore[attr-defined]
        return port

    async def level(self) -> None:
        """Wait until the other node, if there is one, has heard of all that is recorded here."""
        here, there = cast("PostgresStore", self.core.store), self.far.core.store
        end = reactor.seconds() + PATIENCE
        while self._other and cast("PostgresStore", there).tail.position < here.tail.position:
            assert reactor.seconds() < end, "it was never heard of"
            await deferLater(reactor, 0)

    async def sees(self, device_id: str) -> None:
        """Wait until it knows that a device is attached, which may be to the other node."""
        device = await self.core.registry.device(device_id)
        assert device is not None
        end = reactor.seconds() + PATIENCE
        while not self.core.presence.of(device):
            assert reactor.seconds() < end, "it was never attached"
            await deferLater(reactor, 0)

    async def connect(self, path: str = "/websocket", **headers: str) -> Socket:
        """Open a socket that is closed with the daemon."""
        socket = await open_socket(self.port, path, **headers)
        self.sockets.append(socket)
        return socket

    async def login(
        self, login: str = ADMIN, password: str = PASSWORD, path: str = "/websocket"
    ) -> Socket:
        """Open a socket and authenticate it."""
        socket = await self.connect(path)
        if self._usual and (login, password) == (ADMIN, PASSWORD):
            token = await administrator_token()
        else:
            token = await access_token(socket, login, password)
        reply = await socket.ask("authenticate", token=token)
        assert reply["status"] == "success", reply
        return socket


async def access_token(socket: Socket, login: str, password: str) -> str:
    """Log in."""
    tokens = await socket.ask("token", login=login, password=password)
    assert tokens["status"] == "success", tokens
    token: str = tokens["accessToken"]
    return token


#: The token of the first start, once there was one.
_tokens: list[str] = []


async def administrator_token() -> str:
    """Return an access token of what a first start leaves.

    Such a start takes longer than most tests, so there is one, whose store is kept for the others.
    """
    if not _tokens:
        with TemporaryDirectory() as directory:
            settings = make_settings(Path(directory, "gatewayd.db"))
            # The token outlives the slowest run of the tests.
            lasting = msgspec.structs.replace(settings.devicehive, access_token_lifetime=86_400.0)
            daemon = Daemon(msgspec.structs.replace(settings, devicehive=lasting))
            await daemon.run()
            token = await access_token(await daemon.connect(), ADMIN, PASSWORD)
            await daemon.stop()
            stores.keep(settings.storage)
            stores.drop(Path(directory))
            _tokens.append(token)
    return _tokens[0]
