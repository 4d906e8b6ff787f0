"""What tests of ux4iot's live channel share: messages, grants and stand-ins for connections."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from gatewayd.api.ux4iot.coalescing import Coalescing
from gatewayd.api.ux4iot.feeds import Feeds
from gatewayd.api.ux4iot.followers import Following
from gatewayd.api.ux4iot.live import Live
from gatewayd.api.ux4iot.messages import timestamp
from gatewayd.api.ux4iot.outlet import Outlet
from gatewayd.api.ux4iot.recalls import Recalls
from gatewayd.api.ux4iot.rules import Ux4IotRules
from gatewayd.core.grants import Grant, Right
from gatewayd.core.hub.hub import Hub, HubRules, Watcher
from gatewayd.core.hub.telemetry import Message
from gatewayd.core.live_sessions import LiveSession, LiveSessions, SessionRules
from gatewayd.core.model import Event, Kind
from gatewayd.core.registry import Registry
from gatewayd.transport.socketio.connection import Application, Connection
from gatewayd.transport.socketio.packets import Batch, Prepared
from gatewayd.transport.websocket import WebSocketLimits
from tests.core.bench import Bench

START = 1_700_000_000_000
#: START, as it is shown.
AT = "2023-11-14T22:13:20.000Z"
NO_SESSION = {"message": "No such sessionId"}


def key(device: str, selector: str | None = None) -> Grant:
    """Return a grant of telemetry."""
    return Grant(device=device, right=Right.TELEMETRY, selector=selector)


def right(device: str, right: Right) -> Grant:
    """Return a grant of something else."""
    return Grant(device=device, right=right)


def raw(values: Mapping[str, Any]) -> dict[str, msgspec.Raw]:
    """Return values as JSON."""
    return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in values.items()}


def telemetry(device: str, values: Mapping[str, Any], timestamp: str = AT) -> dict[str, Any]:
    """Return what clients are told of telemetry."""
    return {"deviceId": device, "telemetry": dict(values), "timestamp": timestamp}


def d2c(body: Mapping[str, Any], stamp: int = START, device: str = "D") -> Message:
    """Return a message of a device."""
    text = json.dumps(body).encode()
    event = Event(
        stream=1, seq=1, ts=stamp, stamp=stamp, kind=Kind.NOTIFICATION, name="note",
        device=device, network=1, type=1, position=1, body=text,
    )  # fmt: skip
    values = {name: value for name, value in body.items() if not name.startswith("$")}
    return Message(stream=1, device=device, stamp=stamp, body=text, values=raw(values), event=event)


def decode(packet: bytes) -> Any:
    """Return the argument of an event, in whatever namespace."""
    assert packet[:2] == b"42"
    name, argument = json.loads(packet[packet.index(b"[") :])
    assert name == "data"
    return argument


class Line:
    """Stands for a client in a namespace; it keeps what it is sent.

    :ivar sends: how often several were sent together.
    :ivar frames: those of events. :ivar refused: with what it was turned away.
    :ivar ended: whether it was put out.
    :ivar breaks: whether it is closed by the next frame, as one that reads too slowly.
    """

    def __init__(
        self, namespace: str = "/", first_transport: str = "websocket", **query: str
    ) -> None:
        self.namespace = namespace
        self.first_transport = first_transport
        self.query = query
        self.host = "192.0.2.1"
        self.open = False
        self.breaks = False
        self.ended = False
        self.refused: Any = None
        self.sends = 0
        self.frames: list[Prepared] = []
        self.full: Deferred[None] | None = None
        self._application: Application | None = None

    @property
    def connection(self) -> Connection:
        """Itself, as what it stands for."""
        return cast("Connection", self)

    @property
    def said(self) -> list[Any]:
        """What it was told since this was asked last."""
        frames, self.frames = self.frames, []
        return [decode(frame.packet) for frame in frames]

    def arrive(self, application: Application) -> None:
        """Ask to be let in."""
        self._application = application
        application.arrived(self.connection)

    def leave(self) -> None:
        """Be gone."""
        self.open = False
        application, self._application = self._application, None
        if application is not None:
            application.gone(self.connection)

    # Connection

    def accept(self) -> None:
        self.open = True

    def refuse(self, data: bytes) -> None:
        self.refused = json.loads(data)
        self.leave()

    def disconnect(self) -> None:
        self.ended = True
        self.leave()

    def send(self, packet: Prepared) -> bool:
        if not self.open:
            return False
        if self.breaks:
            self.leave()
            return False
        self.frames.append(packet)
        return True

    def send_all(self, batch: Batch) -> bool:
        self.sends += 1
        return all(self.send(packet) for packet in batch.packets)

    def when_writable(self) -> Deferred[None]:
        return self.full or succeed(None)


class Switchboard:
    """Stands for the hub, of which feeds need no more than that they can watch."""

    def __init__(self, clock: Clock) -> None:
        self.watchers: dict[str, Watcher] = {}
        self._clock = clock

    def watch(self, device_id: str, watcher: Watcher) -> None:
        assert device_id not in self.watchers
        self.watchers[device_id] = watcher

    def unwatch(self, device_id: str, watcher: Watcher) -> None:
        assert self.watchers.pop(device_id) is watcher

    def say(self, body: dict[str, Any], stamp: int = START, device: str = "D") -> None:
        """Let a device send something, and the reactor turn end."""
        if device.upper() in self.watchers:
            self.watchers[device.upper()].message(d2c(body, stamp, device))
        self._clock.advance(0)


class Member:
    """A session that has connections."""

    def __init__(self, room: Room, by_grant: bool) -> None:
        self.session = LiveSession("x", lambda session: None)
        self.session.by_grant = by_grant
        self._following = Following(self.session, room.feeds, room.recalls)

    def connect(self, namespace: str = "/") -> Line:
        line = Line(namespace)
        line.open = True
        self._following.attach(line.connection, recall=False)
        return line

    def disconnect(self, line: Line) -> None:
        line.open = False
        self._following.detach(line.connection)

    def subscribe(self, *grants: Grant) -> None:
        for grant in grants:
            self._following.subscribed(grant)

    def unsubscribe(self, *grants: Grant) -> None:
        for grant in grants:
            self._following.unsubscribed(grant)


class Room:
    """Feeds, and sessions that want something of them."""

    def __init__(self, throttling: float = -1) -> None:
        self.clock = Clock()
        self.hub = Switchboard(self.clock)
        hub = cast("Hub", self.hub)
        self.feeds = Feeds(hub, Coalescing(throttling, self.clock), Outlet(self.clock))
        self.recalls = Recalls(hub, cast("Registry", None), self.clock, lambda: START)

    def member(self, *grants: Grant, by_grant: bool = False) -> Member:
        """Return a session with these subscriptions, which were not made just now."""
        member = Member(self, by_grant)
        member.subscribe(*grants)
        return member

    def line(self, *grants: Grant, by_grant: bool = False, namespace: str = "/") -> Line:
        """Return the connection of such a session."""
        return self.member(*grants, by_grant=by_grant).connect(namespace)


class Scene:
    """The live channel over a core, with a device D and a clock that the test sets.

    :param clock: of the live channel; None: the one that the test sets.
    """

    def __init__(self, path: Path, clock: IReactorTime | None = None) -> None:
        self.bench = Bench(path)
        self._clock = clock
        self._lines: list[Line] = []

    @property
    def hub(self) -> Hub:
        """The hub."""
        return self._hub

    async def open(self, **rules: Any) -> None:
        """Begin, with rules for the live channel."""
        await self.bench.open()
        await self._begin(**rules)
        await self._hub.settled()
        self.device = await self.bench.device("D")
        await self.settle()

    async def _begin(self, **rules: Any) -> None:
        bench, core = self.bench, self.bench.core
        self._hub = Hub(core, HubRules(), bench.timers)
        await self._hub.start()
        self.sessions = LiveSessions(bench.store, bench.clock, bench.timers, SessionRules())
        await self.sessions.start()
        self.live = Live(
            self.sessions, self._hub, core.registry, Ux4IotRules(**rules),
            WebSocketLimits(keepalive=0), self._clock or bench.timers, bench.clock,
        )  # fmt: skip

    async def close(self) -> None:
        """End, and check that no timer is left."""
        await self.live.stop(0)
        self.sessions.stop()
        await self._hub.stop()
        await self.bench.settle()
        await self.bench.close()
        assert self.bench.timers.getDelayedCalls() == []

    async def restart(self, held: str = "", **rules: Any) -> None:
        """End and begin again, a second later, with the same store.

        :param held: what the store does not answer yet, so that the hub is not ready.
        """
        for line in self._lines:
            line.leave()
        await self.close()
        self.pass_time(1)
        await self.bench.open()
        if held:
            self.bench.gate.hold(held)
        await self._begin(**rules)
        if not held:
            await self._hub.settled()

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.bench.clock.now += round(seconds * 1000)
        self.bench.timers.advance(seconds)

    async def settle(self) -> None:
        """Let what goes on in the background end."""
        await self.bench.settle()
        self.bench.timers.advance(0)
        await self.bench.settle()

    async def say(self, device_id: str, body: Mapping[str, Any]) -> str:
        """Let a device send a message; its clients have it then. Return its time, as shown."""
        device = await self.bench.core.registry.device(device_id)
        assert device is not None
        text = json.dumps(body).encode()
        notifications = self.bench.core.notifications
        event = await notifications.insert(self.bench.admin, device, "note", text)
        await self.settle()
        return timestamp(event.stamp)

    def connect(self, session_id: str, first_transport: str = "websocket", **query: str) -> Line:
        """Come with a session."""
        line = Line("/", first_transport, sessionId=session_id, **query)
        self._lines.append(line)
        line.arrive(self.live)
        return line
