"""DeviceHive's timestamps: UTC without a zone, milliseconds (devicehive contract, types)."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?"
    r"(Z|z|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1)
#: The first ms of the year 1 and the last of 9999.
_EARLIEST = (datetime(1, 1, 1) - _EPOCH) // timedelta(milliseconds=1)
_LATEST = 253_402_300_799_999

_second: int | None = None
_text = ""


def format_timestamp(ms: int) -> str:
    """Return ms since the epoch as ``2026-11-22T10:00:00.123``."""
    global _second, _text
    second, rest = divmod(ms, 1000)
    if second != _second:
        # Messages of one second share everything but the milliseconds.
        _text = (_EPOCH + timedelta(seconds=second)).isoformat()
        _second = second
    return f"{_text}.{rest:03d}"


def parse_timestamp(value: object) -> int:
    """Return the ms of an ISO 8601 date or date-time, or of a number of ms.

    Fractions beyond ms are cut off; no zone means UTC.

    :raises ValueError: it is none of these, or no moment of the years 1 to 9999.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not a timestamp")
    if isinstance(value, str):
        if value.isdecimal() and value.isascii():
            value = int(value)
        else:
            return _parse_iso(value)
    ms = int(value)
    if not 0 <= ms <= _LATEST:
        raise ValueError("not a timestamp")
    return ms


def _parse_iso(text: str) -> int:
    match = _ISO.fullmatch(text)
    if match is None:
        raise ValueError("not a timestamp")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    moment = datetime(
        int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0)
    )
    ms = (moment - _EPOCH) // timedelta(milliseconds=1) + int((fraction or "0").ljust(3, "0")[:3])
    ms -= _zone_minutes(zone) * 60_000
    if not _EARLIEST <= ms <= _LATEST:
        raise ValueError("not a timestamp")
    return ms


def _zone_minutes(zone: str | None) -> int:
    if zone is None or zone in "Zz":
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    return -minutes if zone[0] == "-" else minutes
