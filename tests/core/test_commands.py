"""Commands: recorded, delivered to the device, answered."""

from __future__ import annotations

import pytest
from twisted.logger import capturedLogs

from gatewayd.core.access import Action, Principal
from gatewayd.core.gateway import Core
from gatewayd.core.model import CommandDraft, Kind
from gatewayd.core.queries import Filter, Listing
from gatewayd.errors import Denied, NotFound, Superseded, Unavailable
from tests.core.bench import Bench, Recorder, bounded, together
from tests.core.delivery import Attached, attached, insert


@bounded
async def test_insert(bench: Bench, core: Core) -> None:
    """A command is recorded with all that its sender said, and can be read and listed."""
    device = await bench.device()
    draft = CommandDraft(
        user=1, parameters=b'{"a": 1}', lifetime=60, status="new", result=b'{"b": 2}'
    )
    event = await core.commands.insert(bench.admin, device, "go", draft)
    command = await core.commands.get(bench.admin, device, event.id)
    assert command == event.command
    assert (command.name, command.user, command.parameters) == ("go", 1, b'{"a": 1}')
    assert (command.lifetime, command.status, command.result) == (60, "new", b'{"b": 2}')
    listing = Listing(stream=device.uid, kind=Kind.COMMAND)
    assert await core.commands.list(bench.admin, listing) == [command]


@bounded
async def test_insert_once_per_key(bench: Bench, core: Core) -> None:
    """A command that is sent again under its key is the first one."""
    device = await bench.device()
    send = [
        core.commands.insert(bench.admin, device, "go", CommandDraft(), key="k") for _ in range(2)
    ]
    first, second = await together(send)
    assert first.seq == second.seq


@bounded
async def test_permissions(bench: Bench, core: Core) -> None:
    """Sending, answering and reading each need their permission."""
    device = await bench.device()
    nobody = Principal(frozenset(), user=bench.admin.user)
    with pytest.raises(Denied):
        core.commands.insert(nobody, device, "go", CommandDraft())
    with pytest.raises(Denied):
        core.commands.update(nobody, device, 1, None, None)
    with pytest.raises(Denied):
        core.commands.attach(nobody, device, None, Recorder())
    with pytest.raises(Denied):
        await core.commands.get(nobody, device, 1)
    with pytest.raises(Denied):
        await core.commands.list(nobody, Listing(stream=device.uid, kind=Kind.COMMAND))
    reader = Principal(frozenset({Action.COMMAND_READ}), user=bench.admin.user)
    core.commands.attach(reader, device, None, Recorder())


@bounded
async def test_update(bench: Bench, core: Core) -> None:
    """An answer keeps what it does not say, and is an event with the command as it is then."""
    device = await bench.device()
    updates = Recorder()
    wanted = Filter(kinds=frozenset({Kind.COMMAND_UPDATE}), stream=device.uid)
    core.timeline.subscribe(wanted, bench.admin, updates).go_live()
    event = await insert(bench, device, status="new", parameters=b"{}")
    bench.clock.now += 1000
    for status, result in (("busy", b'{"n": 1}'), (None, b'{"n": 2}'), ("done", None)):
        await core.commands.update(bench.admin, device, event.id, status, result)
    await bench.settle()
    seen = [(e.command.status, e.command.result) for e in updates.events if e.command]
    assert seen == [("busy", b'{"n": 1}'), ("busy", b'{"n": 2}'), ("done", b'{"n": 2}')]
    command = await core.commands.get(bench.admin, device, event.id)
    assert command == updates.events[-1].command
    assert command.changed
    assert command.updated == updates.events[-1].ts > command.ts


@bounded
async def test_unknown_command(bench: Bench, core: Core) -> None:
    """A command that does not exist is named by the id that was asked for."""
    device = await bench.device()
    other = await bench.device("E")
    event = await insert(bench, other)
    for public_id in (event.id, 0, -5, 2**40):
        with pytest.raises(NotFound) as caught:
            await core.commands.update(bench.admin, device, public_id, "x", None)
        assert (caught.value.kind, caught.value.key) == ("command", public_id)
        with pytest.raises(NotFound) as caught:
            await core.commands.get(bench.admin, device, public_id)
        assert (caught.value.kind, caught.value.key) == ("command", public_id)


@bounded
async def test_answer_of_an_old_epoch(bench: Bench, core: Core) -> None:
    """A device whose place was taken can no longer answer."""
    device = await bench.device()
    event = await insert(bench, device)
    old = await core.presence.take_over(device, "test", lambda: None)
    await core.presence.take_over(device, "test", lambda: None)
    with pytest.raises(Superseded):
        await core.commands.update(bench.admin, device, event.id, "x", None, epoch=old.epoch)


@bounded
async def test_live(bench: Bench) -> None:
    """A command goes to every socket that takes it, by name."""
    device = await bench.device()
    every, some = Attached(bench, device), Attached(bench, device, frozenset({"b"}))
    for socket in (every, some):
        await socket.deliver()
    await together(insert(bench, device, name) for name in "abc")
    await insert(bench, await bench.device("E"), "b")
    await bench.settle()
    assert every.sink.names == ["a", "b", "c"]
    assert some.sink.names == ["b"]


@bounded
async def test_waiting_without_since(bench: Bench) -> None:
    """What no device confirmed is delivered again at each attachment; what it did is not."""
    device = await bench.device()
    await together(insert(bench, device, name) for name in "ab")
    assert await attached(bench, device) == ["a", "b"]
    assert await attached(bench, device) == ["a", "b"]
    socket = Attached(bench, device)
    await socket.deliver()
    await socket.confirm()
    await insert(bench, device, "c")
    assert await attached(bench, device) == ["c"]


@bounded
async def test_waiting_with_since(bench: Bench) -> None:
    """A device that says what it has had gets the rest, and what was never written to it."""
    device = await bench.device()
    await insert(bench, device, "pushed")
    await attached(bench, device)
    last = await insert(bench, device, "never")
    bench.clock.now = last.ts + 1000
    await together(insert(bench, device, name) for name in ("later", "last"))
    assert await Attached(bench, device).deliver(since=last.ts) == ["never", "later", "last"]
    assert await Attached(bench, device).deliver(since=last.ts) == ["later", "last"]
    assert await Attached(bench, device).deliver(since=bench.clock.now + 1000) == []


@bounded
async def test_answered_is_not_delivered_again(bench: Bench, core: Core) -> None:
    """A command that was answered needs no delivery any more."""
    device = await bench.device()
    event = await insert(bench, device)
    await core.commands.update(bench.admin, device, event.id, "done", None)
    assert await attached(bench, device) == []


@bounded
async def test_many_waiting(bench: Bench) -> None:
    """However many commands wait, all come, in order, once."""
    device = await bench.device()
    await together(insert(bench, device, str(number)) for number in range(1203))
    assert await attached(bench, device) == [str(number) for number in range(1203)]


@bounded
async def test_many_waiting_for_a_slow_socket(bench: Bench) -> None:
    """Commands that wait go to a slow socket a part at a time, as it takes them."""
    device = await bench.device()
    await together(insert(bench, device, str(number)) for number in range(1203))
    socket = Attached(bench, device)
    socket.sink.room = 1
    done = socket.begin()
    await bench.settle()
    part = len(socket.sink.events)
    socket.sink.drain()
    await done
    assert 1 <= part <= 500
    assert socket.sink.names == [str(number) for number in range(1203)]


@bounded
async def test_inserted_while_waiting_is_read(bench: Bench) -> None:
    """A command of the millisecond in which a delivery begins is not lost between two reads."""
    device = await bench.device()
    bench.clock.now += 5000
    socket = Attached(bench, device)
    bench.gate.hold("pending")
    done = socket.begin()
    await bench.gate.answered("pending")
    await insert(bench, device)
    await bench.settle()
    await bench.gate.release("pending")
    await done
    await bench.settle()
    assert socket.sink.names == ["go"]


@bounded
async def test_published_while_log_is_read(bench: Bench) -> None:
    """A command that the store gave as waiting is not delivered again when it is published."""
    device = await bench.device()
    bench.clock.now += 5000
    bench.gate.hold_publishing()
    await insert(bench, device)
    await bench.settle()
    socket = Attached(bench, device)
    bench.gate.hold("read")
    done = socket.begin()
    await bench.settle()
    assert socket.sink.names == ["go"]
    bench.gate.publish()
    await bench.gate.release("read")
    await done
    assert socket.sink.names == ["go"]


@bounded
async def test_waiting_cannot_be_read(bench: Bench) -> None:
    """A delivery that cannot begin is said to be broken, and the subscription is closed."""
    device = await bench.device()
    socket = Attached(bench, device)
    bench.gate.fail("pending", Unavailable("the disk is gone"))
    with capturedLogs():
        done = socket.begin()
        failures: list[object] = []
        done.addErrback(failures.append)
        await bench.settle()
    assert (failures, socket.sink.breaks, socket.subscription.closed) == ([], 1, True)


@bounded
async def test_limit(bench: Bench) -> None:
    """A limit holds for the log, not for what waits for the device."""
    device = await bench.device()
    await insert(bench, device, "waiting")
    since = (await bench.note(device)).ts
    await together(insert(bench, device, name) for name in "abc")
    await bench.settle()
    assert await Attached(bench, device).deliver(since, limit=2) == ["waiting", "a", "b"]


@bounded
async def test_limit_after_a_restart(bench: Bench) -> None:
    """A limit holds for the log of before a restart too."""
    device = await bench.device()
    await together(insert(bench, device, name) for name in "abc")
    await bench.reopen()
    assert await Attached(bench, device).deliver(0, limit=2) == ["a", "b"]


@bounded
async def test_ping_confirms_what_was_before_it(bench: Bench) -> None:
    """A pong confirms what was delivered before its ping, and nothing that came after."""
    device = await bench.device()
    socket = Attached(bench, device)
    await socket.deliver()
    await insert(bench, device, "before")
    await bench.settle()
    socket.courier.pinging()
    await insert(bench, device, "after")
    await bench.settle()
    socket.courier.ponged()
    await bench.settle()
    socket.subscription.close()
    assert await attached(bench, device) == ["after"]
    socket.courier.ponged()
    await bench.settle()
    assert await attached(bench, device) == ["after"]


@bounded
async def test_marks_are_shared(bench: Bench) -> None:
    """Deliveries during a mark share the next one, and all are marked in the end."""
    device = await bench.device()
    socket = Attached(bench, device)
    await socket.deliver()
    await together(insert(bench, device) for _ in range(100))
    await bench.settle()
    assert 1 <= bench.gate.calls.count("mark") <= 10
    late = bench.clock.now + 5000
    assert await Attached(bench, device).deliver(since=late) == []
    assert len(await attached(bench, device)) == 100


@bounded
async def test_mark_fails(bench: Bench) -> None:
    """A mark that fails is logged; those after it are recorded again."""
    device = await bench.device()
    socket = Attached(bench, device)
    await socket.deliver()
    bench.gate.fail("mark", Unavailable("too much in flight"))
    with capturedLogs() as logged:
        await insert(bench, device, "a")
        await bench.settle()
    assert [entry["log_format"] for entry in logged] == ["deliveries not recorded: {error}"]
    bench.gate.fail("mark", None)
    await insert(bench, device, "b")
    await bench.settle()
    assert socket.sink.names == ["a", "b"]
    assert "b" not in await Attached(bench, device).deliver(since=bench.clock.now + 5000)


@bounded
async def test_courier_passes_on(bench: Bench) -> None:
    """A courier is its socket: as writable, and as broken."""
    device = await bench.device()
    socket = Attached(bench, device)
    socket.sink.writable = False
    waiting = socket.courier.when_writable()
    assert not socket.courier.writable
    assert not waiting.called
    socket.sink.drain()
    await waiting
    socket.courier.broken()
    assert socket.sink.breaks == 1
