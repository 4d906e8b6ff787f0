"""Events of another hub, as somebody forwards them, and what they say (contract, ``ingest``)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, TypeAlias, TypeVar

import attrs
import msgspec
from msgspec import Meta, field

from gatewayd.api.ux4iot.d2c import Content, first_time, read_content, read_json
from gatewayd.api.ux4iot.errors import Complaint
from gatewayd.api.ux4iot.rules import Ux4IotRules
from gatewayd.core.devices import check_id
from gatewayd.errors import Invalid
from gatewayd.transport.rest import BadBody

T = TypeVar("T")

#: Events of one request.
MOST = 1000
#: Names of the other hub's own begin so.
_ITS_OWN = "iothub-"
_DEVICE = "iothub-connection-device-id"
_SOURCE, _SCHEMA = "iothub-message-source", "iothub-message-schema"
_CREATED_AT, _APP_CREATED_AT = "iothub-creation-time-utc", "iothub-app-iothub-creation-time-utc"
_ENQUEUED_AT = "iothub-enqueuedtime"
_CONTENT_TYPES = ("iothub-content-type", "content-type", "contentType")
#: What names an event in its stream, and what says besides which one it is. They are compared
#: without dashes, case, and the prefix of AMQP.
_NAMING = frozenset({"messageid", "iothubmessageid", "sequencenumber", "offset"})
_TELLING = frozenset(
    {*_NAMING, "partition", "partitionid", "partitionkey", "enqueuedtime", "enqueuedtimeutc",
     "iothubenqueuedtime"}
)  # fmt: skip
_SEQUENCE = 64


class HubEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as the other hub has it.

    :ivar body: any JSON; a text may be the base64 of what the device sent.
    :ivar properties: those that the device gave a message, and those of the event.
    :ivar system_properties: what the other hub, and its stream, say of it.
    """

    device: str | None = field(name="deviceId", default=None)
    body: msgspec.Raw = msgspec.Raw(b"null")
    properties: dict[str, str | int | float | bool | None] | None = None
    system_properties: dict[str, Any] | None = field(name="systemProperties", default=None)

    def told(self, name: str) -> Any:
        """Return a property, the other hub's own first; None when there is none."""
        value = (self.system_properties or {}).get(name)
        return (self.properties or {}).get(name) if value is None else value


@attrs.frozen(kw_only=True)
class Message:
    """A device has sent something.

    :ivar stamp: when, ms since the epoch; None: nobody said. :ivar key: names the message.
    """

    device: str
    content: Content
    stamp: int | None = None
    key: str | None = None


@attrs.frozen(kw_only=True)
class StateChange:
    """A device was connected or disconnected.

    :ivar sequence: as in :class:`gatewayd.core.shadow.ConnectionState`.
    """

    device: str
    connected: bool
    stamp: int | None = None
    sequence: str = ""


@attrs.frozen(kw_only=True)
class TwinChange:
    """A twin was changed.

    :ivar body: a JSON object. :ivar replace: whether that is the whole twin.
    """

    device: str
    body: bytes
    replace: bool
    stamp: int | None = None


@attrs.frozen(kw_only=True)
class Lifecycle:
    """A device was created or deleted.

    :ivar body: a JSON object that is recorded.
    """

    device: str
    created: bool
    body: bytes = b"{}"
    stamp: int | None = None


#: None: an event that says nothing here.
Ingested: TypeAlias = Message | StateChange | TwinChange | Lifecycle | None

_STATES = {"deviceconnected": True, "devicedisconnected": False}
_TWINS = {"updatetwin": False, "replacetwin": True}
_LIVES = {"createdeviceidentity": True, "deletedeviceidentity": False}


def read_events(data: bytes) -> tuple[list[HubEvent], bool]:
    """Return the events of a body, and whether it is a list of them. See :func:`read_batch`."""
    return read_batch(data, HubEvent)


def read_batch(data: bytes, wanted: type[T]) -> tuple[list[T], bool]:
    """Return what is in a body: one thing, or a list of them; and whether it is a list.

    :raises BadBody: it is no JSON. :raises Complaint: they are none, or too many.
    """
    several: Any = Annotated[list[wanted], Meta(max_length=MOST)]  # type: ignore[valid-type]
    try:
        if data.lstrip()[:1] == b"[":
            return msgspec.json.decode(data, type=several), True
        return [msgspec.json.decode(data, type=wanted)], False
    except msgspec.ValidationError as error:
        raise Complaint(400, str(error)) from None
    except UnicodeDecodeError:
        raise BadBody("not UTF-8") from None
    except msgspec.DecodeError:
        raise BadBody("not JSON") from None
    except RecursionError:
        raise BadBody("nested too deeply") from None


def classify(event: HubEvent, rules: Ux4IotRules) -> Ingested:
    """Return what an event says. :raises Complaint: it has no device, or not the body it needs."""
    source, schema = event.told(_SOURCE), event.told(_SCHEMA)
    # A device can give a message properties of any name, but no source.
    kind = _text(source) if source is not None else _text(schema)
    operation = _text((event.properties or {}).get("opType")).lower()
    match kind.lower():
        case "deviceconnectionstateevents" | "deviceconnectionstatenotification":
            return _state(event, _STATES.get(operation))
        case "twinchangeevents" | "twinchangenotification":
            return _twin(event, _TWINS.get(operation))
        case "devicelifecycleevents" | "devicelifecyclenotification":
            return _lifecycle(event, _LIVES.get(operation))
    return _message(event, rules)


def _message(event: HubEvent, rules: Ux4IotRules) -> Message:
    body = device_body(event.body)
    properties = {
        name: value
        for name, value in (event.properties or {}).items()
        if not name.startswith(_ITS_OWN)
    }
    content_type = next(filter(None, (_text(event.told(name)) for name in _CONTENT_TYPES)), "")
    content = read_content(body, content_type, properties)
    named = _named(content.members.get(rules.device_id_key))
    device = checked_device(event.device or named or event.told(_DEVICE))
    stamp = first_time(
        (
            content.members.get(rules.timestamp_key),
            event.told(_CREATED_AT),
            event.told(_APP_CREATED_AT),
            event.told(_ENQUEUED_AT),
        )
    )
    return Message(device=device, content=content, stamp=stamp, key=_key(event, body))


def _state(event: HubEvent, connected: bool | None) -> StateChange | None:
    device = _its_device(event)
    if connected is None:
        return None
    sequence = to_sequence(_object(event).get("sequenceNumber"))
    return StateChange(
        device=device, connected=connected, stamp=_operated_at(event), sequence=sequence
    )  # fmt: skip


def _twin(event: HubEvent, replace: bool | None) -> TwinChange | None:
    device = _its_device(event)
    if replace is None:
        return None
    _object(event)
    body = device_body(event.body)
    return TwinChange(device=device, body=body, replace=replace, stamp=_operated_at(event))


def _lifecycle(event: HubEvent, created: bool | None) -> Lifecycle | None:
    device = _its_device(event)
    if created is None:
        return None
    body = device_body(event.body)
    said = body if isinstance(read_json(body), dict) else b"{}"
    return Lifecycle(device=device, created=created, body=said, stamp=_operated_at(event))


def _object(event: HubEvent) -> Mapping[str, Any]:
    """Return the members of an event's body. :raises Complaint: it is no object."""
    value = read_json(device_body(event.body))
    if not isinstance(value, dict):
        raise Complaint(400, "the body of the event is no JSON object")
    return value


def _its_device(event: HubEvent) -> str:
    """Return which device an event is about. :raises Complaint: it does not say."""
    properties = event.properties or {}
    return checked_device(event.device or event.told(_DEVICE) or properties.get("deviceId"))


def _operated_at(event: HubEvent) -> int | None:
    properties = event.properties or {}
    return first_time((properties.get("operationTimestamp"), event.told(_ENQUEUED_AT)))


def device_body(body: msgspec.Raw) -> bytes:
    """Return what the device has sent: of a text that is base64, what that stands for."""
    raw = bytes(body)
    if not raw.startswith(b'"'):
        return raw
    text = msgspec.json.decode(raw, type=str)
    try:
        return base64.b64decode(text, validate=True) if text else b""
    except (binascii.Error, ValueError):
        return text.encode() if read_json(text.encode()) is not None else raw


def checked_device(given: Any) -> str:
    """Return the id of a device. :raises Complaint: it is none."""
    if given is None:
        raise Complaint(400, "the event does not say of which device it is")
    device = _named(given)
    if device is None:
        raise Complaint(400, "the id of the device is none")
    return device


def _named(given: Any) -> str | None:
    """Return the id of a device; None for what is none."""
    text = _text(given)
    try:
        check_id(text)
    except Invalid:
        return None
    return text


def to_sequence(given: Any) -> str:
    """Return a sequence number, hexadecimal, as texts of one length; "" for what is none."""
    text = _text(given).strip().lower()
    if not text or len(text) > _SEQUENCE or text.strip("0123456789abcdef"):
        return ""
    return text.rjust(_SEQUENCE, "0")


def _key(event: HubEvent, body: bytes) -> str | None:
    """Return what names a message, so that it is recorded once when it comes again.

    The body is a part of it: partitions count by themselves, and devices may give all their
    messages one id. None when nothing names it.
    """
    told = {_folded(name): value for name, value in (event.system_properties or {}).items()}
    if not _NAMING & told.keys():
        return None
    known = sorted((name, _text(told[name])) for name in _TELLING & told.keys())
    return "ux4iot/" + sha256(msgspec.json.encode(known) + b"\n" + body).hexdigest()


def _folded(name: str) -> str:
    return name.lower().removeprefix("x-opt-").replace("-", "")


def _text(value: Any) -> str:
    """Return a text or a number as a text, "" for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value)
