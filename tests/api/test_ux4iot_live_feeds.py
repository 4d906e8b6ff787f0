"""Feeds: who is sent what of a device, encoded how often."""

from __future__ import annotations

from gc import collect
from typing import Any, cast
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.grants import Grant, Right
from gatewayd.core.hub.twin import Twin
from tests.api.ux4iot_live import AT, START, Line, Room, d2c, key, right, telemetry

LATER = "2023-11-14T22:13:20.500Z"


@pytest.fixture(name="room")
def make_room() -> Room:
    return Room()


# What is sent


def test_subscribed_keys(room: Room) -> None:
    """One message has all subscribed keys of a device's message, and no other key."""
    line = room.line(key("D", "a"), key("D", "b"), key("D", "x"))
    room.hub.say({"b": [1, {"c": None}], "a": 0, "secret": 1})
    room.hub.say({"secret": 2})
    assert line.said == [telemetry("D", {"b": [1, {"c": None}], "a": 0})]


@pytest.mark.parametrize("value", [0, False, None, "", [], {}, 0.5, "é\n"])
@pytest.mark.parametrize("by_grant", [False, True])
def test_values(room: Room, value: Any, by_grant: bool) -> None:
    """Every value is sent, those that are false as well."""
    line = room.line(key("D", "a"), by_grant=by_grant)
    room.hub.say({"a": value})
    assert line.said == [telemetry("D", {"a": value})]


def test_number_verbatim(room: Room) -> None:
    """A value is passed on as it was written."""
    line = room.line(key("D"))
    message = d2c({"a": 1})
    message.values["a"] = type(message.values["a"])(b"1.10e2")
    room.hub.watchers["D"].message(message)
    room.clock.advance(0)
    assert line.frames[0].packet == (
        b'42["data",{"deviceId":"D","telemetry":{"a":1.10e2},"timestamp":"%b"}]' % AT.encode()
    )


def test_all_keys(room: Room) -> None:
    """Without a key all of them are subscribed to, but no member that is no telemetry."""
    line = room.line(key("D"), key("D", "a"))
    room.hub.say({"a": 1, "b": 2, "$.sub": "x"})
    assert line.said == [telemetry("D", {"a": 1, "b": 2})]


def test_one_message_per_key(room: Room) -> None:
    """The older dialect has a message for each key."""
    line = room.line(key("D", "a"), key("D", "b"), by_grant=True)
    room.hub.say({"a": 1, "b": 2, "c": 3})
    assert line.said == [telemetry("D", {"a": 1}), telemetry("D", {"b": 2})]


@pytest.mark.parametrize(
    ("by_grant", "shown"),
    [(False, (True, False)), (True, ({"connected": True}, {"connected": False}))],
)
def test_state(room: Room, by_grant: bool, shown: tuple[Any, Any]) -> None:
    """A connection state is a boolean, in the older dialect an object."""
    line = room.line(right("D", Right.STATE), by_grant=by_grant)
    room.hub.watchers["D"].state(True, START)
    room.hub.watchers["D"].state(False, START + 500)
    room.hub.say({"a": 1})
    assert line.said == [
        {"deviceId": "D", "connectionState": shown[0], "timestamp": AT},
        {"deviceId": "D", "connectionState": shown[1], "timestamp": LATER},
    ]


def test_twin(room: Room) -> None:
    """A twin is sent whole, as Azure shows it."""
    line = room.line(right("D", Right.TWIN))
    twin = Twin().patched_desired({"a": {"b": 1}}, START)
    room.hub.watchers["D"].twin(twin, START)
    [said] = line.said
    assert (said["deviceId"], said["timestamp"]) == ("D", AT)
    assert said["deviceTwin"] == twin.document()
    assert said["deviceTwin"]["properties"]["desired"]["a"] == {"b": 1}
    assert set(said["deviceTwin"]) >= {"version", "tags", "properties"}


def test_message(room: Room) -> None:
    """A message is sent whole, with what is no telemetry."""
    line = room.line(right("D", Right.MESSAGES))
    room.hub.say({"a": 1, "$.sub": "x"})
    room.hub.say({})
    assert line.said == [
        {"deviceId": "D", "message": {"a": 1, "$.sub": "x"}, "timestamp": AT},
        {"deviceId": "D", "message": {}, "timestamp": AT},
    ]


def test_timestamps(room: Room) -> None:
    """Times are shown with milliseconds, in UTC."""
    line = room.line(key("D"))
    for stamp in (0, 999, 1000, START + 7, START + 1007, -1):
        room.hub.say({"a": 1}, stamp)
    assert [said["timestamp"] for said in line.said] == [
        "1970-01-01T00:00:00.000Z", "1970-01-01T00:00:00.999Z", "1970-01-01T00:00:01.000Z",
        "2023-11-14T22:13:20.007Z", "2023-11-14T22:13:21.007Z", "1969-12-31T23:59:59.999Z",
    ]  # fmt: skip


# To whom


def test_spelling(room: Room) -> None:
    """Each gets the device's id as it spells it."""
    upper, lower = room.line(key("DEV", "a")), room.line(key("dev", "a"))
    both = room.line(key("DEV", "a"), key("dev", "b"))
    room.hub.say({"a": 1, "b": 2}, device="Dev")
    assert upper.said == [telemetry("DEV", {"a": 1})]
    assert lower.said == [telemetry("dev", {"a": 1})]
    assert both.said == [telemetry("DEV", {"a": 1}), telemetry("dev", {"b": 2})]


def test_namespace(room: Room) -> None:
    """Each gets packets of its namespace."""
    line = room.line(key("D"), namespace="/below/this")
    room.hub.say({"a": 1})
    assert line.frames[0].packet.startswith(b'42/below/this,["data",{')


def test_several_connections(room: Room) -> None:
    """All connections of a session get the same."""
    member = room.member(key("D", "a"))
    lines = [member.connect(), member.connect(), member.connect("/x")]
    room.hub.say({"a": 1})
    assert [line.said for line in lines] == [[telemetry("D", {"a": 1})]] * 3
    member.disconnect(lines[0])
    room.hub.say({"a": 2})
    assert [line.said for line in lines] == [[], *[[telemetry("D", {"a": 2})]] * 2]


def test_changes(room: Room) -> None:
    """What is subscribed to, or not any more, counts for the next message."""
    member = room.member(key("D", "a"))
    line = member.connect()
    member.subscribe(key("D", "b"), right("D", Right.STATE), key("E", "a"))
    room.hub.say({"a": 1, "b": 1})
    room.hub.say({"a": 1}, device="e")
    assert line.said == [telemetry("D", {"a": 1, "b": 1}), telemetry("E", {"a": 1})]
    member.unsubscribe(key("D", "a"))
    room.hub.say({"a": 1, "b": 1})
    assert line.said == [telemetry("D", {"b": 1})]
    member.subscribe(key("D"))
    room.hub.say({"a": 1, "b": 1})
    member.unsubscribe(key("D"))
    room.hub.say({"a": 1, "b": 1})
    assert line.said == [telemetry("D", {"a": 1, "b": 1}), telemetry("D", {"b": 1})]
    member.unsubscribe(key("D", "b"), key("D", "nothing"), key("F"))
    room.hub.say({"a": 1, "b": 1})
    assert line.said == []
    assert set(room.hub.watchers) == {"D", "E"}
    member.unsubscribe(right("D", Right.STATE))
    assert set(room.hub.watchers) == {"E"}


def test_nothing_is_left(room: Room) -> None:
    """Devices of which nobody wants anything are not watched."""
    member = room.member(key("D"), key("d", "a"), right("D", Right.TWIN), key("E"))
    line = member.connect()
    assert set(room.hub.watchers) == {"D", "E"}
    member._following.ended()
    assert room.hub.watchers == {}
    assert line.ended


def test_nothing_is_left_of_one(room: Room) -> None:
    """A session that is over leaves nothing where others stay, though the device says nothing."""
    room.line(key("D"))
    member = room.member(key("D", "a"))
    member.connect()
    gone = ref(member._following._interests["D"])
    member._following.ended()
    del member
    collect()
    assert gone() is None


def test_broken_while_sending(room: Room) -> None:
    """A connection that is closed by what it is sent takes nothing from the others."""
    members = [room.member(key("D"), right("D", Right.MESSAGES)) for _ in range(3)]
    lines = [member.connect() for member in members]

    class Ends:
        def gone(self, connection: Any) -> None:
            members[1].disconnect(connection)

    lines[1].breaks = True
    lines[1]._application = cast("Any", Ends())
    room.hub.say({"a": 1})
    room.hub.say({"a": 2})
    assert [len(line.said) for line in lines] == [4, 0, 4]


def test_last_of_its_group_broken(room: Room) -> None:
    """So does one that was alone in what it wants."""
    member = room.member(key("D", "a"), key("D", "b"))
    line = member.connect()
    others = [room.line(key("D", name)) for name in "abc"]

    class Ends:
        def gone(self, connection: Any) -> None:
            member.disconnect(connection)

    line.breaks = True
    line._application = cast("Any", Ends())
    room.hub.say({"a": 1, "b": 2, "c": 3})
    assert [len(other.said) for other in others] == [1, 1, 1]


# How often it is encoded


def frames(lines: list[Line]) -> int:
    """Return how many different frames these were sent."""
    return len({id(frame) for line in lines for frame in line.frames})


def test_encoded_once(room: Room) -> None:
    """A message is encoded once for all that are told the same."""
    lines = [room.line(key("D", "a"), key("D", "b")) for _ in range(50)]
    more = [room.line(key("D")) for _ in range(50)]
    room.hub.say({"a": 1, "b": 2})
    assert frames(lines) == frames(more) == 1
    # They want different keys, but what is in the message is the same.
    assert frames(lines + more) == 1
    room.hub.say({"a": 1, "b": 2, "c": 3})
    assert frames(lines + more) == 3


@pytest.mark.parametrize("differs", [{"namespace": "/x"}, {"by_grant": True}])
def test_encoded_apart(room: Room, differs: dict[str, Any]) -> None:
    """Namespaces and dialects do not share what is different in them."""
    lines = [room.line(key("D"), right("D", Right.STATE)) for _ in range(5)]
    more = [room.line(key("D"), right("D", Right.STATE), **differs) for _ in range(5)]
    room.hub.watchers["D"].state(True, START)
    assert (frames(lines), frames(more), frames(lines + more)) == (1, 1, 2)
    room.hub.say({"a": 1})
    assert (frames(lines), frames(more), frames(lines + more)) == (2, 2, 4)


def test_others_encoded_once(room: Room) -> None:
    """So are states, twins and messages."""
    rights = (Right.STATE, Right.TWIN, Right.MESSAGES)
    lines = [room.line(*(right("D", each) for each in rights)) for _ in range(20)]
    room.hub.say({"a": 1})
    room.hub.watchers["D"].twin(Twin(), START)
    room.hub.watchers["D"].state(False, START)
    assert frames(lines) == 3
    assert {len(line.said) for line in lines} == {3}


# Against a simple model

DEVICES = ("D", "d", "E")
KEYS = ("a", "b", "c")
GRANTS = [
    *(key(device, name) for device in DEVICES for name in (*KEYS, None)),
    *(right(device, each) for device in DEVICES for each in (Right.STATE, Right.MESSAGES)),
]
STEPS = st.one_of(
    st.tuples(st.just("subscribe"), st.integers(0, 2), st.sampled_from(GRANTS)),
    st.tuples(st.just("unsubscribe"), st.integers(0, 2), st.sampled_from(GRANTS)),
    st.tuples(st.just("connect"), st.integers(0, 2), st.sampled_from(["/", "/x"])),
    st.tuples(st.just("disconnect"), st.integers(0, 2), st.none()),
    st.tuples(st.just("say"), st.sampled_from("DE"), st.sets(st.sampled_from(KEYS))),
    st.tuples(st.just("state"), st.sampled_from("DE"), st.booleans()),
)


class Model:
    """Who must be told what: looked up anew for each message."""

    def __init__(self) -> None:
        self.wants: list[set[Grant]] = [set(), set(), set()]
        self.lines: list[list[Line]] = [[], [], []]

    def told(self, device: str, keys: set[str]) -> dict[Line, dict[str, set[str]]]:
        """Return by connection which keys it is told, by the spelling of the device."""
        return {
            line: {
                spelling: {name for name in keys if wants & {key(spelling, name), key(spelling)}}
                for spelling in DEVICES
                if spelling.upper() == device
            }
            for wants, lines in zip(self.wants, self.lines, strict=True)
            for line in lines
        }

    def asked(self, device: str, kind: Right) -> dict[Line, set[str]]:
        """Return by connection the spellings in which it is told something else."""
        return {
            line: {
                each.device
                for each in wants
                if each.right is kind and each.device.upper() == device
            }
            for wants, lines in zip(self.wants, self.lines, strict=True)
            for line in lines
        }  # fmt: skip


def check_said(model: Model, device: str, keys: set[str]) -> None:
    """Compare what everybody was told of a message with the model."""
    told, whole = model.told(device, keys), model.asked(device, Right.MESSAGES)
    for number, lines in enumerate(model.lines):
        for line in lines:
            said = line.said
            found: dict[str, set[str]] = {spelling: set() for spelling in told[line]}
            for each in said:
                if "telemetry" in each:
                    assert each["telemetry"]
                    assert number != 2 or len(each["telemetry"]) == 1
                    assert not found[each["deviceId"]] & set(each["telemetry"])
                    found[each["deviceId"]] |= set(each["telemetry"])
            assert found == told[line]
            assert sorted(each["deviceId"] for each in said if "message" in each) == sorted(
                whole[line]
            )


@given(st.lists(STEPS, max_size=60))
def test_model(steps: list[tuple[str, Any, Any]]) -> None:
    """Whatever changes in whatever order, each gets what it wants at that moment, and no more."""
    room, model = Room(), Model()
    members = [room.member(by_grant=number == 2) for number in range(3)]
    for step, who, what in steps:
        if step == "subscribe":
            members[who].subscribe(what)
            model.wants[who].add(what)
        elif step == "unsubscribe":
            members[who].unsubscribe(what)
            model.wants[who].discard(what)
        elif step == "connect":
            model.lines[who].append(members[who].connect(what))
        elif step == "disconnect" and model.lines[who]:
            members[who].disconnect(model.lines[who].pop(0))
        elif step == "say":
            room.hub.say(dict.fromkeys(what, 1), device=who)
            check_said(model, who, what)
        elif step == "state" and who in room.hub.watchers:
            room.hub.watchers[who].state(what, START)
            for line, spellings in model.asked(who, Right.STATE).items():
                assert {each["deviceId"] for each in line.said} == spellings
    wanted = {grant.device.upper() for wants in model.wants for grant in wants}
    assert set(room.hub.watchers) == wanted
