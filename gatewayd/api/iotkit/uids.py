"""The UUIDs by which newer dashboards name devices."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from gatewayd.api.iotkit.facts import Facts
from gatewayd.core.cache import Cache
from gatewayd.core.interfaces import Store
from gatewayd.core.locks import Locks
from gatewayd.core.model import Device
from gatewayd.core.queries import DeviceQuery, Order
from gatewayd.core.registry import Registry

_REMEMBERED = 100_000
_PAGE = 1000
#: Seconds from one search through all devices to the next.
_PAUSE = 60.0


class Uids:
    """Finds devices by their UUIDs.

    It learns them from every device that is saved. All devices are read when one is asked for that
    it does not know, but not often.
    """

    def __init__(self, store: Store, registry: Registry, clock: IReactorTime) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock
        self._ids: Cache[str, str] = Cache(_REMEMBERED)
        self._locks = Locks()
        self._read_at = float("-inf")
        registry.saved.append(self._learn)

    async def device(self, uid: str) -> Device | None:
        """Return the device with a UUID, None when there is none."""
        uid = uid.lower()
        async with self._locks.hold(None):
            if self._ids.get(uid) is None and self._clock.seconds() - self._read_at >= _PAUSE:
                self._read_at = self._clock.seconds()
                await self._read_all()
        device_id = self._ids.get(uid)
        device = None if device_id is None else await self._registry.device(device_id)
        # It may have got another one since.
        return device if device is not None and Facts.of(device).uid == uid else None

    def _learn(self, device: Device) -> None:
        self._ids.put(Facts.of(device).uid, device.id)

    async def _read_all(self) -> None:
        read = 0
        while True:
            page = await self._store.devices(DeviceQuery(order=Order(take=_PAGE, skip=read)))
            for device in page:
                self._learn(device)
            read += len(page)
            if len(page) < _PAGE or read >= _REMEMBERED:
                return
