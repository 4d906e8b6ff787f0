"""An iotkit API beside a whole gateway, with clients of its sockets and tokens for them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jwt
import pytest_twisted
from autobahn.twisted.websocket import WebSocketClientFactory
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.task import Clock
from twisted.web.resource import IResource

from gatewayd.api.iotkit.api import IotKit, IotKitAlone
from gatewayd.api.iotkit.rules import IotKitRules
from gatewayd.api.iotkit.session import EchoSession
from gatewayd.api.iotkit.tokens import DeviceTokens
from gatewayd.core.access import ALL_ACTIONS, Principal
from gatewayd.core.devices import DeviceChange
from gatewayd.core.key_sets import FixedKeys
from gatewayd.core.model import Device, Event, Kind
from gatewayd.core.queries import Filter, Replay
from gatewayd.errors import Unavailable
from gatewayd.service import Gateway, wall_ms
from gatewayd.transport.root import Root
from gatewayd.transport.site import GatewaySite, HttpLimits
from gatewayd.transport.websocket import WebSocketLimits
from tests.api.scene import closing
from tests.harness import PATIENCE, Daemon, Socket, make_settings, reactor

USERNAME, PASSWORD = "dashboard", "secret of the dashboard"
ACCOUNT = "c4715841-bb1e-4c87-ad78-2376fe596a11"
#: 2100-01-01, in s.
LATE = 4_102_444_800
REGISTERED = {"code": 200, "content": "Record in database update for device"}
PONG = {"code": 202, "content": "PONG"}
INVALID_TOKEN = {"code": 401, "content": "Invalid device token for device"}
WRONG_FORMAT = {"code": 401, "content": "Wrong message format"}
UNAVAILABLE = {
    "code": 500,
    "content": "Internal server error, unable to set authorization data for device",
}
NORMAL = (1000, "Normal connection closure")
POLICY = (1008, "Policy violation")
UNPROCESSABLE = (1003, "Unprocessable input")


@cache
def signing_key(name: str = "the dashboard's") -> rsa.RSAPrivateKey:
    """Return a key; making one takes long."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_pem() -> bytes:
    """Return what the gateway is told of the dashboard's key."""
    public = signing_key().public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def device_token(device_id: str, **claims: Any) -> str:
    """Return a token as dashboards issue them; a claim that is None is left out."""
    payload = {
        "jti": "1", "iss": "http://enableiot.com", "sub": device_id, "exp": LATE * 1000,
        "accounts": [{"id": ACCOUNT, "role": "device"}], **claims,
    }  # fmt: skip
    said = json.dumps({name: value for name, value in payload.items() if value is not None})
    return jwt.PyJWS().encode(said.encode(), signing_key(), algorithm="RS256")


def hello(device_id: str = "D", token: str | None = None) -> dict[str, Any]:
    """Return the message that registers a device."""
    token = device_token(device_id) if token is None else token
    return {"type": "device", "deviceId": device_id, "deviceToken": token}


def body(device_id: str = "D", **content: Any) -> dict[str, Any]:
    """Return the body of an actuation as the control API of dashboards writes it."""
    shown = {
        "accountId": ACCOUNT, "deviceId": device_id, "gatewayId": device_id,
        "componentId": "1e447b10-9afd-4221-b4d8-7bc5c5bb6c3f", "command": "LED.v1.0",
        "params": [{"name": "LED", "value": "1"}], **content,
    }  # fmt: skip
    kept = {name: value for name, value in shown.items() if value is not None}
    return {"type": "command", "transport": "ws", "content": kept}


def actuation(device_id: str = "D", **content: Any) -> dict[str, Any]:
    """Return the message with which a dashboard sends an actuation."""
    who = {"username": USERNAME, "password": PASSWORD}
    return {"type": "actuation", "body": body(device_id, **content), "credentials": who}


class Written:
    """Bindings that keep what they are told, fail when told so, and answer when told so.

    :ivar rows: the devices that are connected according to them.
    """

    def __init__(self) -> None:
        self.rows: dict[str, bool] = {}
        self.calls: list[tuple[str, bool]] = []
        self.failing = False
        self.held: list[Deferred[None]] | None = None

    def connected(self, device_id: str) -> Deferred[None]:
        return self._write(device_id, True)

    def disconnected(self, device_id: str) -> Deferred[None]:
        return self._write(device_id, False)

    def _write(self, device_id: str, status: bool) -> Deferred[None]:
        self.calls.append((device_id, status))
        if self.failing:
            return fail(Unavailable("no database"))
        if self.held is None:
            self.rows[device_id] = status
            return succeed(None)
        self.held.append(Deferred())
        return self.held[-1].addCallback(lambda _: self.rows.update({device_id: status}))

    def release(self) -> None:
        """Answer the oldest call that is held."""
        assert self.held
        self.held.pop(0).callback(None)

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass


class Timed(Daemon):
    """A gateway whose time of day can be set forward.

    :ivar ahead: ms by which it is.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(make_settings(path))
        self.ahead = 0
        self.gateway = Gateway(self.gateway.settings, reactor, lambda: wall_ms() + self.ahead)
        self.core = self.gateway.core


class Kit:
    """An iotkit API over the core of a gateway, on listeners of its own.

    :ivar clock: of its timers. :ivar port: where it is alone. :ivar shared: where it is not.
    """

    def __init__(self, daemon: Timed) -> None:
        self.daemon = daemon
        self.core = daemon.core
        self.clock = Clock()
        self._ports: list[Any] = []
        self._clients: list[Socket] = []

    async def start(
        self,
        bindings: Written | None = None,
        rest: IResource | None = None,
        limits: WebSocketLimits | None = None,
        **rules: Any,
    ) -> None:
        """Serve."""
        tokens = DeviceTokens(FixedKeys.read(public_pem()), self.core.wall)
        wanted = IotKitRules(**{"username": USERNAME, "password": PASSWORD, **rules})
        self.api = IotKit(
            self.core, self.clock, wanted, tokens, limits or WebSocketLimits(keepalive=0),
            bindings, rest,
        )  # fmt: skip
        self.api.start()
        self.port = await self._listen(Root([IotKitAlone(self.api)]))
        self.shared = await self._listen(Root([self.api, *self.daemon.gateway._apis["devicehive"]]))

    async def _listen(self, root: Root) -> int:
        site = GatewaySite(root, HttpLimits(), reactor)
        port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site)
        self._ports.append(port)
        number: int = port.getHost().port
        return number

    async def stop(self) -> None:
        """Close what the test left open, and stop."""
        for port in self._ports:
            await port.stopListening()
        await self.api.stop(2.0)
        for client in self._clients:
            await client.bye()

    # Clients

    async def connect(
        self, path: str = "/", protocols: Sequence[str] = ("echo-protocol",), port: int = 0
    ) -> Socket:
        """Open a socket."""
        factory = WebSocketClientFactory(
            f"ws://127.0.0.1:{port or self.port}{path}", protocols=list(protocols), reactor=reactor
        )
        factory.protocol = Socket
        factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port or self.port)
        client = await endpoint.connect(factory)
        assert isinstance(client, Socket)
        await client.ready.addTimeout(PATIENCE, reactor)
        self._clients.append(client)
        return client

    async def device(self, device_id: str = "D", token: str | None = None) -> Socket:
        """Open a socket that is a device's."""
        client = await self.connect()
        client.send(hello(device_id, token))
        assert await client.next() == REGISTERED
        return client

    async def says_nothing(self, client: Socket, *messages: Any) -> None:
        """Check that messages are not answered, and that the socket stays open."""
        for message in messages:
            client.send(message)
        client.send({"type": "ping"})
        assert await client.next() == PONG

    def sessions(self) -> list[EchoSession]:
        """Return the sockets that the API holds."""
        return [each for each in self.api._factory.sessions if isinstance(each, EchoSession)]

    # The core

    async def root(self) -> Principal:
        """Return an administrator."""
        return Principal(ALL_ACTIONS, user=await self.core.users.by_id(1))

    async def save(self, device_id: str = "D", **change: Any) -> Device:
        """Register or change a device."""
        wanted = DeviceChange(**{"name": device_id, **change})
        return await self.core.devices.save(await self.root(), device_id, wanted)

    async def events(self, *kinds: Kind) -> list[Event]:
        """Return what the timelines have."""
        wanted = Replay(filter=Filter(kinds=frozenset(kinds)), since=0, now=self.core.wall())
        return list((await self.core.store.read(wanted)).events)

    async def recorded(self, count: int = 1) -> list[Event]:
        """Return the commands of the timelines once there are so many."""
        end = reactor.seconds() + PATIENCE
        while True:
            found = await self.events(Kind.COMMAND)
            if len(found) >= count:
                return found
            assert reactor.seconds() < end, "it was never recorded"


async def ends(client: Socket, answer: dict[str, Any], close: tuple[int, str]) -> None:
    """Check with what a socket is answered and closed."""
    assert await client.next() == answer
    assert await closing(client) == close


@pytest_twisted.async_yield_fixture(name="kit")
async def set_up(tmp_path: Path) -> AsyncIterator[Kit]:
    """Return an API that the test starts, beside a running gateway."""
    daemon = Timed(tmp_path / "gatewayd.db")
    await daemon.start()
    kit = Kit(daemon)
    yield kit
    await kit.stop()
    await daemon.stop()
