"""What devices send of their own accord, decoded once for all who want it."""

from __future__ import annotations

import msgspec

from gatewayd.core.model import Event

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
#: Members whose names begin so are about the message.
_ABOUT = "$"
#: How such a name begins in JSON.
_ABOUT_IN_JSON = (b'"$', b"\\u0024")


class Message(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A message of a device to whom it may concern.

    :ivar stream: the device's timeline. :ivar device: its id as it was registered.
    :ivar stamp: the time that it shows, ms since the epoch.
    :ivar body: a JSON object, verbatim.
    :ivar values: the telemetry: its members, but for those about the message.
    :ivar event: as which it was recorded.
    """

    stream: int
    device: str
    stamp: int
    body: bytes
    values: dict[str, msgspec.Raw]
    event: Event


def read(event: Event) -> Message | None:
    """Return the message that a notification is; None when it is no JSON object of a device."""
    body = event.body
    if body is None or event.network == 0:
        return None
    try:
        values = _OBJECT.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if any(each in body for each in _ABOUT_IN_JSON):
        values = {key: value for key, value in values.items() if not key.startswith(_ABOUT)}
    return Message(
        stream=event.stream, device=event.device, stamp=event.stamp, body=body, values=values,
        event=event,
    )  # fmt: skip
