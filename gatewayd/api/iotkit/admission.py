"""Who is let in as a device."""

from __future__ import annotations

import msgspec

from gatewayd.api.iotkit.rules import IotKitRules
from gatewayd.api.iotkit.tokens import DeviceToken, DeviceTokens
from gatewayd.core.access import Action, Principal, Service
from gatewayd.core.devices import DeviceChange, Devices
from gatewayd.core.model import Device
from gatewayd.core.registry import Registry
from gatewayd.errors import Denied, Invalid, Unauthenticated


class Admission:
    """Finds the device that a token proves to be, or registers it.

    :param rules: say whether a device that is not known yet is registered, and where; else it is
        refused like one with a bad token.
    """

    def __init__(
        self, registry: Registry, devices: Devices, tokens: DeviceTokens, rules: IotKitRules
    ) -> None:
        self._registry = registry
        self._devices = devices
        self._tokens = tokens
        self._rules = rules
        service = Service(name="iotkit")
        self._registrar = Principal(frozenset({Action.DEVICE_REGISTER}), service=service)

    async def admit(self, device_id: str | None, token: str | None) -> tuple[Device, DeviceToken]:
        """Return a device and what its token says.

        Dashboards distinguish devices whose ids differ in case only, and this gateway does not:
        a token is good for nothing but the device that is spelled as in it.

        :raises Unauthenticated: the token is not the device's, or the device is blocked.
        :raises Unavailable: it cannot be found out, or not be registered.
        """
        if device_id is None or token is None:
            raise Unauthenticated("missing")
        proof = await self._tokens.verify(token)
        if proof.device_id != device_id:
            raise Unauthenticated("invalid")
        device = await self._registry.device(device_id)
        if device is None:
            device = await self._register(proof)
        if device.id != device_id:
            raise Unauthenticated("invalid")
        if device.blocked:
            raise Unauthenticated("inactive")
        return device, proof

    async def _register(self, proof: DeviceToken) -> Device:
        if not self._rules.auto_register:
            raise Unauthenticated("invalid")
        known = {"accountId": proof.account_id} if proof.account_id else {}
        change = DeviceChange(
            name=proof.device_id, data=msgspec.json.encode({"iotkit": known}),
            network=self._rules.network, type=self._rules.type,
        )  # fmt: skip
        try:
            return await self._devices.register(self._registrar, proof.device_id, change)
        except (Denied, Invalid):  # not an id that devices may have, or nowhere to put it
            raise Unauthenticated("invalid") from None
