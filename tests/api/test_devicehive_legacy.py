"""The endpoints /client and /device of older clients (devicehive contract, section 2.4)."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from tests.api.gate import Gate
from tests.api.scene import (
    DENIED,
    answer,
    closing,
    command,
    cut,
    fails,
    holder,
    make_client,
    make_network,
    named,
    names_until,
    notify,
    ok,
    save_device,
    subscribe,
    token,
    until,
)
from tests.harness import ADMIN, PASSWORD, Daemon, Socket

PREFIXES = ("", "/dh", "/api", "/auth", "/plugin")
CLIENTS = ["/client", *(f"{prefix}/websocket/client" for prefix in PREFIXES)]
DEVICES = ["/device", *(f"{prefix}/websocket/device" for prefix in PREFIXES)]
INVALID = (401, "Invalid credentials")
UNAUTHORIZED = (401, "Unauthorized")


async def with_key(daemon: Daemon, device_id: str = "dev", key: str = "secret") -> Socket:
    """Register a device with a key; return the administrator's socket on /device."""
    admin = await holder(daemon, "/device")
    await ok(admin, "device/save", deviceId=device_id, deviceKey=key, device={"name": "x"})
    return admin


@pytest.mark.parametrize("path", CLIENTS + DEVICES)
@pytest_twisted.ensureDeferred
async def test_paths(daemon: Daemon, path: str) -> None:
    """Both endpoints are there under every prefix, with and without a slash at the end."""
    for spelling in (path, f"{path}/"):
        socket = await daemon.connect(spelling)
        await ok(socket, "server/info")
        assert await fails(socket, "device/list") == UNAUTHORIZED
        await ok(socket, "authenticate", token=token())
        await ok(socket, "device/list")


@pytest.mark.parametrize("path", ["/client", "/device"])
@pytest_twisted.ensureDeferred
async def test_a_token_with_each_message(daemon: Daemon, path: str) -> None:
    """An unauthenticated session takes a token with any message, each for that message alone."""
    admin = await daemon.login()
    await save_device(admin, "dev")
    socket = await daemon.connect(path)
    full, narrow = token(), token(a=[3])
    note = {"notification": "n"}
    await ok(socket, "notification/insert", deviceId="dev", notification=note, token=full)
    error = await fails(socket, "notification/insert", deviceId="dev", token=narrow)
    assert error == DENIED
    await ok(socket, "device/get", deviceId="dev", token=narrow)
    await ok(socket, "user/list", token=full)
    for action in ("device/get", "user/list", "notification/insert"):
        assert await fails(socket, action, deviceId="dev") == UNAUTHORIZED
    for bad in ("x", token(t=0), 5):
        assert await fails(socket, "device/list", token=bad) == INVALID
    assert await fails(socket, "device/list", token=token(e=1)) == (401, "Token expired")
    assert await fails(socket, "device/list", token={}) == (400, "Malformed Json received.")
    number = await subscribe(socket, "notification", deviceId="dev", token=full)
    await notify(admin, "dev", "pushed")
    assert (await socket.push())["subscriptionId"] == number
    await ok(socket, "notification/unsubscribe", subscriptionId=number, token=full)


@pytest_twisted.ensureDeferred
async def test_a_token_with_a_subscription_list(daemon: Daemon) -> None:
    """The list of subscriptions takes the token of its message like any other request."""
    socket = await daemon.connect("/client")
    number = await subscribe(socket, "notification", token=token())
    shown = (await ok(socket, "subscription/list", token=token()))["subscriptions"]
    assert [each["subscriptionId"] for each in shown] == [number]


@pytest_twisted.ensureDeferred
async def test_no_tokens_with_messages_elsewhere(daemon: Daemon) -> None:
    """On /websocket a token in another message than authenticate means nothing."""
    socket = await daemon.connect()
    assert await fails(socket, "device/list", token=token()) == UNAUTHORIZED
    for fields in ({"accessKey": token()}, {"login": ADMIN, "password": PASSWORD}):
        assert await fails(socket, "authenticate", **fields) == UNAUTHORIZED


@pytest_twisted.ensureDeferred
async def test_client_authentication(daemon: Daemon) -> None:
    """/client authenticates by token, by access key, or by login and password."""
    admin = await daemon.login()
    user = await make_client(admin, "cli", 1)
    for fields in ({"token": token(u=user, a=[])}, {"accessKey": token(u=user, a=[])},
                   {"login": "cli", "password": "cli_#911"}):  # fmt: skip
        socket = await daemon.connect("/client")
        await ok(socket, "authenticate", **fields)
        current = (await ok(socket, "user/getCurrent"))["current"]
        assert current["login"] == "cli"
        assert (await fails(socket, "user/list")) == DENIED
    socket = await daemon.connect("/client")
    assert await fails(socket, "authenticate", login="cli", password="wrong") == INVALID
    assert (await fails(socket, "authenticate", login="nobody", password="x"))[0] == 401
    for fields in ({"login": "cli"}, {"password": "x"}, {}, {"deviceId": "d", "deviceKey": "k"}):
        assert await fails(socket, "authenticate", **fields) == UNAUTHORIZED
    await ok(admin, "user/update", userId=user, user={"status": 2})
    error = await fails(socket, "authenticate", login="cli", password="cli_#911")
    assert error == (401, "User is locked or disabled")


@pytest_twisted.ensureDeferred
async def test_device_authentication(daemon: Daemon) -> None:
    """A device authenticates with the key it was last registered with, and acts for itself only."""
    admin = await with_key(daemon)
    await save_device(admin, "other")
    socket = await daemon.connect("/device")
    for device_id, key in (("dev", "wrong"), ("other", "secret"), ("nobody", "secret")):
        assert await fails(socket, "authenticate", deviceId=device_id, deviceKey=key) == INVALID
    for fields in ({"deviceId": "dev"}, {"deviceKey": "secret"}, {"deviceId": "dev", "token": ""}):
        assert await fails(socket, "authenticate", **fields) == UNAUTHORIZED
    await ok(socket, "authenticate", deviceId="dev", deviceKey="secret")
    assert (await ok(socket, "device/get"))["device"]["id"] == "dev"
    assert [d["id"] for d in (await ok(socket, "device/list"))["devices"]] == ["dev"]
    for action in ("device/get", "command/subscribe", "notification/list", "device/delete"):
        assert await fails(socket, action, deviceId="other") == DENIED
    for action in ("user/getCurrent", "network/list", "command/insert", "token/create"):
        assert await fails(socket, action) == DENIED
    error = await fails(socket, "device/save", deviceId="new", device={"name": "x"})
    assert error == (403, "No access to device")
    # A device changes its own key; the old one is no longer good.
    await ok(socket, "device/save", device={"name": "y", "key": "another"})
    late = await daemon.connect("/device")
    assert await fails(late, "authenticate", deviceId="dev", deviceKey="secret") == INVALID
    await ok(late, "authenticate", deviceId="DEV", deviceKey="another")
    # Elsewhere a key in device/save means nothing.
    await ok(await daemon.login(), "device/save", deviceId="dev", deviceKey="third", device={})
    assert await fails(late, "authenticate", deviceId="dev", deviceKey="third") == INVALID


@pytest.mark.cross_node
@pytest.mark.parametrize("path", ["/client", "/device", "/websocket"])
@pytest_twisted.ensureDeferred
async def test_automatic_updates(daemon: Daemon, path: str) -> None:
    """The update of a command goes to the connection that inserted it; elsewhere never unasked."""
    admin = await daemon.login()
    await save_device(admin, "dev")
    inserter, other = await holder(daemon, path), await holder(daemon.far, path)
    for socket in (inserter, other):
        await subscribe(socket, "notification", names=["marker"])
    mine, foreign = await command(inserter, "dev", "c"), await command(admin, "dev", "c")
    await answer(admin, "dev", foreign["id"], "foreign")
    await answer(admin, "dev", mine["id"], "half")
    await answer(other, "dev", mine["id"], "done")
    await notify(admin, "dev", "marker")
    assert named(await other.push()) == "marker"
    if path != "/websocket":
        for status in ("half", "done"):
            push = await inserter.push()
            assert push.keys() == {"action", "command"}
            assert push["action"] == "command/update"
            assert (push["command"]["id"], push["command"]["status"]) == (mine["id"], status)
    assert named(await inserter.push()) == "marker"


@pytest_twisted.ensureDeferred
async def test_names_and_lists(daemon: Daemon) -> None:
    """Lists of devices are followed as one subscription; an empty list of names is refused."""
    admin = await daemon.login()
    socket = await holder(daemon, "/client")
    for type_ in ("command", "notification"):
        text = "Names field is required to be nonempty"
        assert await fails(socket, f"{type_}/subscribe", names=[]) == (400, text)
        insert = command if type_ == "command" else notify
        for key in ("deviceGuids", "deviceIds"):
            a, b, c = [await save_device(admin, f"{letter}-{type_}-{key}") for letter in "abc"]
            number = await subscribe(socket, type_, **{key: [a, b.upper(), a]})
            for device_id in (c, b, a):
                await insert(admin, device_id, device_id)
            pushes = [await socket.push() for _ in range(2)]
            assert {named(push) for push in pushes} == {a, b}
            assert {push["subscriptionId"] for push in pushes} == {number}
            await ok(socket, f"{type_}/unsubscribe", subscriptionId=number)
            error = await fails(socket, f"{type_}/subscribe", **{key: [a, "nobody"]})
            assert error == (404, "Device with such deviceId = nobody not found")
    elsewhere = await daemon.login()
    await subscribe(elsewhere, "notification", names=[])


@pytest.mark.cross_node
@pytest_twisted.ensureDeferred
async def test_default_device(daemon: Daemon) -> None:
    """On /device what names no device is about the one that authenticated."""
    admin = await with_key(daemon)
    await save_device(admin, "other")
    for fields in ({"deviceKey": "secret"}, {"token": token()}):
        device = await daemon.far.connect("/device")
        await ok(device, "authenticate", deviceId="dev", **fields)
        assert (await ok(device, "device/get"))["device"]["id"] == "dev"
        await subscribe(device, "command")
        sent = await command(admin, "dev", "c")
        await command(admin, "other", "unseen")
        assert (await device.push())["command"]["id"] == sent["id"]
        reply = {"commandId": sent["id"], "command": {"status": "done", "result": {"x": 1}}}
        await ok(device, "command/update", **reply)
        note = {"notification": "n"}
        number = (await ok(device, "notification/insert", notification=note))["notification"]["id"]
        got = await ok(device, "notification/get", notificationId=number)
        assert got["notification"]["deviceId"] == "dev"
        stored = await ok(admin, "command/get", deviceId="dev", commandId=sent["id"])
        assert (stored["command"]["status"], stored["command"]["result"]) == ("done", {"x": 1})
    text = (400, "Device id is wrong or empty")
    assert await fails(await holder(daemon, "/client"), "device/get") == text
    assert await fails(await holder(daemon, "/device"), "device/get") == text


@pytest_twisted.ensureDeferred
async def test_legacy_members(daemon: Daemon) -> None:
    """What older device/save requests carry besides is accepted and ignored."""
    old: dict[str, Any] = {
        "name": "d", "key": "k", "status": "Online", "network": {"name": "n", "key": "x"},
        "deviceClass": {"name": "c", "version": "1", "offlineTimeout": 10, "isPermanent": True},
        "equipment": [{"name": "e", "code": "LED", "type": "LED"}], "permanent": 1, "guid": "g",
    }  # fmt: skip
    for path in ("/device", "/client", "/websocket"):
        socket = await holder(daemon, path)
        await ok(socket, "device/save", deviceId="dev", deviceKey="k", deviceGuid="g", device=old)
        assert (await ok(socket, "device/get", deviceId="dev"))["device"] == {
            "id": "dev", "name": "d", "data": None, "networkId": 1, "deviceTypeId": 1,
            "isBlocked": False,
        }  # fmt: skip
    assert (await ok(socket, "network/count"))["count"] == 1


@pytest_twisted.ensureDeferred
async def test_taking_over(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second socket of a device closes the first, whose late writes are refused."""
    admin = await with_key(daemon)
    watcher = await daemon.login()
    await subscribe(watcher, "notification", deviceId="dev")
    old, new = await daemon.connect("/device"), await daemon.connect("/device")
    await ok(old, "authenticate", deviceId="dev", deviceKey="secret")
    await notify(old, "dev", "early")
    # Both requests wait for the store at the same time, the new socket's first.
    gate = Gate(monkeypatch, "commit")
    admin.send({"action": "notification/insert", "deviceId": "dev",
                "notification": {"notification": "held"}})  # fmt: skip
    await until(gate.entered.is_set)
    new.send({"action": "authenticate", "deviceId": "dev", "token": token()})
    await ok(watcher, "server/info")
    note = {"action": "notification/insert", "notification": {"notification": "late"}}
    old.send(note)
    await ok(watcher, "server/info")
    gate.opened.set()
    assert (await closing(old))[0] == 1000
    assert (await new.next())["status"] == "success"
    await notify(new, "dev", "marker")
    assert await names_until(watcher, "marker") == ["early", "held"]
    await ok(admin, "device/get", deviceId="dev")
    await ok(new, "authenticate", deviceId="dev", deviceKey="secret")
    await ok(new, "device/get")


@pytest_twisted.ensureDeferred
async def test_a_deleted_device(daemon: Daemon) -> None:
    """Deleting a device closes its socket, and neither its key nor its token for it lives on."""
    admin = await with_key(daemon)
    device = await daemon.connect("/device")
    await ok(device, "authenticate", deviceId="dev", deviceKey="secret")
    await ok(admin, "device/delete", deviceId="dev")
    assert (await closing(device))[0] == 1000
    again = await daemon.connect("/device")
    assert await fails(again, "authenticate", deviceId="dev", deviceKey="secret") == INVALID
    await ok(admin, "device/save", deviceId="dev", deviceKey="other", device={"name": "x"})
    assert await fails(again, "authenticate", deviceId="dev", deviceKey="secret") == INVALID
    await ok(again, "authenticate", deviceId="dev", deviceKey="other")
    await ok(again, "notification/insert", notification={"notification": "n"})


@pytest_twisted.ensureDeferred
async def test_deleting_oneself_is_answered(daemon: Daemon) -> None:
    """A device that deletes itself has its reply before its socket is closed."""
    await with_key(daemon)
    device = await daemon.connect("/device")
    await ok(device, "authenticate", deviceId="dev", deviceKey="secret")
    device.send({"action": "device/delete"})
    assert (await closing(device))[0] == 1000
    assert [reply["status"] for reply in device.received.pending] == ["success"]


@pytest_twisted.ensureDeferred
async def test_an_epoch_is_one_devices(daemon: Daemon) -> None:
    """A socket that speaks for one device may write to another one that changed sockets often."""
    admin = await with_key(daemon)
    await save_device(admin, "other")
    for _ in range(3):
        last = await daemon.connect("/device")
        await ok(last, "authenticate", deviceId="other", token=token())
    gateway = await daemon.connect("/device")
    await ok(gateway, "authenticate", deviceId="dev", token=token())
    sent = await command(admin, "other", "c")
    await notify(gateway, "other", "n")
    await answer(gateway, "other", sent["id"], "done")


@pytest_twisted.ensureDeferred
async def test_who_may_not_read_commands_takes_nothing_over(daemon: Daemon) -> None:
    """A token that may not read a device's commands does not close the device's socket."""
    admin = await with_key(daemon)
    network = await make_network(admin, "elsewhere")
    device = await daemon.connect("/device")
    await ok(device, "authenticate", deviceId="dev", deviceKey="secret")
    for claims in ({"a": [3]}, {"n": [str(network)]}):
        thief = await daemon.connect("/device")
        await ok(thief, "authenticate", deviceId="dev", token=token(**claims))
    await ok(device, "device/get")


@pytest_twisted.ensureDeferred
async def test_leaving_while_attaching(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that is lost while it authenticates as a device leaves no attachment behind."""
    admin = await with_key(daemon)
    device = await daemon.core.registry.device("dev")
    assert device is not None
    leaving = await daemon.connect("/device")
    gate = Gate(monkeypatch, "devices.key")
    leaving.send({"action": "authenticate", "deviceId": "dev", "deviceKey": "secret"})
    await until(gate.entered.is_set)
    cut(leaving)
    await closing(leaving)
    await ok(admin, "server/info")
    gate.opened.set()
    await notify(admin, "dev", "n")
    await ok(admin, "device/save", deviceId="dev", device={"name": "y"})
    assert daemon.core.presence.of(device) == []


@pytest.mark.cross_node
@pytest_twisted.ensureDeferred
async def test_the_firmware(daemon: Daemon) -> None:
    """The ESP8266 firmware, which sends no requestId, gets through its whole conversation."""
    admin = await daemon.login()
    user = await make_client(admin, "esp", 1)
    device = await daemon.far.connect("/device")

    async def say(action: str, **fields: Any) -> dict[str, Any]:
        device.send({"action": action, **fields})
        reply: dict[str, Any] = await device.next()
        assert (reply["action"], reply["status"]) == (action, "success"), reply
        assert reply["requestId"] is None
        return reply

    access = (await say("token/refresh", refreshToken=token(t=0, u=user)))["accessToken"]
    await say("authenticate", token=access, deviceId="esp-1")
    old = {"name": "esp", "key": "k", "status": "Online", "deviceClass": {"name": "e"}}
    await say("device/save", deviceId="esp-1", deviceKey="k", device=old)
    await say("command/subscribe", deviceId="esp-1")
    for parameters in ({"pin": 1}, None):
        sent = await command(admin, "esp-1", "gpio/write", parameters=parameters)
        push = await device.next()
        assert (push["action"], push["command"]["id"]) == ("command/insert", sent["id"])
        result = {"status": "OK", "result": {"value": 1}}
        await say("command/update", deviceId="esp-1", commandId=sent["id"], command=result)
        got = await ok(admin, "command/get", deviceId="esp-1", commandId=sent["id"])
        assert got["command"]["status"] == "OK"
    await say("notification/insert", deviceId="esp-1", notification={"notification": "gpio/int"})
