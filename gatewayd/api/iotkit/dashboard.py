"""What dashboards send through sockets: actuations for devices."""

from __future__ import annotations

import hmac
from hashlib import sha256

from twisted.internet.interfaces import IReactorTime

from gatewayd.api.iotkit.actuations import to_command
from gatewayd.api.iotkit.messages import Actuate, text
from gatewayd.api.iotkit.pacing import Complaints
from gatewayd.api.iotkit.rules import IotKitRules
from gatewayd.api.iotkit.uids import Uids
from gatewayd.core.access import Action, Principal, Service
from gatewayd.core.gateway import Core
from gatewayd.core.model import CommandDraft, Device
from gatewayd.errors import GatewayError

#: Seconds in which an actuation may come again that was sent and perhaps did not arrive, where
#: none are kept.
_BRIEF = 60


class Dashboard:
    """Records the actuations of dashboards as commands; the sender hears of nothing."""

    def __init__(self, core: Core, rules: IotKitRules, clock: IReactorTime) -> None:
        self._core = core
        self._rules = rules
        self._uids = Uids(core.store, core.registry, clock)
        self._complaints = Complaints(clock)
        service = Service(name="iotkit dashboard")
        self._principal = Principal(frozenset({Action.COMMAND_SEND}), service=service)
        # Digests are as long as each other, so that the comparison tells no length.
        both = rules.username is not None and rules.password is not None
        self._expected = _digests(rules.username, rules.password) if both else None

    async def send(self, message: Actuate, peer: str) -> None:
        """Record an actuation if it may be sent and has a device; what fails is logged.

        :param peer: the sender's address, for the log.
        """
        if not self._knows(message):
            self._complaints.warn("an actuation with wrong credentials from {peer}", peer=peer)
            return
        try:
            device = await self._find(message)
            if device is None:
                self._complaints.warn("an actuation for an unknown device from {peer}", peer=peer)
            elif self._rules.keep_actuations or self._core.presence.of(device):
                await self._insert(device, message)
        except GatewayError as error:
            self._complaints.warn(
                "an actuation from {peer} was not recorded: {kind} {error}",
                peer=peer, kind=type(error).__name__, error=str(error),
            )  # fmt: skip

    def _knows(self, message: Actuate) -> bool:
        given = _digests(message.username, message.password)
        return self._expected is not None and hmac.compare_digest(given, self._expected)

    async def _find(self, message: Actuate) -> Device | None:
        device_id, uid = text(message.content, "deviceId"), text(message.content, "deviceUID")
        if device_id is not None:
            return await self._core.registry.device(device_id)
        return None if uid is None else await self._uids.device(uid)

    async def _insert(self, device: Device, message: Actuate) -> None:
        name, parameters = to_command(message.body, message.content)
        lifetime = self._rules.lifetime if self._rules.keep_actuations else _BRIEF
        draft = CommandDraft(parameters=parameters, lifetime=lifetime)
        await self._core.commands.insert(self._principal, device, name, draft)


def _digests(username: str | None, password: str | None) -> bytes:
    """Return digests of credentials; those of none are nobody's."""
    return b"".join(
        sha256(b"" if each is None else b"=" + each.encode()).digest()
        for each in (username, password)
    )
