"""Many requests, slow readers, repeated requests: order, backpressure, idempotency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from tests.api.gate import Gate
from tests.api.scene import (
    closing,
    command,
    make_client,
    named,
    notify,
    ok,
    read_on,
    save_device,
    stop_reading,
    subscribe,
    token,
    until,
)
from tests.harness import Daemon, Socket, make_settings


async def next_replies(socket: Socket, count: int) -> list[dict[str, Any]]:
    """Return the next replies, without the pushes between them."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        message = await socket.next()
        if "status" in message:
            found.append(message)
    return found


def mixed(number: int) -> dict[str, Any]:
    """Return one of a sequence of requests of all kinds."""
    kinds: list[dict[str, Any]] = [
        {"action": "notification/insert", "deviceId": "dev", "notification": {"notification": "n"}},
        {"action": "server/info"},
        {"action": "command/insert", "deviceId": "DEV", "command": {"command": "c"}},
        {"action": "device/get", "deviceId": "dev"},
        {"action": "notification/insert", "deviceId": "no", "notification": {"notification": "n"}},
        {"action": "nope"},
        {"action": "notification/subscribe", "names": ["other"]},
        {"action": "token", "login": "dhadmin", "password": "dhadmin_#911"},
        {"action": "command/list", "deviceId": "dev", "take": 1},
        {"action": "command/update", "deviceId": "dev", "commandId": 1},
        {"action": "device/save", "deviceId": "dev", "device": {"name": "x"}},
        {"action": "notification/unsubscribe"},
        {"action": "notification/insert", "deviceId": "dev"},
        {"action": "notification/insert", "deviceId": "dev", "notification": {"notification": ""}},
    ]
    return {**kinds[number * 5 % len(kinds)], "requestId": number}


@pytest.mark.parametrize("in_flight", [1, 2, 7, 256])
@pytest_twisted.ensureDeferred
async def test_replies_keep_the_order(tmp_path: Path, in_flight: int) -> None:
    """Replies leave in the order of the requests, however many are sent and few may be open."""
    daemon = Daemon(make_settings(tmp_path / "gatewayd.db", in_flight=in_flight))
    await daemon.start()
    try:
        socket = await daemon.login()
        await save_device(socket, "dev")
        for number in range(500):
            socket.send(mixed(number))
        replies = await next_replies(socket, 500)
        assert [reply["requestId"] for reply in replies] == list(range(500))
        assert [reply["action"] for reply in replies] == [mixed(n)["action"] for n in range(500)]
        inserted = sum("notification" in reply for reply in replies)
        listed = await ok(socket, "notification/list", deviceId="dev", take=10_000)
        saves = sum(reply["action"] == "device/save" for reply in replies)
        assert len(listed["notifications"]) == inserted + saves + 1
    finally:
        await daemon.stop()


@pytest_twisted.ensureDeferred
async def test_what_follows_sees_what_came_before(daemon: Daemon) -> None:
    """A request sees the effect of every request before it on the same connection."""
    socket = await daemon.login()
    for number in range(20):
        device_id = f"dev-{number}"
        socket.send({"action": "device/save", "deviceId": device_id, "device": {"name": "x"}})
        note = {"notification": "n"}
        socket.send({"action": "notification/insert", "deviceId": device_id, "notification": note})
        socket.send({"action": "notification/list", "deviceId": device_id})
        socket.send({"action": "device/delete", "deviceId": device_id})
        socket.send({"action": "device/get", "deviceId": device_id})
        replies = await next_replies(socket, 5)
        assert [reply.get("code", 0) for reply in replies] == [0, 0, 0, 0, 404]
        names = [note["notification"] for note in replies[2]["notifications"]]
        assert names == ["n", "$device-add"]


@pytest.mark.parametrize("first", ["DEV", "dev"])
@pytest_twisted.ensureDeferred
async def test_inserts_are_recorded_in_order(daemon: Daemon, first: str) -> None:
    """Messages of one connection are recorded in the order sent, however the device is spelt."""
    socket = await daemon.login()
    await save_device(socket, "dev")
    for number in range(10):
        for half, device_id in enumerate((first, "dev")):
            note = {"notification": f"n{number}.{half}"}
            socket.send(
                {"action": "notification/insert", "deviceId": device_id, "notification": note}
            )
    await next_replies(socket, 20)
    listed = await ok(socket, "notification/list", deviceId="dev", sortOrder="asc", take=100)
    names = [note["notification"] for note in listed["notifications"]]
    assert names[1:] == [f"n{number}.{half}" for number in range(10) for half in range(2)]


@pytest_twisted.ensureDeferred
async def test_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many open requests as allowed nothing more is read; then all have their replies."""
    daemon = Daemon(make_settings(tmp_path / "gatewayd.db", in_flight=4))
    await daemon.start()
    try:
        socket, other = await daemon.login(), await daemon.login()
        await save_device(socket, "dev")
        gate = Gate(monkeypatch, "groups.find")
        socket.send({"action": "network/list", "requestId": 0})
        for number in range(1, 100):
            socket.send({"action": "server/info", "requestId": number})
        await until(gate.entered.is_set)
        api = daemon.gateway._apis["devicehive"][0]
        sessions = api._factories[""].sessions  # type: ignore[attr-defined]
        await until(lambda: any(not each._reading for each in sessions))
        assert max(len(each.lane._waiting) + len(each.lane._running) for each in sessions) == 4
        await ok(other, "server/info")
        gate.opened.set()
        replies = await next_replies(socket, 100)
        assert [reply["requestId"] for reply in replies] == list(range(100))
    finally:
        await daemon.stop()


@pytest_twisted.ensureDeferred
async def test_a_slow_reader(tmp_path: Path) -> None:
    """Who stops reading is closed with 1013 once its window is full; the others miss nothing."""
    daemon = Daemon(make_settings(tmp_path / "gatewayd.db", send_window=100_000))
    await daemon.start()
    try:
        admin, slow, quick = [await daemon.login() for _ in range(3)]
        await save_device(admin, "dev")
        for socket in (slow, quick):
            await subscribe(socket, "notification", deviceId="dev")
        api = daemon.gateway._apis["devicehive"][0]
        sessions = api._factories[""].sessions  # type: ignore[attr-defined]
        stop_reading(slow)
        sent = 0
        text = "x" * 50_000
        while not any(each.localCloseCode == 1013 for each in sessions):
            await notify(admin, "dev", f"n{sent}", parameters={"x": text})
            assert max(each._waiting for each in sessions) <= 200_000
            sent += 1
            assert named(await quick.push()) == f"n{sent - 1}"
            assert sent < 2000
        read_on(slow)
        assert (await closing(slow))[0] == 1013
        # What it was sent has no gap, and the rest comes by replay.
        seen = [await slow.next() for _ in range(len(slow.received.pending))]
        assert [named(push) for push in seen] == [f"n{number}" for number in range(len(seen))]
        assert len(seen) < sent
        again = await daemon.login()
        last = seen[-1]["notification"]["timestamp"]
        await subscribe(again, "notification", deviceId="dev", timestamp=last)
        for number in range(len(seen), sent):
            assert named(await again.push()) == f"n{number}"
    finally:
        await daemon.stop()


@pytest_twisted.ensureDeferred
async def test_a_replay_waits_for_its_reader(tmp_path: Path) -> None:
    """A replay is larger than the window, and still does not close a reader that goes on."""
    daemon = Daemon(make_settings(tmp_path / "gatewayd.db", send_window=500_000))
    await daemon.start()
    try:
        admin, reader = await daemon.login(), await daemon.login()
        await save_device(admin, "dev")
        text = "x" * 20_000
        for number in range(300):
            await notify(admin, "dev", f"n{number}", parameters={"x": text})
        await subscribe(reader, "notification", deviceId="dev", timestamp=0)
        stop_reading(reader)
        for _ in range(20):
            await ok(admin, "server/info")
        read_on(reader)
        for number in range(300):
            assert named(await reader.push()) == f"n{number}"
    finally:
        await daemon.stop()


def with_key(action: str, key: str, name: str, device_id: str = "dev") -> dict[str, Any]:
    """Return an insert that is marked with an idempotency key."""
    noun = action.partition("/")[0]
    return {"deviceId": device_id, noun: {noun: name}, "idempotencyKey": key}


@pytest.mark.parametrize("action", ["notification/insert", "command/insert"])
@pytest_twisted.ensureDeferred
async def test_repeated_requests(daemon: Daemon, action: str) -> None:
    """A request with a key that was used already returns the original and records nothing."""
    admin, listener = await daemon.login(), await daemon.login()
    noun = action.partition("/")[0]
    await save_device(admin, "dev")
    await subscribe(listener, noun, deviceId="dev")
    original = (await ok(admin, action, **with_key(action, "k", "first")))[noun]
    for socket in (admin, await daemon.login()):
        again = await ok(socket, action, **with_key(action, "k", "second"))
        assert again[noun] == original
    # In one batch, too.
    for _ in range(3):
        admin.send({"action": action, **with_key(action, "k2", "third")})
    assert len({reply[noun]["id"] for reply in await next_replies(admin, 3)}) == 1
    await (command if noun == "command" else notify)(admin, "dev", "marker")
    assert [named(await listener.push()) for _ in range(3)] == ["first", "third", "marker"]
    # Keys are their owners': another user's is another key.
    await make_client(admin, "cli", 1)
    client = await daemon.login("cli", "cli_#911")
    mine = await ok(client, action, **with_key(action, "k", "mine"))
    assert mine[noun]["id"] != original["id"]


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("second", [("command", "dev"), ("notification", "other")])
@pytest_twisted.ensureDeferred
async def test_a_key_used_for_something_else(
    daemon: Daemon, second: tuple[str, str], batched: bool
) -> None:
    """A key that marked another kind of message, or another device's, is no original of this."""
    admin = await daemon.login()
    for device_id in ("dev", "other"):
        await save_device(admin, device_id)
    replies = []
    for noun, device_id in (("notification", "dev"), second):
        action = f"{noun}/insert"
        admin.send({"action": action, **with_key(action, "k", "n", device_id)})
        if not batched:
            replies += await next_replies(admin, 1)
    replies = replies or await next_replies(admin, 2)
    assert replies[0]["status"] == "success"
    # Either refused, or recorded: never answered with what was not recorded.
    assert replies[1].get("code", 0) < 500
    if replies[1]["status"] == "success":
        noun, device_id = second
        number = replies[1][noun]["id"]
        await ok(admin, f"{noun}/get", deviceId=device_id, **{f"{noun}Id": number})


@pytest_twisted.ensureDeferred
async def test_tokens_are_not_mixed_up(daemon: Daemon) -> None:
    """Requests in flight when a session authenticates anew act for whom they were sent by."""
    socket = await daemon.login()
    await save_device(socket, "dev")
    narrow = token(a=[3])
    note = {"notification": "n"}
    for number in range(30):
        insert = {"action": "notification/insert", "deviceId": "dev", "notification": note}
        socket.send({**insert, "requestId": number})
        socket.send({"action": "authenticate", "token": token() if number % 2 else narrow})
    replies = await next_replies(socket, 60)
    codes = [reply.get("code", 0) for reply in replies[::2]]
    assert codes == [0] + [403, 0] * 14 + [403]
