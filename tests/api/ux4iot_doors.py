"""The doors for devices and other hubs beside a whole gateway, and what comes through them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest_twisted
from twisted.internet.endpoints import TCP4ServerEndpoint

from gatewayd.api.ux4iot.access import Access
from gatewayd.api.ux4iot.doors import Doors
from gatewayd.api.ux4iot.rules import Ux4IotRules
from gatewayd.core.access import ALL_ACTIONS, Principal
from gatewayd.core.device_secrets import DeviceSecrets
from gatewayd.core.devices import DeviceChange
from gatewayd.core.hub.hub import Hub, HubRules
from gatewayd.core.live_sessions import LiveSessions, SessionRules
from gatewayd.core.model import Device, Event, Kind
from gatewayd.core.queries import Filter, Replay
from gatewayd.service import wall_ms
from gatewayd.transport.root import Root
from gatewayd.transport.site import GatewaySite, HttpLimits
from tests.api.scene import token
from tests.api.ux4iot_description import check_answer
from tests.api.web import Answered, request
from tests.harness import PATIENCE, Daemon, make_settings, reactor

KEYS = ("the primary key", "the secondary key")
#: A device's.
SECRET = bytes(range(32))
#: 2024-05-01T12:00:00Z, in ms.
NOON = 1_714_564_800_000


class DoorKit:
    """The doors over the core of a gateway, on a listener beside DeviceHive's API."""

    def __init__(self, database: Path, hub: HubRules | None = None, **rules: Any) -> None:
        self.daemon = Daemon(make_settings(database))
        self.core = core = self.daemon.core
        self.rules = Ux4IotRules(**{"keys": KEYS, **rules})
        self.hub = Hub(core, hub or HubRules(), reactor)
        self.secrets = DeviceSecrets(core.store, core.registry)
        sessions = LiveSessions(core.store, core.wall, reactor, SessionRules())
        check_key = Access(self.rules.keys, sessions).require_key
        self.doors = Doors(core, self.hub, self.rules, self.secrets, check_key, reactor)

    async def start(self) -> None:
        """Serve."""
        await self.daemon.start()
        await self.hub.start()
        await self.hub.settled()
        root = Root([self.doors, *self.daemon.gateway._apis["devicehive"]])
        site = GatewaySite(root, HttpLimits(), reactor)
        self._port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site)

    async def stop(self) -> None:
        """Stop."""
        await self._port.stopListening()
        await self.hub.stop()
        await self.daemon.stop()

    # Requests

    async def ask(self, line: str, body: object = None, **headers: str) -> Answered:
        """Make a request; what a door answers is as it is described."""
        method, _, path = line.partition(" ")
        whole = self.rules.path + path
        answered = await request(self._port.getHost().port, method, whole, body, **headers)
        if self.doors.resource(whole.partition("?")[0]) is not None:
            check_answer(method, path, answered)
        return answered

    async def send(
        self, body: object, device_id: str = "D", authorization: str | None = None, **headers: str
    ) -> Answered:
        """Send a message of a device, which signs it."""
        path = f"/devices/{quote(device_id, safe='')}/messages/events?api-version=2021-04-12"
        signed = signature(device_id) if authorization is None else authorization
        if signed:
            headers["Authorization"] = signed
        return await self.ask(f"POST {path}", body, **headers)

    async def ingest(self, body: object, key: str | None = KEYS[0]) -> Answered:
        """Forward events."""
        headers = {} if key is None else {"Shared_Access_Key": key}
        return await self.ask("POST /ingest/events", body, **headers)

    async def grid(self, body: object, key: str | None = KEYS[0], **headers: str) -> Answered:
        """Deliver events as Event Grid does."""
        query = "" if key is None else f"?key={quote(key)}"
        return await self.ask(f"POST /ingest/event-grid{query}", body, **headers)

    async def taken(self, body: object, status: int = 204) -> Any:
        """Forward events; return what is answered, decoded."""
        answered = await self.ingest(body)
        assert answered.code == status, answered
        assert status != 204 or answered.body == b""
        typed = answered.header("Content-Type") == "application/json"
        return answered.json if typed else answered.body

    # The core

    async def root(self) -> Principal:
        """Return an administrator."""
        return Principal(ALL_ACTIONS, user=await self.core.users.by_id(1))

    async def save(self, device_id: str = "D", **change: Any) -> Device:
        """Register or change a device."""
        wanted = DeviceChange(**{"name": device_id, **change})
        return await self.core.devices.save(await self.root(), device_id, wanted)

    async def equip(self, device_id: str = "D", **change: Any) -> Device:
        """Register a device that signs."""
        device = await self.save(device_id, **change)
        await self.secrets.set(device, SECRET)
        return device

    async def events(self, device_id: str = "D") -> list[Event]:
        """Return the notifications of a device, without the gateway's own about devices."""
        wanted = Filter(kinds=frozenset({Kind.NOTIFICATION}))
        whole = Replay(filter=wanted, since=0, now=self.core.wall(), limit=10_000, bytes=2**24)
        found = (await self.core.store.read(whole)).events
        return [
            event
            for event in found
            if event.device == device_id and not event.name.startswith("$device-")
        ]

    async def said(self, device_id: str = "D") -> list[tuple[str, Any]]:
        """Return the names and parameters of a device's notifications."""
        return [
            (event.name, json.loads(event.body or b"null"))
            for event in await self.events(device_id)
        ]

    async def device(self, device_id: str = "D") -> Device | None:
        """Return a device as it is registered."""
        return await self.core.registry.device(device_id)

    async def connected(self, device_id: str = "D") -> bool | None:
        """Return whether a device is connected; None: nobody knows."""
        device = await self.device(device_id)
        assert device is not None
        state = await self.hub.states.of(device)
        return None if state is None else state.connected

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Return once something holds."""
        end = reactor.seconds() + PATIENCE
        while not await holds():
            assert reactor.seconds() < end, "it never came"


def signature(
    device_id: str = "D", key: bytes = SECRET, seconds: int = 3600, host: str = "hub.example"
) -> str:
    """Return what a device writes into Authorization."""
    place = quote(f"{host}/devices/{device_id}", safe="")
    expires = wall_ms() // 1000 + seconds
    digest = hmac.new(key, f"{place}\n{expires}".encode(), hashlib.sha256).digest()
    written = quote(base64.b64encode(digest), safe="")
    return f"SharedAccessSignature sr={place}&sig={written}&se={expires}"


def bearer(**claims: Any) -> str:
    """Return what somebody with a token of the gateway writes into Authorization."""
    return f"Bearer {token(**claims)}"


def event(body: Any, device_id: str | None = "D", **system: Any) -> dict[str, Any]:
    """Return an event as the other hub has it, of a device's message."""
    properties = {"iothub-connection-device-id": device_id, "iothub-message-source": "Telemetry"}
    return {"body": body, "properties": {}, "systemProperties": {**properties, **system}}


def change(
    source: str, operation: str, body: Any = None, device_id: str = "D", **properties: Any
) -> dict[str, Any]:
    """Return an event of the other hub's own."""
    return {
        "body": {} if body is None else body,
        "properties": {"deviceId": device_id, "hubName": "hub", "opType": operation, **properties},
        "systemProperties": {"iothub-message-source": source},
    }


def state(connected: bool, sequence: int, device_id: str = "D", **properties: Any) -> Any:
    """Return an event that says whether a device is connected."""
    operation = "deviceConnected" if connected else "deviceDisconnected"
    body = {"sequenceNumber": f"{sequence:064X}"}
    return change("deviceConnectionStateEvents", operation, body, device_id, **properties)


StartDoors = Callable[..., Awaitable[DoorKit]]


@pytest_twisted.async_yield_fixture(name="start_doors")
async def set_up_doors(tmp_path: Path) -> AsyncIterator[StartDoors]:
    """Return what starts doors with rules of a test's own."""
    started: list[DoorKit] = []

    async def start(**rules: Any) -> DoorKit:
        kit = DoorKit(tmp_path / f"{len(started)}.db", **rules)
        started.append(kit)
        await kit.start()
        return kit

    yield start
    for each in started:
        await each.stop()


@pytest_twisted.async_yield_fixture(name="kit")
async def set_up(tmp_path: Path) -> AsyncIterator[DoorKit]:
    """Return doors that serve."""
    kit = DoorKit(tmp_path / "gatewayd.db")
    await kit.start()
    yield kit
    await kit.stop()
