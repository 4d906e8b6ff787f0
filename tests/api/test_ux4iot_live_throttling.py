"""Throttling: of what comes too soon a socket gets the last value of each key."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.grants import Right
from tests.api.ux4iot_live import AT, START, Line, Room, key, right, telemetry

#: ms
INTERVAL = 500


@pytest.fixture(name="room")
def make_room() -> Room:
    return Room(INTERVAL)


def at(ms: int) -> str:
    """Return the time so long after the start, as it is shown."""
    return f"2023-11-14T22:13:{20 + ms // 1000:02d}.{ms % 1000:03d}Z"


def passes(room: Room, ms: int) -> None:
    """Let time pass."""
    room.clock.advance(ms / 1000)


def test_last_values(room: Room) -> None:
    """The first is sent at once, then every interval the last of each key, with its time."""
    line = room.line(key("D", "a"), key("D", "b"))
    for ms in range(0, 500, 100):
        room.hub.say({"a": ms, "x": ms}, START + ms)
        passes(room, 99)
    room.hub.say({"b": 0}, START + 499)
    assert line.said == [telemetry("D", {"a": 0})]
    passes(room, 5)
    assert line.said == [telemetry("D", {"a": 400, "b": 0}, at(499))]
    passes(room, 10_000)
    assert line.said == []
    room.hub.say({"a": 1})
    assert line.said == [telemetry("D", {"a": 1})]


def test_rate(room: Room) -> None:
    """However often a device speaks, its telemetry is sent once per interval."""
    line = room.line(key("D"))
    for ms in range(0, 10_000, 10):
        room.hub.say({"a": ms}, START + ms)
        passes(room, 10)
    assert len(line.said) in (10_000 // INTERVAL, 10_000 // INTERVAL + 1)


def test_devices_apart(room: Room) -> None:
    """One device does not hold up another."""
    line = room.line(key("D"), key("E"))
    for device in "DEDE":
        room.hub.say({"a": 1}, device=device)
    assert [said["deviceId"] for said in line.said] == ["D", "E"]
    passes(room, INTERVAL)
    assert [said["deviceId"] for said in line.said] == ["D", "E"]


def test_older_dialect(room: Room) -> None:
    """What was held back is still one message per key there."""
    line = room.line(key("D"), by_grant=True)
    for _ in range(2):
        room.hub.say({"a": 1, "b": 2})
    passes(room, INTERVAL)
    assert line.said == [telemetry("D", {"a": 1}), telemetry("D", {"b": 2})] * 2


@pytest.mark.parametrize("what", ["state", "message"])
def test_order(room: Room, what: str) -> None:
    """Nothing else waits, and it does not overtake the telemetry before it."""
    line = room.line(key("D"), right("D", Right.STATE), right("D", Right.MESSAGES))
    telling = room.line(key("D"))
    room.hub.say({"a": 1})
    assert [list(said)[1] for said in line.said] == ["telemetry", "message"]
    if what == "state":
        room.hub.watchers["D"].state(False, START)
        assert [list(said)[1] for said in line.said] == ["connectionState"]
    room.hub.say({"a": 2})
    assert [list(said)[1] for said in line.said] == ["telemetry", "message"]
    # Who is told nothing else need not be told sooner.
    assert telling.said == [telemetry("D", {"a": 1})]
    passes(room, INTERVAL)
    assert (line.said, telling.said) == ([], [telemetry("D", {"a": 2})])


def test_unsubscribed_while_waiting(room: Room) -> None:
    """What was held back is not sent once it is not subscribed to any more."""
    member = room.member(key("D", "a"), key("D", "b"))
    line = member.connect()
    for _ in range(2):
        room.hub.say({"a": 1, "b": 2})
    member.unsubscribe(key("D", "a"))
    passes(room, INTERVAL)
    assert line.said == [telemetry("D", {"a": 1, "b": 2}), telemetry("D", {"b": 2})]
    room.hub.say({"a": 1, "b": 2})
    room.hub.say({"a": 1, "b": 2})
    line.said.clear()
    member.unsubscribe(key("D", "b"))
    passes(room, INTERVAL)
    assert line.said == []


def test_subscribed_while_waiting(room: Room) -> None:
    """What was held back is not lost when something else is subscribed to."""
    member = room.member(key("D", "a"))
    line = member.connect()
    room.hub.say({"a": 1})
    room.hub.say({"a": 2}, START + 1)
    member.subscribe(key("D", "b"))
    passes(room, INTERVAL)
    assert line.said == [telemetry("D", {"a": 1}), telemetry("D", {"a": 2}, at(1))]
    room.hub.say({"b": 1})
    assert line.said == [telemetry("D", {"b": 1})]


def test_joined_while_waiting(room: Room) -> None:
    """Nor is it sent twice when those where it goes wait for it, too."""
    room.line(key("D", "a"), key("D", "b"))
    member = room.member(key("D", "a"))
    line = member.connect()
    room.hub.say({"a": 1})
    room.hub.say({"a": 2})
    member.subscribe(key("D", "b"))
    passes(room, INTERVAL)
    assert line.said == [telemetry("D", {"a": 1}), telemetry("D", {"a": 2})]


def test_gone_while_waiting(room: Room) -> None:
    """Nothing is sent to who is gone, nor to who came instead."""
    member = room.member(key("D"))
    line = member.connect()
    room.hub.say({"a": 1})
    room.hub.say({"a": 2})
    member.disconnect(line)
    other = member.connect()
    passes(room, INTERVAL)
    assert (line.said, other.said) == ([telemetry("D", {"a": 1})], [])


def test_one_timer(room: Room) -> None:
    """However many sockets there are, they have one timer."""
    for number in range(100):
        room.line(key(f"D{number}"))
        room.hub.say({"a": 1}, device=f"D{number}")
        room.hub.say({"a": 2}, device=f"D{number}")
    late = [call for call in room.clock.getDelayedCalls() if call.getTime() > 0.3]
    assert len(late) == 1


@pytest.mark.parametrize("interval", [-1, 0])
def test_off(interval: float) -> None:
    """Without an interval everything is sent at once."""
    room = Room(interval)
    line = room.line(key("D"))
    for number in range(3):
        room.hub.say({"a": number})
    assert [said["telemetry"]["a"] for said in line.said] == [0, 1, 2]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 700), st.booleans()), max_size=40))
def test_nothing_is_lost(steps: list[tuple[str, int, bool]]) -> None:
    """In the end each has the last value of each key, and none twice or in the wrong order."""
    room = Room(INTERVAL)
    member = room.member(key("D"))
    line, watcher = member.connect(), room.line(key("D", "a"))
    last: dict[str, int] = {}
    for number, (name, ms, wants) in enumerate(steps):
        room.hub.say({name: number}, START + number)
        last[name] = number
        if wants:
            member.subscribe(right("D", Right.STATE))
        else:
            member.unsubscribe(right("D", Right.STATE))
        passes(room, ms)
    passes(room, INTERVAL + 1)
    for found, keys in ((line, "ab"), (watcher, "a")):
        values: dict[str, list[Any]] = {name: [] for name in keys}
        for said in found.said:
            for name, value in said["telemetry"].items():
                values[name].append(value)
        for name in keys:
            assert values[name] == sorted(set(values[name]))
            assert values[name][-1:] == [last[name]] if name in last else not values[name]


def test_held_lines_share(room: Room) -> None:
    """What was held back is encoded once, too."""
    lines: list[Line] = [room.line(key("D")) for _ in range(10)]
    room.hub.say({"a": 1})
    room.hub.say({"a": 2})
    passes(room, INTERVAL)
    assert {len(line.frames) for line in lines} == {2}
    assert len({id(frame) for line in lines for frame in line.frames}) == 2
    assert lines[0].said[1]["timestamp"] == AT
