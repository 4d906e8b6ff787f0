"""The parts of devices, by whose ids dashboards send actuations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache

import msgspec
from twisted.internet.interfaces import IReactorTime

from gatewayd.api.iotkit.errors import COMPONENT_EXISTS, Refused
from gatewayd.api.iotkit.fields import Component
from gatewayd.api.iotkit.messages import Members, read_object
from gatewayd.core.cache import Cache
from gatewayd.core.interfaces import Store
from gatewayd.core.locks import Locks
from gatewayd.core.model import Device
from gatewayd.core.queries import DeviceQuery, Order
from gatewayd.core.registry import Registry

_REMEMBERED = 500_000
_PAGE = 1000
#: Seconds from one search through all devices to the next.
_PAUSE = 60.0
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_COMPONENT = msgspec.json.Decoder(Component)
_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def kept_of(device: Device) -> Members:
    """Return the members of what this API keeps in a device's data."""
    return read_object(read_object(device.data).get("iotkit"))


def components_of(device: Device) -> Sequence[Component]:
    """Return the components of a device; what others wrote there that is none is left out."""
    return _components(device.data) if b'"iotkit"' in (device.data or b"") else ()


@lru_cache(maxsize=64)  # one request may need those of one device again and again
def _components(data: bytes) -> Sequence[Component]:
    try:
        members = _LIST.decode(read_object(read_object(data).get("iotkit"))["components"])
    except (KeyError, *_BROKEN):
        return ()
    found = (_component(member) for member in members)
    return tuple(component for component in found if component is not None)


def _component(member: msgspec.Raw) -> Component | None:
    try:
        return _COMPONENT.decode(member)
    except _BROKEN:
        return None


class ComponentIndex:
    """Finds the device that has a component.

    It learns from every device that is saved. All devices are read when one is asked for that it
    does not know, but not often. It remembers half a million components. Where several devices say
    that they have one, it is whose that said so first.
    """

    def __init__(self, store: Store, registry: Registry, clock: IReactorTime) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock
        #: the ids of devices that have, or had, a component
        self._holders: Cache[str, tuple[str, ...]] = Cache(_REMEMBERED)
        self._claimed: set[str] = set()
        self._locks = Locks()
        self._read_at = float("-inf")
        registry.saved.append(self._learn)

    async def find(self, cid: str) -> Device | None:
        """Return the device that has a component, None when there is none."""
        device = await self._known(cid)
        if device is None:
            async with self._locks.hold(None):  # who comes meanwhile waits: nothing is known now
                if self._clock.seconds() - self._read_at >= _PAUSE:
                    await self._read_all()
            device = await self._known(cid)
        return device

    @asynccontextmanager
    async def claim(self, device: Device, cids: Collection[str]) -> AsyncIterator[None]:
        """Let no other device have components while they become a device's.

        :raises Refused: another has one of them, or is about to.
        """
        for cid in cids:
            if cid in self._claimed:
                raise Refused(COMPONENT_EXISTS, cid)
        self._claimed.update(cids)
        try:
            for cid in cids:
                holder = await self.find(cid)
                if holder is not None and holder.uid != device.uid:
                    raise Refused(COMPONENT_EXISTS, cid)
            yield
        finally:
            self._claimed.difference_update(cids)

    async def _known(self, cid: str) -> Device | None:
        for device_id in self._holders.get(cid) or ():
            device = await self._registry.device(device_id)
            if device is not None and any(each.cid == cid for each in components_of(device)):
                return device
        return None

    def _learn(self, device: Device) -> None:
        for component in components_of(device):
            holders = self._holders.get(component.cid) or ()
            if device.id not in holders:
                self._holders.put(component.cid, (*holders, device.id))

    async def _read_all(self) -> None:
        """Learn from every device, and forget those that had a component once."""
        self._holders.clear()
        read = 0
        while True:
            page = await self._store.devices(DeviceQuery(order=Order(take=_PAGE, skip=read)))
            for device in page:
                self._learn(device)
            read += len(page)
            if len(page) < _PAGE:
                self._read_at = self._clock.seconds()
                return
