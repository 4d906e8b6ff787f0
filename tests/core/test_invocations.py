"""Commands whose sender waits: the answer, and every way not to get one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from gatewayd.core.devices import DeviceChange
from gatewayd.core.invocations import Invocations
from gatewayd.core.model import Command, Device, Kind, message_id
from gatewayd.errors import Denied, GatewayError, NoAnswer, NotFound, Offline, Unavailable
from tests.core.bench import Bench, bounded, together
from tests.core.polling import followers
from tests.core.responder import (
    HI,
    MEANWHILE,
    attach,
    block,
    echo,
    fails,
    fails_cancelled,
    left_over,
    make_invocations,
    submit,
)


@pytest.fixture
def invocations(bench: Bench) -> Invocations:
    return make_invocations(bench)


def invoke(
    invocations: Invocations,
    device: Device,
    parameters: bytes | None = HI,
    *,
    respond: float = 30,
    connect: float = 0,
    user: int | None = None,
) -> Deferred[Command]:
    work = invocations.invoke(
        device, "RestApi", parameters, respond=respond, connect=connect, user=user
    )
    return Deferred.fromCoroutine(work)


async def kinds(bench: Bench, device: Device) -> list[Kind]:
    """Return what is recorded of a device after its registration."""
    await bench.settle()
    return [event.kind for event in await bench.replay(device)][1:]


# An answer


@bounded
async def test_answer(bench: Bench, invocations: Invocations) -> None:
    """The first update of the command is the answer; it is a command like every other."""
    device = await bench.device()
    socket = await attach(bench, device, lambda event: b'{"status":204}')
    command = await invoke(invocations, device, respond=7.2, user=7)
    assert (command.name, command.parameters) == ("RestApi", HI)
    assert (command.status, command.result) == ("done", b'{"status":204}')
    assert (command.lifetime, command.user) == (8, 7)
    (event,) = socket.events
    assert await bench.core.commands.get(bench.admin, device, event.id) == command
    assert await kinds(bench, device) == [Kind.ATTACHED, Kind.COMMAND, Kind.COMMAND_UPDATE]
    assert left_over(bench, device) == []


@bounded
async def test_no_parameters(bench: Bench, invocations: Invocations) -> None:
    """A command may have no parameters, its answer no result."""
    device = await bench.device()
    socket = await attach(bench, device)
    asked = invoke(invocations, device, None)
    await bench.settle()
    await bench.core.commands.update(bench.admin, device, socket.events[0].id, "ok", None)
    command = await asked
    assert (command.parameters, command.status, command.result) == (None, "ok", None)


@bounded
async def test_later_updates(bench: Bench, invocations: Invocations) -> None:
    """What a device says of a command after its first update does no harm."""
    device = await bench.device()
    socket = await attach(bench, device)
    first, second = invoke(invocations, device), invoke(invocations, device)
    await bench.settle()
    for result in (b"1", b"2", b"3"):
        socket.answer(socket.events[0], result)
    socket.answer(socket.events[1], b"4")
    assert [(await each).result for each in (first, second)] == [b"1", b"4"]
    assert left_over(bench, device) == []


@bounded
async def test_answer_in_the_same_commit(bench: Bench, invocations: Invocations) -> None:
    """An answer by a device that knew the command's id before it was told counts, too."""
    device = await bench.device()
    await attach(bench, device)
    (last,) = (await bench.replay(device))[-1:]
    for number in range(last.seq + 1, last.seq + 40, 2):
        asked = invoke(invocations, device)
        guessed = message_id(device.uid, number)
        await bench.core.commands.update(bench.admin, device, guessed, "done", b"7")
        assert (await asked).result == b"7"


@bounded
async def test_others_updates(bench: Bench, invocations: Invocations) -> None:
    """Updates of the device's other commands, also under the same name, are no answers."""
    device = await bench.device()
    socket = await attach(bench, device)
    other = await invocations.submit(device, "RestApi", HI, lifetime=60)
    asked = invoke(invocations, device)
    await bench.settle()
    await bench.core.commands.update(bench.admin, device, other.id, "done", b"1")
    await bench.settle()
    assert not asked.called
    socket.answer(socket.events[1], b"2")
    assert (await asked).result == b"2"


@bounded
async def test_two_devices(bench: Bench, invocations: Invocations) -> None:
    """Devices answer side by side; equal numbers of commands are not mixed up."""
    devices = [await bench.device(name) for name in "AB"]
    sockets = [await attach(bench, device) for device in devices]
    asked = [invoke(invocations, device) for device in devices]
    await bench.settle()
    assert sockets[0].seqs == sockets[1].seqs
    for socket, result in ((sockets[1], b'"B"'), (sockets[0], b'"A"')):
        socket.answer(socket.events[0], result)
        await bench.settle()
    assert [(await each).result for each in asked] == [b'"A"', b'"B"']
    assert left_over(bench, *devices) == []


@bounded
async def test_many_at_once(bench: Bench, invocations: Invocations) -> None:
    """Two hundred wait with one subscription, and each gets its own answer in any order."""
    device = await bench.device()
    socket = await attach(bench, device)
    asked = [invoke(invocations, device, b"%d" % number) for number in range(200)]
    await bench.settle()
    assert followers(bench, device) == 2
    for event in reversed(socket.events):
        assert event.command is not None
        socket.answer(event, event.command.parameters or b"")
    last = invoke(invocations, device)
    assert [command.result for command in await together(asked)] == [b"%d" % n for n in range(200)]
    assert len(invocations._waiting[device.uid]._steps) == 1  # nothing is kept of the others
    last.cancel()
    await fails_cancelled(last)
    await bench.settle()
    assert left_over(bench, device) == []


@bounded
async def test_several_sockets(bench: Bench, invocations: Invocations) -> None:
    """Every socket of the device gets the command; the first answer counts."""
    device = await bench.device()
    sockets = [await attach(bench, device) for _ in range(3)]
    asked = invoke(invocations, device)
    await bench.settle()
    assert [socket.names for socket in sockets] == [["RestApi"]] * 3
    sockets[2].answer(sockets[2].events[0], b'"c"')
    sockets[0].answer(sockets[0].events[0], b'"a"')
    assert (await asked).result == b'"c"'
    assert left_over(bench, device) == []


@bounded
async def test_socket_replaced(bench: Bench, invocations: Invocations) -> None:
    """A device whose socket breaks and comes back in time gets the command again."""
    device = await bench.device()
    socket = await attach(bench, device)
    asked = invoke(invocations, device)
    await bench.settle()
    socket.detach()
    await attach(bench, device, echo)
    assert (await asked).result == HI


# A device that is not there


@bounded
async def test_offline(bench: Bench, invocations: Invocations) -> None:
    """Without time to connect, a device that is not attached is offline at once."""
    device = await bench.device()
    asked = invoke(invocations, device)
    assert asked.called
    await fails(asked, Offline)
    (await attach(bench, device)).detach()
    await fails(invoke(invocations, device), Offline)
    assert await kinds(bench, device) == [Kind.ATTACHED, Kind.DETACHED]
    assert left_over(bench, device) == []


@bounded
async def test_connects(bench: Bench, invocations: Invocations) -> None:
    """A device that attaches in time gets the command, once, and has its whole time to answer."""
    device, other = await bench.device(), await bench.device("E")
    asked = invoke(invocations, device, respond=5, connect=3)
    await attach(bench, other, echo)
    bench.timers.advance(2.5)
    socket = await attach(bench, device)
    bench.timers.advance(4.5)
    await bench.settle()
    assert socket.names == ["RestApi"]
    socket.answer(socket.events[0], b"1")
    assert (await asked).result == b"1"
    assert await kinds(bench, device) == [Kind.ATTACHED, Kind.COMMAND, Kind.COMMAND_UPDATE]
    assert left_over(bench, device, other) == []


@bounded
async def test_connects_alone(bench: Bench, invocations: Invocations) -> None:
    """A socket that takes over is waited for as well."""
    device = await bench.device()
    asked = [invoke(invocations, device, connect=3) for _ in range(3)]
    await bench.core.presence.take_over(device, "test", lambda: None)
    await bench.settle()
    commands = [event for event in await bench.replay(device) if event.kind is Kind.COMMAND]
    for event in commands:
        await bench.core.commands.update(bench.admin, device, event.id, "done", b"1")
    assert len(await together(asked)) == 3


@bounded
async def test_does_not_connect(bench: Bench, invocations: Invocations) -> None:
    """When its time to connect is over it is offline; nothing was recorded."""
    device = await bench.device()
    asked = invoke(invocations, device, connect=3)
    bench.timers.advance(2.9)
    assert not asked.called
    bench.timers.advance(0.2)
    await fails(asked, Offline)
    assert left_over(bench, device) == []
    await attach(bench, device)
    assert await kinds(bench, device) == [Kind.ATTACHED]


# No answer


@bounded
async def test_silent(bench: Bench, invocations: Invocations) -> None:
    """A device that says nothing in time gave no answer; a later one is recorded and harmless."""
    device = await bench.device()
    socket = await attach(bench, device)
    asked = invoke(invocations, device, respond=5)
    await bench.settle()
    bench.timers.advance(4.9)
    assert not asked.called
    bench.timers.advance(0.2)
    await fails(asked, NoAnswer)
    assert left_over(bench, device) == []
    with capturedLogs() as logged:
        socket.answer(socket.events[0], b'"late"')
        await bench.settle()
        again = invoke(invocations, device)
        await bench.settle()
        socket.answer(socket.events[1], b'"soon"')
        assert (await again).result == b'"soon"'
    assert logged == []
    late = await bench.core.commands.get(bench.admin, device, socket.events[0].id)
    assert late.result == b'"late"'


@bounded
async def test_too_late_for_others(bench: Bench, invocations: Invocations) -> None:
    """A socket that comes when nobody waits any more does not get the command."""
    device = await bench.device()
    socket = await attach(bench, device)
    asked = invoke(invocations, device, respond=0.5)
    await bench.settle()
    bench.timers.advance(0.5)
    await fails(asked, NoAnswer)
    socket.detach()
    bench.clock.now += 990
    early = await attach(bench, device)
    assert early.names == ["RestApi"]
    bench.clock.now += 20  # times of one device always differ, so they run ahead a little
    assert (await attach(bench, device)).names == []


@bounded
async def test_slow_store(bench: Bench, invocations: Invocations) -> None:
    """Also while the command is not on disk yet the time runs."""
    device = await bench.device()
    await attach(bench, device)
    bench.gate.hold("append")
    asked = invoke(invocations, device, respond=5)
    bench.timers.advance(5)
    await fails(asked, NoAnswer)
    await bench.gate.answered("append")
    await bench.gate.release("append")
    assert left_over(bench, device) == []


@bounded
async def test_store_fails(bench: Bench, invocations: Invocations) -> None:
    """A command that the log does not take is refused, and nobody waits for it."""
    device = await bench.device()
    await attach(bench, device)
    bench.gate.fail("append", Unavailable("full"))
    await fails(invoke(invocations, device), Unavailable)
    await fails(Deferred.fromCoroutine(submit(invocations, device)), Unavailable)
    bench.gate.fail("append", None)
    assert left_over(bench, device) == []


# Blocked, deleted


@bounded
async def test_blocked(bench: Bench, invocations: Invocations) -> None:
    """A blocked device is asked nothing, whichever state of it the caller knows."""
    known = await bench.device()
    await attach(bench, known, echo)
    await block(bench, True)
    assert str(await fails(invoke(invocations, known, connect=9), Denied)) == "blocked"
    assert str(await fails(Deferred.fromCoroutine(submit(invocations, known)), Denied)) == "blocked"
    await block(bench, False)
    assert (await invoke(invocations, known)).result == HI


@pytest.mark.parametrize(("change", "kind"), MEANWHILE, ids=["blocked", "deleted"])
@pytest.mark.parametrize("stage", ["connecting", "recording", "answering"])
@bounded
async def test_meanwhile(
    bench: Bench, invocations: Invocations, stage: str, change: Callable[[Bench], Any],
    kind: type[GatewayError],
) -> None:  # fmt: skip
    """Who waits for a device that is blocked or deleted is told so at once, and only who does.

    A device that is blocked may have had the command: then nobody knows what it did.
    """
    if kind is Denied and stage != "connecting":
        kind = NoAnswer
    device, other = await bench.device(), await bench.device("E")
    await attach(bench, other)
    if stage != "connecting":
        await attach(bench, device)
    if stage == "recording":
        bench.gate.hold_publishing()
    asked = [invoke(invocations, device, connect=9) for _ in range(3)]
    elsewhere = invoke(invocations, other)
    if stage == "answering":
        await bench.settle()
    with capturedLogs() as logged:
        await change(bench)
        for each in asked:
            assert each.called
            await fails(each, kind)
    assert not elsewhere.called
    elsewhere.cancel()
    await fails_cancelled(elsewhere)
    if stage == "recording":
        bench.gate.publish()
    await bench.settle()
    assert left_over(bench, other) == []
    assert logged == []
    assert not invocations._waiting


@bounded
async def test_renamed(bench: Bench, invocations: Invocations) -> None:
    """Any other change of the device disturbs nobody."""
    device = await bench.device()
    socket = await attach(bench, device)
    asked = invoke(invocations, device)
    await bench.settle()
    await bench.core.devices.save(bench.admin, "D", DeviceChange(name="other"))
    socket.answer(socket.events[0], b"1")
    assert (await asked).result == b"1"


@bounded
async def test_gone(bench: Bench, invocations: Invocations) -> None:
    """A device that the caller knows and that is gone is not found."""
    device = await bench.device()
    await bench.core.devices.delete(bench.admin, "D")
    bench.core.presence.share(device, "test")
    await fails(invoke(invocations, device), NotFound)
    await fails(Deferred.fromCoroutine(submit(invocations, device)), NotFound)


# Cancelling


@pytest.mark.parametrize("stage", ["connecting", "recording", "answering"])
@bounded
async def test_cancel(bench: Bench, invocations: Invocations, stage: str) -> None:
    """Who gives up leaves nothing behind, and the others alone."""
    device = await bench.device()
    if stage != "connecting":
        await attach(bench, device)
    given_up, kept = (invoke(invocations, device, connect=9) for _ in range(2))
    if stage == "answering":
        await bench.settle()
    given_up.cancel()
    assert given_up.called
    await fails_cancelled(given_up)
    assert not kept.called
    if stage == "connecting":
        await attach(bench, device)
    await bench.settle()
    commands = [event for event in await bench.replay(device) if event.kind is Kind.COMMAND]
    for event in commands:
        await bench.core.commands.update(bench.admin, device, event.id, "done", b"1")
    assert (await kept).result == b"1"
    assert len(commands) == (1 if stage == "connecting" else 2)
    assert left_over(bench, device) == []
    assert not invocations._waiting
