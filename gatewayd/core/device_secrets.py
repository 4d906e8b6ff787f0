"""The keys with which devices sign what they send."""

from __future__ import annotations

from urllib.parse import unquote

import msgspec
from twisted.internet.defer import Deferred

from gatewayd.core.access import Action, Principal
from gatewayd.core.cache import ReadThrough
from gatewayd.core.cluster import Change, ChangeKind
from gatewayd.core.interfaces import Vault
from gatewayd.core.model import Device
from gatewayd.core.registry import Registry
from gatewayd.core.sas import Signature
from gatewayd.errors import Invalid, NotFound, Unauthenticated

#: Bytes of a key.
SHORTEST, LONGEST = 16, 64
#: Of a device that is unknown or has no key: it takes as long to find out.
_NOBODYS = bytes(32)
_ABOVE = "/devices/"


class DeviceSecrets:
    """Knows devices by their signatures. A key is kept as it is, for whoever signs needs it, too.

    Whoever may change a device may change its key; nobody is told it again.
    """

    def __init__(self, vault: Vault, registry: Registry) -> None:
        self._vault = vault
        self._registry = registry
        self._known: ReadThrough[int, bytes] = ReadThrough(10_000, self._read)

    def _read(self, uid: int) -> Deferred[bytes | None]:
        # A device without a key is remembered as such.
        return self._vault.device_secret(uid).addCallback(lambda secret: secret or b"")

    def follow(self, change: Change) -> None:
        """Know that another node has changed something."""
        if change.kind is ChangeKind.ALL:
            self._known.clear()
        else:
            self._known.drop(msgspec.json.decode(change.subject, type=int))

    async def find(self, principal: Principal, device_id: str) -> Device:
        """Return a device whose key the principal may change.

        :raises Denied: a permission is missing.
        :raises NotFound: there is no such device, or none that the principal may know of.
        """
        principal.require(Action.DEVICE_REGISTER)
        device = await self._registry.device(device_id)
        if device is None or not principal.scope.holds(device):
            raise NotFound("device", device_id)
        return device

    async def set(self, device: Device, secret: bytes) -> None:
        """Let a device sign with a key from now on, and with no other.

        :raises Invalid: ``"device"``, ``"key"``. :raises NotFound: the device is gone.
        """
        if not SHORTEST <= len(secret) <= LONGEST:
            raise Invalid("device", "key", None, "length")
        await self._vault.set_device_secret(device.uid, secret)
        self._known.drop(device.uid)

    async def forget(self, device: Device) -> None:
        """Let a device sign no more. :raises NotFound: the device is gone."""
        await self._vault.set_device_secret(device.uid, None)
        self._known.drop(device.uid)

    async def by_signature(self, device_id: str, signature: Signature, now: int) -> Device:
        """Return the device that has signed.

        Its resource has to end in ``/devices/`` and the device's id, after whatever host; clients
        differ in how often they quote that.

        :param now: ms since the epoch.
        :raises Unauthenticated: ``"invalid"``: it is not the device's, or there is none;
            ``"expired"``.
        """
        device = await self._registry.device(device_id)
        secret = None if device is None else await self._known.get(device.uid)
        genuine = signature.is_by(secret or _NOBODYS)
        if device is None or not secret or not genuine or not _names(signature, device):
            raise Unauthenticated("invalid")
        if signature.expires * 1000 <= now:
            raise Unauthenticated("expired")
        return device


def _names(signature: Signature, device: Device) -> bool:
    """Whether a signature is for a device, and by its own key."""
    _, above, name = signature.resource.rpartition(_ABOVE)
    written = {name.upper(), unquote(name).upper()}
    return bool(above) and not signature.policy and device.id.upper() in written
