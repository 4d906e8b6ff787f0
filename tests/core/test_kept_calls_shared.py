"""Relayed requests that another node carries out."""

from __future__ import annotations

import pytest

from gatewayd.core.cluster import LEASE, Node
from gatewayd.errors import Conflict, NoAnswer, NotFound, Unavailable
from tests.core.bench import Bench, bounded
from tests.core.relaying import OK, Relaying, ask, failure, is_waiting


class View:
    """What a node knows of those that are alive."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Node] = []

    def know(self, **incarnations: int) -> None:
        """Know of these nodes, and of no others."""
        self.nodes = [Node(name=name, incarnation=n) for name, n in incarnations.items()]


class Nodes:
    """Two that keep their calls in one store, and know of each other."""

    def __init__(self, bench: Bench) -> None:
        self._views = View("one"), View("two")
        self.first, self.second = self._views
        self.know(one=1, two=2)
        self.one, self.two = (Relaying(bench, nodes=view) for view in self._views)

    def know(self, **incarnations: int) -> None:
        """Have both know of these nodes, and of no others."""
        for view in self._views:
            view.know(**incarnations)


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
    assert await nodes.two.once(device) == OK
    assert not nodes.two.door.asked


@bounded
async def test_lost_elsewhere(bench: Bench) -> None:
    """What a node did not bring to its end is lost when it must be over."""
    nodes = Nodes(bench)
    device = await bench.device()
    call = await nodes.one.pending(device)
    assert await nodes.two.outcome(device, call) is None
    bench.clock.now += 3_600_000
    await failure(NoAnswer, nodes.two.outcome(device, call))


# Who is there


async def lost(nodes: Relaying, bench: Bench, call: str) -> None:
    """Check that a call with the key ``k`` is lost, as a node sees it."""
    device = await bench.device()
    await failure(NoAnswer, nodes.outcome(device, call))
    await failure(NoAnswer, nodes.later(device, key="k", wait=5.0))
    assert (await failure(Conflict, nodes.once(device))).reason == "unknown"
    assert not nodes.door.asked


@bounded
async def test_restarted(bench: Bench) -> None:
    """What a restart of the same node has interrupted is lost at once, on all nodes."""
    nodes = Nodes(bench)
    call = await nodes.one.pending(await bench.device(), key="k")
    again = Relaying(bench, nodes=nodes.first)
    nodes.know(one=3, two=2)
    await lost(again, bench, call)
    await lost(nodes.two, bench, call)


@bounded
async def test_not_kept(bench: Bench) -> None:
    """A call of this very process that is not under way any more is lost, too."""
    nodes = Nodes(bench)
    bench.gate.fail("end_call", Unavailable())
    call = await nodes.one.pending(await bench.device(), key="k")
    nodes.one.door.answer()
    await bench.settle()
    bench.gate.fail("end_call", None)
    nodes.one.door.asked.clear()
    await lost(nodes.one, bench, call)


@bounded
async def test_dead(bench: Bench) -> None:
    """What a node was at when it died is lost at once, also for who waits for it."""
    nodes = Nodes(bench)
    device = await bench.device()
    call = await nodes.one.pending(device, key="k")
    waiting = nodes.two.later(device, key="k", wait=5.0)
    await bench.settle()
    nodes.know(two=2)
    bench.timers.advance(0.5)
    await failure(NoAnswer, waiting)
    await lost(nodes.two, bench, call)


@bounded
async def test_finished_before_it_died(bench: Bench) -> None:
    """What a node has finished is there when the node is not."""
    nodes = Nodes(bench)
    device = await bench.device()
    call = await nodes.one.pending(device, key="k")
    nodes.one.door.answer()
    await bench.settle()
    nodes.know(two=2)
    assert await nodes.two.outcome(device, call) == OK
    assert await nodes.two.once(device) == OK


@bounded
async def test_not_known_yet(bench: Bench) -> None:
    """A node that has just joined may be at a call before it is known; not for long."""
    nodes = Nodes(bench)
    device = await bench.device()
    nodes.first.know(one=3, two=2)
    call = await nodes.one.pending(device, key="k")
    bench.clock.now += LEASE - 1
    assert await nodes.two.outcome(device, call) is None
    assert (await failure(Conflict, nodes.two.once(device))).reason == "running"
    bench.clock.now += 1
    await lost(nodes.two, bench, call)
    nodes.second.know(one=3, two=2)
    assert await nodes.two.outcome(device, call) is None


@bounded
async def test_joined_anew(bench: Bench) -> None:
    """A node that lost its lease finishes its calls; the others know when it has."""
    nodes = Nodes(bench)
    device = await bench.device()
    call = await nodes.one.pending(device, key="k")
    nodes.know(two=2)
    assert await nodes.one.outcome(device, call) is None
    nodes.know(one=3, two=2)
    assert await nodes.one.outcome(device, call) is None
    assert (await failure(Conflict, nodes.one.once(device))).reason == "running"
    await lost(nodes.two, bench, call)
    nodes.one.door.answer()
    await bench.settle()
    for node in (nodes.one, nodes.two):
        assert await node.outcome(device, call) == OK
        assert await node.once(device) == OK


@bounded
async def test_without_a_lease(bench: Bench) -> None:
    """A node without a lease begins nothing, of which the others could not tell whose it is."""
    nodes = Nodes(bench)
    device = await bench.device()
    nodes.first.know(two=2)
    await failure(Unavailable, nodes.one.once(device))
    await failure(Unavailable, nodes.one.later(device))
    assert not nodes.one.door.asked


@pytest.mark.parametrize("shared", [True, False])
@bounded
async def test_from_before(bench: Bench, shared: bool) -> None:
    """A store that is shared from now on, or not any more, has calls that nobody carries out."""
    nodes = Nodes(bench)
    alone = Relaying(bench)
    begun, found = (alone, nodes.two) if shared else (nodes.one, alone)
    await lost(found, bench, await begun.pending(await bench.device(), key="k"))


@bounded
async def test_ids(bench: Bench) -> None:
    """An id cannot be guessed from another, and fits into a path."""
    nodes = Nodes(bench)
    device = await bench.device()
    ids = [await nodes.one.pending(device) for _ in range(2)]
    assert len({each.partition(".")[2] for each in ids}) == 2
    for each in ids:
        assert len(each.partition(".")[2]) == 24
        assert set(each) <= set("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.")
        await failure(NotFound, nodes.one.outcome(device, each.partition(".")[2]))
