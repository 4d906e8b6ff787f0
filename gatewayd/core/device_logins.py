"""How HTTP devices let the gateway in."""

from __future__ import annotations

import msgspec
from twisted.internet.defer import Deferred

from gatewayd.core.access import Action, Principal
from gatewayd.core.addresses import base_url
from gatewayd.core.cache import ReadThrough
from gatewayd.core.cluster import Change, ChangeKind
from gatewayd.core.interfaces import Vault
from gatewayd.core.model import Device, DeviceLogin
from gatewayd.core.registry import Registry
from gatewayd.errors import NoAddress, NotFound


class _Nothing:
    """That a device has no login."""


_NOTHING = _Nothing()


class DeviceLogins:
    """The logins of HTTP devices, and the certificates that they are known by.

    Whoever may change where a device is and have requests relayed to it may change these. A login
    is told to nobody but the place for which it was made.
    """

    def __init__(self, vault: Vault, registry: Registry) -> None:
        self._vault = vault
        self._registry = registry
        self._known: ReadThrough[int, DeviceLogin | _Nothing] = ReadThrough(10_000, self._read)

    def _read(self, uid: int) -> Deferred[DeviceLogin | _Nothing | None]:
        return self._vault.device_login(uid).addCallback(lambda login: login or _NOTHING)

    def follow(self, change: Change) -> None:
        """Know that another node has changed something."""
        if change.kind is ChangeKind.ALL:
            self._known.clear()
        else:
            self._known.drop(msgspec.json.decode(change.subject, type=int))

    async def find(self, principal: Principal, device_id: str) -> Device:
        """Return a device whose login the principal may see and change.

        :raises Denied: a permission is missing.
        :raises NotFound: there is no such device, or none that the principal may know of.
        """
        principal.require(Action.DEVICE_REGISTER)
        principal.require(Action.RELAY_CALL)
        device = await self._registry.device(device_id)
        if device is None or not principal.scope.holds(device):
            raise NotFound("device", device_id)
        return device

    async def of(self, device: Device) -> DeviceLogin | None:
        """Return the login of a device where it is now, None when there is none.

        :raises NoAddress: what its data says about where it is, is wrong.
        """
        login = await self._known.get(device.uid)
        place = base_url(device)
        if not isinstance(login, DeviceLogin) or place is None or login.base_url != place.text:
            return None
        return login

    async def set(
        self, device: Device, username: str | None, password: str | None, ca: bytes | None
    ) -> None:
        """Keep how a device lets the gateway in, where it is now.

        :param ca: certificates, PEM.
        :raises NoAddress: nobody knows where it is. :raises NotFound: it is gone.
        """
        place = base_url(device)
        if place is None:
            raise NoAddress("its data has no address.baseUrl")
        login = DeviceLogin(base_url=place.text, username=username, password=password, ca=ca)
        await self._vault.set_device_login(device.uid, login)
        self._known.drop(device.uid)

    async def forget(self, device: Device) -> None:
        """Forget how a device lets the gateway in."""
        await self._vault.set_device_login(device.uid, None)
        self._known.drop(device.uid)
