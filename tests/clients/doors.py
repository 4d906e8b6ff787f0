"""A gateway that serves everything on one listener, and one device that comes by any door."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import NAMESPACE_OID, uuid5

import msgspec
import pytest_twisted
from autobahn.twisted.websocket import WebSocketClientFactory
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.threads import deferToThread

from gatewayd.configuration import (
    CloudRelay,
    DeviceLink,
    File,
    IotKit,
    Listen,
    OAuth,
    OAuthClient,
    Secret,
    Settings,
    Ux4Iot,
)
from gatewayd.core.model import Event, Kind
from gatewayd.core.queries import Filter, Replay
from gatewayd.service import Gateway
from tests.api.hurried import Hurried
from tests.api.iotkit import REGISTERED, device_token, hello, public_pem
from tests.api.iotkit_rest import component, item, submission
from tests.api.scene import holder, ok, save_device, subscribe, token
from tests.api.web import Answered, request
from tests.clients.live import LiveClient
from tests.clients.official import Connection
from tests.harness import ADMIN, PASSWORD, PATIENCE, Daemon, Socket, make_settings, reactor

KEY = "the key of the backend"
PROGRAM_SECRET = "s3cret-of-programs"
SERVED = ["devicehive", "devicelink", "cloudrelay", "iotkit", "ux4iot"]
LOOPBACK = ["127.0.0.0/8"]
BEARER = f"Bearer {token()}"


def all_settings(path: Path) -> Settings:
    """Return settings of a gateway that serves everything on its first listener."""
    settings = make_settings(path)
    listen = Listen(endpoint=settings.listen[0].endpoint, serve=SERVED)
    return msgspec.structs.replace(
        settings,
        listen=[listen, settings.listen[1]],
        devicelink=DeviceLink(allowed_device_nets=LOOPBACK),
        cloudrelay=CloudRelay(allowed_device_nets=LOOPBACK),
        oauth=OAuth(client=[OAuthClient(id="portal", secret=Secret(PROGRAM_SECRET))]),
        iotkit=IotKit(public_key_file=File("public.pem", public_pem().decode())),
        ux4iot=Ux4Iot(shared_access_key=Secret(KEY)),
    )


class Doors(Daemon):
    """A gateway that serves everything on one listener, as its settings say.

    :ivar time: its clock. :ivar admin: an administrator's socket of DeviceHive.
    """

    admin: Socket

    def __init__(self, path: Path) -> None:
        self.time = Hurried()
        self.gateway = Gateway(all_settings(path), self.time, self.time.wall)
        self.core = self.gateway.core
        self.sockets: list[Socket] = []
        self._live: list[LiveClient] = []
        self._connections: list[Connection] = []

    async def start(self) -> None:
        """Start it, and wait until it has read its log."""
        await super().start()
        self.admin = await self.login()
        end = reactor.seconds() + PATIENCE
        while (await self.ask("GET /status")).code != 200:
            assert reactor.seconds() < end, "it never got ready"

    async def stop(self) -> None:
        """Let all clients leave, and stop."""
        for client in self._live:
            await client.clean_up()
        for connection in self._connections:
            await deferToThread(connection.close)
        await super().stop()

    # Web apps

    async def ask(
        self, line: str, body: object = None, session: str | None = None, **headers: str
    ) -> Answered:
        """Make a request. :param session: whose header it has, instead of the key."""
        method, _, path = line.partition(" ")
        if session is not None:
            headers["sessionId"] = session
        elif not headers:
            headers["Shared_Access_Key"] = KEY
        return await request(self.port, method, path, body, **headers)

    async def session(self, device_id: str, *rights: str, subscribed: bool = False) -> str:
        """Begin a session and grant it rights to a device.

        :param subscribed: whether it is subscribed to them, too.
        """
        session: str = (await self.ask("POST /session")).json["sessionId"]
        for right in rights:
            grant = {"sessionId": session, "deviceId": device_id, "type": right}
            assert (await self.ask("PUT /grants", grant)).code == 204
            if subscribed:
                assert (await self.ask("PUT /subscription", grant)).code == 204
        return session

    async def follow(
        self, device_id: str, *rights: str, transports: Sequence[str] = ("websocket",)
    ) -> LiveClient:
        """Return a web app that is connected, and subscribed to all that."""
        session = await self.session(device_id, *rights, subscribed=True)
        return await self.live(session, *transports)

    async def live(self, session: str, *transports: str) -> LiveClient:
        """Connect the web app of a session."""
        client = LiveClient(f"http://127.0.0.1:{self.port}", session)
        self._live.append(client)
        await client.connect(*transports)
        return client

    async def shown(self, path: str, session: str | None = None) -> Any:
        """Return the data of what is shown of a device."""
        answered = await self.ask(f"GET {path}", session=session)
        assert answered.code == 200, answered
        return answered.json["data"]

    async def invoke(
        self, device_id: str, name: str, payload: object = None, **seconds: float
    ) -> Answered:
        """Invoke a method. :param seconds: ``respond`` and ``connect``."""
        params = {
            "methodName": name, "payload": payload,
            "responseTimeoutInSeconds": seconds.get("respond", 30),
            "connectTimeoutInSeconds": seconds.get("connect", 0),
        }  # fmt: skip
        return await self.ask("POST /directMethod", {"deviceId": device_id, "methodParams": params})

    async def patch(self, device_id: str, patch: Mapping[str, Any]) -> Any:
        """Wish something of a device; return its twin as the answer shows it."""
        wanted = {"deviceId": device_id, "desiredPropertyPatch": patch}
        answered = await self.ask("PATCH /deviceTwinDesiredProperties", wanted)
        assert (answered.code, answered.json["status"]) == (200, 200), answered
        return answered.json["payload"]

    # Devices

    async def register(self, device_id: str, **data: Any) -> str:
        """Register a device that has a component "n" for iotkit."""
        await save_device(self.admin, device_id, data=data)
        equipped = await request(
            self.port, "POST", f"/v1/api/devices/{device_id}/components",
            [component(cid_of(device_id), "n")], Authorization=f"Bearer {device_token(device_id)}",
        )  # fmt: skip
        assert equipped.code == 201, equipped
        return device_id

    async def hive_device(self, device_id: str) -> Socket:
        """Attach a device by DeviceHive."""
        attached = await self.far.login()
        await subscribe(attached, "command", deviceId=device_id)
        await self.sees(device_id)
        return attached

    async def key_device(self, device_id: str) -> Socket:
        """Attach a device by the socket of older DeviceHive, by its own key."""
        registrar = await holder(self, "/device")
        device = {"name": device_id, "key": "secret"}
        await ok(registrar, "device/save", deviceId=device_id, device=device)
        attached = await self.far.connect("/device")
        await ok(attached, "authenticate", deviceId=device_id, deviceKey="secret")
        await self.sees(device_id)
        return attached

    async def echo_device(self, device_id: str) -> Socket:
        """Attach a device by iotkit."""
        attached = await self.echo()
        attached.send(hello(device_id))
        assert await attached.next() == REGISTERED
        await self.sees(device_id)
        return attached

    async def echo(self) -> Socket:
        """Open a socket of iotkit."""
        factory = WebSocketClientFactory(
            f"ws://127.0.0.1:{self.far.port}/", protocols=["echo-protocol"], reactor=reactor
        )
        factory.protocol = Socket
        factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.far.port)
        opened = await endpoint.connect(factory)
        assert isinstance(opened, Socket)
        await opened.ready.addTimeout(PATIENCE, reactor)
        self.sockets.append(opened)
        return opened

    async def official(self, **options: Any) -> Connection:
        """Connect DeviceHive's Python client."""
        url = f"ws://127.0.0.1:{self.far.port}/api/websocket"
        connection: Connection = await deferToThread(
            Connection, url, login=ADMIN, password=PASSWORD, **options
        )
        self._connections.append(connection)
        return connection

    async def measure(self, device_id: str, value: str, signed_by: str | None = None) -> Answered:
        """Let a device say something by iotkit. :param signed_by: whose token it has."""
        body = submission(item(value, self.time.wall(), cid_of(device_id)))
        bearer = f"Bearer {device_token(signed_by or device_id)}"
        path = f"/v1/api/data/{device_id}"
        return await request(self.far.port, "POST", path, body, Authorization=bearer)

    async def send(self, device_id: str, body: object, bearer: str = BEARER) -> Answered:
        """Let a device say something by HTTPS, as to an IoT Hub."""
        path = f"/devices/{device_id}/messages/events?api-version=2021-04-12"
        return await request(self.far.port, "POST", path, body, Authorization=bearer)

    async def say(self, device_id: str, **parameters: Any) -> None:
        """Let a device say something by DeviceHive."""
        await self.note(device_id, "telemetry", parameters)

    async def note(self, device_id: str, name: str, parameters: Mapping[str, Any]) -> None:
        """Insert a notification."""
        said = {"notification": name, "parameters": parameters}
        await ok(self.admin, "notification/insert", deviceId=device_id, notification=said)

    # The relay, links, and the log

    async def relay(self, device_id: str, path: str) -> Answered:
        """Have a request relayed by the Cloud Relay."""
        form = urlencode({
            "grant_type": "client_credentials", "client_id": "portal",
            "client_secret": PROGRAM_SECRET,
        })  # fmt: skip
        type_ = "application/x-www-form-urlencoded"
        given = await request(
            self.port, "POST", "/oauth2/v2.0/token", form.encode(), Content_Type=type_
        )
        return await request(
            self.port, "GET", f"/api/v1/devices/{device_id}/request", Remote_Query=path,
            Authorization=f"Bearer {given.json['access_token']}",
        )  # fmt: skip

    async def link(self, line: str, body: object = None) -> Answered:
        """Make a request to DeviceLink."""
        method, _, path = line.partition(" ")
        at = f"/api/v1/devicelink{path}"
        return await request(self.port, method, at, body, Authorization=BEARER)

    async def log(self, device_id: str, *kinds: Kind) -> list[Event]:
        """Return the timeline of a device."""
        device = await self.core.registry.device(device_id)
        assert device is not None
        wanted = Replay(
            filter=Filter(kinds=frozenset(kinds), stream=device.uid), since=0,
            now=self.core.wall(), limit=10_000, bytes=2**24,
        )  # fmt: skip
        return list((await self.core.store.read(wanted)).events)


def cid_of(device_id: str) -> str:
    """Return the id of a device's component: there is none twice in an account."""
    return str(uuid5(NAMESPACE_OID, device_id))


def parameters(event: Event) -> Any:
    """Return what an event says."""
    return json.loads(event.body or b"null")


def reset(client: Socket) -> None:
    """End a connection by a reset of TCP, as when the machine behind it is gone."""
    transport: Any = client.transport
    transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abortConnection()


@pytest_twisted.async_yield_fixture(scope="module", name="doors")
async def set_up_doors(tmp_path_factory: Any) -> AsyncIterator[Doors]:
    """Return a gateway that all tests of a module share."""
    doors = Doors(tmp_path_factory.mktemp("doors") / "gatewayd.db")
    await doors.start()
    yield doors
    await doors.stop()
