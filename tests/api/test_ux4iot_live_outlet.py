"""Telemetry of one reactor turn: it goes together, and nothing overtakes it."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.core.grants import Right
from tests.api.ux4iot_live import START, Line, Room, d2c, key, right, telemetry


@pytest.fixture(name="room")
def make_room() -> Room:
    return Room()


def say(room: Room, *bodies: dict[str, Any]) -> None:
    """Let D send several messages within one turn, which goes on."""
    for body in bodies:
        room.hub.watchers["D"].message(d2c(body))


def test_together(room: Room) -> None:
    """What is said within one turn is sent at its end: once to each, in order."""
    lines = [room.line(key("D")) for _ in range(3)]
    say(room, {"a": 1}, {"a": 2}, {"b": 3})
    assert [line.said for line in lines] == [[], [], []]
    room.clock.advance(0)
    for line in lines:
        assert line.sends == 1
        assert line.said == [telemetry("D", each) for each in ({"a": 1}, {"a": 2}, {"b": 3})]
    assert room.clock.getDelayedCalls() == []


def test_each_its_own(room: Room) -> None:
    """Those that want different keys are each sent theirs."""
    first, both = room.line(key("D", "a")), room.line(key("D", "a"), key("D", "b"))
    say(room, {"a": 1}, {"b": 2}, {"a": 3})
    room.clock.advance(0)
    assert first.said == [telemetry("D", {"a": 1}), telemetry("D", {"a": 3})]
    assert both.said == [telemetry("D", each) for each in ({"a": 1}, {"b": 2}, {"a": 3})]


@pytest.mark.parametrize("throttling", [-1, 1000])
def test_not_overtaken(throttling: float) -> None:
    """A state and a whole message come behind the telemetry that was before them."""
    room = Room(throttling)
    line = room.line(key("D"), right("D", Right.STATE), right("D", Right.MESSAGES))
    say(room, {"a": 1})
    room.hub.watchers["D"].state(True, START)
    say(room, {"a": 2})
    room.clock.advance(0)
    kinds = [list(each)[1] for each in line.said]
    assert kinds == ["telemetry", "message", "connectionState", "telemetry", "message"]


def test_who_comes_within_a_turn(room: Room) -> None:
    """Who subscribes gets what is said from then on."""
    early = room.line(key("D"))
    say(room, {"a": 1})
    late = room.line(key("D"))
    say(room, {"a": 2})
    room.clock.advance(0)
    assert early.said == [telemetry("D", {"a": 1}), telemetry("D", {"a": 2})]
    assert late.said == [telemetry("D", {"a": 2})]


def test_who_wants_something_else_within_a_turn(room: Room) -> None:
    """Who subscribes to more, or to less, misses nothing, and gets nothing twice."""
    member = room.member(key("D", "a"))
    line = member.connect()
    say(room, {"a": 1, "b": 1})
    member.subscribe(key("D", "b"))
    say(room, {"a": 2, "b": 2})
    member.unsubscribe(key("D", "a"))
    say(room, {"a": 3, "b": 3})
    room.clock.advance(0)
    assert line.said == [telemetry("D", each) for each in ({"a": 1}, {"a": 2, "b": 2}, {"b": 3})]


def test_who_leaves_within_a_turn(room: Room) -> None:
    """Who leaves gets nothing more, even if nobody is left."""
    member, other = room.member(key("D")), room.line(key("D"))
    line = member.connect()
    say(room, {"a": 1})
    member.unsubscribe(key("D"))
    room.clock.advance(0)
    assert line.said == []
    assert other.said == [telemetry("D", {"a": 1})]
    only = room.line(key("E"))
    room.hub.watchers["E"].message(d2c({"a": 1}, device="E"))
    only.leave()
    room.clock.advance(0)
    assert only.said == []


def test_much(room: Room) -> None:
    """What is large does not wait; what follows is not lost."""
    line: Line = room.line(key("D"))
    say(room, {"a": "x" * 40_000}, {"a": "y" * 40_000}, {"a": 3})
    assert len(line.said) == 2
    room.clock.advance(0)
    assert line.said == [telemetry("D", {"a": 3})]
