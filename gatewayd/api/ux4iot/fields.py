"""The bodies of REST requests, and what they ask for, in both dialects (ux4iot contract, 1)."""

from __future__ import annotations

from typing import Any, TypeVar

import attrs
import msgspec

from gatewayd.api.ux4iot.errors import (
    NOT_ALL_SUBSCRIPTIONS,
    UNKNOWN_GRANT,
    UNKNOWN_SUBSCRIPTION,
    Complaint,
)
from gatewayd.core.devices import check_id
from gatewayd.core.grants import SUBSCRIBABLE, Grant, Right
from gatewayd.errors import Invalid
from gatewayd.transport.rest import BadBody

#: What the rights are called.
_TYPES = {
    "telemetry": Right.TELEMETRY,
    "deviceTwin": Right.TWIN,
    "connectionState": Right.STATE,
    "d2cMessages": Right.MESSAGES,
    "desiredProperties": Right.DESIRED,
    "directMethod": Right.METHOD,
}
#: What they are called by clients whose grants subscribe.
_GRANT_TYPES = {
    "subscribeToTelemetry": Right.TELEMETRY,
    "subscribeToDeviceTwin": Right.TWIN,
    "subscribeToConnectionState": Right.STATE,
    "subscribeToD2CMessages": Right.MESSAGES,
    "modifyDesiredProperties": Right.DESIRED,
    "invokeDirectMethod": Right.METHOD,
}
#: The member by which those clients are known; the other one is of an old page of the docs.
_BY_GRANT = ("grantType", "grantRequestType")
_SELECTORS = {Right.TELEMETRY: "telemetryKey", Right.METHOD: "directMethodName"}
#: Characters of ids and selectors.
_LONGEST = 1024
#: Seconds.
_RESPOND, _CONNECT = 30, 0

Body = TypeVar("Body")


@attrs.frozen
class GrantRequest:
    """What an administrator gives to a session, or takes from it.

    :ivar by_grant: whether it is a client's whose grants subscribe.
    """

    session: str
    grant: Grant
    by_grant: bool


@attrs.frozen
class SubscriptionRequest:
    """What somebody wants to hear, or not any more.

    :ivar raw: the request itself.
    """

    session: str
    grant: Grant
    raw: msgspec.Raw


class _Bulk(msgspec.Struct):
    """Several subscription requests, as the Node library wraps them."""

    subscriptionRequests: list[msgspec.Raw]


class MethodParams(msgspec.Struct, frozen=True):
    """What a device is asked to do.

    :ivar payload: JSON; not there for none. :ivar responseTimeoutInSeconds: until the answer.
    :ivar connectTimeoutInSeconds: until the device is there.
    """

    methodName: str
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    responseTimeoutInSeconds: float | None = None
    connectTimeoutInSeconds: float | None = None

    @property
    def body(self) -> bytes | None:
        """The payload; None for none."""
        return None if isinstance(self.payload, msgspec.UnsetType) else bytes(self.payload)

    @property
    def respond(self) -> float:
        """Seconds until the answer."""
        given = self.responseTimeoutInSeconds
        return _RESPOND if given is None else given

    @property
    def connect(self) -> float:
        """Seconds until the device is there."""
        given = self.connectTimeoutInSeconds
        return _CONNECT if given is None else given


class MethodCall(msgspec.Struct, frozen=True):
    """A direct method of a device."""

    deviceId: str
    methodParams: MethodParams


class DesiredPatch(msgspec.Struct, frozen=True):
    """What is to become of what is wanted of a device."""

    deviceId: str
    desiredPropertyPatch: msgspec.Raw

    def __post_init__(self) -> None:
        if not self.patch.startswith(b"{"):
            raise ValueError("Expected `object` - at `$.desiredPropertyPatch`")

    @property
    def patch(self) -> bytes:
        """A JSON object."""
        return bytes(self.desiredPropertyPatch)


def read_body(request: Any, wanted: type[Body]) -> Body:
    """Return the body of a request, whatever it says of its type.

    :raises BadBody: it is no JSON. :raises Complaint: it is not what is wanted.
    """
    data = _content(request)
    _decode(data)  # of what stays as it was sent, only the outline would be looked at
    try:
        return msgspec.json.decode(data, type=wanted)
    except msgspec.ValidationError as error:
        raise Complaint(400, str(error)) from None


def has_body(request: Any) -> bool:
    """Whether something was sent with a request."""
    return bool(_content(request))


def read_grant(request: Any) -> GrantRequest:
    """Return a grant request. :raises BadBody: :raises Complaint: it is none."""
    body = _object(_decode(_content(request)), UNKNOWN_GRANT)
    marks = [name for name in _BY_GRANT if name in body and "type" not in body]
    given = body.get(marks[0]) if marks else body.get("type")
    right = _named(_GRANT_TYPES if marks else _TYPES, given, UNKNOWN_GRANT)
    return GrantRequest(_text(body, "sessionId"), _grant(body, right), bool(marks))


def read_subscription(request: Any) -> SubscriptionRequest:
    """Return a subscription request. :raises BadBody: :raises Complaint: it is none."""
    data = _content(request)
    return _subscription(msgspec.Raw(data), None)


def read_subscriptions(request: Any, session: str | None) -> list[SubscriptionRequest]:
    """Return several subscription requests.

    :param session: whose those are that say nothing of it.
    :raises BadBody: :raises Complaint: not all of them are subscription requests.
    """
    data = _content(request)
    _decode(data)
    try:
        found = msgspec.json.decode(data, type=list[msgspec.Raw] | _Bulk)
        raws = found.subscriptionRequests if isinstance(found, _Bulk) else found
        return [_subscription(raw, session) for raw in raws]
    except (msgspec.ValidationError, Complaint):
        raise Complaint(400, NOT_ALL_SUBSCRIPTIONS) from None


def _subscription(raw: msgspec.Raw, session: str | None) -> SubscriptionRequest:
    body = _object(_decode(raw), UNKNOWN_SUBSCRIPTION)
    right = _named(_TYPES, body.get("type"), UNKNOWN_SUBSCRIPTION)
    if right not in SUBSCRIBABLE:
        raise Complaint(400, UNKNOWN_SUBSCRIPTION)
    if session is not None:
        body.setdefault("sessionId", session)
    return SubscriptionRequest(_text(body, "sessionId"), _grant(body, right), raw)


def _grant(body: dict[str, Any], right: Right) -> Grant:
    device = _text(body, "deviceId")
    try:
        check_id(device)
    except Invalid:
        raise Complaint(400, "deviceId is nothing that a device could be called") from None
    return Grant(device=device, right=right, selector=_selector(body, right))


def _selector(body: dict[str, Any], right: Right) -> str | None:
    """Return the only key or method that is meant; None for all of them."""
    name = _SELECTORS.get(right)
    details = body.get("details")
    if name is None:
        return None
    if name not in body and isinstance(details, dict):  # as in the old page of the docs
        body = details
    return None if body.get(name) is None else _text(body, name)


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise Complaint(400, f"{name} must be a string of at most {_LONGEST} characters")
    return value


def _object(value: Any, complaint: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Complaint(400, complaint)
    return value


def _named(rights: dict[str, Right], name: object, complaint: str) -> Right:
    right = rights.get(name) if isinstance(name, str) else None
    if right is None:
        raise Complaint(400, complaint)
    return right


def _content(request: Any) -> bytes:
    request.content.seek(0)
    content: bytes = request.content.read()
    return content


def _decode(data: bytes | msgspec.Raw) -> Any:
    """Decode JSON. :raises BadBody: it is none."""
    try:
        return msgspec.json.decode(data)
    except UnicodeDecodeError:
        raise BadBody("not UTF-8") from None
    except msgspec.DecodeError:
        raise BadBody("not JSON") from None
    except RecursionError:
        raise BadBody("nested too deeply") from None
