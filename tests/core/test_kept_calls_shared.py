"""Relayed requests that another node carries out."""

from __future__ import annotations

from gatewayd.errors import Conflict, NoAnswer
from tests.core.bench import Bench, bounded
from tests.core.relaying import OK, Relaying, ask, failure, is_waiting


class Nodes:
    """Two that keep their calls in one store."""

    def __init__(self, bench: Bench) -> None:
        self.one, self.two = (Relaying(bench, shared=True) for _ in range(2))


@bounded
async def test_found_elsewhere(bench: Bench) -> None:
    """The answer to a call that one node carries out is found on the other when it is there."""
    nodes = Nodes(bench)
    device = await bench.device()
    call = await nodes.one.pending(device)
    assert await nodes.two.outcome(device, call) is None
    nodes.one.door.answer()
    await bench.settle()
    assert await nodes.two.outcome(device, call) == OK


@bounded
async def test_waited_for_elsewhere(bench: Bench) -> None:
    """Who repeats a call on another node waits for its answer, and it is sent once."""
    nodes = Nodes(bench)
    device = await bench.device()
    await nodes.one.pending(device, key="k")
    asked = nodes.two.later(device, key="k", wait=5.0)
    await bench.settle()
    assert is_waiting(asked)
    nodes.one.door.answer()
    await bench.settle()
    bench.timers.advance(0.5)
    assert await asked == OK
    assert not nodes.two.door.asked


@bounded
async def test_not_in_time(bench: Bench) -> None:
    """After the time to wait, the call is returned."""
    nodes = Nodes(bench)
    device = await bench.device()
    call = await nodes.one.pending(device, key="k")
    asked = nodes.two.later(device, key="k", wait=1.0)
    for _ in range(4):
        await bench.settle()
        bench.timers.advance(0.5)
    found = await asked
    assert getattr(found, "id", None) == call


@bounded
async def test_once_elsewhere(bench: Bench) -> None:
    """A call that another node carries out is running, as long as it may."""
    nodes = Nodes(bench)
    device = await bench.device()
    running = nodes.one.once(device)
    await bench.settle()
    assert (await failure(Conflict, nodes.two.once(device))).reason == "running"
    request = ask()
    bench.clock.now += round((2 * request.respond + request.connect) * 1000)
    # If the other was still at it, it would have given up.
    assert (await failure(Conflict, nodes.two.once(device))).reason == "unknown"
    nodes.one.door.answer()
    assert await running == OK


@bounded
async def test_lost_elsewhere(bench: Bench) -> None:
    """What a node did not bring to its end is lost when it must be over."""
    nodes = Nodes(bench)
    device = await bench.device()
    call = await nodes.one.pending(device)
    assert await nodes.two.outcome(device, call) is None
    bench.clock.now += 3_600_000
    await failure(NoAnswer, nodes.two.outcome(device, call))
