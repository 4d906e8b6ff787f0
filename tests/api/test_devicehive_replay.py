"""Replay after a timestamp, and the commands that wait for a device."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import pytest_twisted

from gatewayd.api.devicehive.timestamps import format_timestamp, parse_timestamp
from tests.api.gate import Gate
from tests.api.scene import (
    answer,
    command,
    fails,
    named,
    names_until,
    notify,
    ok,
    pushed,
    save_device,
    subscribe,
    until,
)
from tests.harness import PATIENCE, Daemon, Socket


async def start(daemon: Daemon) -> tuple[Socket, Socket]:
    """Return a sender and a listener, with device ``dev``."""
    admin, listener = await daemon.login(), await daemon.far.login()
    await save_device(admin, "dev")
    await daemon.level()
    return admin, listener


def stamp(push: dict[str, Any]) -> str:
    """Return the time of the message in a push."""
    time: str = push["notification" if "notification" in push else "command"]["timestamp"]
    return time


async def flood(socket: Socket, count: int, prefix: str, device_id: str = "dev") -> list[str]:
    """Insert many notifications without waiting in between; return their timestamps."""
    for number in range(count):
        note = {"notification": f"{prefix}{number}"}
        socket.send({"action": "notification/insert", "deviceId": device_id, "notification": note})
    replies: list[str] = []
    while len(replies) < count:
        message = await socket.next()
        if message["action"] == "notification/insert" and "status" in message:
            replies.append(message["notification"]["timestamp"])
    return replies


@pytest.mark.cross_node
@pytest.mark.parametrize("type_", ["command", "notification"])
@pytest_twisted.ensureDeferred
async def test_strictly_after(daemon: Daemon, type_: str) -> None:
    """Replay begins after the timestamp given, not at it, and brings the rest oldest first."""
    admin, listener = await start(daemon)
    insert = command if type_ == "command" else notify
    stamps = [(await insert(admin, "dev", f"m{n}"))["timestamp"] for n in range(5)]
    assert sorted(set(stamps)) == stamps
    forms = [stamps[2], f"{stamps[2]}Z", parse_timestamp(stamps[2])]
    forms += [str(forms[2]), f"{stamps[2]}999999", format_timestamp(parse_timestamp(stamps[2]))]
    for form in forms:
        # Commands without a device: whoever names one is taken for it, and gets what waits too.
        await subscribe(listener, type_, timestamp=form)
        assert [named(await listener.push()) for _ in range(2)] == ["m3", "m4"]
    await subscribe(listener, type_, timestamp=stamps[4])
    await subscribe(listener, type_, timestamp="9999-12-31")
    await insert(admin, "dev", "marker")
    marks = [named(await listener.push()) for _ in range(len(forms) + 2)]
    assert marks == ["marker"] * (len(forms) + 2)


@pytest.mark.cross_node
@pytest_twisted.ensureDeferred
async def test_reply_comes_first(daemon: Daemon) -> None:
    """The reply to a subscribe leaves before the first replayed message."""
    admin, listener = await start(daemon)
    await notify(admin, "dev", "n")
    await command(admin, "dev", "c")
    for type_ in ("command", "notification"):
        for device_id in (None, "dev"):
            listener.send(
                {"action": f"{type_}/subscribe", "deviceId": device_id, "timestamp": 0,
                 "names": ["n", "c"]}
            )  # fmt: skip
            reply, push = await listener.next(), await listener.next()
            assert reply["status"] == "success"
            assert push["subscriptionId"] == reply["subscriptionId"]


@pytest.mark.cross_node
@pytest.mark.parametrize("device_id", ["dev", None])
@pytest_twisted.ensureDeferred
async def test_complete(daemon: Daemon, device_id: str | None) -> None:
    """A replay of more than a thousand messages has all of them, in order, once."""
    admin, listener = await start(daemon)
    stamps = await flood(admin, 1234, "n")
    fields = {"deviceId": device_id, "timestamp": 0}
    await subscribe(listener, "notification", **fields)
    await notify(admin, "dev", "marker")
    pushes = [push for push in await pushed(listener, "marker") if named(push) != "$device-add"]
    assert [named(push) for push in pushes] == [f"n{number}" for number in range(1234)]
    assert [stamp(push) for push in pushes] == stamps == sorted(set(stamps))


LIMITS = ((1, 1), (4, 4), (6, 6), (100, 6), (0, 6), ("2", 2), (None, 6))


@pytest.mark.parametrize("type_", ["command", "notification"])
@pytest_twisted.ensureDeferred
async def test_limit(daemon: Daemon, type_: str) -> None:
    """A limit cuts the replay after its oldest messages; live ones follow all the same."""
    admin, listener = await start(daemon)
    insert = command if type_ == "command" else notify
    for number in range(6):
        await insert(admin, "dev", f"m{number}")
    names = [*(f"m{number}" for number in range(6)), "marker"]
    for limit, count in LIMITS:
        await subscribe(listener, type_, timestamp=0, limit=limit, names=names)
        await insert(admin, "dev", "marker")
        assert await names_until(listener, "marker") == names[:count], limit
        await ok(listener, f"{type_}/unsubscribe")
        await ok(admin, "device/delete", deviceId="dev")
        await save_device(admin, "dev")
        for each in range(6):
            await insert(admin, "dev", f"m{each}")
    assert await fails(listener, f"{type_}/subscribe", limit=-1) == (
        400, "Limit can't be less than 0.",
    )  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_limit_spares_live_messages(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit is for what was recorded before; what comes while the log is read is not cut."""
    admin, device = await start(daemon)
    for name in ("a", "b"):
        await command(admin, "dev", name)
    gate = Gate(monkeypatch, "history.pending")
    await subscribe(device, "command", deviceId="dev", timestamp=1, limit=1, names=["x", "a", "b"])
    await until(gate.entered.is_set)
    await command(admin, "dev", "x")
    gate.opened.set()
    seen = [named(await device.push()) for _ in range(2)]
    assert seen == ["a", "x"]


@pytest.mark.cross_node
@pytest.mark.parametrize("device_id", ["dev", None])
@pytest_twisted.ensureDeferred
async def test_while_writes_go_on(daemon: Daemon, device_id: str | None) -> None:
    """Subscribing in the midst of writes leaves no gap, no duplicate and no disorder."""
    admin, listener = await start(daemon)
    other = await daemon.login()
    await flood(admin, 300, "early")
    for number in range(700):
        for socket, prefix in ((admin, "x"), (other, "y")):
            note = {"notification": f"{prefix}{number}"}
            socket.send({"action": "notification/insert", "deviceId": "dev", "notification": note})
        if number in (100, 300, 500):
            listener.send(
                {"action": "notification/subscribe", "deviceId": device_id, "timestamp": 0}
            )
    for socket in (admin, other):
        replies = [await socket.next() for _ in range(700)]
        assert {reply["status"] for reply in replies} == {"success"}
    await notify(admin, "dev", "marker")
    seen: dict[int, list[str]] = {}
    stamps: dict[int, list[str]] = {}
    marked = 0
    while marked < 3:
        push = await listener.next()
        if "status" in push:
            continue
        number = push["subscriptionId"]
        seen.setdefault(number, []).append(named(push))
        stamps.setdefault(number, []).append(stamp(push))
        marked += named(push) == "marker"
    assert len(seen) == 3
    first = next(iter(seen.values()))
    assert len(first) - (device_id is None) == 300 + 1400 + 1
    for names in seen.values():
        assert names == first
    for each in stamps.values():
        assert each == sorted(set(each))
    assert [name for name in first if name[0] == "x"] == [f"x{number}" for number in range(700)]
    assert [name for name in first if name[0] == "y"] == [f"y{number}" for number in range(700)]


@pytest.mark.cross_node
@pytest_twisted.ensureDeferred
async def test_resuming(daemon: Daemon) -> None:
    """Who resumes from the last timestamp it saw has each message exactly once."""
    admin, _ = await start(daemon)
    seen: list[str] = []
    last: Any = 0
    for part in range(5):
        await flood(admin, 20, f"{part}-")
        listener = await daemon.far.login()
        await subscribe(listener, "notification", deviceId="dev", timestamp=last)
        await notify(admin, "dev", f"{part}-last")
        while not seen or seen[-1] != f"{part}-last":
            push = await listener.push()
            seen.append(named(push))
            last = stamp(push)
        await listener.bye()
    assert seen == [f"{p}-{n}" for p in range(5) for n in [*range(20), "last"]]


@pytest.mark.cross_node
@pytest.mark.parametrize("type_", ["command", "notification"])
@pytest_twisted.ensureDeferred
async def test_senders_timestamps(daemon: Daemon, type_: str) -> None:
    """A sender's earlier time is shown as it is, a later one is replaced by the gateway's own."""
    admin, listener = await start(daemon)
    insert = command if type_ == "command" else notify
    await subscribe(listener, type_)
    early = "2001-02-03T04:05:06.789"
    assert (await insert(admin, "dev", "old", timestamp=early))["timestamp"] == early
    now = daemon.core.wall()
    late = (await insert(admin, "dev", "late", timestamp="2999-01-01"))["timestamp"]
    assert now <= parse_timestamp(late) <= now + PATIENCE * 1000
    assert [stamp(await listener.push()) for _ in range(2)] == [early, late]
    listed = await ok(admin, f"{type_}/list", deviceId="dev", end="2002-01-01")
    assert [each["timestamp"] for each in listed[f"{type_}s"]] == [early]


async def waiting(daemon: Daemon, **fields: Any) -> list[str]:
    """Attach to device ``dev`` on a new socket; return the commands that come before a marker.

    The marker is a command too, as there is no order among different subscriptions; each has a
    name of its own, as a replay brings those before it again.
    """
    device = await daemon.far.login()
    marker = f"marker {daemon.core.wall()}"
    if "names" in fields:
        fields["names"] = [*fields["names"], marker]
    await subscribe(device, "command", deviceId="dev", **fields)
    inserted = await command(device, "dev", marker)
    names = await names_until(device, marker)
    await answer(device, "dev", inserted["id"], "done")
    await device.bye()
    return [name for name in names if not name.startswith("marker")]


@pytest.mark.cross_node
@pytest_twisted.ensureDeferred
async def test_what_waits_for_a_device(daemon: Daemon) -> None:
    """A device gets at attach what was never pushed, pushed but not confirmed, and not answered."""
    admin, _ = await start(daemon)
    numbers = {name: (await command(admin, "dev", name))["id"] for name in ("a", "b", "c")}
    await answer(admin, "dev", numbers["b"], "done")
    assert await waiting(daemon, names=["c", "b"]) == ["c"]
    assert await waiting(daemon) == ["a", "c"]
    assert await waiting(daemon) == ["a", "c"]
    await answer(admin, "dev", numbers["a"], "done")
    await command(admin, "dev", "d")
    assert await waiting(daemon) == ["c", "d"]
    # With a timestamp the device knows what it has had; only what was never pushed is added.
    last = (await command(admin, "dev", "e"))["timestamp"]
    await command(admin, "dev", "f")
    assert await waiting(daemon, timestamp=last) == ["e", "f"]
    assert await waiting(daemon, timestamp=last) == ["f"]


@pytest_twisted.ensureDeferred
async def test_confirmed_by_pong(daemon: Daemon) -> None:
    """A command counts as arrived once a ping sent after it was answered."""
    admin, device = await start(daemon)
    await command(admin, "dev", "early")
    await subscribe(device, "command", deviceId="dev")
    assert named(await device.push()) == "early"
    ponged: list[bytes] = []
    confirmed = threading.Event()
    answered = device.onPing

    def on_ping(payload: bytes) -> None:
        ponged.append(payload)
        answered(payload)
        confirmed.set()

    device.onPing = on_ping  # type: ignore[method-assign]
    for session in daemon.gateway._apis["devicehive"][0]._factories[""].sessions:  # type: ignore[attr-defined]
        session.keep_alive()
    await until(confirmed.is_set)
    assert ponged == [b""]
    await ok(device, "server/info")
    await command(admin, "dev", "late")
    assert named(await device.push()) == "late"
    await device.bye()
    assert await waiting(daemon) == ["late"]


@pytest.mark.cross_node
@pytest_twisted.ensureDeferred
async def test_lifetime(daemon: Daemon) -> None:
    """A command whose lifetime is over is neither delivered nor replayed, but stays listed."""
    admin, listener = await start(daemon)
    await command(admin, "dev", "short", lifetime=1)
    await command(admin, "dev", "unlimited", lifetime=0)
    await command(admin, "dev", "long", lifetime=1000)
    await command(admin, "dev", "always")
    over = daemon.core.wall() + 1100
    await until(lambda: daemon.core.wall() > over)
    assert await waiting(daemon) == ["unlimited", "long", "always"]
    names = ["short", "unlimited", "long", "always", "marker"]
    await subscribe(listener, "command", timestamp=0, names=names)
    await command(admin, "dev", "marker")
    assert await names_until(listener, "marker") == ["unlimited", "long", "always"]
    listed = (await ok(admin, "command/list", deviceId="dev"))["commands"]
    # Newest first: both markers and "always" have none.
    assert [each["lifetime"] for each in listed] == [None, None, None, 1000, 0, 1]


@pytest_twisted.ensureDeferred
async def test_a_command_that_commits_during_attach(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that is committed while the waiting ones are read reaches the socket."""
    admin, device = await start(daemon)
    commit = Gate(monkeypatch, "commit")
    read = Gate(monkeypatch, "history.pending", after=True)
    admin.send({"action": "command/insert", "deviceId": "dev", "command": {"command": "between"}})
    await until(commit.entered.is_set)
    # The time of the command is set; the device attaches later, and does not see it yet.
    begun = daemon.core.wall()
    await until(lambda: daemon.core.wall() > begun)
    await subscribe(device, "command", deviceId="dev")
    await until(read.entered.is_set)
    commit.opened.set()
    assert (await admin.next())["status"] == "success"
    read.opened.set()
    await command(admin, "dev", "marker")
    assert await names_until(device, "marker") == ["between"]
