"""Registering, changing, finding and deleting devices."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from gatewayd.core.access import Action, Principal
from gatewayd.core.interfaces import Store
from gatewayd.core.locks import Locks, undisturbed
from gatewayd.core.model import Device, Entry, GroupKind, Kind
from gatewayd.core.queries import DeviceQuery, GroupQuery, Order
from gatewayd.core.registry import Registry
from gatewayd.core.timeline import Timeline
from gatewayd.errors import Conflict, Denied, Invalid, NotFound

#: What a device may be called: what Azure IoT Hub allows, of which every API's set is a part.
_ID = re.compile(r"[A-Za-z0-9\-.%_*?!(),:=@$'+#]{1,128}")
#: Notifications by which the gateway says that a device was registered or changed.
ADDED = "$device-add"
UPDATED = "$device-update"
SPECIAL = frozenset({ADDED, UPDATED})


def check_id(device_id: str) -> None:
    """Check that a device may be called that. :raises Invalid:"""
    if not _ID.fullmatch(device_id):
        raise Invalid("device", "id", device_id, "characters")


class DeviceChange(msgspec.Struct, frozen=True, kw_only=True):
    """What is to become of a device; None leaves a field as it is."""

    name: str | None = None
    data: bytes | None = None
    network: int | None = None
    type: int | None = None
    blocked: bool | None = None


#: Says what is to become of a device that is as it is given, or is not known; None: nothing.
_Change = Callable[[Device | None], DeviceChange | None]


def describe(device: Device) -> bytes:
    """Return a device as the JSON object that announcements carry."""
    return msgspec.json.encode(
        {
            "id": device.id,
            "name": device.name,
            "data": msgspec.Raw(device.data or b"null"),
            "networkId": device.network,
            "deviceTypeId": device.type,
            "isBlocked": device.blocked,
        }
    )


def _check_may_change(principal: Principal, device: Device) -> None:
    """Refuse a blocked device that changes itself: it would let itself in again.

    :raises Denied: ``"blocked"``.
    """
    if principal.device is not None and device.blocked:
        raise Denied("blocked")


class Devices:
    """The devices that principals may see and change."""

    def __init__(self, store: Store, registry: Registry, timeline: Timeline) -> None:
        self._store = store
        self._registry = registry
        self._timeline = timeline
        self._locks = Locks()
        #: called with every device that was deleted
        self.deleted: list[Callable[[Device], None]] = []

    async def get(self, principal: Principal, action: Action, device_id: str) -> Device:
        """Return a device for a purpose. :raises Denied: :raises NotFound:"""
        principal.require(action)
        return principal.admit(await self._registry.device(device_id), device_id)

    async def save(self, principal: Principal, device_id: str, change: DeviceChange) -> Device:
        """Register or change a device and announce it.

        :raises Denied: ``"device"``, ``"network"`` or ``"device type"``: no access;
            ``"blocked"``: a blocked device changes itself.
        :raises Invalid: a field breaks a rule.
        """
        return await self._save(principal, device_id, lambda known: change)

    async def register(self, principal: Principal, device_id: str, draft: DeviceChange) -> Device:
        """Return a device, registered as :meth:`save` does it if there is none.

        :raises Denied: :raises Invalid:
        """
        return await self._save(
            principal, device_id, lambda known: draft if known is None else None
        )

    async def edit(
        self, principal: Principal, device: Device, edit: Callable[[Device], DeviceChange]
    ) -> Device:
        """Change a device by what it is now, and announce it.

        :param edit: returns the change; it is asked again when somebody else was faster.
        :raises NotFound: it is gone. :raises Denied: :raises Invalid: as :meth:`save` does.
        """

        def change(known: Device | None) -> DeviceChange:
            if known is None or known.uid != device.uid:
                raise NotFound("device", device.id)
            return edit(known)

        return await self._save(principal, device.id, change)

    async def _save(self, principal: Principal, device_id: str, change: _Change) -> Device:
        principal.require(Action.DEVICE_REGISTER)
        check_id(device_id)
        async with self._locks.hold(device_id.upper()):
            known, device = await undisturbed(lambda: self._write(principal, device_id, change))
            if device is not known:
                self._registry.keep_device(device)
                await self._announce(device, ADDED if known is None else UPDATED)
        return device

    async def _write(
        self, principal: Principal, device_id: str, change: _Change
    ) -> tuple[Device | None, Device]:
        """Return a device as it was, and as it is stored now.

        :raises Conflict: it is not as it was at hand here.
        """
        known = await self._registry.device(device_id)
        wanted = change(known)
        if known is not None and not principal.home.holds(known):
            raise Denied("device")
        if wanted is None:
            assert known is not None
            return known, known
        if wanted.name is not None and not 1 <= len(wanted.name) <= 128:
            raise Invalid("device", "name", wanted.name, "length")
        if known is None:
            draft = await self._draft(principal, device_id, wanted)
        else:
            draft = await self._changed(principal, known, wanted)
        try:
            return known, await self._store.save_device(draft, known)
        except Conflict:
            await self._registry.follow_device(device_id)
            raise

    async def _draft(self, principal: Principal, device_id: str, change: DeviceChange) -> Device:
        if change.name is None:
            raise Invalid("device", "name", None, "required")
        ids = principal.scope.ids
        if principal.scope.stream is not None or (ids is not None and device_id.upper() not in ids):
            raise Denied("device")
        network = await self._group(principal, GroupKind.NETWORK, change.network)
        type_ = await self._group(principal, GroupKind.DEVICE_TYPE, change.type)
        return Device(
            uid=0, id=device_id, name=change.name, data=change.data, network=network, type=type_,
            blocked=bool(change.blocked),
        )  # fmt: skip

    async def _changed(self, principal: Principal, known: Device, change: DeviceChange) -> Device:
        _check_may_change(principal, known)
        network, type_ = known.network, known.type
        if principal.device is not None and (
            change.network not in (None, network) or change.type not in (None, type_)
        ):
            raise Denied("device")  # a device does not choose where it belongs
        if change.network is not None:
            network = await self._group(principal, GroupKind.NETWORK, change.network)
        if change.type is not None:
            type_ = await self._group(principal, GroupKind.DEVICE_TYPE, change.type)
        return Device(
            uid=known.uid, id=known.id, network=network, type=type_,
            name=known.name if change.name is None else change.name,
            data=known.data if change.data is None else change.data,
            blocked=known.blocked if change.blocked is None else change.blocked,
        )  # fmt: skip

    async def _group(self, principal: Principal, kind: GroupKind, wanted: int | None) -> int:
        """Return the network or type that a device goes to: the one wanted, or the lowest."""
        members = principal.home.members(kind)
        if wanted is not None:
            if await self._store.group(kind, wanted) is None:
                raise Invalid("device", kind.value, wanted, "unknown")
            if members is not None and wanted not in members:
                raise Denied(kind.value)
            return wanted
        if kind is GroupKind.NETWORK and members is None and principal.user is not None:
            members = principal.user.networks or None
        if members is None:
            lowest = await self._store.groups(kind, GroupQuery(order=Order(take=1)))
            members = frozenset(group.id for group in lowest)
        if not members:
            raise Denied(kind.value)
        return min(members)

    async def _announce(self, device: Device, name: str) -> None:
        everywhere = msgspec.structs.replace(device, network=0, type=0)
        await self._timeline.append(
            Entry(device=everywhere, kind=Kind.NOTIFICATION, name=name, body=describe(device))
        )

    async def delete(self, principal: Principal, device_id: str) -> None:
        """Delete a device with its timeline. :raises Denied: :raises NotFound:"""
        device = await self.get(principal, Action.DEVICE_REGISTER, device_id)
        _check_may_change(principal, device)
        async with self._locks.hold(device_id.upper()):
            if not await self._store.delete_device(device.uid):
                principal.admit(None, device_id)
            self.gone(device)

    def gone(self, device: Device) -> None:
        """Let everything about a deleted device go."""
        self._registry.drop_device(device)
        self._timeline.drop(device.uid)
        for callback in self.deleted:
            callback(device)

    async def list(self, principal: Principal, query: DeviceQuery) -> list[Device]:
        """List the devices that the principal may see."""
        principal.require(Action.DEVICE_READ)
        return await self._store.devices(self._visible(principal, query))

    async def count(self, principal: Principal, query: DeviceQuery) -> int:
        """Count the devices that the principal may see."""
        principal.require(Action.DEVICE_READ)
        return await self._store.count_devices(self._visible(principal, query))

    def _visible(self, principal: Principal, query: DeviceQuery) -> DeviceQuery:
        scope = principal.scope
        return msgspec.structs.replace(
            query, networks=scope.networks, types=scope.types, stream=scope.stream, ids=scope.ids
        )
