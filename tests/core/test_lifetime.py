"""Commands whose lifetime is over: delivered to nobody, and still there to be read."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.gateway import Core
from gatewayd.core.model import Kind
from gatewayd.core.queries import Filter, Listing, Pending
from gatewayd.core.timeline import Subscription
from tests.core.bench import START, Bench, Recorder, bounded, together
from tests.core.delivery import Attached, attached, insert

COMMANDS = frozenset({Kind.COMMAND})


def observe(bench: Bench, sink: Recorder) -> Subscription:
    """Follow the commands of every device."""
    return bench.core.timeline.subscribe(Filter(kinds=COMMANDS), bench.admin, sink)


@bounded
async def test_lifetime(bench: Bench) -> None:
    """A command is delivered until its lifetime is over, and not after that."""
    device = await bench.device()
    event = await insert(bench, device, "short", lifetime=60)
    await insert(bench, device, "long", lifetime=61)
    await insert(bench, device, "for ever")
    bench.clock.now = event.ts + 59_999
    assert await attached(bench, device) == ["short", "long", "for ever"]
    bench.clock.now = event.ts + 60_000
    assert await attached(bench, device) == ["long", "for ever"]
    assert await Attached(bench, device).deliver(since=0) == ["long", "for ever"]


@pytest.mark.parametrize("ahead", [True, False])
@bounded
async def test_no_lifetime_at_all(bench: Bench, sink: Recorder, ahead: bool) -> None:
    """A lifetime of 0 is no limit, as the JavaScript client means it."""
    device = await bench.device()
    socket = Attached(bench, device)
    await socket.deliver()
    observe(bench, sink).go_live()
    # When much is written in one millisecond, the times of events run ahead of the clock.
    bench.clock.now += -5000 if ahead else 5000
    event = await insert(bench, device, "always", lifetime=0)
    await insert(bench, device, "soon", lifetime=1)
    assert (event.ts > bench.clock.now) is ahead
    await bench.settle()
    assert socket.sink.names == sink.names == ["always", "soon"]
    socket.subscription.close()
    bench.clock.now = event.ts + 60_000
    assert await attached(bench, device) == ["always"]
    assert await Attached(bench, device).deliver(since=START - 10_000) == ["always"]
    replayed = Recorder()
    await observe(bench, replayed).catch_up(0)
    assert replayed.names == ["always"]
    pending = Pending(stream=device.uid, now=bench.clock.now, until=event.ts + 10, pushed=True)
    waiting = await bench.store.pending(pending)
    logged = [each for each in await bench.replay(device) if each.kind is Kind.COMMAND]
    assert [each.name for each in waiting] == [each.name for each in logged] == ["always"]


@bounded
async def test_expired_while_unpublished(bench: Bench, sink: Recorder) -> None:
    """A command that expires between its commit and its delivery is not delivered."""
    device = await bench.device()
    socket = Attached(bench, device)
    await socket.deliver()
    observe(bench, sink).go_live()
    bench.gate.hold_publishing()
    event = await insert(bench, device, "short", lifetime=60)
    await insert(bench, device, "long", lifetime=61)
    await bench.settle()
    bench.clock.now = event.ts + 60_000
    bench.gate.publish()
    assert socket.sink.names == sink.names == ["long"]


@bounded
async def test_expired_in_the_tail(bench: Bench, sink: Recorder) -> None:
    """A command that expires while a slow reader has not had the log yet is not delivered."""
    device = await bench.device()
    await insert(bench, device, "logged")
    socket = Attached(bench, device)
    socket.sink.room = sink.room = 1
    catching_up = Deferred.fromCoroutine(observe(bench, sink).catch_up(0))
    done = together([socket.begin(0), catching_up])
    await bench.settle()
    assert socket.sink.names == sink.names == ["logged"]
    event = await insert(bench, device, "short", lifetime=60)
    await insert(bench, device, "long", lifetime=61)
    await bench.settle()
    bench.clock.now = event.ts + 60_000
    for each in (socket.sink, sink):
        each.drain()
    await done
    assert socket.sink.names == sink.names == ["logged", "long"]


@bounded
async def test_expired_while_much_waits(bench: Bench) -> None:
    """A command that expires while those before it go to a slow socket is not delivered."""
    device = await bench.device()
    many = [insert(bench, device, "many") for _ in range(600)]
    event = (await together([*many, insert(bench, device, "short", lifetime=60)]))[-1]
    await insert(bench, device, "last")
    socket = Attached(bench, device)
    socket.sink.room = 1
    done = socket.begin()
    await bench.settle()
    assert "last" not in socket.sink.names
    bench.clock.now = event.ts + 60_000
    socket.sink.drain()
    await done
    assert socket.sink.names == ["many"] * 600 + ["last"]


@bounded
async def test_expired_is_there(bench: Bench, core: Core, sink: Recorder) -> None:
    """An expired command is read, listed and answered as ever; its update is pushed."""
    device = await bench.device()
    wanted = Filter(kinds=frozenset({Kind.COMMAND_UPDATE}), stream=device.uid)
    core.timeline.subscribe(wanted, bench.admin, sink).go_live()
    event = await insert(bench, device, "short", lifetime=1)
    await bench.settle()
    bench.clock.now += 1001
    command = await core.commands.get(bench.admin, device, event.id)
    assert command == event.command
    listing = Listing(stream=device.uid, kind=Kind.COMMAND)
    assert await core.commands.list(bench.admin, listing) == [command]
    await core.commands.update(bench.admin, device, event.id, "late", None)
    await bench.settle()
    assert [each.command and each.command.status for each in sink.events] == ["late"]
    replayed = Recorder()
    await core.timeline.subscribe(wanted, bench.admin, replayed).catch_up(0)
    assert replayed.events == sink.events
