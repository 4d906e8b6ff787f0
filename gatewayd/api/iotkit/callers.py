"""Who makes a request to REST."""

from __future__ import annotations

from typing import Any

from gatewayd.api.iotkit.admission import Admission
from gatewayd.core.access import DEVICE_ACTIONS, Action, Principal
from gatewayd.core.authentication import Authentication
from gatewayd.core.devices import Devices
from gatewayd.core.model import Device
from gatewayd.errors import Unauthenticated
from gatewayd.transport.bearer import bearer_token


class Callers:
    """Lets in who has a device's token, or one of the gateway's own.

    :param admission: None: there are no device tokens.
    """

    def __init__(
        self, authentication: Authentication, devices: Devices, admission: Admission | None
    ) -> None:
        self._authentication = authentication
        self._devices = devices
        self._admission = admission

    async def principal(self, request: Any) -> Principal:
        """Return whose token of the gateway a request carries. :raises Unauthenticated:"""
        return await self._authentication.by_token(_token(request))

    async def admit(self, request: Any, action: Action, device_id: str) -> tuple[Principal, Device]:
        """Return who asks for a device, and the device.

        :raises Unauthenticated: :raises Denied: :raises NotFound: as :meth:`Devices.get`.
        """
        token = _token(request)
        device = await self._itself(device_id, token)
        if device is not None:
            return Principal(DEVICE_ACTIONS, device=device), device
        principal = await self._authentication.by_token(token)
        return principal, await self._devices.get(principal, action, device_id)

    async def _itself(self, device_id: str, token: str) -> Device | None:
        """Return the device if the token is its own."""
        if self._admission is None:
            return None
        try:
            device, _ = await self._admission.admit(device_id, token)
        except Unauthenticated:
            return None
        return device


def _token(request: Any) -> str:
    token = bearer_token(request)
    if not token:
        raise Unauthenticated("missing")
    return token
