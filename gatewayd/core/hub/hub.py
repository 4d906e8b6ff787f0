"""The hub: what devices said last, whether they are connected, and who watches that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

import msgspec
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from gatewayd.core.access import UNLIMITED, Scope
from gatewayd.core.cluster import Change, ChangeKind
from gatewayd.core.gateway import Core
from gatewayd.core.hub import reserved, telemetry
from gatewayd.core.hub.connection_states import ConnectionStates
from gatewayd.core.hub.keeper import Keeper
from gatewayd.core.hub.last_values import Forgotten, LastValues
from gatewayd.core.hub.telemetry import Message as Message
from gatewayd.core.hub.twin import Twin
from gatewayd.core.hub.twins import Twins
from gatewayd.core.hub.words import Said
from gatewayd.core.model import Device, Event, Kind
from gatewayd.core.queries import Filter
from gatewayd.core.timeline import Subscription
from gatewayd.errors import Unavailable

_KINDS = frozenset({Kind.NOTIFICATION, Kind.COMMAND, Kind.ATTACHED, Kind.DETACHED})
#: Changes of twins: notifications, and the command.
_TWIN_NOTES = frozenset({reserved.REPORTED, reserved.UPDATED})
#: Seconds between two times of keeping what is new.
_KEEP_EVERY = 1.0
#: Seconds for which somebody waits for the log to be read.
_PATIENCE = 10.0
#: Seconds until the log is read again when that failed.
_AGAIN = 5.0


class HubRules(msgspec.Struct, frozen=True, kw_only=True):
    """What counts.

    :ivar state_key: the telemetry key whose boolean alone says whether a device is connected; ""
        for none: its sockets and its telemetry say so.
    :ivar on_telemetry: whether telemetry makes a device without a socket connected.
    :ivar state_ttl: seconds without telemetry after which it is no longer; 0 for never.
    :ivar keys: telemetry keys that are kept of a device.
    """

    state_key: str = ""
    on_telemetry: bool = True
    state_ttl: float = 60.0
    keys: int = 1000


class Watcher(Protocol):
    """Wants to know what happens to a device."""

    def message(self, message: Message) -> None:
        """Take a message; what it says is among the last values."""

    def state(self, connected: bool, stamp: int) -> None:
        """Know that the device is connected now or is not; since when, in ms since the epoch."""

    def twin(self, twin: Twin, stamp: int) -> None:
        """Take the device's whole twin, which was changed; when, in ms since the epoch."""


class Hub:
    """Follows the timelines of all devices, and keeps what is known of them between messages.

    That is in memory first. The store gets it every second; what it did not get is read from the
    log after a restart. Of several nodes one writes it, the warden; the others hold what is new
    until that has happened, so that each can be the next.

    :param clock: for timers.
    :ivar twins: which the hub alone makes; without one, messages about twins are like any other.
    :ivar scope: all devices.
    :ivar ready: whether everything that was recorded until now is in it; watchers are told nothing
        before.
    """

    log = Logger()
    scope: Scope = UNLIMITED
    writable = True

    def __init__(self, core: Core, rules: HubRules, clock: IReactorTime) -> None:
        self._store = core.store
        self._cluster = core.store.cluster
        shared = self._cluster is not None
        self.twins = Twins(core.store, core.registry, core.timeline, shared)
        self.twins.install(core.notifications, core.commands)
        self.values = LastValues(
            core.store, rules.keys, self.keep, self._announce_forgotten if shared else None
        )
        self.states = ConnectionStates(
            core.store, core.presence, core.wall, core.timeline.now, clock, self.keep,
            self._announce_said if shared else None,
            key=rules.state_key, on_telemetry=rules.on_telemetry, ttl=rules.state_ttl,
        )  # fmt: skip
        self._membership = core.membership
        if core.following is not None:
            core.following.on(ChangeKind.VALUES_FORGOTTEN, self._changed)
            core.following.on(ChangeKind.STATE, self._changed)
        self.states.changed.append(self._state_changed)
        core.devices.deleted.append(self._forget)
        self.ready = False
        self._timeline = core.timeline
        self._registry = core.registry
        self._clock = clock
        self._watchers: dict[str, dict[Watcher, None]] = {}
        #: devices whose twin is being read for the watchers, and when it was changed
        self._reading: dict[int, int] = {}
        self._keeper = Keeper(core.store, core.timeline, self.values, self.states, rules.keys)
        self._keeping = LoopingCall(self._keep_or_let_go)
        self._keeping.clock = clock
        self._failing = False
        self._running = False
        self._following: Deferred[None] = succeed(None)
        self._subscription: Subscription | None = None
        self._pause: Deferred[None] | None = None
        self._settling: list[Deferred[None]] = []

    # Life

    async def start(self) -> None:
        """Begin to read the log, from where it was kept; that goes on in the background."""
        self._running = True
        self._keeping.start(_KEEP_EVERY, now=False)
        self._following = Deferred.fromCoroutine(self._follow())

    async def stop(self) -> None:
        """Follow no more, and keep what is new."""
        self._running = self.ready = False
        self.states.stop()
        if self._keeping.running:
            self._keeping.stop()
        if self._subscription is not None:
            self._subscription.close()
        if self._pause is not None:
            self._pause.cancel()
        await self._following
        await self._quietly(self.keep)
        self._settle()

    def settled(self) -> Deferred[None]:
        """Fire when the log was read, or the hub is stopped."""
        if self.ready:
            return succeed(None)
        settled: Deferred[None] = Deferred(self._settling.remove)
        self._settling.append(settled)
        return settled

    async def complete(self) -> None:
        """Wait until nothing is missing here; for some seconds. :raises Unavailable: it is."""
        if self.ready:
            return
        try:
            await self.settled().addTimeout(_PATIENCE, self._clock)
        except TimedOut:
            raise Unavailable("the log was not read yet") from None

    def _forget(self, device: Device) -> None:
        """Let everything about a deleted device go."""
        self.twins.drop(device)
        self.values.drop(device.uid)
        self.states.drop(device)

    async def _follow(self) -> None:
        """Read the log until that succeeds."""
        while self._running and not self._keeper.complete:
            try:
                await self._catch_up()
            except Unavailable as error:
                self.log.warn("the log could not be read: {error}", error=str(error))
            if self._running and not self._keeper.complete:
                self._pause = deferLater(self._clock, _AGAIN)
                try:
                    await self._pause
                except CancelledError:
                    return
        await self._quietly(self.keep)

    async def _catch_up(self) -> None:
        until = await self._store.shadowed_until()
        self.states.load(await self._store.connected())
        attached = [] if self._cluster is None else await self._cluster.attachments()
        if self._running:
            self._keeper.until = until or 0
            self._subscription = self._timeline.subscribe(Filter(kinds=_KINDS), self, self)
            await self._subscription.catch_up(self._keeper.until)
            self.states.load_attached(attached)
            self._keeper.complete = not self._subscription.closed

    def _begin(self) -> None:
        """Everything that was recorded is in it, and what was deleted before is gone again."""
        self.ready = self.values.complete = True
        self.states.start()
        self._settle()

    def _settle(self) -> None:
        settling, self._settling = self._settling, []
        for settled in tuple(settling):
            if not settled.called:  # one of them may give another one up
                settled.callback(None)

    # Keeping

    async def keep(self) -> None:
        """Let the store keep what is new; fires when that is on disk. :raises Unavailable:"""
        await self._keeper.keep()
        self._failing = False
        if self._keeper.complete and self._running and not self.ready:
            self._begin()

    async def _keep_or_let_go(self) -> None:
        membership = self._membership
        others = self.ready and membership is not None and not membership.warden
        if others and not (self.values.untold or self.states.untold):
            await self._quietly(self._keeper.let_go)
        else:
            await self._quietly(self._keep_and_tell)

    async def _keep_and_tell(self) -> None:
        await self.keep()
        await self.values.tell_others()
        await self.states.tell_others()

    async def _quietly(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Unavailable as error:
            if not self._failing and self._keeper.until is not None:
                self._failing = True
                self.log.warn(
                    "what devices said last could not be kept, and will be tried again: {error}",
                    error=str(error),
                )
        except Exception:
            self.log.failure("what devices said last could not be kept")

    # Other nodes

    async def _announce_forgotten(self, forgotten: Forgotten) -> None:
        assert self._cluster is not None
        subject = msgspec.json.encode(forgotten)
        await self._cluster.announce(ChangeKind.VALUES_FORGOTTEN, subject)

    async def _announce_said(self, said: Said) -> None:
        assert self._cluster is not None
        await self._cluster.announce(ChangeKind.STATE, msgspec.json.encode(said))

    async def _changed(self, change: Change) -> None:
        """Take over what another node has done without an event. :raises Unavailable:"""
        if change.kind is ChangeKind.VALUES_FORGOTTEN:
            self.values.forgotten(msgspec.json.decode(change.subject, type=Forgotten))
        elif change.kind is ChangeKind.STATE:
            await self.states.said_elsewhere(msgspec.json.decode(change.subject, type=Said))
        else:  # what is here may be out of date: the store knows better
            self.states.doubt()
            if self.ready:
                await self.keep()

    # Events, in the order of the timelines

    def when_writable(self) -> Deferred[None]:
        """Fire at once."""
        return succeed(None)

    def broken(self) -> None:
        """Know that the log could not be read to its end: it will be read again."""

    def deliver(self, event: Event) -> None:
        """Take an event."""
        try:
            self._take(event)
        except Exception:
            self.log.failure("an event of {device} failed in the hub", device=event.device)

    def _take(self, event: Event) -> None:
        name, kind = event.name, event.kind
        self._keeper.taken(event)
        if kind is Kind.NOTIFICATION:
            if not name.startswith("$"):
                message = telemetry.read(event)
                if message is not None:
                    self._take_message(message)
            elif name in _TWIN_NOTES:
                self._twin_changed(event)
        elif kind is Kind.COMMAND:
            if name == reserved.DESIRED:
                self._twin_changed(event)
        elif kind is Kind.DETACHED:
            self.states.detached(event)
        elif event.position > self._store.opened_at[0]:  # sockets of before are gone
            self.states.attached(event)

    def _take_message(self, message: Message) -> None:
        self.values.take(message)
        if self._watchers and self.ready:
            for watcher in self._watching(message.device):
                try:
                    watcher.message(message)
                except Exception:
                    self._failed(message.device)
        self.states.take(message)

    def _state_changed(self, device_id: str, connected: bool, stamp: int) -> None:
        for watcher in self._watching(device_id):
            try:
                watcher.state(connected, stamp)
            except Exception:
                self._failed(device_id)

    # Twins

    def _twin_changed(self, event: Event) -> None:
        stream = event.stream
        if event.foreign:
            self.twins.let_go(stream)
        if not self.ready or event.device.upper() not in self._watchers:
            return
        if stream in self._reading:
            self._reading[stream] = event.stamp
        elif (twin := self.twins.latest(stream)) is not None:
            self._tell_twin(event.device, twin, event.stamp)
        else:
            self._reading[stream] = event.stamp
            Deferred.fromCoroutine(self._read_twin(event))

    async def _read_twin(self, event: Event) -> None:
        """Tell of a twin that was not at hand; of what changes it meanwhile it tells too."""
        twin: Twin | None = None
        try:
            device = await self._registry.device(event.device)
            if device is not None and device.uid == event.stream:
                twin = await self.twins.of(device)
        except Exception:
            self.log.failure("the twin of {device} could not be read", device=event.device)
        stamp = self._reading.pop(event.stream)
        if twin is not None and self.ready:
            self._tell_twin(event.device, twin, stamp)

    def _tell_twin(self, device_id: str, twin: Twin, stamp: int) -> None:
        for watcher in self._watching(device_id):
            try:
                watcher.twin(twin, stamp)
            except Exception:
                self._failed(device_id)

    # Watchers

    def watch(self, device_id: str, watcher: Watcher) -> None:
        """Tell a watcher of a device from now on; the device need not exist."""
        self._watchers.setdefault(device_id.upper(), {})[watcher] = None

    def unwatch(self, device_id: str, watcher: Watcher) -> None:
        """Tell a watcher of a device no more."""
        members = self._watchers.get(device_id.upper(), {})
        members.pop(watcher, None)
        if not members:
            self._watchers.pop(device_id.upper(), None)

    def _watching(self, device_id: str) -> Iterator[Watcher]:
        """Go through the watchers of a device; some may leave meanwhile."""
        members = self._watchers.get(device_id.upper())
        if members is not None:
            for watcher in tuple(members):
                if watcher in members:
                    yield watcher

    def _failed(self, device_id: str) -> None:
        self.log.failure("a watcher of {device} failed", device=device_id)
