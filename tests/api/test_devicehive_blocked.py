"""isBlocked: a blocked device neither speaks nor is spoken to, and its users are told so."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from tests.api.gate import Gate
from tests.api.scene import (
    command,
    fails,
    holder,
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
from tests.harness import Daemon, Socket

BLOCKED = (403, "Device is blocked")
NOTE = {"notification": "n"}


async def block(socket: Socket, blocked: bool = True, device_id: str = "dev") -> None:
    """Block or unblock a device."""
    await ok(socket, "device/save", deviceId=device_id, device={"isBlocked": blocked})


async def start(daemon: Daemon) -> tuple[Socket, Socket]:
    """Return a sender and another socket, with device ``dev``."""
    admin, other = await daemon.login(), await daemon.login()
    await save_device(admin, "dev")
    return admin, other


async def with_key(daemon: Daemon) -> tuple[Socket, Socket]:
    """Return an administrator's socket, and one on which device ``dev`` is itself."""
    admin, device = await holder(daemon, "/device"), await daemon.connect("/device")
    await ok(admin, "device/save", deviceId="dev", deviceKey="secret", device={"name": "dev"})
    await ok(device, "authenticate", deviceId="dev", deviceKey="secret")
    return admin, device


@pytest_twisted.ensureDeferred
async def test_refused(daemon: Daemon) -> None:
    """Whatever passes to or from a blocked device is refused; so for ids in another case."""
    admin, other = await start(daemon)
    sent = await command(admin, "dev", "before")
    await block(admin)
    refused: list[tuple[str, dict[str, Any]]] = [
        ("notification/insert", {"notification": NOTE}),
        ("command/insert", {"command": {"command": "c"}}),
        ("command/update", {"commandId": sent["id"], "command": {"status": "done"}}),
        ("command/subscribe", {}),
        ("command/subscribe", {"timestamp": 0}),
    ]
    for action, fields in refused:
        for device_id in ("dev", "DEV"):
            assert await fails(other, action, deviceId=device_id, **fields) == BLOCKED
    assert (await ok(other, "subscription/list"))["subscriptions"] == []
    await block(admin, False)
    for action, fields in refused:
        await ok(other, action, deviceId="dev", **fields)


@pytest_twisted.ensureDeferred
async def test_reading(daemon: Daemon) -> None:
    """What was recorded before is read, listed and replayed; the device is shown and deleted."""
    admin, other = await start(daemon)
    sent, note = await command(admin, "dev", "c"), await notify(admin, "dev", "n")
    await block(admin)
    assert (await ok(other, "device/get", deviceId="dev"))["device"]["isBlocked"] is True
    assert [each["id"] for each in (await ok(other, "device/list", name="dev"))["devices"]] == [
        "dev"
    ]
    await ok(other, "command/get", deviceId="dev", commandId=sent["id"])
    await ok(other, "notification/get", deviceId="dev", notificationId=note["id"])
    assert len((await ok(other, "command/list", deviceId="dev"))["commands"]) == 1
    listed = (await ok(other, "notification/list", deviceId="dev"))["notifications"]
    assert [each["notification"] for each in listed] == ["$device-update", "n", "$device-add"]
    await subscribe(other, "notification", deviceId="dev", timestamp=0)
    assert named(await other.push()) == "n"
    await subscribe(other, "command", networkIds=[1], timestamp=0)
    assert named(await other.push()) == "c"
    await subscribe(other, "command", deviceId="dev", returnUpdatedCommands=True)
    await ok(admin, "device/delete", deviceId="dev")
    assert (await fails(other, "device/get", deviceId="dev"))[0] == 404


@pytest_twisted.ensureDeferred
async def test_announced(daemon: Daemon) -> None:
    """The change that blocks or unblocks a device is announced."""
    admin, listener = await start(daemon)
    await subscribe(listener, "notification", names=["$device-update"])
    for blocked in (True, False):
        await block(admin, blocked)
        push = (await listener.push())["notification"]
        assert (push["deviceId"], push["parameters"]["isBlocked"]) == ("dev", blocked)


@pytest_twisted.ensureDeferred
async def test_live_sockets(daemon: Daemon) -> None:
    """A device that was attached when it was blocked goes on when it is unblocked."""
    admin, device = await start(daemon)
    number = await subscribe(device, "command", deviceId="dev")
    await command(admin, "dev", "before")
    assert named(await device.push()) == "before"
    await block(admin)
    assert await fails(admin, "command/insert", deviceId="dev", command={"command": "c"}) == BLOCKED
    assert await fails(device, "notification/insert", deviceId="dev", notification=NOTE) == BLOCKED
    await block(admin, False)
    await command(admin, "dev", "after")
    push = await device.push()
    assert (push["subscriptionId"], named(push)) == (number, "after")
    await notify(device, "dev", "n")


@pytest_twisted.ensureDeferred
async def test_waiting_commands(daemon: Daemon) -> None:
    """Commands that wait for a blocked device are delivered when it attaches after that."""
    admin, device = await start(daemon)
    for name in "ab":
        await command(admin, "dev", name)
    await block(admin)
    assert await fails(device, "command/subscribe", deviceId="dev") == BLOCKED
    await block(admin, False)
    await subscribe(device, "command", deviceId="dev")
    await command(admin, "dev", "marker")
    assert await names_until(device, "marker") == ["a", "b"]


@pytest_twisted.ensureDeferred
async def test_a_device_with_a_key(daemon: Daemon) -> None:
    """A blocked device does not get in; one that is in already can only read."""
    admin, device = await with_key(daemon)
    await subscribe(device, "command")
    await block(admin)
    again = await daemon.connect("/device")
    for socket in (again, device):
        error = await fails(socket, "authenticate", deviceId="dev", deviceKey="secret")
        assert error == BLOCKED
    error = await fails(again, "authenticate", deviceId="dev", deviceKey="wrong")
    assert error == (401, "Invalid credentials")
    assert await fails(again, "device/get", deviceId="dev") == (401, "Unauthorized")
    for fields in ({"isBlocked": False}, {"name": "x"}):
        assert await fails(device, "device/save", device=fields) == BLOCKED
    assert await fails(device, "device/delete") == BLOCKED
    assert await fails(device, "notification/insert", notification=NOTE) == BLOCKED
    assert await fails(device, "command/subscribe") == BLOCKED
    shown = (await ok(device, "device/get"))["device"]
    assert (shown["name"], shown["isBlocked"]) == ("dev", True)
    await block(admin, False)
    await ok(device, "notification/insert", notification=NOTE)
    await command(admin, "dev", "c")
    assert named(await device.push()) == "c"
    await ok(again, "authenticate", deviceId="dev", deviceKey="secret")


@pytest_twisted.ensureDeferred
async def test_requests_in_flight(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is acknowledged is recorded, and after the device is blocked nothing is any more."""
    admin, device = await start(daemon)
    gate = Gate(monkeypatch, "devices.save", after=True)
    admin.send({"action": "device/save", "deviceId": "dev", "device": {"isBlocked": True}})
    await until(gate.entered.is_set)
    count = 200
    for _ in range(count):
        device.send(
            {
                "action": "notification/insert",
                "deviceId": "dev",
                "notification": {"notification": "n"},
            }
        )
    gate.opened.set()
    assert (await admin.next())["status"] == "success"
    assert await fails(admin, "notification/insert", deviceId="dev", notification=NOTE) == BLOCKED
    listed = await ok(admin, "notification/list", deviceId="dev", notification="n", take=2 * count)
    replies = [await device.next() for _ in range(count)]
    taken = [reply["notification"]["id"] for reply in replies if reply["status"] == "success"]
    assert sorted(each["id"] for each in listed["notifications"]) == sorted(taken)
    refused = [(each["code"], each["error"]) for each in replies if each["status"] == "error"]
    assert refused == [BLOCKED] * (count - len(taken))


@pytest_twisted.ensureDeferred
async def test_blocked_during_a_subscribe(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that is blocked while its subscribe looks other things up is refused."""
    admin, device = await start(daemon)
    gate = Gate(monkeypatch, "groups.find")
    device.send({"action": "command/subscribe", "deviceId": "dev", "networkIds": [1]})
    await until(gate.entered.is_set)
    await block(admin)
    gate.opened.set()
    reply = await device.next()
    assert (reply.get("code"), reply.get("error")) == BLOCKED


@pytest_twisted.ensureDeferred
async def test_polls(daemon: Daemon) -> None:
    """Who polls the commands of a blocked device is taken for it, and refused."""
    admin, _ = await start(daemon)
    await command(admin, "dev", "before")
    await notify(admin, "dev", "before")
    await block(admin)
    headers = {"Authorization": f"Bearer {token()}"}
    query = "?timestamp=0&waitTimeout=0"
    for path in ("/device/dev/command/poll", f"/device/command/poll{query}&deviceId=dev"):
        answered = await request(daemon.port, "GET", f"/rest{path}", None, **headers)
        assert (answered.code, answered.json) == (403, {"error": 403, "message": BLOCKED[1]})
    for path in ("/device/dev/notification/poll", "/device/command/poll"):
        answered = await request(daemon.port, "GET", f"/rest{path}{query}", None, **headers)
        assert (answered.code, len(answered.json)) == (200, 1), path
