"""Commands that are left for a device, and their answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from gatewayd.core.invocations import Invocations
from gatewayd.core.model import Command, Device
from gatewayd.errors import GatewayError, NoAnswer, Unavailable
from tests.core.bench import Bench, bounded, together
from tests.core.responder import (
    HI,
    MEANWHILE,
    attach,
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


def answered(
    invocations: Invocations, device: Device, seq: int, wait: float = 0
) -> Deferred[Command | None]:
    return Deferred.fromCoroutine(invocations.answered(device, seq, wait))


@bounded
async def test_submit(bench: Bench, invocations: Invocations) -> None:
    """A command is recorded for a device that is away, and delivered when it comes in time."""
    device = await bench.device()
    event = await submit(invocations, device, 60, user=7)
    assert event.command is not None
    assert (event.command.lifetime, event.command.user) == (60, 7)
    assert (await attach(bench, device)).seqs == [event.seq]
    bench.clock.now += 60_010
    assert (await attach(bench, device)).seqs == []


@bounded
async def test_answered(bench: Bench, invocations: Invocations) -> None:
    """The answer is there when the device has given it, also after a restart."""
    device = await bench.device()
    seq = (await submit(invocations, device)).seq
    assert await answered(invocations, device, seq) is None
    waiting = [answered(invocations, device, seq, wait=5) for _ in range(3)]
    await bench.settle()
    assert not any(each.called for each in waiting)
    await attach(bench, device, echo)
    for command in [*await together(waiting), await answered(invocations, device, seq)]:
        assert command is not None
        assert (command.seq, command.result) == (seq, HI)
    assert left_over(bench, device) == []
    await bench.reopen()
    again = make_invocations(bench)
    found = await answered(again, device, seq, wait=5)
    assert found is not None
    assert found.result == HI


@bounded
async def test_answered_while_it_is_read(bench: Bench, invocations: Invocations) -> None:
    """An answer that comes between the look into the log and the wait is not missed."""
    device = await bench.device()
    event = await submit(invocations, device)
    bench.gate.hold("command")
    waiting = answered(invocations, device, event.seq, wait=5)
    await bench.gate.answered("command")
    await bench.core.commands.update(bench.admin, device, event.id, "done", b"1")
    await bench.settle()
    await bench.gate.release("command")
    command = await waiting
    assert command is not None
    assert command.result == b"1"
    assert left_over(bench, device) == []


@bounded
async def test_not_answered(bench: Bench, invocations: Invocations) -> None:
    """While it may still be answered there is none; when its lifetime is over there will be none.

    Nor for what nobody knows.
    """
    device = await bench.device()
    seq = (await submit(invocations, device, 60)).seq
    waiting = answered(invocations, device, seq, wait=5)
    await bench.settle()
    bench.timers.advance(5)
    assert await waiting is None
    bench.clock.now += 59_990
    assert await answered(invocations, device, seq) is None
    bench.clock.now += 20
    await fails(answered(invocations, device, seq, wait=5), NoAnswer)
    await fails(answered(invocations, device, seq + 1000, wait=5), NoAnswer)
    bench.gate.fail("command", Unavailable("unreadable"))
    await fails(answered(invocations, device, seq, wait=5), Unavailable)
    assert left_over(bench, device) == []


@pytest.mark.parametrize(("change", "kind"), MEANWHILE, ids=["blocked", "deleted"])
@bounded
async def test_answered_meanwhile(
    bench: Bench, invocations: Invocations, change: Callable[[Bench], Any], kind: type[GatewayError]
) -> None:
    """Who waits for the answer of a device that is blocked or deleted is told so."""
    device = await bench.device()
    seq = (await submit(invocations, device)).seq
    waiting = answered(invocations, device, seq, wait=5)
    await bench.settle()
    with capturedLogs() as logged:
        await change(bench)
        await fails(waiting, kind)
        await bench.settle()
    assert logged == []
    assert not invocations._waiting
    assert not bench.timers.getDelayedCalls()


@bounded
async def test_answered_cancel(bench: Bench, invocations: Invocations) -> None:
    """Who gives up waiting leaves nothing behind."""
    device = await bench.device()
    seq = (await submit(invocations, device)).seq
    for settled in (False, True):
        waiting = answered(invocations, device, seq, wait=5)
        if settled:
            await bench.settle()
        waiting.cancel()
        await fails_cancelled(waiting)
        await bench.settle()
        assert left_over(bench, device) == []


@bounded
async def test_answered_gives_up_another(bench: Bench, invocations: Invocations) -> None:
    """Of two who wait for the same answer, the first may give the other one up."""
    device = await bench.device()
    event = await submit(invocations, device)
    first, second = (answered(invocations, device, event.seq, wait=5) for _ in range(2))
    await bench.settle()
    first.addCallback(lambda _: second.cancel())
    with capturedLogs() as logged:
        await bench.core.commands.update(bench.admin, device, event.id, "done", b"1")
        await first
        await fails_cancelled(second)
        await bench.settle()
    assert logged == []
    assert left_over(bench, device) == []
