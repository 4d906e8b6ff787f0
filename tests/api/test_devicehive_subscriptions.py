"""Subscriptions: what they match, what is pushed, what is told of them, how they end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from tests.api.gate import Gate
from tests.api.scene import (
    answer,
    command,
    cut,
    fails,
    make_network,
    make_type,
    named,
    names_until,
    notify,
    ok,
    save_device,
    subscribe,
    token,
    until,
)
from tests.api.web import request
from tests.harness import PATIENCE, Daemon, Socket, make_settings, reactor


async def two(daemon: Daemon) -> tuple[Socket, Socket, int, int]:
    """Return a sender and a listener, and a network and a type that hold device ``b``."""
    admin, listener = await daemon.login(), await daemon.far.login()
    network, type_ = await make_network(admin, "other"), await make_type(admin, "other")
    await save_device(admin, "a", networkId=1, deviceTypeId=1)
    await save_device(admin, "b", networkId=network, deviceTypeId=type_)
    await daemon.level()
    return admin, listener, network, type_


async def say(admin: Socket, type_: str, device_id: str, name: str) -> None:
    """Insert a command or a notification."""
    await (command if type_ == "command" else notify)(admin, device_id, name)


@pytest.mark.cross_node
@pytest.mark.parametrize("type_", ["command", "notification"])
@pytest_twisted.ensureDeferred
async def test_filters(daemon: Daemon, type_: str) -> None:
    """A subscription brings the messages of its device, networks, types and names, no others."""
    admin, listener, network, kind = await two(daemon)
    said = [("a", "x"), ("b", "x"), ("a", "y"), ("b", "y")]
    cases: list[tuple[dict[str, Any], list[int]]] = [
        ({}, [0, 1, 2, 3]),
        ({"names": []}, [0, 1, 2, 3]),
        ({"networkIds": [], "deviceTypeIds": []}, [0, 1, 2, 3]),
        ({"deviceId": "a"}, [0, 2]),
        ({"deviceId": "A", "names": ["y"]}, [2]),
        ({"networkIds": [network]}, [1, 3]),
        ({"networkIds": [1, network, 1], "names": ["x", "nope", "x"]}, [0, 1]),
        ({"deviceTypeIds": [kind]}, [1, 3]),
        ({"deviceTypeIds": [1], "names": ["y", "x"]}, [0, 2]),
        ({"networkIds": [1], "deviceTypeIds": [kind]}, []),
        ({"networkIds": [network], "deviceTypeIds": [1, kind]}, [1, 3]),
        # The device wins over networks and types.
        ({"deviceId": "a", "networkIds": [network], "deviceTypeIds": [kind]}, [0, 2]),
        ({"names": ["X"]}, []),
    ]
    numbers = {await subscribe(listener, type_, **fields): case
               for case, (fields, _) in enumerate(cases)}  # fmt: skip
    marker = await subscribe(listener, type_, names=["marker"])
    assert len(numbers) == len(cases)
    for device_id, name in said:
        await say(admin, type_, device_id, name)
    await say(admin, type_, "a", "marker")
    got: dict[int, list[tuple[str, str]]] = {number: [] for number in range(len(cases))}
    while (push := await listener.push())["subscriptionId"] != marker:
        body = push[type_]
        assert push.keys() == {"action", type_, "subscriptionId"}
        assert push["action"] == f"{type_}/insert"
        if named(push) != "marker":
            got[numbers[push["subscriptionId"]]].append((body["deviceId"], body[type_]))
    for case, (fields, wanted) in enumerate(cases):
        assert got[case] == [said[index] for index in wanted], fields


@pytest.mark.parametrize("type_", ["command", "notification"])
@pytest_twisted.ensureDeferred
async def test_empty_device_id(daemon: Daemon, type_: str) -> None:
    """An empty device id asks for no device, certainly not for all of them; null does."""
    socket = await daemon.login()
    refused = (400, "Device id is wrong or empty")
    assert await fails(socket, f"{type_}/subscribe", deviceId="", names=["x"]) == refused
    assert (await ok(socket, "subscription/list"))["subscriptions"] == []
    await ok(socket, f"{type_}/subscribe", deviceId=None)
    path = f"/rest/device/{type_}/poll?deviceId=&waitTimeout=0"
    answered = await request(daemon.port, "GET", path, Authorization=f"Bearer {token()}")
    assert (answered.code, answered.json["message"]) == refused


@pytest.mark.cross_node
@pytest_twisted.ensureDeferred
async def test_contents(daemon: Daemon) -> None:
    """A push shows the whole message, as get does."""
    admin, listener, _, _ = await two(daemon)
    await subscribe(listener, "notification", deviceId="a")
    await subscribe(listener, "command", deviceId="a")
    inserted = await notify(admin, "a", "n", parameters={"x": [1, {"y": "é"}]})
    push = await listener.push()
    number = inserted["id"]
    got = await ok(admin, "notification/get", deviceId="a", notificationId=number)
    assert push["notification"] == got["notification"]
    assert push["notification"] == {
        "id": number, "notification": "n", "deviceId": "a", "networkId": 1, "deviceTypeId": 1,
        "timestamp": inserted["timestamp"], "parameters": {"x": [1, {"y": "é"}]},
    }  # fmt: skip
    sent = await command(admin, "a", "c", parameters={}, lifetime=100, status="s", result={"r": 1})
    push = await listener.push()
    got = await ok(admin, "command/get", deviceId="a", commandId=sent["id"])
    assert push["command"] == got["command"]
    assert push["command"] == {
        **sent, "command": "c", "deviceId": "a", "networkId": 1, "deviceTypeId": 1, "lifetime": 100,
        "parameters": {}, "status": "s", "result": {"r": 1}, "userId": 1,
    }  # fmt: skip


@pytest.mark.cross_node
@pytest_twisted.ensureDeferred
async def test_updates(daemon: Daemon) -> None:
    """Updates go to subscriptions with returnUpdatedCommands, each with the state of its time."""
    admin, listener, _, _ = await two(daemon)
    first = await subscribe(listener, "command", deviceId="a", returnUpdatedCommands=True)
    every = await subscribe(listener, "command", returnUpdatedCommands="true")
    plain = await subscribe(listener, "command", deviceId="a")
    sent = await command(admin, "a", "c")
    assert (await listener.push())["subscriptionId"] == plain
    await answer(admin, "a", sent["id"], "half")
    await ok(admin, "command/update", deviceId="a", commandId=sent["id"], command={"result": {}})
    await answer(admin, "a", sent["id"], "done")
    await command(admin, "a", "marker")
    pushes = []
    while named(push := await listener.push()) != "marker":
        pushes.append(push)
    assert [push["subscriptionId"] for push in pushes] == [first, every] * 3
    assert {push["action"] for push in pushes} == {"command/update"}
    states = [(push["command"]["status"], push["command"]["result"]) for push in pushes[::2]]
    assert states == [("half", None), ("half", {}), ("done", {})]
    updated = [push["command"]["lastUpdated"] for push in pushes[::2]]
    assert sorted(set(updated)) == updated
    assert {push["command"]["timestamp"] for push in pushes} == {sent["timestamp"]}


@pytest_twisted.ensureDeferred
async def test_list(daemon: Daemon) -> None:
    """The list tells of this connection's subscriptions what was asked for, by type."""
    socket, other, network, kind = await two(daemon)
    await subscribe(other, "notification")
    commands = await subscribe(socket, "command", deviceId="a", names=["x"], limit=3)
    notes = await subscribe(
        socket, "notification", networkIds=[network], deviceTypeIds=[kind], timestamp=1500
    )
    assert notes > commands
    assert notes < 2**53
    shown = [
        {"subscriptionId": commands, "type": "command", "deviceId": "a", "networkIds": None,
         "deviceTypeIds": None, "names": ["x"], "timestamp": None},
        {"subscriptionId": notes, "type": "notification", "deviceId": None,
         "networkIds": [network], "deviceTypeIds": [kind], "names": None,
         "timestamp": "1970-01-01T00:00:01.500"},
    ]  # fmt: skip
    for wanted, expected in ((None, shown), ("command", shown[:1]), ("notification", shown[1:])):
        reply = await ok(socket, "subscription/list", type=wanted)
        assert reply["subscriptions"] == expected
    assert await fails(socket, "subscription/list", type="x") == (400, "Invalid request parameters")


@pytest.mark.parametrize("type_", ["command", "notification"])
@pytest_twisted.ensureDeferred
async def test_unsubscribe(daemon: Daemon, type_: str) -> None:
    """Unsubscribing ends one subscription or all of the type; other ids are unknown."""
    admin, listener, _, _ = await two(daemon)
    other_type = "notification" if type_ == "command" else "command"
    numbers = [await subscribe(listener, type_, deviceId="a") for _ in range(3)]
    other = await subscribe(listener, other_type, deviceId="a")
    foreign = await subscribe(admin, type_, deviceId="b")
    for wrong in (other, foreign, 0, -1, 2**60):
        error = await fails(listener, f"{type_}/unsubscribe", subscriptionId=wrong)
        assert error == (404, f"Subscription with id {wrong} was not found")
    await ok(listener, f"{type_}/unsubscribe", subscriptionId=numbers[1])
    assert (await fails(listener, f"{type_}/unsubscribe", subscriptionId=numbers[1]))[0] == 404
    await say(admin, type_, "a", "x")
    assert [(await listener.push())["subscriptionId"] for _ in range(2)] == numbers[::2]
    await ok(listener, f"{type_}/unsubscribe")
    await say(admin, type_, "a", "unseen")
    await say(admin, other_type, "a", "marker")
    assert await names_until(listener, "marker") == []
    listed = (await ok(listener, "subscription/list"))["subscriptions"]
    assert [each["subscriptionId"] for each in listed] == [other]
    await ok(listener, f"{type_}/unsubscribe")


@pytest.mark.cross_node
@pytest_twisted.ensureDeferred
async def test_announcements(daemon: Daemon) -> None:
    """Saving a device announces it to subscriptions that name no device, network or type."""
    admin, listener, network, _ = await two(daemon)
    everything = await subscribe(listener, "notification")
    chosen = await subscribe(listener, "notification", names=["$device-add"])
    for fields in ({"deviceId": "a"}, {"networkIds": [1, network]}, {"deviceTypeIds": [1]}):
        await subscribe(listener, "notification", **fields)
    await save_device(admin, "c", data={"k": 1}, networkId=1, deviceTypeId=1)
    device = (await ok(admin, "device/get", deviceId="c"))["device"]
    pushes = [await listener.push() for _ in range(2)]
    assert [push["subscriptionId"] for push in pushes] == [everything, chosen]
    for push in pushes:
        note = push["notification"]
        assert (note["notification"], note["deviceId"]) == ("$device-add", "c")
        assert (note["networkId"], note["deviceTypeId"]) == (None, None)
        assert note["parameters"] == device
    await save_device(admin, "c", data={"k": 2}, networkId=network)
    push = await listener.push()
    assert named(push) == "$device-update"
    assert push["notification"]["parameters"]["data"] == {"k": 2}
    await notify(admin, "c", "marker")
    assert named(await listener.push()) == "marker"
    assert {named(await listener.push())} == {"marker"}  # by network
    listed = (await ok(admin, "notification/list", deviceId="c"))["notifications"]
    names = [note["notification"] for note in listed]
    assert names == ["marker", "$device-update", "$device-add"]
    assert [note["networkId"] for note in listed] == [network, None, None]
    for name in ("$device-add", "$device-update"):
        body = {"notification": name}
        assert await fails(admin, "notification/insert", deviceId="c", notification=body) == (
            403,
            "It's forbidden to insert these special notifications: $device-update, $device-add.",
        )


@pytest.mark.cross_node
@pytest_twisted.ensureDeferred
async def test_replayed_announcements(daemon: Daemon) -> None:
    """Replay brings announcements to the same subscriptions as live."""
    admin, listener, _, _ = await two(daemon)
    await notify(admin, "a", "marker")
    for fields, expected in (
        ({}, ["$device-add", "$device-add"]), ({"names": ["$device-add", "marker"]},
                                              ["$device-add", "$device-add"]),
        ({"deviceId": "a"}, []), ({"networkIds": [1]}, []), ({"deviceTypeIds": [1]}, []),
    ):  # fmt: skip
        await subscribe(listener, "notification", timestamp=0, **fields)
        assert await names_until(listener, "marker") == expected, fields


@pytest.mark.cross_node
@pytest_twisted.ensureDeferred
async def test_a_device_that_moves(daemon: Daemon) -> None:
    """A message belongs to the network that its device was in when it was recorded."""
    admin, listener, network, _ = await two(daemon)
    await subscribe(listener, "notification", networkIds=[network])
    await notify(admin, "a", "before")
    await save_device(admin, "a", networkId=network)
    await notify(admin, "a", "after")
    assert named(await listener.push()) == "after"
    await subscribe(listener, "notification", networkIds=[1], timestamp=0)
    assert named(await listener.push()) == "before"


@pytest_twisted.ensureDeferred
async def test_a_deleted_device(daemon: Daemon) -> None:
    """A new device under an old id is another one: no old messages, no old subscriptions."""
    admin, listener, _, _ = await two(daemon)
    old = await subscribe(listener, "notification", deviceId="a")
    everything = await subscribe(listener, "notification")
    number = (await notify(admin, "a", "old"))["id"]
    assert [(await listener.push())["subscriptionId"] for _ in range(2)] == [old, everything]
    await ok(admin, "device/delete", deviceId="a")
    missing = (404, "Device with such deviceId = a not found")
    for action in ("device/get", "notification/list", "notification/subscribe"):
        assert await fails(admin, action, deviceId="a") == missing
    await save_device(admin, "a")
    await notify(admin, "a", "new")
    pushes = [await listener.push() for _ in range(2)]
    assert [named(push) for push in pushes] == ["$device-add", "new"]
    assert {push["subscriptionId"] for push in pushes} == {everything}
    listed = (await ok(admin, "notification/list", deviceId="a"))["notifications"]
    assert "old" not in [note["notification"] for note in listed]
    error = await fails(admin, "notification/get", deviceId="a", notificationId=number)
    assert error == (404, "Requested notification not found")


@pytest.mark.parametrize("type_", ["command", "notification"])
@pytest_twisted.ensureDeferred
async def test_subscriptions_go_with_their_device(daemon: Daemon, type_: str) -> None:
    """Deleting a device ends the subscriptions to it; they are unknown from then on."""
    admin, listener, _, _ = await two(daemon)
    old = await subscribe(listener, type_, deviceId="a")
    await ok(admin, "device/delete", deviceId="a")
    assert (await ok(listener, "subscription/list"))["subscriptions"] == []
    error = await fails(listener, f"{type_}/unsubscribe", subscriptionId=old)
    assert error == (404, f"Subscription with id {old} was not found")


@pytest_twisted.ensureDeferred
async def test_too_many(tmp_path: Path) -> None:
    """One subscription more than the limit is refused with 429, until another one ends."""
    daemon = Daemon(make_settings(tmp_path / "gatewayd.db", subscriptions=3))
    await daemon.start()
    try:
        socket = await daemon.login()
        numbers = [await subscribe(socket, "notification") for _ in range(2)]
        await subscribe(socket, "command")
        assert (await fails(socket, "notification/subscribe"))[0] == 429
        assert (await fails(socket, "command/subscribe"))[0] == 429
        await ok(socket, "notification/unsubscribe", subscriptionId=numbers[0])
        await subscribe(socket, "command")
        await subscribe(await daemon.login(), "notification")
    finally:
        await daemon.stop()


@pytest_twisted.ensureDeferred
async def test_leaving_while_subscribing(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that is lost while its subscribe waits for the store leaves no attachment behind."""
    admin = await daemon.login()
    await save_device(admin, "dev")
    device = await daemon.core.registry.device("dev")
    assert device is not None
    leaving = await daemon.login()
    gate = Gate(monkeypatch, "groups.find")
    # The network is looked up in the store.
    leaving.send({"action": "command/subscribe", "deviceId": "dev", "networkIds": [1]})
    await until(gate.entered.is_set)
    cut(leaving)
    await leaving.gone.addTimeout(PATIENCE, reactor)
    await ok(admin, "server/info")
    gate.opened.set()
    await ok(admin, "network/list")
    assert daemon.core.presence.of(device) == []
