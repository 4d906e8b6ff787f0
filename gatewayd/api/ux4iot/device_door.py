"""What plain devices send over HTTPS, as they do to Azure IoT Hub (ux4iot contract, section 5)."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from gatewayd.api.ux4iot.d2c import first_time, read_content
from gatewayd.api.ux4iot.errors import SOON, Complaint, translate
from gatewayd.api.ux4iot.hub_errors import HubError
from gatewayd.api.ux4iot.rules import Ux4IotRules
from gatewayd.api.ux4iot.sas import Senders
from gatewayd.core.access import Principal
from gatewayd.core.device_secrets import DeviceSecrets
from gatewayd.core.gateway import Core
from gatewayd.core.model import Device
from gatewayd.core.sas import read_key
from gatewayd.errors import (
    Denied,
    GatewayError,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from gatewayd.transport.bearer import bearer_token
from gatewayd.transport.rest import Answer, JsonApp, RestResource, read_json

#: Bytes of a message.
LARGEST = 256 * 1024
#: Header fields that begin so are properties of a message.
_PROPERTY = "iothub-app-"
_CREATED_AT = "iothub-creation-time-utc"
#: Bytes of a key that is made here.
_KEY_BYTES = 32
_NO_STORE = {"Cache-Control": "no-store"}
_KEY = "/devices/<seg:device_id>/key"


class _NewKey(msgspec.Struct):
    """The key that a device is to have; None: any."""

    key: str | None = None


class DeviceDoor:
    """Messages of devices, and the keys with which they sign.

    :param secrets: where the keys are.
    :param check_key: checks that an administrator makes a request. It raises Complaint, 401.
    """

    _app = JsonApp(translate)

    def __init__(
        self,
        core: Core,
        rules: Ux4IotRules,
        device_secrets: DeviceSecrets,
        check_key: Callable[[Any], None],
    ) -> None:
        self._core = core
        self._rules = rules
        self._secrets = device_secrets
        self._check_key = check_key
        self._senders = Senders(core, device_secrets)

    def resource(self, below: int = 0) -> RestResource:
        """Return what answers requests. :param below: how many segments stand before the paths."""
        return self._app.resource(below)

    # Messages

    @_app.json_route("/devices/<seg:device_id>/messages/events", methods=["POST"])
    async def send(self, request: Any, device_id: str) -> Answer:
        """Record a message of a device; it is on disk before the answer."""
        try:
            principal, device = await self._senders.admit(request, device_id)
            await self._record(request, principal, device)
        except GatewayError as error:
            return to_answer(error, self._core.wall())
        return Answer(204)

    async def _record(self, request: Any, principal: Principal, device: Device) -> None:
        request.content.seek(0)
        body = request.content.read()
        if len(body) > LARGEST:
            raise TooLarge("request")
        properties = _properties(request)
        content = read_content(body, request.getHeader("Content-Type") or "", properties)
        times = (
            content.members.get(self._rules.timestamp_key),
            properties.get(_CREATED_AT),
            request.getHeader(_CREATED_AT),
        )
        await self._core.notifications.insert(
            principal, device, content.name, content.parameters, stamp=first_time(times)
        )

    # Keys

    @_app.json_route(_KEY, methods=["PUT"])
    async def set_key(self, request: Any, device_id: str) -> Answer:
        """Let a device sign with a key from now on: a given one, or one that is made here."""
        device = await self._find(request, device_id)
        key = _wanted_key(request) or secrets.token_bytes(_KEY_BYTES)
        await self._secrets.set(device, key)
        shown = {"deviceId": device.id, "primaryKey": base64.b64encode(key).decode()}
        return Answer(200, msgspec.json.encode(shown), _NO_STORE)

    @_app.json_route(_KEY, methods=["DELETE"])
    async def forget_key(self, request: Any, device_id: str) -> Answer:
        """Let a device sign no more."""
        await self._secrets.forget(await self._find(request, device_id))
        return Answer(204)

    async def _find(self, request: Any, device_id: str) -> Device:
        """Return a device whose key an administrator may change, or who has a token for that.

        :raises Complaint: 401. :raises Denied: :raises NotFound:
        """
        token = bearer_token(request)
        if not token:
            self._check_key(request)
            device = await self._core.registry.device(device_id)
            if device is None:
                raise NotFound("device", device_id)
            return device
        try:
            principal = await self._core.authentication.by_token(token)
        except Unauthenticated as error:
            raise Complaint(401, f"Unauthorized: {error.reason}") from None
        return await self._secrets.find(principal, device_id)


def _properties(request: Any) -> dict[str, str]:
    """Return what a device says of a message beside its body."""
    found = {}
    for name, values in request.requestHeaders.getAllRawHeaders():
        text = name.decode("latin-1").lower()
        if text.startswith(_PROPERTY):
            found[text.removeprefix(_PROPERTY)] = values[-1].decode("utf-8", "replace")
    return found


def _wanted_key(request: Any) -> bytes | None:
    """Return the key that is asked for, None for any. :raises Complaint: :raises BadBody:"""
    request.content.seek(0)
    if not request.content.read(1):
        return None
    value = read_json(request)
    try:
        wanted = msgspec.convert(value, _NewKey)
        return None if wanted.key is None else read_key(wanted.key)
    except ValueError as error:  # msgspec's are such, too
        raise Complaint(400, str(error)) from None


def to_answer(error: GatewayError, now: int) -> Answer:
    """Return the hub's answer to an error. :param now: ms since the epoch."""
    found = _hub_error(error)
    return translate(error) if found is None else found.of_twin(now)


def _hub_error(error: GatewayError) -> HubError | None:
    """Return how the hub says it; None: it never does."""
    match error:
        case Unauthenticated():
            return HubError(401003, "IotHubUnauthorized", "Unauthorized")
        case Denied(reason="blocked"):
            return HubError(403001, "DeviceDisabled", "The device is disabled")
        case Denied():
            return HubError(403000, "Forbidden", "Forbidden")
        case NotFound():
            return HubError(404001, "DeviceNotFound", "Device not registered")
        case TooLarge():
            return HubError(413001, "MessageTooLarge", f"A message has at most {LARGEST} bytes")
        case Unavailable():
            return HubError(503001, "ServiceUnavailable", "Try again later", headers=SOON)
    return None
