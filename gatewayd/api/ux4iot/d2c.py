"""What devices send to the cloud, as notifications (ux4iot contract, sections 4 and 5)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec

#: What a message is called whose body is a JSON object: its members are telemetry.
TELEMETRY = "telemetry"
#: What any other message is called. All its members begin with a dollar sign, so that it reaches
#: who wants whole messages, and is nobody's telemetry.
OTHER = "d2c"
#: The properties that a device gave a message, beside its body.
PROPERTIES = "$properties"
_BODY, _CONTENT_TYPE, _ENCODING = "$body", "$contentType", "$contentEncoding"
#: How deep a body may nest that is taken for JSON: what every reader of the timeline takes.
_DEPTH = 64
#: Numbers below are seconds, others milliseconds: in seconds it would be the year 5138.
_LEAST_MS = 10**11
#: The last ms of the year 9999.
_LATEST = 253_402_300_799_999
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?", re.ASCII)


@attrs.frozen
class Content:
    """What a message says.

    :ivar name: :data:`TELEMETRY` or :data:`OTHER`. :ivar parameters: a JSON object.
    :ivar members: of the body; none when that is no object.
    """

    name: str
    parameters: bytes
    members: Mapping[str, Any]


def read_content(body: bytes, content_type: str, properties: Mapping[str, Any]) -> Content:
    """Return what a message says; nothing of it is lost.

    :param body: verbatim; a JSON object stays so, unless there are properties.
    :param content_type: "" when nobody said. :param properties: the device's own.
    """
    value = read_json(body)
    if isinstance(value, dict):
        if not properties:
            return Content(TELEMETRY, body, value)
        raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        return Content(TELEMETRY, msgspec.json.encode({**raw, PROPERTIES: properties}), value)
    said: dict[str, Any] = {}
    if value is not None:
        said[_BODY] = msgspec.Raw(body)
    else:
        try:
            said[_BODY] = body.decode()
        except UnicodeDecodeError:
            said[_BODY] = base64.b64encode(body).decode()
            said[_ENCODING] = "base64"
    if content_type:
        said[_CONTENT_TYPE] = content_type
    if properties:
        said[PROPERTIES] = properties
    return Content(OTHER, msgspec.json.encode(said), {})


def read_json(body: bytes) -> Any:
    """Return what a body is as JSON; None when it is none, or nests too deeply, or is null."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if _too_deep(value) else value


def first_time(values: Iterable[Any]) -> int | None:
    """Return the first of some values that is a time, in ms since the epoch."""
    return next((time for time in map(read_time, values) if time is not None), None)


def read_time(value: Any) -> int | None:
    """Return a time in ms since the epoch; None for what is none.

    :param value: ISO 8601, of UTC when it does not say; or s or ms since the epoch.
    """
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            return _read_text(value)
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    ms = value if value >= _LEAST_MS else value * 1000
    return int(ms) if 0 <= ms <= _LATEST else None


def _read_text(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        ms = int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
    return ms if 0 <= ms <= _LATEST else None


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEPTH):
        level = [
            member
            for each in level
            if isinstance(each, dict | list)
            for member in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return any(isinstance(each, dict | list) for each in level)
