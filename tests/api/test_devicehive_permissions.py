"""Who may do what: all 56 actions, what is out of scope, what a client sees."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from gatewayd.api.devicehive.call import ROUTES
from tests.api.scene import (
    DENIED,
    fails,
    holder,
    login,
    make_client,
    make_network,
    make_type,
    notify,
    ok,
    save_device,
    subscribe,
)
from tests.harness import Daemon, Socket

#: The permission of each action by its number in a token (devicehive.yaml, jwt.actions); None
#: for public ones.
ACTIONS: dict[str, int | None] = {
    "server/info": None, "server/cacheInfo": None, "cluster/info": None,
    "authenticate": None, "token": None, "token/refresh": None, "token/create": 15,
    "configuration/get": 13, "configuration/put": 13, "configuration/delete": 13,
    "command/insert": 7, "command/update": 8, "command/get": 5, "command/list": 5,
    "command/subscribe": 5, "command/unsubscribe": 5,
    "notification/insert": 9, "notification/get": 4, "notification/list": 4,
    "notification/subscribe": 4, "notification/unsubscribe": 4, "subscription/list": 5,
    "device/get": 3, "device/list": 3, "device/count": 3, "device/save": 6, "device/delete": 6,
    "network/list": 2, "network/count": 2, "network/get": 2,
    "network/insert": 14, "network/update": 14, "network/delete": 14,
    "devicetype/list": 17, "devicetype/count": 17, "devicetype/get": 17,
    "devicetype/insert": 18, "devicetype/update": 18, "devicetype/delete": 18,
    "user/list": 12, "user/count": 12, "user/get": 12, "user/insert": 12, "user/update": 12,
    "user/delete": 12, "user/getCurrent": 10, "user/updateCurrent": 11,
    "user/getNetwork": 2, "user/assignNetwork": 14, "user/unassignNetwork": 14,
    "user/getDeviceType": 17, "user/getDeviceTypes": 18, "user/assignDeviceType": 18,
    "user/unassignDeviceType": 18, "user/allowAllDeviceTypes": 18,
    "user/disallowAllDeviceTypes": 18,
}  # fmt: skip
PROTECTED = {action: number for action, number in ACTIONS.items() if number is not None}
#: What an action with its permission and no fields at all is told, where it needs some.
REQUIRED = {
    "token/create": "Missing or invalid payload in request",
    "configuration/get": "Configuration name is wrong or empty",
    "configuration/put": "Configuration name is wrong or empty",
    "configuration/delete": "Configuration name is wrong or empty",
    "command/insert": "Device id is wrong or empty",
    "command/update": "Command id is wrong or empty",
    "command/get": "Device id is wrong or empty",
    "command/list": "Device id is wrong or empty",
    "notification/insert": "Notification is required",
    "notification/get": "Device id is wrong or empty",
    "notification/list": "Device id is wrong or empty",
    "device/get": "Device id is wrong or empty",
    "device/save": "Device id is wrong or empty",
    "device/delete": "Device id is wrong or empty",
    "network/get": "Network id is wrong or empty",
    "network/insert": "Network is required",
    "network/update": "Network id is wrong or empty",
    "network/delete": "Network id is wrong or empty",
    "devicetype/get": "Device type id is wrong or empty",
    "devicetype/insert": "Device type is required",
    "devicetype/update": "Device type id is wrong or empty",
    "devicetype/delete": "Device type id is wrong or empty",
    "user/get": "User id is wrong or empty",
    "user/insert": "User is required",
    "user/update": "User is required",
    "user/updateCurrent": "User is required",
    "user/delete": "User id is wrong or empty",
    "user/getNetwork": "User id is wrong or empty",
    "user/assignNetwork": "User id is wrong or empty",
    "user/unassignNetwork": "User id is wrong or empty",
    "user/getDeviceType": "User id is wrong or empty",
    "user/getDeviceTypes": "User id is wrong or empty",
    "user/assignDeviceType": "User id is wrong or empty",
    "user/unassignDeviceType": "User id is wrong or empty",
    "user/allowAllDeviceTypes": "User id is wrong or empty",
    "user/disallowAllDeviceTypes": "User id is wrong or empty",
}
#: Fields that name a device which is not there; each action reaches the existence check with it.
ON_DEVICE: dict[str, dict[str, Any]] = {
    "command/insert": {"command": {"command": "c"}},
    "command/update": {"commandId": 1, "command": {}},
    "command/get": {"commandId": 1},
    "command/list": {},
    "command/subscribe": {},
    "notification/insert": {"notification": {"notification": "n"}},
    "notification/get": {"notificationId": 1},
    "notification/list": {},
    "notification/subscribe": {},
    "device/get": {},
    "device/delete": {},
}


def test_the_table_is_whole() -> None:
    """The table has the server's whole enum, and nothing else is served."""
    assert len(ACTIONS) == 56
    assert ACTIONS.keys() == ROUTES.keys()


@pytest_twisted.ensureDeferred
async def test_anonymous(daemon: Daemon) -> None:
    """Nobody gets anything but the public actions, whatever fields are sent."""
    socket = await daemon.connect()
    for action in PROTECTED:
        for fields in ({}, {"deviceId": "x", "networkId": [], "userId": "?", "user": 1}):
            assert await fails(socket, action, **fields) == (401, "Unauthorized"), action
    for action in ACTIONS.keys() - PROTECTED.keys():
        assert (await socket.ask(action)).get("code") != 403


@pytest.mark.parametrize("grant", [[1], None])
@pytest_twisted.ensureDeferred
async def test_no_rights(daemon: Daemon, grant: list[int] | None) -> None:
    """A token without actions, or with none, opens nothing."""
    socket = await holder(daemon, a=grant)
    for action in PROTECTED:
        assert await fails(socket, action) == DENIED, action


@pytest_twisted.ensureDeferred
async def test_each_permission(daemon: Daemon) -> None:
    """All permissions but the one that matters are not enough; that one alone is."""
    everything = set(range(2, 19))
    admin = await daemon.login()
    await save_device(admin, "dev")
    for action, number in PROTECTED.items():
        needed = {4, 5} if action == "subscription/list" else {number}
        without = await holder(daemon, a=sorted(everything - needed))
        # The permission comes before the fields, and these before existence.
        for fields in ({}, {"deviceId": "nobody", "userId": [], "networkId": "x"}):
            assert await fails(without, action, **fields) == DENIED, action
        alone = await holder(daemon, a=[number])
        reply = await alone.ask(action)
        if action in REQUIRED:
            assert (reply["code"], reply["error"]) == (400, REQUIRED[action]), action
        else:
            assert reply["status"] == "success", reply
        for socket in (without, alone):
            await socket.bye()


@pytest_twisted.ensureDeferred
async def test_an_empty_list_means_a_client(daemon: Daemon) -> None:
    """An empty list of actions carries a client's rights and no more."""
    socket = await holder(daemon, a=[])
    for action, number in PROTECTED.items():
        reply = await socket.ask(action)
        assert (reply.get("code") == 403) is (number in (12, 13, 14, 18)), action


@pytest_twisted.ensureDeferred
async def test_fields_come_before_existence(daemon: Daemon) -> None:
    """A missing field is told before a device that is not there."""
    admin = await daemon.login()
    for action, field in (("command/update", "Command"), ("command/get", "Command"),
                          ("notification/get", "Notification")):  # fmt: skip
        text = f"{field} id is wrong or empty"
        assert await fails(admin, action, deviceId="nobody") == (400, text)
    error = await fails(admin, "notification/insert", deviceId="nobody")
    assert error == (400, "Notification is required")
    reply = await fails(admin, "user/getNetwork", userId=99)
    assert reply == (400, "Network id is wrong or empty")
    reply = await fails(admin, "user/getDeviceType", userId=99)
    assert reply == (400, "Device type id is wrong or empty")


LIMITED: dict[str, dict[str, Any]] = {
    "network": {"n": ["1"]}, "nothing said of networks": {"n": None}, "type": {"dt": ["1"]},
}  # fmt: skip


@pytest.mark.parametrize("limit", LIMITED)
@pytest_twisted.ensureDeferred
async def test_invisible_devices(daemon: Daemon, limit: str) -> None:
    """Who is limited hears 403 for a device out of scope and for none; who is not hears 404."""
    admin = await daemon.login()
    await ok(admin, "user/disallowAllDeviceTypes", userId=1)
    elsewhere = {"networkId": await make_network(admin, "n"), "deviceTypeId": await make_type(
        admin, "t")}  # fmt: skip
    await save_device(admin, "hidden", **elsewhere)
    await save_device(admin, "shown", networkId=1, deviceTypeId=1)
    limited = await holder(daemon, **LIMITED[limit])
    unlimited = await holder(daemon)
    for action, fields in ON_DEVICE.items():
        for device_id in ("hidden", "nobody"):
            assert await fails(limited, action, deviceId=device_id, **fields) == DENIED, action
        text = "Device with such deviceId = nobody not found"
        assert await fails(unlimited, action, deviceId="nobody", **fields) == (404, text), action
    for device_id in ("shown", "SHOWN"):
        if LIMITED[limit] == {"n": None}:
            assert await fails(limited, "device/get", deviceId=device_id) == DENIED
        else:
            await ok(limited, "device/get", deviceId=device_id)


@pytest_twisted.ensureDeferred
async def test_tokens_that_name_no_networks(daemon: Daemon) -> None:
    """They see no device and no network, but register devices in the networks of their user."""
    admin = await daemon.login()
    other = await make_network(admin, "other")
    client = await make_client(admin, "client", 1)
    silent = await holder(daemon, u=client, n=None)
    await save_device(silent, "new", networkId=1)
    await save_device(silent, "new", data={"k": 1})
    assert await fails(silent, "device/get", deviceId="new") == DENIED
    assert (await ok(silent, "device/list"))["devices"] == []
    assert (await ok(silent, "network/list"))["networks"] == []
    body = {"name": "x", "networkId": other}
    assert await fails(silent, "device/save", deviceId="x", device=body) == (
        403, "No access to network!",
    )  # fmt: skip
    assert await fails(silent, "notification/subscribe") == (
        403, "No access to any device type or network",
    )  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_groups_out_of_scope(daemon: Daemon) -> None:
    """Networks and types that a token does not name are refused before they are looked for."""
    admin = await daemon.login()
    await ok(admin, "user/disallowAllDeviceTypes", userId=1)
    network, type_ = await make_network(admin, "n"), await make_type(admin, "t")
    cases: list[tuple[dict[str, Any], str, str, str, int]] = [
        ({"n": ["1"]}, "network", "network", "networkId", network),
        ({"dt": ["1"]}, "devicetype", "deviceType", "deviceTypeId", type_),
    ]
    for claims, noun, one, key, other in cases:
        socket = await holder(daemon, **claims)
        for number in (other, 12345):
            for verb, fields in (
                ("get", {}), ("update", {one: {"name": "x"}}), ("delete", {"force": True}),
            ):  # fmt: skip
                assert await fails(socket, f"{noun}/{verb}", **{key: number}, **fields) == DENIED
            for type_of in ("command", "notification"):
                error = await fails(socket, f"{type_of}/subscribe", **{f"{key}s": [1, number]})
                assert error == DENIED
        assert (await ok(socket, f"{noun}/count"))["count"] == 1
        assert len((await ok(socket, f"{noun}/list"))[f"{one}s"]) == 1
        await ok(socket, f"{noun}/get", **{key: 1})
        body = {"name": "d", key: other}
        text = "No access to network!" if noun == "network" else "No access to device type!"
        error = await fails(socket, "device/save", deviceId="new", device=body)
        assert error == (403, text)
    assert await fails(admin, "notification/subscribe", networkIds=[1, 99, 98]) == (
        404, "Networks with such networkIds wasn't found: {[1, 99, 98]}",
    )  # fmt: skip
    assert await fails(admin, "command/subscribe", deviceTypeIds=[99]) == (
        404, "Device types with such deviceTypeIds wasn't found: {[99]}",
    )  # fmt: skip


async def crowd(admin: Socket) -> dict[str, int]:
    """Make two networks and two types with a device in each combination."""
    made = {"n1": await make_network(admin, "n1"), "n2": await make_network(admin, "n2"),
            "t1": await make_type(admin, "t1"), "t2": await make_type(admin, "t2")}  # fmt: skip
    for network in ("n1", "n2"):
        for type_ in ("t1", "t2"):
            await save_device(
                admin, f"{network}-{type_}", networkId=made[network], deviceTypeId=made[type_]
            )
    return made


async def devices_of(socket: Socket, **fields: Any) -> set[str]:
    """Return the devices that a list shows; the count must agree."""
    listed = {device["id"] for device in (await ok(socket, "device/list", **fields))["devices"]}
    assert (await ok(socket, "device/count", **fields))["count"] == len(listed)
    return listed


@pytest_twisted.ensureDeferred
async def test_what_a_client_sees(daemon: Daemon) -> None:
    """A client sees the devices, networks and types assigned to it, in lists, counts and gets."""
    admin = await daemon.login()
    made = await crowd(admin)
    user = await make_client(admin, "cli", made["n1"], allDeviceTypesAvailable=False)
    await ok(admin, "user/assignDeviceType", userId=user, deviceTypeId=made["t1"])
    client = await login(daemon, "cli")
    assert await devices_of(client) == {"n1-t1"}
    assert await devices_of(client, networkId=made["n2"]) == set()
    assert await devices_of(client, namePattern="n%") == {"n1-t1"}
    assert len(await devices_of(admin)) == 4
    for action, many, own in (("network", "networks", "n1"), ("devicetype", "deviceTypes", "t1")):
        assert [g["name"] for g in (await ok(client, f"{action}/list"))[many]] == [own]
        assert (await ok(client, f"{action}/count"))["count"] == 1
    network = await ok(client, "network/get", networkId=made["n1"])
    assert [device["id"] for device in network["network"]["devices"]] == ["n1-t1"]
    type_ = await ok(client, "devicetype/get", deviceTypeId=made["t1"])
    assert [device["id"] for device in type_["deviceType"]["devices"]] == ["n1-t1"]
    for device_id in ("n1-t2", "n2-t1", "nobody"):
        assert await fails(client, "device/get", deviceId=device_id) == DENIED
    for key in ("networkIds", "deviceTypeIds"):
        assert await fails(client, "command/subscribe", **{key: [99]}) == DENIED
    error = await fails(client, "device/save", deviceId="n2-t2", device={"name": "mine"})
    assert error == (403, "No access to device")
    await save_device(client, "new")
    new = (await ok(client, "device/get", deviceId="new"))["device"]
    assert (new["networkId"], new["deviceTypeId"]) == (made["n1"], made["t1"])


@pytest_twisted.ensureDeferred
async def test_other_users_groups_are_hidden(daemon: Daemon) -> None:
    """A client learns neither networks nor device types of others by naming their user."""
    admin = await daemon.login()
    made = await crowd(admin)
    await make_client(admin, "cli", made["n1"], allDeviceTypesAvailable=False)
    other = await make_client(admin, "other", made["n2"])
    client = await login(daemon, "cli")
    for action, fields in (
        ("user/getNetwork", {"networkId": made["n2"]}),
        ("user/getDeviceType", {"deviceTypeId": made["t2"]}),
    ):
        code, _ = await fails(client, action, userId=other, **fields)
        assert code in (403, 404)


@pytest_twisted.ensureDeferred
async def test_a_client_without_networks(daemon: Daemon) -> None:
    """A client without a network sees nothing, and cannot subscribe or register."""
    admin = await daemon.login()
    await save_device(admin, "dev")
    await make_client(admin, "cli")
    client = await login(daemon, "cli")
    assert await devices_of(client) == set()
    for action in ("command/subscribe", "notification/subscribe"):
        error = await fails(client, action)
        assert error == (403, "No access to any device type or network")
    error = await fails(client, "device/save", deviceId="new", device={"name": "x"})
    assert error == (403, "No access to network!")


@pytest_twisted.ensureDeferred
async def test_pushes_stay_in_scope(daemon: Daemon) -> None:
    """A client's subscription to everything brings what is in its reach, and no announcements."""
    admin = await daemon.login()
    made = await crowd(admin)
    await make_client(admin, "cli", made["n1"])
    client = await login(daemon, "cli")
    await subscribe(client, "notification", timestamp=0)
    for device_id in ("n2-t1", "n1-t2", "n2-t2", "n1-t1"):
        await notify(admin, device_id, device_id)
    seen = [(await client.push())["notification"]["deviceId"] for _ in range(2)]
    assert seen == ["n1-t2", "n1-t1"]
