"""Actuations that are asked for by REST, and which there were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gatewayd.api.iotkit.actuations import UNNAMED, to_body, to_command
from gatewayd.api.iotkit.batch import Keys, all_recorded
from gatewayd.api.iotkit.components import ComponentIndex, components_of
from gatewayd.api.iotkit.devices import in_account
from gatewayd.api.iotkit.errors import INVALID, NO_ACTUATOR, Refused
from gatewayd.api.iotkit.facts import Facts
from gatewayd.api.iotkit.fields import Order, Orders
from gatewayd.api.iotkit.messages import present, read_object
from gatewayd.api.iotkit.rules import IotKitRules
from gatewayd.core.access import Action, Principal
from gatewayd.core.gateway import Core
from gatewayd.core.model import Command, CommandDraft, Device, Kind
from gatewayd.core.queries import Listing
from gatewayd.core.queries import Order as Sorting
from gatewayd.errors import Denied

#: The names of commands, by the types of components. The original's catalogue has this actuator.
CATALOGUE = {"powerswitch.v1.0": "LED.v1.0"}
#: How many actuations are listed.
_MOST = 1000
#: ms for which actuations are listed when nobody says.
_DAY = 86_400_000
#: Seconds in which an actuation may come again that was sent and perhaps did not arrive, where
#: none are kept.
_BRIEF = 60
_encode = msgspec.json.Encoder().encode


class Control:
    """Records and lists actuations.

    :param rules: what becomes of actuations for devices that are not connected.
    :param catalogue: the names of commands by the types of components.
    """

    def __init__(
        self, core: Core, index: ComponentIndex, rules: IotKitRules,
        catalogue: Mapping[str, str],
    ) -> None:  # fmt: skip
        self._core = core
        self._index = index
        self._rules = rules
        self._catalogue = catalogue

    async def send(self, principal: Principal, account_id: str, orders: Orders, keys: Keys) -> None:
        """Record orders as commands: all of them, or none.

        :raises Refused: a component is unknown. :raises Denied: :raises Unavailable:
        """
        principal.require(Action.COMMAND_SEND)
        if orders.complexCommands:
            raise Refused(INVALID, "complexCommands are not supported")
        if not orders.commands:
            raise Refused(INVALID, "commands must not be empty")
        found = [await self._find(principal, account_id, each) for each in orders.commands]
        devices = [self._core.registry.cached_device(each.id) or each for each in found]
        if any(device.blocked for device in devices):
            raise Denied("blocked")
        await all_recorded(
            [
                self._core.commands.insert(
                    principal, device, *self._command(principal, account_id, device, order),
                    key=keys.of(number),
                )
                for number, (device, order) in enumerate(zip(devices, orders.commands, strict=True))
                if self._rules.keep_actuations or self._core.presence.of(device)
            ]
        )  # fmt: skip

    async def _find(self, principal: Principal, account_id: str, order: Order) -> Device:
        """Return the device that has a component. :raises Refused: none, as far as one may know."""
        device = await self._index.find(order.componentId)
        if (
            device is None
            or not principal.scope.holds(device)
            or not in_account(device, account_id)
        ):
            raise Refused(NO_ACTUATOR, order.componentId)
        return device

    def _command(
        self, principal: Principal, account_id: str, device: Device, order: Order
    ) -> tuple[str, CommandDraft]:
        """Return the name of a command, and the rest."""
        types = {each.cid: each.type for each in components_of(device)}
        facts = Facts.of(device)
        content = {
            "accountId": facts.account_id or account_id,
            "deviceId": device.id,
            "gatewayId": facts.gateway_id,
            "componentId": order.componentId,
            "command": self._catalogue.get(types.get(order.componentId, ""), UNNAMED),
            "params": order.parameters,
        }
        body = _encode({"type": "command", "transport": order.transport, "content": content})
        name, parameters = to_command(body, read_object(_encode(content)))
        draft = CommandDraft(
            user=None if principal.user is None else principal.user.id, parameters=parameters,
            lifetime=self._rules.lifetime if self._rules.keep_actuations else _BRIEF,
        )  # fmt: skip
        return name, draft

    async def list(
        self, principal: Principal, device: Device, start: int | None, end: int | None
    ) -> Sequence[dict[str, Any]]:
        """List the actuations of a device that the principal was admitted to, newest first.

        :param start: ms; negative: so many seconds before the end; None: a day before it.
        :param end: ms; negative: so many seconds before now; None: there is none.
        """
        now = self._core.wall()
        until = now if end is None else now + end * 1000 if end < 0 else end
        since = until - _DAY if start is None else until + start * 1000 if start < 0 else start
        # The newest of very many may show times that are still to come.
        listing = Listing(
            stream=device.uid, kind=Kind.COMMAND, start=max(since, 0),
            end=None if end is None else max(until, 0),
            order=Sorting(field="timestamp", descending=True, take=_MOST),
        )  # fmt: skip
        commands = await self._core.commands.list(principal, listing)
        found = (_shown(command, device) for command in commands)
        return [actuation for actuation in found if actuation is not None]


def _shown(command: Command, device: Device) -> dict[str, Any] | None:
    """Return a command as clients see it; None when it is no actuation."""
    body = read_object(to_body(command.name, command.parameters, device))
    content = read_object(present(body, "content"))
    if not content:
        return None
    facts = Facts.of(device)
    params = present(content, "params") or msgspec.Raw(b"[]")
    return {
        "id": str(command.id),
        "created": command.stamp,
        "deviceId": device.id,
        "gatewayId": facts.gateway_id,
        "componentId": present(content, "componentId"),
        "command": command.name,
        # Agents read the one, dashboards the other.
        "params": params,
        "parameters": params,
        "transport": present(body, "transport"),
        "accountId": facts.account_id or present(content, "accountId"),
    }
