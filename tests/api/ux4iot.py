"""A whole gateway with the ux4iot API, devices of its own, and what web apps do there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest_twisted
from constantly import NamedConstant
from twisted.internet.endpoints import TCP4ServerEndpoint

from gatewayd.api.ux4iot.api import Ux4Iot
from gatewayd.api.ux4iot.live import Live
from gatewayd.api.ux4iot.rest import Ux4IotRest
from gatewayd.api.ux4iot.rules import Ux4IotRules
from gatewayd.core.hub.hub import Hub, HubRules
from gatewayd.core.hub.methods import Methods
from gatewayd.core.hub.upstream import MethodResult, Upstream
from gatewayd.core.invocations import Invocations
from gatewayd.core.live_sessions import LiveSession, LiveSessions, SessionRules
from gatewayd.errors import GatewayError
from gatewayd.service import Gateway
from gatewayd.transport.root import Root
from gatewayd.transport.site import GatewaySite, HttpLimits
from gatewayd.transport.websocket import WebSocketLimits
from tests.api.hurried import Hurried
from tests.api.relay_devices import Attached
from tests.api.scene import ok, save_device, subscribe, turn
from tests.api.ux4iot_table import LAMP
from tests.api.web import Answered, request
from tests.harness import Daemon, Socket, make_settings, reactor

KEYS = {"good": "primary key of tests", "second": "s3cond;=", "wrong": "primary key of testx"}


class Elsewhere:
    """Another hub.

    :ivar error: what it fails with; None: it answers. :ivar asked: everything that it was asked.
    :ivar answer: a twin.
    """

    def __init__(self) -> None:
        self.error: GatewayError | None = None
        self.asked: list[tuple[Any, ...]] = []
        self.answer: dict[str, Any] = {"version": 7, "tags": {}, "connectionState": "Connected",
                                       "properties": {"desired": {}, "reported": {}}}  # fmt: skip

    def _answered(self, *asked: Any) -> bytes:
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        return json.dumps(self.answer).encode()

    async def invoke(
        self, device_id: str, name: str, payload: bytes | None, connect: float, respond: float
    ) -> MethodResult:
        self._answered("invoke", device_id, name, payload, connect, respond)
        return MethodResult(202, b'"far"')

    async def twin(self, device_id: str) -> bytes:
        return self._answered("twin", device_id)

    async def patch_desired(self, device_id: str, patch: bytes) -> bytes:
        return self._answered("patch", device_id, json.loads(patch))


class Ux(Daemon):
    """A gateway with the ux4iot API on a listener that it shares with DeviceHive's.

    :ivar time: its clock. :ivar trouble: what it says that keeps it from its work.
    :ivar levels: the levels of its log that were set.
    :ivar devices: those that are attached, by id; nobody answers for ``mute``.
    """

    def __init__(
        self,
        database: Path,
        upstream: Elsewhere | None = None,
        sessions: SessionRules | None = None,
        hub: HubRules | None = None,
        **rules: Any,
    ) -> None:
        self.time = Hurried()
        self.gateway = Gateway(make_settings(database), self.time, self.time.wall)
        self.core = core = self.gateway.core
        self.sockets: list[Socket] = []
        self.devices: dict[str, Attached] = {}
        self.trouble = ""
        self.levels: list[NamedConstant] = []
        keys = (KEYS["good"], KEYS["second"])
        self.rules = Ux4IotRules(**{"keys": keys, "version": "1.2.3", **rules})
        clock: Any = self.time
        self.hub = Hub(core, hub or HubRules(), clock)
        self.sessions = LiveSessions(
            core.store, core.wall, clock, sessions or SessionRules(burst=100_000)
        )
        other = cast("Upstream | None", upstream)
        invocations = Invocations(core.store, core.timeline, core.presence, core.registry, clock)
        self.rest = Ux4IotRest(
            core, self.hub, Methods(core.registry, invocations, other), self.sessions, self.rules,
            self.levels.append, other, lambda: self.trouble,
        )  # fmt: skip
        live = Live(
            self.sessions, self.hub, core.registry, self.rules, WebSocketLimits(keepalive=0),
            clock, core.wall,
        )  # fmt: skip
        self.api = Ux4Iot(self.rest, live, self.rules.path)

    async def start(self, *, ready: bool = True) -> None:
        """Start it. :param ready: whether its hub has read what happened before."""
        await super().start()
        if ready:
            await self.hub.start()
            await self.hub.settled()
        await self.sessions.start()
        self.api.start()
        root = Root([self.api, *self.gateway._apis["devicehive"]])
        site = GatewaySite(root, HttpLimits(), reactor)
        self._listening: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            site
        )

    async def stop(self) -> None:
        """Stop it."""
        await self._listening.stopListening()
        await self.api.stop(2.0)
        for socket in self.sockets:
            await socket.bye()
        self.sockets = []
        await turn()
        self.sessions.stop()
        await self.hub.stop()
        await super().stop()

    # Devices

    async def furnish(self) -> None:
        """Register devices: ``lamp`` is attached, answers and has said something; ``mute`` is
        attached and never answers; ``silent`` is not there; ``foreign`` is another hub's.
        """
        admin = await self.login()
        for device_id in ("lamp", "mute", "silent"):
            await save_device(admin, device_id)
        await save_device(admin, "foreign", data={"iotHub": True})
        await self.say("lamp", LAMP)
        for device_id in ("lamp", "mute"):
            await self.attach(device_id)

    async def say(self, device_id: str, body: object, timestamp: str | None = None) -> None:
        """Let a device send a message. :param timestamp: its time; None: now."""
        notification = {"notification": "telemetry", "parameters": body}
        if timestamp is not None:
            notification["timestamp"] = timestamp
        await ok(
            self.sockets[0], "notification/insert", deviceId=device_id, notification=notification
        )
        await turn()

    async def attach(self, device_id: str) -> Attached:
        """Attach a device."""
        socket = await self.far.login()
        await subscribe(socket, "command", deviceId=device_id)
        await self.sees(device_id)
        self.devices[device_id] = Attached(device_id, socket)
        return self.devices[device_id]

    async def answer(self, device_id: str, status: str, **result: Any) -> Any:
        """Answer the next method that a device is asked for; return its payload.

        :param status: of the command, as DeviceHive has it.
        """
        device = self.devices[device_id]
        while (command := await device.command())["command"].startswith("$"):
            pass
        await ok(
            device.socket, "command/update", deviceId=device_id, commandId=command["id"],
            command={"status": status, "result": {"said": command["parameters"], **result}},
        )  # fmt: skip
        return command["parameters"]

    # What web apps do

    async def ask(
        self, line: str, body: object = None, key: str | None = None, session: str | None = None,
        **headers: str,
    ) -> Answered:  # fmt: skip
        """Make a request.

        :param key: of :data:`KEYS`. :param session: what the header says.
        """
        method, _, path = line.partition(" ")
        if key:
            headers["Shared_Access_Key"] = KEYS[key]
        if session is not None:
            headers["sessionId"] = session
        port = self._listening.getHost().port
        return await request(port, method, path, body, **headers)

    async def session(self, *grants: Mapping[str, Any]) -> str:
        """Begin a session and give it something; ``<session>`` in that stands for its id."""
        begun: str = (await self.ask(f"POST {self.rules.path}/session")).json["sessionId"]
        for grant in grants:
            body = fill(grant, begun)
            answered = await self.ask(f"PUT {self.rules.path}/grants", body, "good")
            assert answered.code == 204, answered
        return begun

    def grants(self, session: str) -> set[tuple[str, str, str | None]]:
        """Return what a session has been granted: device, right and selector."""
        return {(each.device, each.right, each.selector) for each in self.live(session).grants}

    def subscriptions(self, session: str) -> set[tuple[str, str, str | None]]:
        """Return what a session has subscribed to."""
        found = self.live(session).subscriptions
        return {(each.device, each.right, each.selector) for each in found}

    def live(self, session: str) -> LiveSession:
        """Return a session as the core has it."""
        return self.sessions.get(session)


def fill(template: Any, session: str) -> Any:
    """Return a template with a session's id in it."""
    if isinstance(template, str):
        return template.replace("<session>", session)
    if isinstance(template, Mapping):
        return {name: fill(value, session) for name, value in template.items()}
    if isinstance(template, list):
        return [fill(value, session) for value in template]
    return template


#: Starts a furnished gateway, see :class:`Ux`; it stops with the test.
StartUx = Callable[..., Awaitable[Ux]]


@pytest_twisted.async_yield_fixture
async def start_ux(tmp_path: Path) -> AsyncIterator[StartUx]:
    """Return what starts gateways of a test's own."""
    started: list[Ux] = []

    async def start(**rules: Any) -> Ux:
        ux = Ux(tmp_path / f"{len(started)}.db", **rules)
        started.append(ux)
        await ux.start()
        await ux.furnish()
        return ux

    yield start
    for each in started:
        await each.stop()


@pytest_twisted.async_yield_fixture(scope="module")
async def ux(module_path: Path) -> AsyncIterator[Ux]:
    """Return a furnished gateway that all tests of a module share."""
    ux = Ux(module_path / "gatewayd.db")
    await ux.start()
    await ux.furnish()
    yield ux
    await ux.stop()
