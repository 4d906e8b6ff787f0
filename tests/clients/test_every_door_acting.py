"""What web apps want of a device: direct methods and its twin, through other doors than theirs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.api.scene import command, ok, until
from tests.api.web import Answered
from tests.clients.doors import Doors, cid_of, set_up_doors
from tests.clients.official import unique
from tests.core.bench import bounded
from tests.harness import Socket

__all__ = ["set_up_doors"]

#: What a component of iotkit is to do.
PARAMS = [{"name": "LED", "value": "1"}]


async def next_command(attached: Socket, name: str) -> dict[str, Any]:
    """Return the next command that a device gets, of that name."""
    found: dict[str, Any] = (await attached.push())["command"]
    assert found["command"] == name, found
    return found


async def answer(attached: Socket, asked: dict[str, Any], status: str, result: object) -> None:
    """Answer a command."""
    await ok(
        attached, "command/update", deviceId=asked["deviceId"], commandId=asked["id"],
        command={"status": status, "result": result},
    )  # fmt: skip


async def next_actuation(attached: Socket) -> Any:
    """Return the inner content of the next actuation."""
    message = await attached.next()
    assert message["code"] == 1024, message
    return message["content"]["content"]


def check_error(answered: Answered, number: int, name: str) -> None:
    """Check that a method failed as a hub says it."""
    assert (answered.code, answered.header("iothub-errorcode")) == (number // 1000, name)
    assert json.loads(answered.json["Message"])["errorCode"] == number


def begin(asked: Any) -> Deferred[Answered]:
    """Begin a request that somebody has to answer."""
    return Deferred.fromCoroutine(asked)


# Direct methods

#: What a device answers, a status and a result, and the status of the method then.
ANSWERS: list[tuple[str, Any, int]] = [
    ("done", {"open": True, "by": [1, 2.5, None, "\u00e9"]}, 200),
    ("OK", None, 200),
    ("", {}, 200),
    ("201", {"made": 1}, 201),
    ("404", None, 404),
    ("jammed", {"why": "ice"}, 500),
]


@pytest.mark.cross_node
@bounded
async def test_official_device(doors: Doors) -> None:
    """DeviceHive's own client answers methods; its status is a number or becomes one."""
    device_id = await doors.register(unique("device"))

    def answers(asked: Any) -> None:
        status, result, _ = ANSWERS[asked.parameters["number"]]
        asked.status, asked.result = status, result
        asked.save()

    hive = await doors.official(answer=answers)
    await deferToThread(hive.api.subscribe_insert_commands, device_id)
    await doors.sees(device_id)
    for number, (_, result, status) in enumerate(ANSWERS):
        answered = await doors.invoke(device_id, "open", {"number": number})
        assert (answered.code, answered.json) == (200, {"status": status, "payload": result})
    device = await deferToThread(hive.api.get_device, device_id)
    listed = await deferToThread(device.list_commands, command="open")
    assert sorted(each.parameters["number"] for each in listed) == list(range(len(ANSWERS)))


@pytest.mark.cross_node
@bounded
async def test_agent_of_iotkit(doors: Doors) -> None:
    """An agent gets a method as an actuation; it has no way to answer: 504 in the end."""
    device_id = await doors.register(unique("device"))
    agent = await doors.echo_device(device_id)
    payload = {"componentId": cid_of(device_id), "params": PARAMS}
    asked = begin(doors.invoke(device_id, "LED.v1.0", payload, respond=5))
    content = await next_actuation(agent)
    assert (content["command"], content["componentId"], content["params"]) == (
        "LED.v1.0", cid_of(device_id), PARAMS,
    )  # fmt: skip
    assert not asked.called
    doors.time.advance(5)
    check_error(await asked, 504101, "GatewayTimeout")


@pytest.mark.cross_node
@bounded
async def test_both_attached(doors: Doors) -> None:
    """With an agent attached as well, DeviceHive's device answers."""
    device_id = await doors.register(unique("device"))
    agent, hive = await doors.echo_device(device_id), await doors.hive_device(device_id)
    payload = {"componentId": cid_of(device_id), "params": PARAMS}
    asked = begin(doors.invoke(device_id, "LED.v1.0", payload))
    assert (await next_actuation(agent))["params"] == PARAMS
    told = await next_command(hive, "LED.v1.0")
    assert told["parameters"] == payload
    await answer(hive, told, "200", {"lit": True})
    assert (await asked).json == {"status": 200, "payload": {"lit": True}}


@pytest.mark.cross_node
@bounded
async def test_nobody_there(doors: Doors) -> None:
    """A method of a device that is away fails at once, and does not reach it when it comes."""
    device_id = await doors.register(unique("device"))
    check_error(await doors.invoke(device_id, "late"), 404103, "DeviceNotOnline")
    attached = await doors.hive_device(device_id)
    asked = begin(doors.invoke(device_id, "open", None))
    await answer(attached, await next_command(attached, "open"), "ok", None)
    assert (await asked).json == {"status": 200, "payload": None}


@pytest.mark.cross_node
@bounded
async def test_device_that_comes(doors: Doors) -> None:
    """A method waits for its device when it is told to; who attaches gets it and answers."""
    device_id = await doors.register(unique("device"))
    asked = begin(doors.invoke(device_id, "open", {"far": 1}, connect=77))
    await until(lambda: doors.time.waits(77))
    attached = await doors.hive_device(device_id)
    told = await next_command(attached, "open")
    assert (told["parameters"], told["status"]) == ({"far": 1}, None)
    await answer(attached, told, "done", {"came": True})
    assert (await asked).json == {"status": 200, "payload": {"came": True}}


@pytest.mark.cross_node
@bounded
async def test_agent_that_comes(doors: Doors) -> None:
    """So does an agent of iotkit; it gets its actuation."""
    device_id = await doors.register(unique("device"))
    payload = {"componentId": cid_of(device_id), "params": PARAMS}
    asked = begin(doors.invoke(device_id, "LED.v1.0", payload, connect=78, respond=6))
    await until(lambda: doors.time.waits(78))
    agent = await doors.echo_device(device_id)
    assert (await next_actuation(agent))["command"] == "LED.v1.0"
    doors.time.advance(6)
    check_error(await asked, 504101, "GatewayTimeout")


@pytest.mark.cross_node
@pytest.mark.parametrize("payload", [["a", 1.5, None], "text", 0, False, {}, {"$x": {"y": []}}])
@bounded
async def test_any_payload(doors: Doors, payload: Any) -> None:
    """A payload may be any JSON; the device gets it as it is."""
    device_id = await doors.register(unique("device"))
    attached = await doors.hive_device(device_id)
    asked = begin(doors.invoke(device_id, "take", payload))
    told = await next_command(attached, "take")
    assert told["parameters"] == payload
    assert type(told["parameters"]) is type(payload)
    await answer(attached, told, "ok", {"was": payload})
    assert (await asked).json == {"status": 200, "payload": {"was": payload}}


# The twin


def sections(told: Any) -> tuple[Any, Any]:
    """Return the desired and the reported properties of a live twin, without the metadata."""
    properties = told["deviceTwin"]["properties"]
    desired, reported = (
        {key: value for key, value in properties[name].items() if key != "$metadata"}
        for name in ("desired", "reported")
    )
    return desired, reported


@pytest.mark.cross_node
@bounded
async def test_twin(doors: Doors) -> None:
    """A wish reaches the device, its report the web app; each change is told whole, in order."""
    device_id = await doors.register(unique("device"))
    follower = await doors.follow(device_id, "deviceTwin")
    attached = await doors.hive_device(device_id)
    answered = await doors.patch(device_id, {"interval": 5, "mode": {"eco": True}})
    told = await next_command(attached, "$twin/desired")
    assert told["parameters"] == {"interval": 5, "mode": {"eco": True}, "$version": 2}
    wished = await follower.told()
    assert wished["deviceTwin"] == answered == await doors.shown(f"/deviceTwin/{device_id}")
    await doors.note(device_id, "$twin/reported", {"interval": 5})
    reported = await follower.told()
    assert reported["deviceTwin"] == await doors.shown(f"/deviceTwin/{device_id}")
    desired = {"interval": 5, "mode": {"eco": True}, "$version": 2}
    assert sections(wished) == (desired, {"$version": 1})
    assert sections(reported) == (desired, {"interval": 5, "$version": 2})
    await doors.note(device_id, "$twin/get", {})
    document = await next_command(attached, "$twin/document")
    assert document["parameters"] == {
        "desired": desired, "reported": {"interval": 5, "$version": 2}
    }  # fmt: skip
    assert follower.untaken == []


@pytest.mark.cross_node
@bounded
async def test_wish_through_devicehive(doors: Doors) -> None:
    """An application of DeviceHive wishes the same way, and null removes."""
    device_id = await doors.register(unique("device"))
    follower = await doors.follow(device_id, "deviceTwin")
    attached = await doors.hive_device(device_id)
    await doors.patch(device_id, {"a": 1, "b": {"c": 2, "d": 3}})
    await command(doors.admin, device_id, "$twin/desired", parameters={"a": None, "b": {"c": 4}})
    told = [await next_command(attached, "$twin/desired") for _ in range(2)]
    assert told[1]["parameters"] == {"a": None, "b": {"c": 4}, "$version": 3}
    assert [sections(each)[0] for each in await follower.all_told(2)] == [
        {"a": 1, "b": {"c": 2, "d": 3}, "$version": 2},
        {"b": {"c": 4, "d": 3}, "$version": 3},
    ]


@pytest.mark.cross_node
@bounded
async def test_wishes_while_away(doors: Doors) -> None:
    """A device that was away gets what was wished meanwhile, in order, before what is new."""
    device_id = await doors.register(unique("device"))
    for number in range(3):
        await doors.patch(device_id, {"number": number, f"only{number}": True})
    attached = await doors.hive_device(device_id)
    await doors.patch(device_id, {"number": 3})
    told = [(await next_command(attached, "$twin/desired"))["parameters"] for _ in range(4)]
    assert [each["number"] for each in told] == [0, 1, 2, 3]
    assert [each["$version"] for each in told] == [2, 3, 4, 5]
    assert told[1] == {"number": 1, "only1": True, "$version": 3}
    await doors.note(device_id, "$twin/get", {})
    document = (await next_command(attached, "$twin/document"))["parameters"]
    whole = {"number": 3, "only0": True, "only1": True, "only2": True, "$version": 5}
    assert document["desired"] == whole


@pytest.mark.parametrize("name", ["$twin/reported", "$twin/get"])
@bounded
async def test_twin_is_no_telemetry(doors: Doors, name: str) -> None:
    """What a device says of its twin is nobody's telemetry, and no message."""
    device_id = await doors.register(unique("device"))
    follower = await doors.follow(device_id, "telemetry", "d2cMessages")
    await doors.note(device_id, name, {"n": 1} if name.endswith("reported") else {})
    await doors.say(device_id, m=2)
    told = await follower.all_told(2)
    assert [each.get("telemetry", each.get("message")) for each in told] == [{"m": 2}] * 2
    assert (await doors.shown(f"/lastValue/{device_id}")).keys() == {"m"}
