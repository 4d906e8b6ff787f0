"""A whole gateway inside the test process, on real sockets, and a plain WebSocket client."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import msgspec
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import TCP4ClientEndpoint

from gatewayd.configuration import DeviceHive, Limits, Listen, Secret, Service, Settings, Storage
from gatewayd.service import Gateway

reactor: Any = _reactor

ADMIN = "dhadmin"
PASSWORD = "dhadmin_#911"
SECRET = "devicehive"
#: Seconds that anything may take before the test fails.
PATIENCE = 30.0
_DEVICEHIVE = DeviceHive(jwt_secret=Secret(SECRET), admin_password=Secret(PASSWORD))


def make_settings(path: Path, **limits: Any) -> Settings:
    """Return settings for a gateway on free ports with its database at ``path``."""
    return Settings(
        listen=[
            Listen(endpoint="tcp:0:interface=127.0.0.1", serve=["devicehive"]),
            Listen(endpoint="tcp:0:interface=127.0.0.1", serve=["ops"]),
        ],
        storage=Storage(url=Secret(f"sqlite:///{path}")),
        devicehive=_DEVICEHIVE,
        limits=Limits(**limits),
        service=Service(drain_timeout=2.0),
    )


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
    """A gateway that runs in this process."""

    def __init__(self, settings: Settings) -> None:
        self.gateway = Gateway(settings, reactor)
        self.core = self.gateway.core
        self.sockets: list[Socket] = []

    async def start(self) -> None:
        """Start it; a database that is not there yet is what a first start leaves."""
        path = self.gateway.settings.storage.path
        if self._usual and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((await first_start()).database)
        await self.run()

    async def run(self) -> None:
        """Start it with the database that is there; without one, for the first time."""
        self.gateway.privilegedStartService()
        self.gateway.startService()
        await self.gateway.ready.addTimeout(PATIENCE, reactor)

    async def stop(self) -> None:
        """Close what the test left open, and stop."""
        for socket in self.sockets:
            await socket.bye()
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
            token = (await first_start()).token
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


@attrs.frozen
class FirstStart:
    """What a first start leaves.

    :ivar database: the content of its file. :ivar token: an access token of its administrator.
    """

    database: bytes
    token: str


_first: list[FirstStart] = []


async def first_start() -> FirstStart:
    """Start a gateway for the first time, which takes longer than most tests, only once."""
    if not _first:
        with TemporaryDirectory() as directory:
            settings = make_settings(Path(directory, "gatewayd.db"))
            # The token outlives the slowest run of the tests.
            lasting = msgspec.structs.replace(settings.devicehive, access_token_lifetime=86_400.0)
            daemon = Daemon(msgspec.structs.replace(settings, devicehive=lasting))
            await daemon.run()
            token = await access_token(await daemon.connect(), ADMIN, PASSWORD)
            await daemon.stop()
            _first.append(FirstStart(settings.storage.path.read_bytes(), token))
    return _first[0]
