"""The REST that agents use beside their sockets: its routes (iotkit contract, A7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime

from gatewayd.api.iotkit.activation import Account, Activations
from gatewayd.api.iotkit.admission import Admission
from gatewayd.api.iotkit.batch import Keys, all_recorded
from gatewayd.api.iotkit.callers import Callers
from gatewayd.api.iotkit.components import ComponentIndex
from gatewayd.api.iotkit.control import CATALOGUE, Control
from gatewayd.api.iotkit.data import NAME, to_notifications
from gatewayd.api.iotkit.devices import IotDevices, in_account, shown
from gatewayd.api.iotkit.errors import translate
from gatewayd.api.iotkit.fields import (
    Activation,
    Component,
    DeviceUpdate,
    Orders,
    Submission,
    read_body,
    read_components,
    read_time,
)
from gatewayd.api.iotkit.issuer import DeviceTokenIssuer
from gatewayd.api.iotkit.rules import IotKitRules
from gatewayd.api.iotkit.tokens import DeviceTokens
from gatewayd.core.access import Action, Principal
from gatewayd.core.gateway import Core
from gatewayd.core.model import Device
from gatewayd.errors import NotFound
from gatewayd.transport.census import Census
from gatewayd.transport.rest import Answer, JsonApp, RestResource

_API = "/v1/api"
_DEVICE = f"{_API}/devices/<seg:device_id>"
_ACCOUNT = f"{_API}/accounts/<seg:account_id>"
#: Where users find the devices of an account.
_ITS_DEVICE = f"{_ACCOUNT}/devices/<seg:device_id>"
_NO_STORE = {"Cache-Control": "no-store"}


class IotKitRest:
    """Devices, their activation, their data, and actuations.

    A route below an account finds devices that are of it, or of none.

    :param version: of the gateway, for clients that ask for its health.
    :param rules: the same as those of the sockets.
    :param tokens: verifies device tokens; None: only the gateway's own are taken.
    :param accounts: whose devices may be activated. :param issuer: of their tokens; None: there
        is no activation.
    :param catalogue: the names of commands by the types of components.
    """

    _app = JsonApp(translate)

    def __init__(
        self,
        core: Core,
        clock: IReactorTime,
        version: str,
        rules: IotKitRules,
        tokens: DeviceTokens | None = None,
        accounts: Sequence[Account] = (),
        issuer: DeviceTokenIssuer | None = None,
        catalogue: Mapping[str, str] = CATALOGUE,
    ) -> None:
        self._core = core
        self._version = version
        admission = None
        if tokens is not None:
            admission = Admission(core.registry, core.devices, tokens, rules)
        self._callers = Callers(core.authentication, core.devices, admission)
        index = ComponentIndex(core.store, core.registry, clock)
        self._devices = IotDevices(core.devices, core.registry, index, core.wall, rules)
        self._activations = Activations(self._devices, accounts, issuer, clock)
        self._control = Control(core, index, rules, catalogue)

    def resource(self) -> RestResource:
        """Return what answers requests."""
        return self._app.resource()

    async def _admit(
        self, request: Any, action: Action, device_id: str, account_id: str | None
    ) -> tuple[Principal, Device]:
        """Return who asks for a device, and the device, which has to be of an account."""
        principal, device = await self._callers.admit(request, action, device_id)
        if account_id is not None and not in_account(device, account_id):
            raise NotFound("device", device_id)
        return principal, device

    # Devices

    @_app.json_route(f"{_DEVICE}/activation", methods=["PUT"])
    @_app.json_route(f"{_ITS_DEVICE}/activation", methods=["PUT"])
    async def activate(self, request: Any, device_id: str, account_id: str | None = None) -> Answer:
        """Give a token to a device that knows an activation code."""
        code = read_body(request, Activation).activationCode
        host = Census.host(request.getClientAddress())
        token, account = await self._activations.activate(device_id, code, host, account_id)
        body = msgspec.json.encode({"deviceToken": token, "domainId": account.id})
        return Answer(200, body, _NO_STORE)

    @_app.json_route(_DEVICE, methods=["GET"])
    @_app.json_route(_ITS_DEVICE, methods=["GET"])
    async def get(
        self, request: Any, device_id: str, account_id: str | None = None
    ) -> dict[str, Any]:
        """Show a device."""
        _, device = await self._admit(request, Action.DEVICE_READ, device_id, account_id)
        return shown(device)

    @_app.json_route(_DEVICE, methods=["PUT"])
    @_app.json_route(_ITS_DEVICE, methods=["PUT"])
    async def update(
        self, request: Any, device_id: str, account_id: str | None = None
    ) -> dict[str, Any]:
        """Change a device."""
        action = Action.DEVICE_REGISTER
        principal, device = await self._admit(request, action, device_id, account_id)
        wanted = read_body(request, DeviceUpdate)
        return shown(await self._devices.update(principal, device, wanted))

    @_app.json_route(f"{_DEVICE}/components", methods=["POST"], status=201)
    @_app.json_route(f"{_ITS_DEVICE}/components", methods=["POST"], status=201)
    async def add_components(
        self, request: Any, device_id: str, account_id: str | None = None
    ) -> Component | list[Component]:
        """Add a component, or several, to a device."""
        action = Action.DEVICE_REGISTER
        principal, device = await self._admit(request, action, device_id, account_id)
        wanted = read_components(request)
        await self._devices.add(principal, device, wanted if isinstance(wanted, list) else [wanted])
        return wanted

    @_app.json_route(f"{_DEVICE}/components/<seg:cid>", methods=["DELETE"])
    @_app.json_route(f"{_ITS_DEVICE}/components/<seg:cid>", methods=["DELETE"])
    async def remove_component(
        self, request: Any, device_id: str, cid: str, account_id: str | None = None
    ) -> Answer:
        """Remove a component from a device."""
        action = Action.DEVICE_REGISTER
        principal, device = await self._admit(request, action, device_id, account_id)
        await self._devices.remove(principal, device, cid)
        return Answer(204)

    # Data

    @_app.json_route(f"{_API}/data/<seg:device_id>", methods=["POST"])
    async def submit(self, request: Any, device_id: str) -> Answer:
        """Record measurements of a device."""
        principal, device = await self._callers.admit(request, Action.EVENT_SEND, device_id)
        submission = read_body(request, Submission)
        if not in_account(device, submission.accountId):
            raise NotFound("device", device_id)
        keys = Keys(request, principal)
        await all_recorded(
            [
                self._core.notifications.insert(
                    principal, device, NAME, each.parameters, stamp=each.stamp,
                    key=keys.of(number),
                )
                for number, each in enumerate(to_notifications(device, submission))
            ]
        )  # fmt: skip
        return Answer(201)

    # Actuations

    @_app.json_route(f"{_ACCOUNT}/control", methods=["POST"])
    async def actuate(self, request: Any, account_id: str) -> Answer:
        """Send actuations to components."""
        principal = await self._callers.principal(request)
        orders = read_body(request, Orders)
        await self._control.send(principal, account_id, orders, Keys(request, principal))
        return Answer(200)

    @_app.json_route(f"{_ACCOUNT}/control/devices/<seg:device_id>", methods=["GET"])
    async def actuations(
        self, request: Any, account_id: str, device_id: str
    ) -> Sequence[dict[str, Any]]:
        """List the actuations of a device."""
        action = Action.COMMAND_READ
        principal, device = await self._admit(request, action, device_id, account_id)
        start, end = read_time(request, "from"), read_time(request, "to")
        return await self._control.list(principal, device, start, end)

    # The gateway

    @_app.json_route(f"{_API}/health", methods=["GET"])
    async def health(self, request: Any) -> dict[str, Any]:
        """Tell whether the gateway works."""
        return {
            "kind": "healthcheck",
            "isHealthy": self._core.store.healthy,
            "currentSetting": "production",
            "name": "gatewayd",
            "build": self._version,
            "date": _iso(self._core.wall()),
            "items": [],
        }

    @_app.json_route(f"{_API}/time", methods=["GET"])
    async def time(self, request: Any) -> dict[str, Any]:
        """Tell the time, also in the form that agents read."""
        now = self._core.wall()
        iso = _iso(now)
        return {
            "actualTime": iso[:19].replace("T", " "),
            "isotime": iso,
            "unixtime": now // 1000,
        }


def _iso(ms: int) -> str:
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
