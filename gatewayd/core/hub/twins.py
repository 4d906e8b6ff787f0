"""The twins of all devices: read, changed and sent."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, TypeVar

import msgspec
from twisted.internet.defer import Deferred

from gatewayd.core.access import Action, Principal
from gatewayd.core.commands import Commands
from gatewayd.core.hub import reserved, twin_limits
from gatewayd.core.hub.shelf import Shelf
from gatewayd.core.hub.twin import Twin
from gatewayd.core.interfaces import Shadows
from gatewayd.core.locks import Locks
from gatewayd.core.model import CommandDraft, Device, Entry, Event, Kind, scoped
from gatewayd.core.notifications import Notifications
from gatewayd.core.registry import Registry
from gatewayd.core.shadow import StoredTwin
from gatewayd.core.timeline import Timeline
from gatewayd.errors import Conflict, Denied, Invalid, Unavailable

Result = TypeVar("Result")
#: Makes another twin of one, at a time in ms.
_Change: TypeAlias = Callable[[Twin, int], Twin]
_Done: TypeAlias = tuple[Event, Twin]

#: Bytes of twins, and of events that were asked for by key, that are kept at hand.
_ROOM = 32 * 1024 * 1024
_ROOM_FOR_KEYS = 4 * 1024 * 1024
#: What an object takes besides its contents.
_BARE = 512
_OBJECT = msgspec.json.Decoder(dict[str, Any])
#: How often a change is tried that somebody else was quicker than.
_ATTEMPTS = 4
#: Seconds in which a device may fetch the twin that it asked for.
_DOCUMENT_LIFETIME = 60


class Twins:
    """Reads and changes twins. Every change is one event of the device's timeline.

    Whether somebody may do that has been checked before, but for whether the device is blocked.

    The changes of a device are made one after the other. An idempotency key stands for an event
    that was recorded since the gateway was started: its owner sends again after its socket was
    lost, and a patch that is merged twice does no harm.

    :param shared: whether other nodes change twins too: the store is asked each time.
    """

    def __init__(
        self, store: Shadows, registry: Registry, timeline: Timeline, shared: bool = False
    ) -> None:
        self._shared = shared
        self._store = store
        self._registry = registry
        self._timeline = timeline
        self._locks = Locks()
        self._at_hand: Shelf[int, Twin] = Shelf(_ROOM)
        self._by_key: Shelf[str, Event] = Shelf(_ROOM_FOR_KEYS)

    def install(self, notifications: Notifications, commands: Commands) -> None:
        """Take the messages with the reserved names from now on."""
        notifications.reserved[reserved.REPORTED] = self._reported
        notifications.reserved[reserved.GET] = self._asked
        notifications.reserved[reserved.UPDATED] = self._told
        commands.reserved[reserved.DESIRED] = self._desired

    async def of(self, device: Device) -> Twin:
        """Return the twin of a device; an empty one when nothing was ever said in it.

        :raises Unavailable:
        """
        twin = self._known(device.uid)
        if twin is None:
            async with self._locks.hold(device.uid):
                twin = await self._read(device)
        return twin

    def latest(self, uid: int) -> Twin | None:
        """Return a twin that is at hand: while an event that changed it is published, it is.

        Later changes may be in it, too. What another node changed has to be read.
        """
        return self._at_hand.get(uid)

    def let_go(self, uid: int) -> None:
        """Know that another node has changed a twin."""
        self._at_hand.drop(uid)

    def drop(self, device: Device) -> None:
        """Forget a device that was deleted."""
        self._at_hand.drop(device.uid)

    async def patch_desired(self, user: int | None, device: Device, patch: bytes) -> Twin:
        """Change what is wanted of a device, and send it that.

        :param user: who wants it. :param patch: a JSON object.
        :raises Invalid: ``"object"``, or as in :meth:`Twin.patched_desired`.
        :raises Denied: ``"blocked"``: the device is. :raises NotFound: it is gone.
        :raises Unavailable:
        """
        draft = CommandDraft(user=user, parameters=patch)
        entry = Entry(device=device, kind=Kind.COMMAND, name=reserved.DESIRED, command=draft)
        _, twin = await self._desire(entry)
        return twin

    async def report(
        self,
        device: Device,
        patch: bytes,
        *,
        stamp: int | None = None,
        key: str | None = None,
        epoch: int | None = None,
    ) -> Event:
        """Change what a device says of itself; the parameters are as in ``Notifications.insert``.

        :raises Invalid: :raises Denied: :raises NotFound: :raises Unavailable: as in
            :meth:`patch_desired`. :raises Superseded: the epoch is over.
        """
        entry = Entry(
            device=device, kind=Kind.NOTIFICATION, name=reserved.REPORTED, body=patch, stamp=stamp,
            key=scoped(key, device, Kind.NOTIFICATION), epoch=epoch,
        )  # fmt: skip
        event, _ = await self._report(entry)
        return event

    async def take(
        self,
        device: Device,
        body: bytes,
        replace: bool,
        *,
        stamp: int | None = None,
        key: str | None = None,
    ) -> Event:
        """Take over what another hub says of a twin.

        :param body: as in :meth:`Twin.updated`, or :meth:`Twin.replaced` for ``replace``.
        :raises Invalid: :raises Denied: :raises NotFound: :raises Unavailable:
        """
        operation = "replaceTwin" if replace else "updateTwin"
        entry = Entry(
            device=device, kind=Kind.NOTIFICATION, name=reserved.UPDATED, stamp=stamp,
            body=msgspec.json.encode({**read_patch(body), "opType": operation}),
            key=scoped(key, device, Kind.NOTIFICATION),
        )  # fmt: skip
        event, _ = await self._tell(entry)
        return event

    # The reserved names

    def _reported(self, principal: Principal, entry: Entry) -> Deferred[Event]:
        return self._report(entry).addCallback(_event)

    def _desired(self, principal: Principal, entry: Entry) -> Deferred[Event]:
        return self._desire(entry).addCallback(_event)

    def _told(self, principal: Principal, entry: Entry) -> Deferred[Event]:
        """Take another hub's word. :raises Denied: it reaches further than a device may."""
        principal.require(Action.COMMAND_SEND)
        return self._tell(entry).addCallback(_event)

    def _asked(self, principal: Principal, entry: Entry) -> Deferred[Event]:
        return _to_its_end(self._send_document(entry))

    async def _send_document(self, asked: Entry) -> Event:
        """Record that a twin was asked for, and send it; with a key, what was sent comes again."""
        event = await self._timeline.append(asked)
        # Changes wait: those that come behind the document in the timeline are not yet in it.
        async with self._locks.hold(asked.device.uid):
            twin = await self._read(asked.device)
            await self._record_document(asked.device, twin)
            for _ in range(_ATTEMPTS if self._shared else 0):
                latest = await self._read(asked.device)
                if latest.revision == twin.revision:
                    break
                # Another node does not wait: its change may stand before the document.
                twin = latest
                await self._record_document(asked.device, twin)
        return event

    async def _record_document(self, device: Device, twin: Twin) -> None:
        document = msgspec.json.encode(twin.for_device())
        draft = CommandDraft(parameters=document, lifetime=_DOCUMENT_LIFETIME)
        device = self._admitted(device)
        await self._timeline.append(
            Entry(device=device, kind=Kind.COMMAND, name=reserved.DOCUMENT, command=draft)
        )

    # Changes

    def _report(self, entry: Entry) -> Deferred[_Done]:
        patch = read_patch(entry.body)
        return self._change(entry, lambda twin, now: twin.patched_reported(patch, now))

    def _tell(self, entry: Entry) -> Deferred[_Done]:
        body = read_patch(entry.body)
        match body.get("opType"):
            case "updateTwin":
                return self._change(entry, lambda twin, now: twin.updated(body, now))
            case "replaceTwin":
                return self._change(entry, lambda twin, now: twin.replaced(body, now))
        raise Invalid("twin", "opType", None, "operation")

    def _desire(self, entry: Entry) -> Deferred[_Done]:
        """Record the patch with the version that it leads to, so that the device can compare.

        The command's status, result and lifetime are left out: a change does not go out of date.
        """
        assert entry.command is not None
        user, patch = entry.command.user, read_patch(entry.command.parameters)

        def recorded(twin: Twin) -> Entry:
            parameters = msgspec.json.encode({**patch, "$version": twin.desired.version})
            draft = CommandDraft(user=user, parameters=parameters)
            return msgspec.structs.replace(entry, command=draft)

        return self._change(entry, lambda twin, now: twin.patched_desired(patch, now), recorded)

    def _change(
        self, entry: Entry, change: _Change, recorded: Callable[[Twin], Entry] | None = None
    ) -> Deferred[_Done]:
        """Make a change; fires with what was recorded and what the twin is now.

        :param entry: what is recorded. :param recorded: makes that of the new twin instead.
        """
        return _to_its_end(self._changed(entry, change, recorded or (lambda twin: entry)))

    async def _changed(
        self, entry: Entry, change: _Change, recorded: Callable[[Twin], Entry]
    ) -> _Done:
        async with self._locks.hold(entry.device.uid):
            known = None if entry.key is None else self._by_key.get(entry.key)
            if known is not None:
                return known, await self._read(entry.device)
            for _ in range(_ATTEMPTS):
                twin = change(await self._read(entry.device), self._timeline.wall())
                try:
                    event = await self._record(recorded(twin), twin)
                except Conflict:
                    self._at_hand.drop(entry.device.uid)
                    continue
                if entry.key is not None:
                    self._by_key.put(entry.key, event, _BARE + event.size)
                return event, twin
        raise Unavailable("the twin is changed by others again and again")

    async def _record(self, entry: Entry, twin: Twin) -> Event:
        """Record a change. :raises Conflict: the twin was changed meanwhile."""
        stored = twin.stored()
        device = self._admitted(entry.device)
        event = await self._timeline.append(
            msgspec.structs.replace(entry, device=device, key=None, twin=stored)
        )
        self._keep(device, twin, stored)
        return event

    async def _read(self, device: Device) -> Twin:
        """Return a twin. The lock of the device is held, so that nobody changes it meanwhile."""
        twin = self._known(device.uid)
        if twin is None:
            stored = await self._store.twin(device.uid)
            twin = Twin.read(stored)
            self._keep(device, twin, stored)
        return twin

    def _known(self, uid: int) -> Twin | None:
        """Return a twin that is at hand, if nobody else can have changed it."""
        return None if self._shared else self._at_hand.get(uid)

    def _keep(self, device: Device, twin: Twin, stored: StoredTwin | None) -> None:
        size = _BARE if stored is None else _BARE + len(stored.document)
        self._at_hand.put(device.uid, twin, size)

    def _admitted(self, device: Device) -> Device:
        """Return a device as it is now. :raises Denied: ``"blocked"``."""
        current = self._registry.cached_device(device.id)
        if current is None or current.uid != device.uid:
            current = device
        if current.blocked:
            raise Denied("blocked")
        return current


def read_patch(body: bytes | None) -> dict[str, Any]:
    """Read a JSON object. :raises Invalid: ``"object"``: it is none; ``"size"``; ``"depth"``."""
    if body is None:
        raise Invalid("twin", "patch", None, "object")
    if len(body) > twin_limits.LARGEST_PATCH:
        raise Invalid("twin", "patch", len(body), "size")
    try:
        return _OBJECT.decode(body)
    except RecursionError:
        raise Invalid("twin", "patch", None, "depth") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Invalid("twin", "patch", None, "object") from None


def _event(done: _Done) -> Event:
    return done[0]


def _to_its_end(work: Coroutine[Deferred[Any], Any, Result]) -> Deferred[Result]:
    """Do something to its end, even when who asked for it waits no longer and cancels.

    What is on its way to the disk is not stopped, and what comes of it has to be known here.
    """
    heard: Deferred[Result] = Deferred()
    Deferred.fromCoroutine(work).chainDeferred(heard)
    return heard
