"""What is attached to other nodes, as the log and the leases tell."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs

from gatewayd.core.attachment import Attachment, to_entry
from gatewayd.core.cluster import Node
from gatewayd.core.model import Device, Entry, Event, Kind
from gatewayd.core.queries import Filter
from gatewayd.errors import NotFound, Superseded, Unavailable
from tests.core.bench import Bench, Recorder, bounded
from tests.core.clustering import NodeBench, number, stored


@pytest_twisted.async_yield_fixture(name="node")
async def join(bench: Bench) -> AsyncIterator[NodeBench]:
    """Join a cluster of which there is a node two."""
    node = NodeBench(bench)
    node.cluster.meet(Node(name="two", incarnation=2))
    await node.core.join()
    yield node
    await node.close()


def where(node: NodeBench, device: Device) -> list[tuple[str, int]]:
    """Return where a device is attached, and by which number."""
    return [(each.node, each.number) for each in node.core.presence.of(device)]


@bounded
async def test_events(node: NodeBench) -> None:
    """A coming and a going on another node count when they are in the log."""
    device, other = await node.bench.device(), await node.bench.device("E")
    event = await node.record(Kind.ATTACHED, device, number(2))
    (seen,) = node.core.presence.of(device)
    assert (seen.node, seen.protocol, seen.since) == ("two", "p", event.ts)
    assert where(node, other) == []
    await node.record(Kind.DETACHED, device, number(2, 7))  # another one, long ago
    assert where(node, device) == [("two", number(2))]
    await node.record(Kind.DETACHED, device, number(2))
    assert where(node, device) == []


@bounded
async def test_before_anybody_else(node: NodeBench) -> None:
    """Who is told of a coming finds the device attached, and when it waits, is told before."""
    device = await node.bench.device()
    told: list[str] = []
    node.core.presence.arrival(device).addCallback(lambda _: told.append("arrived"))
    attendance = node.core.timeline.attendance

    def see(event: Event) -> None:
        attendance(event)
        told.append(event.kind.name)

    node.core.timeline.attendance = see
    await node.record(Kind.ATTACHED, device, number(2))
    assert told == ["arrived", "ATTACHED"]


@bounded
async def test_what_it_says(node: NodeBench) -> None:
    """A coming says where, and by which number it will be found again."""
    device = await node.bench.device()
    attachment = node.core.presence.share(device, "a")
    alone = await node.core.presence.take_over(device, "b", lambda: None)
    await node.bench.settle()
    bodies = [event.body for event in await node.bench.replay(device)]
    assert bodies[1:] == [
        b'{"protocol":"a","node":"one","attachment":%d}' % attachment.number,
        b'{"protocol":"b","node":"one","attachment":%d,"exclusive":true}' % alone.number,
    ]
    assert attachment.incarnation == alone.incarnation == 1
    assert attachment.number != alone.number


@bounded
async def test_dead_and_revived(node: NodeBench) -> None:
    """What a dead node has counts no more, unless it turns out to live."""
    device = await node.bench.device()
    await node.record(Kind.ATTACHED, device, number(2))
    node.cluster.meet(Node(name="two", incarnation=2, alive=False))
    await node.advance(3)
    assert where(node, device) == []
    arrived = node.core.presence.arrival(device)
    node.cluster.meet(Node(name="two", incarnation=2))
    await node.advance(3)
    assert where(node, device) == [("two", number(2))]
    assert arrived.called
    await arrived


@bounded
async def test_late_coming_to_a_dead_node(node: NodeBench) -> None:
    """What a node had recorded before it died does not count when it is heard of later."""
    device = await node.bench.device()
    node.cluster.meet(Node(name="two", incarnation=2, alive=False))
    await node.advance(3)
    await node.record(Kind.ATTACHED, device, number(2))
    assert where(node, device) == []


@bounded
async def test_new_incarnation(node: NodeBench) -> None:
    """What a node had before it joined anew is over, by whichever of both is heard of first."""
    device = await node.bench.device()
    await node.record(Kind.ATTACHED, device, number(2))
    await node.record(Kind.ATTACHED, device, number(5))
    assert where(node, device) == [("two", number(5))]
    node.cluster.meet(Node(name="two", incarnation=5))
    await node.advance(3)
    assert where(node, device) == [("two", number(5))]
    node.cluster.meet(Node(name="two", incarnation=8))
    await node.advance(3)
    assert where(node, device) == []


@bounded
async def test_left(node: NodeBench) -> None:
    """A node that left has nothing attached."""
    device = await node.bench.device()
    await node.record(Kind.ATTACHED, device, number(2))
    node.cluster.nodes = [each for each in node.cluster.nodes if each.name == "one"]
    await node.advance(3)
    assert where(node, device) == []


@bounded
async def test_snapshot(bench: Bench) -> None:
    """A node that starts knows what is attached, without what goes meanwhile."""
    node = NodeBench(bench)
    device = await bench.device()
    node.cluster.meet(Node(name="two", incarnation=2))
    node.cluster.known = [stored(device, number(2, count)) for count in (1, 2)]
    node.cluster.known.append(stored(device, number(1), "one"))  # before it was started anew
    await node.membership.start()
    held = node.cluster.hold()
    starting = Deferred.fromCoroutine(node.core.presence.start())
    await node.record(Kind.DETACHED, device, number(2, 2))
    await node.record(Kind.ATTACHED, device, number(2, 3))
    held[0].callback(None)
    await starting
    assert sorted(where(node, device)) == [("two", number(2, 1)), ("two", number(2, 3))]
    await node.close()


@bounded
async def test_taken_over(node: NodeBench) -> None:
    """A device that speaks through another node leaves its socket here; one that shares stays."""
    device = await node.bench.device()
    gone: list[str] = []
    presence = node.core.presence
    await presence.take_over(device, "a", lambda: gone.append("a"))
    shared = presence.share(device, "b", lambda: gone.append("b"))
    await node.record(Kind.ATTACHED, device, number(2), exclusive=True)
    assert gone == ["a"]
    assert sorted(where(node, device)) == [("", shared.number), ("two", number(2))]
    kinds = [event.kind for event in await node.bench.replay(device)]
    assert kinds.count(Kind.DETACHED) == 1


@bounded
async def test_defect_of_a_socket(node: NodeBench) -> None:
    """A socket that cannot be told to go costs nobody an event."""
    device = await node.bench.device()

    def broken() -> None:
        raise RuntimeError("superseded")

    await node.core.presence.take_over(device, "a", broken)
    await node.bench.settle()
    sink = Recorder()
    wanted = Filter(kinds=frozenset({Kind.ATTACHED}))
    node.core.timeline.subscribe(wanted, node.bench.admin, sink).go_live()
    with capturedLogs() as logged:
        event = await node.record(Kind.ATTACHED, device, number(2), exclusive=True)
    assert "a socket could not be told to go" in [entry["log_format"] for entry in logged]
    assert sink.seqs == [event.seq]
    assert where(node, device) == [("two", number(2))]


@bounded
async def test_taken_over_before_the_answer(node: NodeBench) -> None:
    """Who was superseded before it heard of its own epoch is told so at once."""
    device = await node.bench.device()
    gone: list[str] = []
    node.gate.hold("append")
    taking = node.core.presence.take_over(device, "a", lambda: gone.append("a"))
    await node.gate.answered("append")
    await _record_elsewhere(node, device)
    await node.gate.release("append")
    await taking
    assert gone == ["a"]
    assert where(node, device) == [("two", number(2))]


async def _record_elsewhere(node: NodeBench, device: Device) -> None:
    """Record a coming past the gate, whose answers are held."""
    theirs = Attachment(device, "p", lambda: None, node="two", number=number(2))
    await node.gate.store.append(to_entry(theirs, "two", Kind.ATTACHED, exclusive=True))
    await node.bench.settle()


@bounded
async def test_taken_for_dead(node: NodeBench) -> None:
    """When another node has recorded the end of a socket of this one, it has to go."""
    device = await node.bench.device()
    gone: list[str] = []
    first = node.core.presence.share(device, "a", lambda: gone.append("a"))
    second = node.core.presence.share(device, "b", lambda: gone.append("b"))
    await node.record(Kind.DETACHED, device, first.number, node="one")
    assert gone == ["a"]
    assert where(node, device) == [("", second.number)]


@bounded
async def test_not_recorded(node: NodeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket of which the others do not hear has to go; that it is over they hear later."""
    device = await node.bench.device()
    gone: list[str] = []
    answer: Deferred[Event] = Deferred()
    with monkeypatch.context() as patched, capturedLogs() as logged:
        patched.setattr(node.core.timeline, "append", lambda entry: answer)
        attachment = node.core.presence.share(device, "a", lambda: gone.append("a"))
        assert where(node, device) == [("", attachment.number)]
        answer.errback(Unavailable("too much waits"))
    assert gone == ["a"]
    assert where(node, device) == []
    assert [entry["error"] for entry in logged] == ["too much waits"]
    await node.advance(3)
    assert [e.kind for e in await node.bench.replay(device)][-1] is Kind.DETACHED


@bounded
async def test_refused_at_once(node: NodeBench) -> None:
    """Nothing is attached of which is known at once that the others will not hear of it."""
    device = await node.bench.device()
    gone: list[str] = []
    arrived = node.core.presence.arrival(device)
    node.gate.fail("append", Unavailable("the database is not reached"))
    with pytest.raises(Unavailable):
        node.core.presence.share(device, "a", lambda: gone.append("a"))
    assert (gone, where(node, device), arrived.called) == ([], [], False)
    node.gate.fail("append", None)
    node.core.presence.share(device, "a", lambda: gone.append("a"))
    assert (gone, arrived.called) == ([], True)


@bounded
async def test_told_by_another(node: NodeBench) -> None:
    """That somebody else has recorded the end of a socket is nothing to be warned of."""
    device = await node.bench.device()
    attachment = node.core.presence.share(device, "a")
    node.gate.fail("append", Superseded("D"))
    with capturedLogs() as logged:
        node.core.presence.detach(attachment)
        node.core.timeline.note(Entry(device=device, kind=Kind.DETACHED, name="a"))
    assert [entry["log_level"] for entry in logged] == [LogLevel.debug] * 2
    node.gate.fail("append", None)


@bounded
async def test_lost_while_it_takes_over(node: NodeBench) -> None:
    """Nobody takes over with a lease that is over when the answer comes."""
    device = await node.bench.device()
    node.gate.hold("append")
    taking = node.core.presence.take_over(device, "a", lambda: None)
    await node.gate.answered("append")
    node.bench.timers.rightNow += 30
    await node.gate.release("append")
    with pytest.raises(Unavailable):
        await taking
    assert where(node, device) == []


@bounded
async def test_deleted(node: NodeBench) -> None:
    """Nothing of a deleted device is attached anywhere."""
    device = await node.bench.device()
    await node.record(Kind.ATTACHED, device, number(2))
    arrived = node.core.presence.arrival(device)
    node.core.devices.gone(device)
    assert where(node, device) == []
    with pytest.raises(NotFound):
        await arrived
