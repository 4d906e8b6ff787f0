"""What a plugin gets on the proxy: the form of messages, whose, in which order, and replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from gatewayd.api.devicehive.timestamps import parse_timestamp
from tests.api.gate import Gate, broken
from tests.api.plugins import (
    COMMAND,
    NOTIFICATION,
    UPDATE,
    Registered,
    attach,
    brief,
    change,
    client_token,
    done,
    heard,
    listen,
    message,
    register,
    shown,
)
from tests.api.scene import (
    answer,
    closing,
    command,
    holder,
    make_network,
    make_type,
    notify,
    ok,
    read_on,
    save_device,
    stop_reading,
    until,
)
from tests.harness import Daemon, Socket, make_settings

#: Parameters that are hard to write inside a string.
ODD: dict[str, Any] = {"text": 'a"b\\c\n\u2028ä🙂', "more": [1.50, None, {"": {}}]}


def stamp(inner: dict[str, Any]) -> str:
    """Return the time of a message."""
    body = inner["b"]
    time: str = body.get("notification", body.get("command"))["timestamp"]
    return time


async def talk(admin: Socket, device_id: str, name: str) -> None:
    """Let a device say something, be told something, and answer, each by that name."""
    await notify(admin, device_id, name)
    number = (await command(admin, device_id, name))["id"]
    await answer(admin, device_id, number, "done")


def all_of(device_id: str, name: str) -> list[tuple[int, str, str]]:
    """Return what a plugin hears of :func:`talk`."""
    return [(action, device_id, name) for action in (NOTIFICATION, COMMAND, UPDATE)]


@pytest_twisted.ensureDeferred
async def test_form(daemon: Daemon) -> None:
    """A message is what every other reader gets, with the number of the plugin's subscription."""
    admin = await holder(daemon)
    plugins = [await register(daemon), await register(daemon)]
    sockets = [await listen(daemon, plugin) for plugin in plugins]
    numbers = [str((await shown(daemon, plugin))["subscriptionId"]) for plugin in plugins]
    assert len(set(numbers)) == 2
    await save_device(admin, "dev", data=ODD)
    asked = {"deviceId": "dev"}
    note = await notify(admin, "dev", 'näme"', parameters=ODD)
    sent = await command(admin, "dev", "näme", parameters=ODD, lifetime=60)
    new = (await ok(admin, "command/get", **asked, commandId=sent["id"]))["command"]
    body = {"status": "done\\", "result": ODD}
    await ok(admin, "command/update", **asked, commandId=sent["id"], command=body)
    updated = (await ok(admin, "command/get", **asked, commandId=sent["id"]))["command"]
    shown_note = await ok(admin, "notification/get", **asked, notificationId=note["id"])
    assert (new["parameters"], updated["result"]) == (ODD, ODD)
    for socket, number in zip(sockets, numbers, strict=True):
        got = [await message(socket) for _ in range(4)]
        assert [inner["cId"] for inner in got] == [number] * 4
        announced = got.pop(0)["b"]["notification"]
        assert announced["notification"] == "$device-add"
        assert (announced["networkId"], announced["deviceTypeId"]) == (None, None)
        assert announced["parameters"]["data"] == ODD
        assert [inner["b"] for inner in got] == [
            {"a": NOTIFICATION, "notification": shown_note["notification"]},
            {"a": COMMAND, "command": {**new, "isUpdated": False}},
            {"a": UPDATE, "command": {**updated, "isUpdated": True}},
        ]


@pytest_twisted.ensureDeferred
async def test_filters(daemon: Daemon) -> None:
    """A plugin hears what passes every part of its filter."""
    admin = await holder(daemon)
    network, type_ = await make_network(admin, "n"), await make_type(admin, "t")
    everything = [
        *all_of("A", "a"), *all_of("A", "b"), *all_of("B", "a"), *all_of("c", "b"),
    ]  # fmt: skip
    listeners = []
    for query, wanted in (
        ({}, everything),
        ({"returnCommands": True}, [each for each in everything if each[0] == COMMAND]),
        ({"returnUpdatedCommands": True}, [each for each in everything if each[0] == UPDATE]),
        ({"returnNotifications": True, "returnCommands": True, "returnUpdatedCommands": False},
         [each for each in everything if each[0] != UPDATE]),
        ({"networkIds": f"{network},99"}, all_of("B", "a")),
        ({"deviceTypeIds": type_}, [*all_of("B", "a"), *all_of("c", "b")]),
        ({"deviceTypeIds": type_, "networkIds": 1}, all_of("c", "b")),
        ({"deviceId": "a"}, [*all_of("A", "a"), *all_of("A", "b")]),
        ({"deviceId": "C"}, all_of("c", "b")),
        ({"deviceId": "nowhere"}, []),
        ({"names": "a,x"}, [*all_of("A", "a"), *all_of("B", "a")]),
        ({"names": "$device-add"}, []),
        ({"names": "b", "deviceId": "A", "networkIds": "1", "deviceTypeIds": "1",
          "returnNotifications": True}, [(NOTIFICATION, "A", "b")]),
        ({"names": "b", "deviceId": "B"}, []),
    ):  # fmt: skip
        plugin = await register(daemon, **query)
        listeners.append((await listen(daemon, plugin), query, wanted))
    await save_device(admin, "A", networkId=1, deviceTypeId=1)
    await save_device(admin, "B", networkId=network, deviceTypeId=type_)
    await save_device(admin, "c", networkId=1, deviceTypeId=type_)  # a filter waited for it
    for device_id, name in (("A", "a"), ("A", "b"), ("B", "a"), ("c", "b")):
        await talk(admin, device_id, name)
    for socket, query, wanted in listeners:
        assert await heard(socket) == wanted, query


@pytest_twisted.ensureDeferred
async def test_subscribing(daemon: Daemon) -> None:
    """Who has not subscribed hears nothing; who has done so twice hears each message once."""
    admin = await holder(daemon)
    await save_device(admin, "dev")
    plugin = await register(daemon)
    socket, other = await attach(daemon, plugin), await listen(daemon, plugin)
    topics = {"t": [plugin.topic]}
    for actions, audible in (
        ((), False), (("create",), False), (("subscribe",), True), (("subscribe",), True),
        (("unsubscribe",), False), (("unsubscribe",), False), (("subscribe", "subscribe"), True),
    ):  # fmt: skip
        for action in actions:
            await done(socket, "topic", action, **topics)
        await talk(admin, "dev", "a")
        assert await heard(socket) == (all_of("dev", "a") if audible else []), actions
        assert await heard(other) == all_of("dev", "a")


@pytest_twisted.ensureDeferred
async def test_rights(daemon: Daemon) -> None:
    """A plugin hears what its owner may see, as that is now."""
    admin = await holder(daemon)
    here, there = await make_network(admin, "here"), await make_network(admin, "there")
    owner = await client_token(admin, "owner", here)
    await save_device(admin, "near", networkId=here)
    await save_device(admin, "far", networkId=there)
    plugin = await register(daemon, owner)
    narrow = await register(daemon, owner, deviceId="far")
    socket, deaf = await listen(daemon, plugin), await listen(daemon, narrow, timestamp=0)

    async def audible() -> set[str]:
        for device_id in ("near", "far"):
            await talk(admin, device_id, "a")
        assert {device for _, device, _ in await heard(deaf)} <= {"far"}
        return {device for _, device, _ in await heard(socket)}

    async def user(action: str, **fields: Any) -> None:
        await ok(admin, f"user/{action}", userId=2, **fields)

    assert await audible() == {"near"}
    await user("assignNetwork", networkId=there)
    assert await audible() == {"near", "far"}
    await user("unassignNetwork", networkId=here)
    assert await audible() == {"far"}
    for status in (1, 2):
        await user("update", user={"status": status})
        assert await audible() == set()
        await user("update", user={"status": 0})
        assert await audible() == {"far"}
    await user("unassignNetwork", networkId=there)
    assert await audible() == set()


@pytest_twisted.ensureDeferred
async def test_turned_off_and_on(daemon: Daemon) -> None:
    """A connected plugin is silent while it is inactive, and follows what changed meanwhile."""
    admin = await holder(daemon)
    await save_device(admin, "dev")
    plugin = await register(daemon)
    sockets = [await listen(daemon, plugin) for _ in range(2)]
    numbers: set[str] = set()

    async def check(name: str, audible: bool) -> None:
        await talk(admin, "dev", name)
        number = (await shown(daemon, plugin))["subscriptionId"]
        for socket in sockets:
            await done(socket, "health", None)
            numbers.update({(await message(socket))["cId"], str(number)} if audible else ())
            assert await heard(socket) == (all_of("dev", name)[1:] if audible else [])

    await check("1", True)
    await change(daemon, plugin, status="INACTIVE")
    await check("2", False)
    await change(daemon, plugin, status="ACTIVE")
    await check("3", True)
    await change(daemon, plugin, name="renamed")
    await check("4", True)
    await change(daemon, plugin, status="INACTIVE", names="x,y")
    await change(daemon, plugin, deviceId="dev", names="y")
    await change(daemon, plugin, status="ACTIVE")
    await check("x", False)
    await check("y", True)
    assert len(numbers) == 3


@pytest_twisted.ensureDeferred
async def test_order(daemon: Daemon) -> None:
    """The messages of a device arrive in their order, with several devices and senders."""
    senders = [await holder(daemon) for _ in range(3)]
    devices = [await save_device(senders[0], f"d{number}") for number in range(3)]
    plugin = await register(daemon)
    sockets = [await listen(daemon, plugin) for _ in range(2)]
    for number in range(120):
        for device_id in devices:
            note = {"notification": f"{number:03}"}
            request = {"action": "notification/insert", "deviceId": device_id, "notification": note}
            senders[number // 40].send(request)
    replies = [await sender.next() for sender in senders for _ in range(120)]
    assert {reply["status"] for reply in replies} == {"success"}
    for socket in sockets:
        got = [await message(socket) for _ in range(360)]
        for device_id in devices:
            mine = [inner for inner in got if brief(inner)[1] == device_id]
            stamps = [stamp(inner) for inner in mine]
            assert stamps == sorted(set(stamps))
            assert len({brief(inner)[2] for inner in mine}) == 120
            for part in range(3):
                names = [n for _, _, n in map(brief, mine) if int(n) // 40 == part]
                assert names == sorted(names)
        assert await heard(socket) == []


async def flood(admin: Socket, numbers: range) -> None:
    """Insert notifications without waiting in between."""
    for number in numbers:
        note = {"notification": f"{number:03}"}
        admin.send({"action": "notification/insert", "deviceId": "dev", "notification": note})
    for _ in numbers:
        assert (await admin.next())["status"] == "success"


async def follow(socket: Socket, numbers: range) -> str:
    """Check that the messages of :func:`flood` arrive; return the time of the last."""
    got = [await message(socket) for _ in numbers]
    assert [brief(inner)[2] for inner in got] == [f"{number:03}" for number in numbers]
    return stamp(got[-1])


@pytest_twisted.ensureDeferred
async def test_replay(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscription may begin in the past: each message comes once, in order, after the reply."""
    admin = await holder(daemon)
    await save_device(admin, "dev")
    plugin = await register(daemon, names=",".join(f"{number:03}" for number in range(900)))
    socket = await listen(daemon, plugin)
    await flood(admin, range(20))
    last = await follow(socket, range(20))
    await socket.bye()
    await flood(admin, range(20, 50))
    gate = Gate(monkeypatch, "history.read", after=True)
    socket = await listen(daemon, plugin, timestamp=last)
    assert socket.pushes == []
    await until(gate.entered.is_set)
    await flood(admin, range(50, 400))  # more than what is kept while the log is read
    gate.opened.set()
    await flood(admin, range(400, 410))
    last = await follow(socket, range(20, 410))
    # Again on the same connection, in each form of a timestamp; it is no second subscription.
    for form in (last, f"{last}Z", parse_timestamp(last)):
        topics = {"t": [plugin.topic]}
        told = await done(socket, "topic", "subscribe", **topics, timestamp=form)
        assert told == topics
    await flood(admin, range(410, 420))
    await follow(socket, range(410, 420))
    await done(socket, "topic", "subscribe", **topics, timestamp=last)
    await follow(socket, range(410, 420))
    await flood(admin, range(420, 421))
    await follow(socket, range(420, 421))
    assert await heard(socket) == []


@pytest_twisted.ensureDeferred
async def test_replay_within_the_filter(daemon: Daemon) -> None:
    """What is replayed passes the filter, and is of all kinds."""
    admin = await holder(daemon)
    begun = (await ok(admin, "server/info"))["info"]["serverTimestamp"]
    for device_id in ("dev", "other"):
        await save_device(admin, device_id)
        await talk(admin, device_id, "a")
        await talk(admin, device_id, "b")
    wide, narrow = await register(daemon), await register(daemon, deviceId="DEV", names="b")

    async def replayed(plugin: Registered, count: int) -> list[tuple[int, str, str]]:
        socket = await listen(daemon, plugin, timestamp=begun)
        found = [brief(await message(socket)) for _ in range(count)]
        assert await heard(socket) == []
        return found

    assert sorted(await replayed(narrow, 3)) == sorted(all_of("dev", "b"))
    found = await replayed(wide, 14)
    assert sorted(each for each in found if each[2] != "$device-add") == sorted(
        [*all_of("dev", "a"), *all_of("dev", "b"), *all_of("other", "a"), *all_of("other", "b")]
    )


@pytest_twisted.ensureDeferred
async def test_replay_fails(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin that would miss something because the log cannot be read is disconnected."""
    plugin = await register(daemon)

    broken(monkeypatch, "history.read", "disk I/O error")
    socket = await listen(daemon, plugin, timestamp=0)
    assert await closing(socket) == (1011, "replay failed")


@pytest_twisted.ensureDeferred
async def test_slow_plugin(tmp_path: Path) -> None:
    """A plugin that stops reading is closed with 1013, and misses nothing when it comes back."""
    daemon = Daemon(make_settings(tmp_path / "gatewayd.db", send_window=500_000))
    await daemon.start()
    try:
        admin = await holder(daemon)
        await save_device(admin, "dev")
        plugin, other = await register(daemon), await register(daemon)
        slow, quick = await listen(daemon, plugin), await listen(daemon, other)
        stop_reading(slow)
        sent = 0
        while (await shown(daemon, plugin))["status"] == "ACTIVE":
            for _ in range(20):
                await notify(admin, "dev", f"n{sent}", parameters={"x": "x" * 50_000})
                assert brief(await message(quick))[2] == f"n{sent}"
                sent += 1
            assert sent < 2000
        read_on(slow)
        assert await closing(slow) == (1013, "slow consumer")
        got = [await message(slow) for _ in range(len(slow.received.pending))]
        assert [brief(inner)[2] for inner in got] == [f"n{number}" for number in range(len(got))]
        again = await listen(daemon, plugin, timestamp=stamp(got[-1]))
        for number in range(len(got), sent):
            assert brief(await message(again))[2] == f"n{number}"
    finally:
        await daemon.stop()
