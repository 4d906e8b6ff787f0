"""Blocked devices: nothing goes to them and nothing comes from them, until they are unblocked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.access import ALL_ACTIONS, Action, Principal
from gatewayd.core.devices import DeviceChange
from gatewayd.core.gateway import Core
from gatewayd.core.model import CommandDraft, Device, GroupKind, Kind
from gatewayd.core.queries import DeviceQuery, Filter, Listing
from gatewayd.errors import Denied
from tests.core.bench import NOTES, Bench, Recorder, bounded, refused, together
from tests.core.delivery import Attached, attached, insert


async def set_blocked(bench: Bench, blocked: bool, device_id: str = "D") -> Device:
    """Block or unblock a device."""
    change = DeviceChange(blocked=blocked)
    return await bench.core.devices.save(bench.admin, device_id, change)


def denied(attempt: Callable[[], Any]) -> str:
    """Return why something is denied at once."""
    with pytest.raises(Denied) as caught:
        attempt()
    return caught.value.reason


def traffic(bench: Bench, principal: Principal, device: Device) -> list[Callable[[], Any]]:
    """Return everything that passes to a device or comes from it."""
    commands = bench.core.commands
    return [
        lambda: bench.core.notifications.insert(principal, device, "n", None),
        lambda: commands.insert(principal, device, "c", CommandDraft()),
        lambda: commands.update(principal, device, 1, "done", None),
        lambda: commands.attach(principal, device, None, Recorder()),
    ]


@bounded
async def test_no_traffic(bench: Bench) -> None:
    """A blocked device is refused whatever passes; who may not do that is told only this."""
    await bench.device()
    device = await set_blocked(bench, True)
    nobody = Principal(frozenset(), user=bench.admin.user)
    before = await bench.replay()
    for attempt in traffic(bench, bench.admin, device):
        assert denied(attempt) == "blocked"
    for attempt in traffic(bench, nobody, device):
        assert denied(attempt) == "action"
    assert await bench.replay() == before
    other = await bench.device("E")
    await bench.note(other)
    await insert(bench, other)


@bounded
async def test_what_is_left(bench: Bench, core: Core, sink: Recorder) -> None:
    """What was recorded before stays readable; the device can be found, changed and deleted."""
    device = await bench.device()
    note, command = await bench.note(device), await insert(bench, device)
    device = await set_blocked(bench, True)
    assert (await core.notifications.get(bench.admin, device, note.id)).seq == note.seq
    assert await core.commands.get(bench.admin, device, command.id) == command.command
    listing = Listing(stream=device.uid, kind=Kind.COMMAND)
    assert await core.commands.list(bench.admin, listing) == [command.command]
    listing = Listing(stream=device.uid, kind=Kind.NOTIFICATION, name="note")
    assert [each.seq for each in await core.notifications.list(bench.admin, listing)] == [note.seq]
    wanted = Filter(kinds=frozenset({Kind.NOTIFICATION, Kind.COMMAND}), stream=device.uid)
    await core.timeline.subscribe(wanted, bench.admin, sink).catch_up(0)
    assert sink.seqs == [note.seq, command.seq]
    assert await core.devices.get(bench.admin, Action.DEVICE_READ, "D") == device
    assert await core.devices.list(bench.admin, DeviceQuery()) == [device]
    assert (await core.devices.save(bench.admin, "D", DeviceChange(name="m"))).blocked
    await core.devices.delete(bench.admin, "D")
    assert await core.devices.count(bench.admin, DeviceQuery()) == 0


@bounded
async def test_unblocked(bench: Bench) -> None:
    """A device that is unblocked speaks and is spoken to again; so after a restart."""
    await bench.device()
    await set_blocked(bench, True)
    await bench.reopen()
    blocked = await bench.core.registry.device("D")
    assert blocked is not None
    assert denied(lambda: bench.note(blocked)) == "blocked"
    device = await set_blocked(bench, False)
    await bench.note(device)
    event = await insert(bench, device)
    assert await attached(bench, device) == ["go"]
    await bench.core.commands.update(bench.admin, device, event.id, "done", None)


@bounded
async def test_announced(bench: Bench, core: Core, sink: Recorder) -> None:
    """Blocking and unblocking are recorded and pushed like every change."""
    device = await bench.device()
    await bench.settle()
    core.timeline.subscribe(Filter(kinds=NOTES), bench.admin, sink).go_live()
    await set_blocked(bench, True)
    await set_blocked(bench, False)
    await bench.settle()
    assert sink.names == ["$device-update"] * 2
    told = [b'"isBlocked":true' in (event.body or b"") for event in sink.events]
    assert told == [True, False]
    recorded = [event.seq for event in await bench.replay(device)]
    assert recorded[-2:] == sink.seqs


@bounded
async def test_held_and_delivered_at_once(bench: Bench) -> None:
    """What waits when a device is blocked is held, and delivered once when it is unblocked."""
    device = await bench.device()
    sockets = [Attached(bench, device), Attached(bench, device, frozenset({"b"}))]
    for socket in sockets:
        await socket.deliver()
    await insert(bench, device, "a")
    await bench.settle()
    bench.gate.hold_publishing()
    await together(insert(bench, device, name) for name in "bc")
    await set_blocked(bench, True)
    await bench.settle()
    bench.gate.publish()
    await set_blocked(bench, True)
    assert [socket.sink.names for socket in sockets] == [["a"], []]
    device = await set_blocked(bench, False)
    assert [socket.sink.names for socket in sockets] == [["a", "b", "c"], ["b"]]
    await insert(bench, device, "d")
    await set_blocked(bench, False)
    await bench.settle()
    assert [socket.sink.names for socket in sockets] == [["a", "b", "c", "d"], ["b"]]


@bounded
async def test_held_is_not_counted_as_pushed(bench: Bench) -> None:
    """What was held for a socket that closes waits for the next one."""
    device = await bench.device()
    socket = Attached(bench, device)
    await socket.deliver()
    bench.gate.hold_publishing()
    await insert(bench, device)
    await set_blocked(bench, True)
    await bench.settle()
    bench.gate.publish()
    socket.subscription.close()
    device = await set_blocked(bench, False)
    assert socket.sink.names == []
    # With a time, only what was never written to a socket waits.
    assert await Attached(bench, device).deliver(since=bench.clock.now + 5000) == ["go"]


@pytest.mark.parametrize(("answer", "since"), [("pending", None), ("read", 0)])
@bounded
async def test_blocked_while_the_log_is_read(bench: Bench, answer: str, since: int | None) -> None:
    """A delivery that has begun stops, reads no further, and goes on after that."""
    device = await bench.device()
    names = [str(number) for number in range(1203)]
    await together(insert(bench, device, name) for name in names)
    socket = Attached(bench, device)
    bench.gate.hold(answer)
    done = socket.begin(since)
    await bench.gate.answered(answer)
    await set_blocked(bench, True)
    await bench.gate.release(answer)
    await bench.settle()
    assert socket.sink.names == []
    assert bench.gate.calls.count(answer) == 1
    await set_blocked(bench, False)
    await done
    assert socket.sink.names == names


@bounded
async def test_blocked_while_a_slow_socket_drains(bench: Bench) -> None:
    """A slow socket gets the rest when the device is unblocked and the socket takes more."""
    device = await bench.device()
    names = [str(number) for number in range(1203)]
    await together(insert(bench, device, name) for name in names)
    socket = Attached(bench, device)
    socket.sink.room = 1
    done = socket.begin()
    await bench.settle()
    had = len(socket.sink.events)
    await set_blocked(bench, True)
    socket.sink.drain(room=1)
    await bench.settle()
    assert len(socket.sink.events) == had
    assert not socket.courier.writable
    await set_blocked(bench, False)
    await bench.settle()
    assert had < len(socket.sink.events) <= had + 500
    socket.sink.drain()
    await done
    assert socket.sink.names == names


@pytest.mark.parametrize("end", ["close", "delete"])
@bounded
async def test_ends_while_blocked(bench: Bench, core: Core, end: str) -> None:
    """A delivery whose socket or device goes while it is held ends, and leaves nothing behind."""
    device = await bench.device()
    await together(insert(bench, device) for _ in range(600))
    socket = Attached(bench, device)
    bench.gate.hold("pending")
    done = socket.begin()
    await bench.gate.answered("pending")
    await set_blocked(bench, True)
    await bench.gate.release("pending")
    await bench.settle()
    assert not done.called
    if end == "close":
        socket.subscription.close()
    else:
        await core.devices.delete(bench.admin, "D")
    assert done.called
    assert (socket.sink.names, socket.sink.breaks) == ([], 0)
    assert core.commands._couriers == {}


@bounded
async def test_expired_while_held(bench: Bench) -> None:
    """A command whose lifetime ends while it is held is not delivered."""
    device = await bench.device()
    socket = Attached(bench, device)
    await socket.deliver()
    bench.gate.hold_publishing()
    event = await insert(bench, device, "short", lifetime=60)
    await insert(bench, device, "long", lifetime=61)
    await set_blocked(bench, True)
    await bench.settle()
    bench.gate.publish()
    bench.clock.now = event.ts + 60_000
    await set_blocked(bench, False)
    assert socket.sink.names == ["long"]


@bounded
async def test_network_lost_while_held(bench: Bench, core: Core) -> None:
    """Who loses the device's network does not get what was held."""
    device = await bench.device()
    client = await bench.client(bench.network)
    assert client.user is not None
    sink = Recorder()
    subscription, _ = core.commands.attach(client, device, None, sink)
    await core.commands.deliver(subscription, None)
    bench.gate.hold_publishing()
    await insert(bench, device)
    await set_blocked(bench, True)
    await bench.settle()
    bench.gate.publish()
    await core.users.assign(bench.admin, GroupKind.NETWORK, client.user.id, bench.network, False)
    await set_blocked(bench, False)
    assert sink.names == []


@bounded
async def test_in_flight_inserts(bench: Bench, core: Core) -> None:
    """What was sent before a device is known as blocked is answered before the blocking is."""
    await bench.device()
    order: list[str] = []
    bench.gate.hold("save_device")
    blocking = Deferred.fromCoroutine(set_blocked(bench, True))
    blocking.addCallback(lambda _: order.append("blocked"))
    await bench.gate.answered("save_device")
    device = core.registry.cached_device("D")
    assert device is not None  # stored as blocked, but nobody has heard of that yet
    sent: list[Deferred[Any]] = [
        bench.note(device), insert(bench, device),
        core.commands.update(bench.admin, device, (await insert(bench, device)).id, "x", None),
    ]  # fmt: skip
    for each in sent:
        each.addCallback(lambda _: order.append("sent"))
    await bench.gate.release("save_device")
    await blocking
    assert order == ["sent"] * 3 + ["blocked"]


@bounded
async def test_inserts_end(bench: Bench, core: Core) -> None:
    """However many writers are at it, none is told of success after the device is blocked."""
    stream = (await bench.device()).uid
    order: list[str] = []

    def write() -> None:
        device = core.registry.cached_device("D")
        assert device is not None
        try:
            recorded = bench.note(device)
        except Denied as error:
            order.append(error.reason)
        else:
            recorded.addCallback(lambda _: order.append("recorded")).addCallback(lambda _: write())

    for _ in range(20):
        write()
    while len(order) < 200:
        await bench.store.setting("")
    await Deferred.fromCoroutine(set_blocked(bench, True))
    recorded = order.count("recorded")
    await bench.settle()
    assert order.count("recorded") == recorded >= 200
    assert order.count("blocked") == 20
    listing = Listing(stream=stream, kind=Kind.NOTIFICATION, name="note")
    assert len(await core.notifications.list(bench.admin, listing)) == recorded


@bounded
async def test_an_old_device_attaches(bench: Bench, core: Core) -> None:
    """Who looked the device up before it was blocked cannot attach as it afterwards."""
    old = await bench.device()
    blocked = await set_blocked(bench, True)
    assert denied(lambda: core.commands.attach(bench.admin, old, None, Recorder())) == "blocked"
    await set_blocked(bench, False)
    core.commands.attach(bench.admin, blocked, None, Recorder())


@bounded
async def test_device_key(bench: Bench, core: Core) -> None:
    """A blocked device does not get in with its key, and only who has the key is told why."""
    device = await bench.device()
    await core.authentication.set_device_key(device, "key")
    by_key = core.authentication.by_device_key
    bench.threads.holding = True
    early = Deferred.fromCoroutine(by_key("D", "key"))
    await bench.settle()
    await set_blocked(bench, True)
    bench.threads.release()
    for attempt in (early, by_key("d", "key")):
        with pytest.raises(Denied, match="blocked"):
            await attempt
    assert await refused(by_key("D", "yek")) == "invalid"
    await set_blocked(bench, False)
    await by_key("D", "key")


@bounded
async def test_a_device_does_not_unblock_itself(bench: Bench, core: Core) -> None:
    """A device that got in before it was blocked can neither change nor delete itself."""
    device = await bench.device()
    itself = Principal(ALL_ACTIONS, device=device)
    await core.devices.save(itself, "D", DeviceChange(name="m"))
    await set_blocked(bench, True)
    for change in (DeviceChange(blocked=False), DeviceChange(name="x")):
        with pytest.raises(Denied, match="blocked"):
            await core.devices.save(itself, "D", change)
    with pytest.raises(Denied, match="blocked"):
        await core.devices.delete(itself, "D")
    found = await core.devices.get(itself, Action.DEVICE_READ, "D")
    assert (found.name, found.blocked) == ("m", True)
