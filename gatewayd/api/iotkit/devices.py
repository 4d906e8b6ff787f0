"""Devices as REST shows and changes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from gatewayd.api.iotkit.components import ComponentIndex, components_of, kept_of
from gatewayd.api.iotkit.errors import (
    COMPONENT_EXISTS,
    DEVICE_EXISTS,
    INVALID,
    NO_COMPONENT,
    SAME_COMPONENTS,
    Refused,
)
from gatewayd.api.iotkit.facts import Facts
from gatewayd.api.iotkit.fields import MOST_COMPONENTS, Component, DeviceUpdate
from gatewayd.api.iotkit.messages import Members, present, read_object
from gatewayd.api.iotkit.rules import IotKitRules
from gatewayd.core.access import Action, Principal, Service
from gatewayd.core.devices import DeviceChange, Devices
from gatewayd.core.locks import Locks
from gatewayd.core.model import Device
from gatewayd.core.registry import Registry
from gatewayd.errors import Denied, NotFound

_EMPTY = msgspec.Raw(b"{}")
_encode = msgspec.json.Encoder().encode


def shown(device: Device) -> dict[str, Any]:
    """Return a device as clients see it."""
    facts, kept = Facts.of(device), kept_of(device)
    record: dict[str, Any] = {
        "deviceId": device.id,
        "name": device.name,
        "status": "inactive" if device.blocked else "active",
        "gatewayId": facts.gateway_id,
        "domainId": facts.account_id,
        "uid": facts.uid,
    }
    for name in ("created", "description", "loc", "tags"):
        if (value := present(kept, name)) is not None:
            record[name] = value
    record["contact"] = present(kept, "contact") or _EMPTY
    record["attributes"] = present(kept, "attributes") or _EMPTY
    record["components"] = components_of(device)
    return record


def in_account(device: Device, account_id: str) -> bool:
    """Whether a device is of an account, as far as anybody said of which it is."""
    own = Facts.of(device).account_id
    return own is None or own.lower() == account_id.lower()


class IotDevices:
    """Changes devices, one change of each at a time, so that none undoes another.

    :param wall: the time of day in ms. :param rules: say where new ones go.
    """

    def __init__(
        self,
        devices: Devices,
        registry: Registry,
        index: ComponentIndex,
        wall: Callable[[], int],
        rules: IotKitRules,
    ) -> None:
        self._devices = devices
        self._registry = registry
        self._index = index
        self._wall = wall
        self._rules = rules
        self._locks = Locks()
        service = Service(name="iotkit")
        self._registrar = Principal(frozenset({Action.DEVICE_REGISTER}), service=service)

    async def adopt(self, device_id: str, account_id: str) -> Device:
        """Return a device of an account, registered if it is not known.

        :raises Refused: it is known, and not the account's. :raises Denied: ``"blocked"``: it is.
        :raises Invalid: no device may be called that.
        """
        async with self._locks.hold(device_id.upper()):
            device = await self._registry.device(device_id)
            if device is None:
                kept = {"accountId": account_id, "created": self._wall()}
                change = DeviceChange(
                    name=device_id, data=_encode({"iotkit": kept}), network=self._rules.network,
                    type=self._rules.type,
                )  # fmt: skip
                device = await self._devices.register(self._registrar, device_id, change)
        own = Facts.of(device).account_id or ""
        if device.id != device_id or own.lower() != account_id.lower():
            raise Refused(DEVICE_EXISTS)
        if device.blocked:
            raise Denied("blocked")
        return device

    async def update(self, principal: Principal, device: Device, update: DeviceUpdate) -> Device:
        """Change what is not None. :raises Refused: :raises Denied:"""
        wanted: Members = read_object(_encode(update))
        wanted.pop("name", None)
        components = update.components or []
        _check_different(components)
        cids = [each.cid for each in components]
        async with self._locks.hold(device.id.upper()), self._index.claim(device, cids):
            return await self._save(principal, device, lambda current: wanted, update.name)

    async def add(
        self, principal: Principal, device: Device, components: Sequence[Component]
    ) -> None:
        """Add components. :raises Refused: :raises Denied:"""
        _check_different(components)
        cids = [each.cid for each in components]
        async with self._locks.hold(device.id.upper()):
            _added(await self._current(device), components)
            async with self._index.claim(device, cids):
                await self._save(principal, device, lambda current: _added(current, components))

    async def remove(self, principal: Principal, device: Device, cid: str) -> None:
        """Remove a component. :raises Refused: there is none. :raises Denied:"""
        async with self._locks.hold(device.id.upper()):
            await self._save(principal, device, lambda current: _left(current, cid))

    async def _save(
        self,
        principal: Principal,
        device: Device,
        wanted: Callable[[Device], Members],
        name: str | None = None,
    ) -> Device:
        """Save a device with some of what is kept of it changed.

        :param wanted: says what, of the device as it is. :raises NotFound: it is gone.
        """

        def change(current: Device) -> DeviceChange:
            data: dict[str, object] = dict(read_object(current.data))
            data["iotkit"] = {**kept_of(current), **wanted(current)}
            return DeviceChange(name=name, data=_encode(data))

        return await self._devices.edit(principal, device, change)

    async def _current(self, device: Device) -> Device:
        """Return a device as it is now. :raises NotFound: it is gone."""
        current = await self._registry.device(device.id)
        if current is None or current.uid != device.uid:
            raise NotFound("device", device.id)
        return current


def _check_different(components: Sequence[Component]) -> None:
    count = Counter(each.cid for each in components)
    same = sorted(cid for cid, times in count.items() if times > 1)
    if same:
        raise Refused(SAME_COMPONENTS, *same)


def _added(device: Device, components: Sequence[Component]) -> Members:
    """Return a device's components with more of them. :raises Refused: one is there already."""
    known = components_of(device)
    cids = {each.cid for each in components}
    for component in known:
        if component.cid in cids:
            raise Refused(COMPONENT_EXISTS, component.cid)
    if len(known) + len(components) > MOST_COMPONENTS:
        raise Refused(INVALID, f"a device has at most {MOST_COMPONENTS} components")
    return _kept([*known, *components])


def _left(device: Device, cid: str) -> Members:
    """Return a device's components without one. :raises Refused: it is not there."""
    known = components_of(device)
    left = [each for each in known if each.cid != cid]
    if len(left) == len(known):
        raise Refused(NO_COMPONENT, cid)
    return _kept(left)


def _kept(components: Sequence[Component]) -> Members:
    return {"components": msgspec.Raw(_encode(components))}
