"""Whether a device is connected: sockets, telemetry, other hubs, and what a restart leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from gatewayd.core.hub.deadlines import Deadlines
from gatewayd.errors import Unavailable
from tests.core.bench import START, Bench, bounded
from tests.core.hubbing import HubBench


@pytest_twisted.async_yield_fixture(name="hubs")
async def set_up(bench: Bench) -> AsyncIterator[HubBench]:
    """Set up a hub that has read the log."""
    hubs = HubBench(bench)
    await hubs.open()
    yield hubs
    await hubs.close()


async def opened(bench: Bench, **rules: Any) -> HubBench:
    """Return a hub with other rules, which the test has to close."""
    hubs = HubBench(bench, **rules)
    await hubs.open()
    return hubs


async def kept(hubs: HubBench) -> None:
    """Let the store keep what is new, and the memory forget it."""
    await hubs.hub.keep()
    await hubs.hub.keep()


# Sockets


@bounded
async def test_nothing_heard(hubs: HubBench) -> None:
    """Of a device that was never there nothing is known."""
    assert await hubs.state(await hubs.bench.device()) is None
    assert hubs.watching.told == []


@bounded
async def test_sockets(hubs: HubBench) -> None:
    """A device is connected from its first socket to its last, and watchers hear that once."""
    device = await hubs.bench.device()
    first, second = hubs.attach(device), hubs.attach(device)
    await hubs.bench.settle()
    hubs.detach(first)
    await hubs.bench.settle()
    attached = (await hubs.bench.replay(device))[1]
    assert hubs.watching.told == [("state", True, attached.ts)]
    assert await hubs.state(device) == (True, attached.ts)
    hubs.detach(second)
    await hubs.bench.settle()
    detached = (await hubs.bench.replay(device))[-1]
    assert hubs.watching.told[1:] == [("state", False, detached.ts)]
    assert await hubs.state(device) == (False, detached.ts)
    await kept(hubs)
    assert await hubs.state(device) == (False, detached.ts)


@bounded
async def test_come_and_gone(hubs: HubBench) -> None:
    """A socket that is gone before its coming is on disk leaves the device as it was."""
    device = await hubs.bench.device()
    hubs.detach(hubs.attach(device))
    assert await hubs.state(device) is None
    await hubs.bench.settle()
    assert hubs.watching.states == [True, False]
    hubs.detach(hubs.attach(device))
    last = hubs.attach(device)
    await hubs.bench.settle()
    assert hubs.watching.states == [True, False, True]
    hubs.detach(last)
    await hubs.bench.settle()
    assert hubs.watching.states == [True, False, True, False]


@bounded
async def test_take_over(hubs: HubBench) -> None:
    """A socket that takes over is there before the other is gone: nothing changes."""
    device = await hubs.bench.device()
    presence = hubs.bench.core.presence
    for _ in range(3):
        last = await presence.take_over(device, "test", lambda: None)
    await hubs.bench.settle()
    assert hubs.watching.states == [True]
    hubs.detach(last)
    await hubs.bench.settle()
    assert hubs.watching.states == [True, False]


@bounded
async def test_not_yet_committed(hubs: HubBench) -> None:
    """Who asks is told of the sockets there are; watchers, once it is recorded."""
    device = await hubs.bench.device()
    hubs.bench.gate.hold_publishing()
    socket = hubs.attach(device)
    await hubs.bench.settle()
    assert await hubs.state(device) == (True, socket.since)
    assert hubs.watching.states == []
    hubs.bench.gate.publish()
    assert hubs.watching.states == [True]


@bounded
async def test_last_socket_goes(hubs: HubBench) -> None:
    """When the last socket goes the device is not connected, whatever it said a moment ago."""
    device = await hubs.bench.device()
    socket = hubs.attach(device)
    await hubs.hear(device, {"a": 1})
    hubs.detach(socket)
    await hubs.bench.settle()
    assert hubs.watching.states == [True, False]
    assert await hubs.hear(device, {"a": 2})
    assert hubs.watching.states == [True, False, True]


@bounded
async def test_socket_outlasts_telemetry(hubs: HubBench) -> None:
    """While there is a socket it does not matter how long ago the last telemetry was."""
    device = await hubs.bench.device()
    await hubs.hear(device, {"a": 1})
    hubs.attach(device)
    await hubs.bench.settle()
    await hubs.wait(200)
    assert hubs.watching.states == [True]
    state = await hubs.state(device)
    assert state is not None
    assert state[0]


# Telemetry


@bounded
async def test_telemetry(hubs: HubBench) -> None:
    """Telemetry makes a device connected until it has been silent for so long, then it is not."""
    device = await hubs.bench.device()
    first = await hubs.hear(device, {"a": 1})
    assert hubs.watching.told[1:] == [("state", True, first.ts)]
    await hubs.wait(50)
    last = await hubs.hear(device, {"a": 2})
    await hubs.wait(59.9)
    assert hubs.watching.states == [True]
    assert await hubs.state(device) == (True, first.ts)
    await hubs.wait(0.2)
    assert hubs.watching.told[-1] == ("state", False, last.ts + 60_000)
    assert await hubs.state(device) == (False, last.ts + 60_000)
    await kept(hubs)
    assert await hubs.state(device) == (False, last.ts + 60_000)
    await hubs.hear(device, {"a": 3})
    assert hubs.watching.states == [True, False, True]


@bounded
async def test_old_telemetry(hubs: HubBench) -> None:
    """What counts is when a message came, not the time that it shows."""
    device = await hubs.bench.device()
    event = await hubs.say(device, {"a": 1}, stamp=START - 1_000_000)
    await hubs.bench.settle()
    assert await hubs.state(device) == (True, event.ts)


@bounded
async def test_speaks_while_it_is_asked_for(hubs: HubBench) -> None:
    """Who asks is told what became known while the store was asked."""
    device = await hubs.bench.device()
    hubs.bench.gate.hold("connection_state")
    asked = Deferred.fromCoroutine(hubs.hub.states.of(device))
    await hubs.bench.gate.answered("connection_state")
    await hubs.hear(device, {"a": 1})
    await hubs.bench.gate.release("connection_state")
    state = await asked
    assert state is not None
    assert state.connected


@bounded
async def test_over_before_the_timer(hubs: HubBench) -> None:
    """Who asks after the time is over is told so, also when the timer is late."""
    device = await hubs.bench.device()
    event = await hubs.hear(device, {"a": 1})
    hubs.bench.clock.now += 60_001
    assert await hubs.state(device) == (False, event.ts + 60_000)


@bounded
async def test_for_ever(bench: Bench) -> None:
    """Without a limit telemetry counts until the device is known to be gone."""
    hubs = await opened(bench, state_ttl=0.0)
    device = await bench.device()
    await hubs.hear(device, {"a": 1})
    await hubs.wait(1_000_000)
    await hubs.restart()
    assert await hubs.state(device) is not None
    assert hubs.watching.states == []
    hubs.detach(hubs.attach(device))
    await bench.settle()
    assert hubs.watching.states == [False]
    await hubs.close()


@bounded
async def test_not_on_telemetry(bench: Bench) -> None:
    """Telemetry can be told not to count."""
    hubs = await opened(bench, on_telemetry=False)
    device = await bench.device()
    await hubs.hear(device, {"a": 1})
    assert await hubs.state(device) is None
    hubs.detach(hubs.attach(device))
    await bench.settle()
    assert hubs.watching.states == [True, False]
    await hubs.close()


@bounded
async def test_many_devices(hubs: HubBench) -> None:
    """Each device is over in its own time, with one timer."""
    devices = [await hubs.bench.device(f"D{number}") for number in range(5)]
    told: list[tuple[str, bool]] = []
    hubs.hub.states.changed.append(
        lambda device, connected, stamp: told.append((device, connected))
    )
    for device in devices:
        await hubs.hear(device, {"a": 1})
        await hubs.wait(10)
    assert told == [(f"D{number}", True) for number in range(5)]
    assert len(hubs.bench.timers.getDelayedCalls()) == 2  # this one, and the one that keeps
    await hubs.hear(devices[1], {"a": 2})
    told.clear()
    for expected in ("D0", None, "D2", "D3", "D4", "D1"):
        await hubs.wait(10.5)
        assert told == ([] if expected is None else [(expected, False)])
        told.clear()
    assert len(hubs.bench.timers.getDelayedCalls()) == 1


# A key


@bounded
async def test_key(bench: Bench) -> None:
    """With a key the device's own boolean counts and nothing else, and it is telemetry too."""
    hubs = await opened(bench, state_key="online")
    device = await bench.device()
    socket = hubs.attach(device)
    await hubs.hear(device, {"a": 1}, {"online": 1}, {"online": "true"}, {"online": None})
    assert await hubs.state(device) is None
    assert hubs.watching.states == []
    event = await hubs.hear(device, b'{"online" : true , "a": 2}')
    assert await hubs.state(device) == (True, event.ts)
    hubs.detach(socket)
    await hubs.hub.states.said(device, False, START, "1")
    await bench.settle()
    assert hubs.watching.states == [True]
    event = await hubs.hear(device, {"online": False})
    assert await hubs.state(device) == (False, event.ts)
    assert hubs.watching.states == [True, False]
    assert (await hubs.values(device))["online"] is False
    await hubs.close()


@bounded
async def test_key_is_not_known(bench: Bench) -> None:
    """That a device says that it is not connected is told when nothing was known of it."""
    hubs = await opened(bench, state_key="online")
    device = await bench.device()
    await hubs.hear(device, {"online": False}, {"online": False})
    assert hubs.watching.states == [False]
    await hubs.close()


@bounded
async def test_key_and_silence(bench: Bench) -> None:
    """With a key, too, a device that is silent for long is not connected; any telemetry counts."""
    hubs = await opened(bench, state_key="online")
    device = await bench.device()
    await hubs.hear(device, {"online": True})
    await hubs.wait(50)
    await hubs.hear(device, {"a": 1})
    await hubs.wait(50)
    assert hubs.watching.states == [True]
    await hubs.wait(11)
    assert hubs.watching.states == [True, False]
    await hubs.hear(device, {"a": 1})
    assert hubs.watching.states == [True, False]
    await hubs.close()


# Other hubs


@bounded
async def test_said(hubs: HubBench) -> None:
    """What another hub says counts, with its time, and is on disk when it was taken."""
    device = await hubs.bench.device()
    await hubs.hub.states.said(device, True, START - 500, "05")
    assert await hubs.state(device) == (True, START - 500)
    stored = await hubs.bench.store.connection_state(device.uid)
    assert stored is not None
    assert (stored.connected, stored.stamp, stored.sequence) == (True, START - 500, "05")
    await hubs.hub.states.said(device, True, START - 400, "06")
    await hubs.hub.states.said(device, False, START - 300, "07")
    assert hubs.watching.told == [("state", True, START - 500), ("state", False, START - 300)]


@pytest.mark.parametrize("between", ["nothing", "kept", "restart", "crash", "telemetry"])
@bounded
async def test_stale(hubs: HubBench, between: str) -> None:
    """What the other hub said before is ignored when it comes later, whatever was in between."""
    device = await hubs.bench.device()
    await hubs.hub.states.said(device, False, START + 10, "06")
    if between == "kept":
        await kept(hubs)
    elif between == "telemetry":
        await kept(hubs)
        await hubs.wait(1)
        await hubs.hear(device, {"a": 1})
        await hubs.wait(61)
        await kept(hubs)
        assert await hubs.state(device) is not None
    elif between != "nothing":
        await getattr(hubs, between)()
    hubs.watching.told.clear()
    for stale in ("05", "06"):
        await hubs.hub.states.said(device, True, START + 20, stale)
    assert hubs.watching.told == []
    await hubs.hub.states.said(device, True, START + 30, "07")
    assert hubs.watching.told == [("state", True, START + 30)]


@bounded
async def test_said_at_once(hubs: HubBench) -> None:
    """Of what is said at the same time the highest number wins."""
    device = await hubs.bench.device()
    words = [(True, "03"), (False, "05"), (True, "04")]
    saying = [
        Deferred.fromCoroutine(hubs.hub.states.said(device, connected, START, sequence))
        for connected, sequence in words
    ]
    for each in saying:
        await each
    assert await hubs.state(device) == (False, START)


@bounded
async def test_said_without_a_number(hubs: HubBench) -> None:
    """What has no number counts as it comes, and leaves the last number."""
    device = await hubs.bench.device()
    await hubs.hub.states.said(device, True, START, "05")
    await hubs.hub.states.said(device, False, START, "")
    assert hubs.watching.states == [True, False]
    await kept(hubs)
    await hubs.hub.states.said(device, True, START, "05")
    assert hubs.watching.states == [True, False]


@bounded
async def test_said_of_an_attached_one(hubs: HubBench) -> None:
    """While a device has a socket here no other hub knows better."""
    device = await hubs.bench.device()
    socket = hubs.attach(device)
    await hubs.bench.settle()
    await hubs.hub.states.said(device, False, START, "05")
    assert hubs.watching.states == [True]
    state = await hubs.state(device)
    assert state is not None
    assert state[0]
    hubs.detach(socket)
    await hubs.bench.settle()
    assert hubs.watching.states == [True, False]


@bounded
async def test_said_and_silence(hubs: HubBench) -> None:
    """That a device is connected counts so long without telemetry, whoever says it."""
    device = await hubs.bench.device()
    await hubs.hub.states.said(device, True, START - 5000, "05")
    await hubs.wait(59)
    assert hubs.watching.states == [True]
    await hubs.wait(2)
    assert hubs.watching.states == [True, False]


@bounded
async def test_said_is_not_kept(hubs: HubBench) -> None:
    """Another hub is told when its word could not be kept; when it says it again it is."""
    device = await hubs.bench.device()
    hubs.bench.gate.fail("keep_shadows", Unavailable("full"))
    with pytest.raises(Unavailable):
        await hubs.hub.states.said(device, True, START, "05")
    with pytest.raises(Unavailable):
        await hubs.hub.states.said(device, True, START, "05")
    hubs.bench.gate.fail("keep_shadows", None)
    await hubs.hub.states.said(device, True, START, "05")
    stored = await hubs.bench.store.connection_state(device.uid)
    assert stored is not None
    assert stored.connected


# Restarts


@bounded
async def test_sockets_do_not_survive(hubs: HubBench) -> None:
    """A device whose socket was lost in a crash is not connected any more."""
    device = await hubs.bench.device()
    hubs.attach(device)
    await hubs.bench.settle()
    await hubs.hub.keep()
    await hubs.crash()
    assert await hubs.state(device) is None
    assert hubs.watching.told == []
    hubs.attach(device)
    await hubs.bench.settle()
    assert hubs.watching.states == [True]


@bounded
async def test_gone_before_the_crash(hubs: HubBench) -> None:
    """That the last socket went is read from the log, after the telemetry before it."""
    device = await hubs.bench.device()
    socket = hubs.attach(device)
    await hubs.hear(device, {"a": 1})
    await hubs.hub.keep()
    hubs.detach(socket)
    await hubs.bench.settle()
    detached = (await hubs.bench.replay(device))[-1]
    await hubs.crash()
    assert await hubs.state(device) == (False, detached.ts)


@pytest.mark.parametrize("way", ["kept", "nothing"])
@bounded
async def test_said_after_the_socket_went(hubs: HubBench, way: str) -> None:
    """That the last socket went before another hub spoke does not count after a crash either."""
    device = await hubs.bench.device()
    hubs.detach(hubs.attach(device))
    await hubs.bench.settle()
    if way == "kept":
        await kept(hubs)
    await hubs.hub.states.said(device, True, START, "05")
    await hubs.crash()
    state = await hubs.state(device)
    assert state is not None
    assert state[0]


@pytest.mark.parametrize("slow", [False, True])
@bounded
async def test_said_while_the_log_is_read(bench: Bench, slow: bool) -> None:
    """What another hub says meanwhile is later than all that is read, on disk or not."""
    hubs = HubBench(bench)
    hubs.make()
    device = await bench.device()
    await hubs.say(device, {"a": 1})
    bench.gate.hold("read")
    await hubs.hub.start()
    await bench.settle()
    if slow:
        bench.gate.hold("keep_shadows")
    saying = Deferred.fromCoroutine(hubs.hub.states.said(device, False, START, "05"))
    await bench.settle()
    await bench.gate.release("read")
    if slow:
        await bench.gate.release("keep_shadows")
    await saying
    await hubs.hub.settled()
    assert await hubs.state(device) == (False, START)
    assert hubs.watching.told == []
    await hubs.close()
    assert not hubs.hub.states._words


@pytest.mark.parametrize("way", ["restart", "crash"])
@bounded
async def test_telemetry_survives(hubs: HubBench, way: str) -> None:
    """What telemetry said holds over a restart for the rest of its time, and then is told over."""
    device = await hubs.bench.device()
    first = await hubs.hear(device, {"a": 1})
    await hubs.wait(20)
    await hubs.hear(device, {"a": 1})
    await hubs.wait(20)
    last = await hubs.hear(device, {"a": 1})
    await getattr(hubs, way)()
    assert hubs.watching.told == []
    assert await hubs.state(device) == (True, first.ts)
    await hubs.wait(59)
    assert hubs.watching.told == []
    await hubs.wait(2)
    assert hubs.watching.told == [("state", False, last.ts + 60_000)]


@bounded
async def test_over_while_it_was_down(hubs: HubBench) -> None:
    """What was over before the gateway came back is not told, but known and kept."""
    device = await hubs.bench.device()
    event = await hubs.hear(device, {"a": 1})
    await hubs.hub.keep()
    await hubs.close()
    hubs.bench.clock.now += 100_000
    await hubs.bench.reopen()
    await hubs.open()
    assert hubs.watching.told == []
    assert await hubs.state(device) == (False, event.ts + 60_000)
    await kept(hubs)
    assert await hubs.bench.store.connected() == []
    assert await hubs.state(device) == (False, event.ts + 60_000)


@pytest.mark.parametrize("seconds", [0, 1])
@bounded
async def test_said_after_what_is_read_again(hubs: HubBench, seconds: int) -> None:
    """What another hub said is in no log; telemetry of before does not undo it after a crash."""
    device = await hubs.bench.device()
    await hubs.hear(device, {"a": 1})
    await hubs.wait(seconds)
    await hubs.hub.states.said(device, False, START, "05")
    await hubs.crash()
    assert await hubs.state(device) == (False, START)
    assert hubs.watching.told == []


async def silent(bench: Bench) -> HubBench:
    """Return a hub that has not heard of the device D since it was started, which is connected."""
    hubs = await opened(bench, state_ttl=300.0)
    await hubs.hear(await bench.device(), {"a": 1})
    await hubs.wait(100)
    await hubs.hear(await bench.device("E"), {"a": 1})
    await hubs.restart()
    hubs.bench.gate.calls.clear()
    return hubs


@bounded
async def test_looked_up(bench: Bench) -> None:
    """That a device is over which was not heard of since the start is told all the same."""
    hubs = await silent(bench)
    await hubs.wait(201)
    assert "devices" in bench.gate.calls
    assert hubs.watching.states == [False]
    await hubs.close()


@bounded
async def test_not_looked_up(bench: Bench) -> None:
    """When the id of such a device cannot be looked up, that is logged."""
    hubs = await silent(bench)
    bench.gate.fail("devices", Unavailable("broken"))
    with capturedLogs() as logged:
        await hubs.wait(201)
    assert [event["log_level"].name for event in logged] == ["warn"]
    assert hubs.watching.told == []
    await hubs.close()


@bounded
async def test_back_while_it_is_looked_up(bench: Bench) -> None:
    """A device that speaks again before its end could be told is not told to be gone."""
    hubs = await silent(bench)
    device = await bench.device()
    bench.gate.hold("devices")
    await hubs.wait(201)
    await hubs.hear(device, {"a": 2})
    await bench.gate.release("devices")
    assert hubs.watching.states == [True]
    await hubs.close()


# Memory and devices that go


@bounded
async def test_memory(hubs: HubBench) -> None:
    """Devices that are not connected take no memory once the store knows that."""
    for number in range(5):
        device = await hubs.bench.device(f"D{number}")
        await hubs.hear(device, {"a": 1})
        hubs.detach(hubs.attach(device))
    await hubs.bench.settle()
    await kept(hubs)
    states = hubs.hub.states
    assert not states._words
    assert not states._attached
    assert not states._unsaved
    assert not states._saving


@bounded
async def test_not_written_for_every_message(hubs: HubBench) -> None:
    """A connected device that goes on talking is written now and then, not every second."""
    device = await hubs.bench.device()
    for _ in range(45):
        await hubs.hear(device, {})
        await hubs.wait(1)
    stored = await hubs.bench.store.connection_state(device.uid)
    assert stored is not None
    heard = stored.heard - START
    assert 25_000 < heard < 35_000


@bounded
async def test_deleted(hubs: HubBench) -> None:
    """A deleted device is not connected any more, and a new one of its name has no state."""
    device = await hubs.bench.device()
    hubs.attach(device)
    await hubs.hear(device, {"a": 1})
    await hubs.bench.core.devices.delete(hubs.bench.admin, "D")
    assert hubs.watching.states == [True, False]
    again = await hubs.bench.device()
    await hubs.wait(100)
    assert hubs.watching.states == [True, False]
    assert await hubs.state(again) is None
    await kept(hubs)
    assert await hubs.bench.store.connected() == []


@bounded
async def test_deleted_while_it_is_kept(hubs: HubBench) -> None:
    """A device may go while the store is asked what it has of it."""
    device = await hubs.bench.device()
    await hubs.hear(device, {"a": 1})
    hubs.bench.gate.hold("connection_state")
    keeping = Deferred.fromCoroutine(hubs.hub.keep())
    await hubs.bench.gate.answered("connection_state")
    await hubs.bench.core.devices.delete(hubs.bench.admin, "D")
    await hubs.bench.gate.release("connection_state")
    await keeping
    assert await hubs.bench.store.connected() == []


@bounded
async def test_store_cannot_be_asked(hubs: HubBench) -> None:
    """While the store cannot say what it has of a device nothing is written over."""
    device = await hubs.bench.device()
    await hubs.hub.states.said(device, False, START, "05")
    await hubs.wait(1)
    await hubs.hear(device, {"a": 1})
    hubs.bench.gate.fail("connection_state", Unavailable("broken"))
    with pytest.raises(Unavailable):
        await hubs.hub.keep()
    with pytest.raises(Unavailable):
        await hubs.hub.states.of(await hubs.bench.device("E"))
    hubs.bench.gate.fail("connection_state", None)
    await hubs.hub.keep()
    stored = await hubs.bench.store.connection_state(device.uid)
    assert stored is not None
    assert (stored.connected, stored.sequence) == (True, "05")


@bounded
async def test_earlier_deadline(bench: Bench) -> None:
    """A deadline before the one that is waited for is not missed; nothing comes after the end."""
    reached: list[int] = []
    later = {1: START + 9000}

    def reach(key: int) -> int | None:
        reached.append(key)
        return later.pop(key, None)

    deadlines = Deadlines(bench.clock, bench.timers, reach)
    deadlines.add(1, START + 5000)
    deadlines.add(4, START - 1)
    deadlines.start()
    assert reached == [4]
    deadlines.add(2, START + 3000)
    deadlines.add(2, START + 1000)
    for seconds, expected in ((2, []), (1, [2]), (2, [1]), (3, []), (1, [1])):
        reached.clear()
        bench.clock.now += seconds * 1000
        bench.timers.advance(seconds)
        assert reached == expected
    deadlines.add(3, START + 20_000)
    deadlines.stop()
    assert bench.timers.getDelayedCalls() == []
