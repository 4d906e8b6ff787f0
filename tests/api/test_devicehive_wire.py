"""Timestamps, push frames and coercions, one function at a time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.api.devicehive import wire
from gatewayd.api.devicehive.fields import Fields, Malformed, as_integer, as_string, too_deep
from gatewayd.api.devicehive.timestamps import format_timestamp, parse_timestamp
from gatewayd.core.model import Command, Event, Kind
from gatewayd.errors import Invalid

LAST = 253_402_300_799_999
MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999))
EPOCH = datetime(1970, 1, 1)


def in_ms(moment: datetime) -> int:
    """Return a moment in ms since the epoch, whatever its year."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


@given(st.integers(0, LAST))
def test_round_trip(ms: int) -> None:
    """What is formatted is read back as the same moment, in DeviceHive's form."""
    text = format_timestamp(ms)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}", text)
    assert parse_timestamp(text) == parse_timestamp(text + "Z") == ms
    assert parse_timestamp(ms) == parse_timestamp(str(ms)) == parse_timestamp(float(ms)) == ms


@given(MOMENTS)
def test_every_year(moment: datetime) -> None:
    """Moments of any year that is accepted are formatted as they were given."""
    text = f"{moment.isoformat(timespec='milliseconds')}"
    assert parse_timestamp(text) == in_ms(moment)
    assert format_timestamp(parse_timestamp(text)) == text


@given(MOMENTS, st.integers(0, 9), st.sampled_from("T "), st.sampled_from(".,"))
def test_fractions(moment: datetime, digits: int, separator: str, point: str) -> None:
    """Fractions of up to nine digits are accepted and cut off after the milliseconds."""
    nine = f"{moment.microsecond:06d}789"
    text = moment.strftime("%m-%dT%H:%M:%S").replace("T", separator)
    text = f"{moment.year:04d}-{text}{point if digits else ''}{nine[:digits]}"
    ms = int(nine[:digits].ljust(3, "0")[:3])
    assert parse_timestamp(text) == in_ms(moment.replace(microsecond=ms * 1000))


@given(
    st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
    st.sampled_from(["%s%02d:%02d", "%s%02d%02d"]),
)
def test_zones(moment: datetime, minutes: int, form: str) -> None:
    """An offset moves the moment; without minutes it is one of whole hours."""
    zone = form % ("-" if minutes < 0 else "+", *divmod(abs(minutes), 60))
    local = moment.isoformat(timespec="milliseconds")
    exact = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    assert parse_timestamp(local + zone) == in_ms(exact - timedelta(minutes=minutes))
    hours = f"{zone[0]}{abs(minutes) // 60:02d}"
    whole = abs(minutes) // 60 * (-60 if minutes < 0 else 60)
    assert parse_timestamp(local + hours) == in_ms(exact - timedelta(minutes=whole))


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("2026-11-22", 1_795_305_600_000), ("2026-11-22T10:00", 1_795_341_600_000),
        ("2026-11-22T10:00:00", 1_795_341_600_000), ("2026-11-22 10:00:00", 1_795_341_600_000),
        ("2026-11-22T10:00:00.1", 1_795_341_600_100), ("2026-11-22T10:00:00z", 1_795_341_600_000),
        ("2026-11-22T10:00:00.999999999Z", 1_795_341_600_999), ("1969-12-31T23:59:59.999", -1),
        ("2026-11-22T12:00:00+02", 1_795_341_600_000), (0, 0), ("0", 0), ("007", 7),
        ("2026-11-22T09:30:00-0030", 1_795_341_600_000), (1.9, 1), (LAST, LAST),
        ("2024-02-29", 1_709_164_800_000), ("9999-12-31T23:59:59.999", LAST),
    ],
)  # fmt: skip
def test_accepted(value: object, ms: int) -> None:
    """Each form that the contract names is read."""
    assert parse_timestamp(value) == ms


@pytest.mark.parametrize(
    "value",
    [
        True, False, None, [], {}, "", " ", "x", "2026-11", "2026-1-1", "22.11.2026",
        "2026-11-22T", "2026-11-22T10", "2026-11-22T10:00:00.", "2026-11-22T10:00:00.1234567890",
        "2026-11-22T24:00:00", "2026-11-22T10:60:00", "2026-11-22T10:00:60", "2026-13-01",
        "2025-02-29", "2026-00-10", "0000-01-01", "10000-01-01", "-1", -1, LAST + 1, "1.5",
        "+1", "1e3", "2026-11-22Z", "2026-11-22T10:00:00 Z", " 2026-11-22", "2026-11-22\n",
        "٢٠٢٦-11-22", "2026-11-22T10:00:00+2", "9" * 5000, 1e300, float("nan"),
        float("inf"), "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01",
    ],
)  # fmt: skip
def test_refused(value: object) -> None:
    """Nothing else is, nor what an offset moves out of the years that can be written."""
    with pytest.raises((ValueError, OverflowError)):
        parse_timestamp(value)


def test_first_format() -> None:
    """The last second before the epoch is formatted right even when it is the first of all."""
    code = (
        "from gatewayd.api.devicehive.timestamps import format_timestamp; "
        "print(format_timestamp(-1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "1969-12-31T23:59:59.999"


TEXTS = st.text(st.characters(codec="utf-8"), max_size=300)
OBJECTS = st.none() | st.dictionaries(TEXTS, st.integers() | TEXTS, max_size=5)
TIMES = st.integers(0, LAST)
IDS = st.integers(1, 2**53 - 1)


def decode(frame: bytes) -> Any:
    """Return the JSON in a text frame; its header must say exactly how long it is."""
    assert frame[0] == 0x81
    length, start = frame[1], 2
    if length >= 126:
        size = 2 if length == 126 else 8
        shortest = length
        length, start = int.from_bytes(frame[2 : 2 + size], "big"), 2 + size
        assert shortest == (126 if length < 2**16 else 127)
        assert length > 125
    assert len(frame) - start == length
    return json.loads(frame[start:])


def raw(value: object) -> bytes | None:
    """Return a value as a client might have written it."""
    return None if value is None else json.dumps(value).encode()


def plain_time(ms: int) -> str:
    """Return a moment in DeviceHive's form, made in another way."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds")


@given(
    st.integers(1, 2**40),
    st.integers(1, 2**31 - 2),
    TEXTS,
    OBJECTS,
    TIMES,
    st.lists(IDS, min_size=1),
)
def test_notification_pushes(
    stream: int, seq: int, name: str, parameters: Any, ms: int, subscriptions: list[int]
) -> None:
    """A notification's frame is the plain JSON of the message, for each of its subscriptions."""
    event = Event(
        stream=stream, seq=seq, ts=LAST, stamp=ms, kind=Kind.NOTIFICATION, name=name,
        device="dev-1", network=3, type=4, position=1, body=raw(parameters),
    )  # fmt: skip
    for number in subscriptions:
        suffix = b',"subscriptionId":%d}' % number
        assert decode(wire.push_start(event, suffix) + suffix) == {
            "action": "notification/insert",
            "notification": {
                "id": event.id, "notification": name, "deviceId": "dev-1", "networkId": 3,
                "deviceTypeId": 4, "timestamp": plain_time(ms), "parameters": parameters,
            },
            "subscriptionId": number,
        }  # fmt: skip
    assert 0 < event.id < 2**31


@given(
    st.sampled_from([Kind.COMMAND, Kind.COMMAND_UPDATE]), st.integers(1, 2**31 - 2), TEXTS, OBJECTS,
    OBJECTS, TIMES, TIMES, st.none() | TEXTS, st.none() | st.integers(0, 2**30),
    st.none() | st.integers(1, 2**31), st.none() | IDS,
)  # fmt: skip
def test_command_pushes(
    kind: Kind, seq: int, name: str, parameters: Any, result: Any, ms: int, updated: int,
    status: str | None, lifetime: int | None, user: int | None, subscription: int | None,
) -> None:  # fmt: skip
    """A command's frame is the plain JSON of the message, also without a subscription."""
    command = Command(
        stream=7, seq=seq, device="dev-1", name=name, network=3, type=4, ts=LAST, stamp=ms,
        updated=updated, user=user, parameters=raw(parameters), lifetime=lifetime, status=status,
        result=raw(result),
    )  # fmt: skip
    event = Event(
        stream=7, seq=seq, ts=LAST, stamp=ms, kind=kind, name=name, device="dev-1", network=3,
        type=4, position=1, command=command,
    )  # fmt: skip
    suffix = b"}" if subscription is None else b',"subscriptionId":%d}' % subscription
    expected: dict[str, Any] = {
        "action": "command/insert" if kind is Kind.COMMAND else "command/update",
        "command": {
            "id": command.id, "command": name, "timestamp": plain_time(ms),
            "lastUpdated": plain_time(updated), "userId": user, "deviceId": "dev-1",
            "networkId": 3, "deviceTypeId": 4, "parameters": parameters, "lifetime": lifetime,
            "status": status, "result": result,
        },
    }  # fmt: skip
    if subscription is not None:
        expected["subscriptionId"] = subscription
    for _ in range(2):  # the second time from memory
        assert decode(wire.push_start(event, suffix) + suffix) == expected


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_integers(number: int) -> None:
    """Integers of 64 bits are read from numbers and strings."""
    assert as_integer(number) == as_integer(str(number)) == number


@given(st.booleans() | st.lists(st.integers()) | st.dictionaries(TEXTS, TEXTS))
def test_no_integers(value: object) -> None:
    """Booleans, lists and objects are no integers."""
    with pytest.raises(Malformed):
        as_integer(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (False, "false"), (1, "1"), (1.5, "1.5"), ("x", "x"), (None, None), ("", "")],
)
def test_strings(value: object, text: str | None) -> None:
    """Scalars are read as their text."""
    assert as_string(value) == text


@given(st.recursive(st.none() | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(
    TEXTS, inner), max_leaves=10))  # fmt: skip
def test_depth(value: object) -> None:
    """The depth of JSON is counted right, whatever its strings contain."""

    def depth(part: object) -> int:
        if isinstance(part, dict):
            part = list(part.values())
        return 1 + max(map(depth, part), default=0) if isinstance(part, list) else 0

    text = json.dumps(value).encode()
    assert not too_deep(text, depth(value))
    assert depth(value) == 0 or too_deep(text, depth(value) - 1)


def test_null_is_absent() -> None:
    """A member that is null is none; spaces around a value are not part of it."""
    fields = Fields.parse(b'{ "a" : null , "b" : { "x" : 1 } , "c" : [ null , 1 ] }')
    for read in (fields.raw, fields.value, fields.text, fields.integer, fields.boolean,
                 fields.timestamp, fields.json_object, fields.nested, fields.strings):  # fmt: skip
        assert read("a") is None
        assert read("missing") is None
    assert fields.json_object("b") == b'{ "x" : 1 }'
    assert fields.integers("c") == [1]
    with pytest.raises(Invalid):
        fields.json_object("c")
