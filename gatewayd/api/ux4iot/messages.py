"""What the live channel says, as JSON text (ux4iot contract, live channel), in both dialects."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

#: The name of every Socket.IO event that is sent.
DATA = "data"
#: What is said to who has no session (any more).
NO_SESSION = b'{"message":"No such sessionId"}'

_EPOCH = datetime(1970, 1, 1)

encode = msgspec.json.Encoder().encode

_second: int | None = None
_text = ""


def timestamp(ms: int) -> str:
    """Return ms since the epoch as ``2026-11-22T10:00:00.123Z``."""
    global _second, _text
    second, rest = divmod(ms, 1000)
    if second != _second:
        # Messages of one second share everything but the milliseconds.
        _text = (_EPOCH + timedelta(seconds=second)).isoformat()
        _second = second
    return f"{_text}.{rest:03d}Z"


def telemetry(device_id: str, values: Mapping[str, msgspec.Raw], stamp: int) -> bytes:
    """Return what a device measured. :param stamp: ms since the epoch, here and below."""
    return encode({"deviceId": device_id, "telemetry": values, "timestamp": timestamp(stamp)})


def connection_state(device_id: str, connected: bool, stamp: int, by_grant: bool) -> bytes:
    """Return whether a device is connected. :param by_grant: in the older dialect."""
    state: Any = {"connected": connected} if by_grant else connected
    return encode({"deviceId": device_id, "connectionState": state, "timestamp": timestamp(stamp)})


def device_twin(device_id: str, document: msgspec.Raw, stamp: int) -> bytes:
    """Return a device's whole twin."""
    return encode({"deviceId": device_id, "deviceTwin": document, "timestamp": timestamp(stamp)})


def d2c_message(device_id: str, body: msgspec.Raw, stamp: int) -> bytes:
    """Return what a device sent, whole."""
    return encode({"deviceId": device_id, "message": body, "timestamp": timestamp(stamp)})
