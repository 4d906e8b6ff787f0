"""Who sends as a device: by its own signature, or by a token of the gateway."""

from __future__ import annotations

from typing import Any

from gatewayd.core.access import DEVICE_ACTIONS, Action, Principal
from gatewayd.core.device_secrets import DeviceSecrets
from gatewayd.core.gateway import Core
from gatewayd.core.model import Device
from gatewayd.core.sas import SCHEME, BadSignature, read_signature
from gatewayd.errors import Denied, Unauthenticated
from gatewayd.transport.bearer import bearer_token


class Senders:
    """Lets in who may send as a device.

    :param secrets: the keys with which devices sign.
    """

    def __init__(self, core: Core, secrets: DeviceSecrets) -> None:
        self._authentication = core.authentication
        self._devices = core.devices
        self._secrets = secrets
        self._wall = core.wall

    async def admit(self, request: Any, device_id: str) -> tuple[Principal, Device]:
        """Return who sends, and the device.

        Nobody is told whether a device is there who has not shown who he is.

        :raises Unauthenticated: :raises Denied: also ``"blocked"``: the device is.
        :raises NotFound: there is no such device, and the sender may know that.
        :raises Unavailable:
        """
        token = bearer_token(request)
        if token:
            principal = await self._authentication.by_token(token)
            return principal, await self._devices.get(principal, Action.EVENT_SEND, device_id)
        signature = _signature(request)
        if signature is None:
            raise Unauthenticated("missing")
        try:
            read = read_signature(signature)
        except BadSignature:
            raise Unauthenticated("invalid") from None
        device = await self._secrets.by_signature(device_id, read, self._wall())
        if device.blocked:
            raise Denied("blocked")
        return Principal(DEVICE_ACTIONS, device=device), device


def _signature(request: Any) -> str | None:
    """Return the signature that a request carries, without its scheme."""
    header: bytes = request.getHeader(b"Authorization") or b""
    scheme, _, rest = header.partition(b" ")
    return rest.decode("latin-1") if scheme.lower() == SCHEME.lower().encode() else None
