"""The lease of a node: kept, lost, taken anew; and who else is there."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from gatewayd.core.cluster import Node
from gatewayd.core.model import Kind
from gatewayd.core.plugins import PluginDraft
from gatewayd.errors import ConfigError, Superseded, Unavailable
from tests.core.bench import Bench, bounded
from tests.core.clustering import NodeBench, names, number, stored


@pytest_twisted.async_yield_fixture(name="node")
async def join(bench: Bench) -> AsyncIterator[NodeBench]:
    """Join a cluster of which nobody else is there."""
    node = NodeBench(bench)
    await node.core.join()
    yield node
    await node.close()


@bounded
async def test_alone(node: NodeBench) -> None:
    """A node that is alone is the warden, and knows itself."""
    membership = node.membership
    assert membership.holds()
    assert membership.warden
    assert membership.alone
    assert names(membership.nodes) == ["one"]
    assert membership.others() == []


@bounded
async def test_renewals(node: NodeBench) -> None:
    """A lease is renewed every 3 seconds."""
    before = node.cluster.asked.count("renew")
    await node.advance(9.05)
    assert node.cluster.asked.count("renew") - before == 3
    assert node.membership.holds()


@bounded
async def test_one_renewal_at_a_time(node: NodeBench) -> None:
    """A renewal that takes long is not joined by another; the next begins when it is answered."""
    held = node.cluster.hold()
    before = node.cluster.asked.count("renew")
    await node.advance(7)
    assert node.cluster.asked.count("renew") - before == 1
    node.cluster.held = None
    held[0].callback(None)
    await node.advance(0.1)
    assert node.cluster.asked.count("renew") - before == 2


@bounded
async def test_fenced(node: NodeBench) -> None:
    """Without a renewal for 8 seconds, all sockets go and none is attached."""
    device = await node.bench.device()
    gone: list[str] = []
    presence = node.core.presence
    presence.share(device, "a", lambda: gone.append("a"))
    await presence.take_over(device, "b", lambda: gone.append("b"))
    node.cluster.error = Unavailable("the database is away")
    await node.advance(7.9)
    assert gone == []
    assert len(presence.of(device)) == 2
    await node.advance(0.2)
    assert sorted(gone) == ["a", "b"]
    assert presence.of(device) == []
    assert not node.membership.holds()
    with pytest.raises(Unavailable):
        presence.share(device, "a")
    with pytest.raises(Unavailable):
        await presence.take_over(device, "b", lambda: None)
    await node.bench.settle()
    kinds = [event.kind for event in await node.bench.replay(device)]
    assert Kind.DETACHED not in kinds  # what it had is ended by others


@bounded
async def test_joins_anew(node: NodeBench) -> None:
    """As soon as it can, a node without a lease joins anew, and numbers grow."""
    device = await node.bench.device()
    before = node.core.presence.share(device, "a").number
    node.cluster.error = Unavailable("the database is away")
    await node.advance(20)
    node.cluster.error = None
    await node.advance(3)
    assert node.membership.holds()
    assert node.core.presence.share(device, "a").number > before


@bounded
async def test_thawed(node: NodeBench) -> None:
    """A process that stood still is without a lease before its timers tell it so."""
    device = await node.bench.device()
    gone: list[str] = []
    node.core.presence.share(device, "a", lambda: gone.append("a"))
    node.bench.timers.rightNow += 30
    with pytest.raises(Unavailable):
        node.core.presence.share(device, "b")
    assert gone == ["a"]


@bounded
async def test_late_answer(node: NodeBench) -> None:
    """A renewal that is answered too late holds nothing."""
    held = node.cluster.hold()
    await node.advance(3)
    (answer,) = held
    node.bench.timers.rightNow += 10
    answer.callback(None)
    assert not node.membership.holds()


@bounded
async def test_taken_over_while_it_froze(node: NodeBench) -> None:
    """A lease that is over by the clock of the store is lost at once."""
    lost: list[bool] = []
    node.membership.lost.append(lambda: lost.append(True))
    node.cluster.meet(Node(name="one", incarnation=1, alive=False))
    await node.advance(3)
    assert lost == [True]
    await node.advance(3)
    assert node.membership.holds()


@bounded
async def test_name_taken(node: NodeBench) -> None:
    """When somebody has taken the name meanwhile, the daemon is told, and tries no more."""
    told: list[str] = []
    node.membership.failed = lambda error: told.append(str(error))
    node.cluster.error = ConfigError("another runs by that name")
    node.cluster.meet(Node(name="one", incarnation=9, alive=False))
    with capturedLogs() as logged:
        await node.advance(6.5)
    assert told == ["another runs by that name"]
    assert any("cannot join again" in entry["log_format"] for entry in logged)
    asked = len(node.cluster.asked)
    await node.advance(10)
    assert len(node.cluster.asked) == asked


@bounded
async def test_come_and_gone(node: NodeBench) -> None:
    """Who comes and goes is known, and who is the warden follows from it."""
    node.cluster.meet(Node(name="a", incarnation=5, advertise="http://10.0.0.1"))
    node.cluster.meet(Node(name="z", incarnation=6))
    await node.advance(3)
    assert not node.membership.warden
    assert not node.membership.alone
    assert names(node.membership.others()) == ["a", "z"]
    assert node.membership.url("a") == "http://10.0.0.1"
    assert node.membership.url("z") is None
    node.cluster.meet(Node(name="a", incarnation=5, alive=False))
    await node.advance(3)
    assert node.membership.peer("a") is None
    assert node.membership.warden


@bounded
async def test_stranded(node: NodeBench) -> None:
    """The warden records the end of what dead nodes had, all of it."""
    device = await node.bench.device()
    node.cluster.left_behind = [stored(device, number(2, count)) for count in range(1, 603)]
    await node.advance(3)
    await node.advance(3)
    ends = [e for e in await node.bench.replay(device) if e.kind is Kind.DETACHED]
    assert len(ends) >= 500 - 2  # a page of the log
    assert node.cluster.left_behind == []


@bounded
async def test_stranded_device_is_gone(node: NodeBench) -> None:
    """What is left of a device that is deleted just now stops nobody."""
    device, other = await node.bench.device(), await node.bench.device("E")
    await node.bench.core.devices.delete(node.bench.admin, "D")
    node.cluster.left_behind = [stored(device, number(2)), stored(other, number(2, 2))]
    await node.advance(3)
    assert [e.kind for e in await node.bench.replay(other)][-1] is Kind.DETACHED
    assert node.membership.holds()


@bounded
async def test_stranded_twice(node: NodeBench) -> None:
    """What somebody else has recorded meanwhile is no reason to be warned, or to wait."""
    device = await node.bench.device()
    node.cluster.left_behind = [stored(device, number(2))]
    node.gate.fail("append", Superseded("D"))
    with capturedLogs() as logged:
        await node.advance(3)
    assert node.cluster.asked.count("stranded") > 0
    assert [entry for entry in logged if "dead nodes" in entry["log_format"]] == []
    node.gate.fail("append", None)


@bounded
async def test_leaves_while_it_tidies(bench: Bench) -> None:
    """A node that stops does not see to all that dead nodes have left: the next warden does."""
    node = NodeBench(bench)
    await node.core.join()
    device = await bench.device()
    node.cluster.left_behind = [stored(device, number(2, count)) for count in range(1, 2003)]
    node.gate.hold("append")
    await node.advance(3)
    left = Deferred.fromCoroutine(node.core.leave())
    await node.gate.answered("append")
    await node.gate.release("append")
    await left
    assert len(node.cluster.left_behind) == 2002 - 500
    assert node.cluster.asked[-1] == "leave"


@bounded
async def test_others_leave_it_to_the_warden(node: NodeBench) -> None:
    """Who is not the warden does none of its work."""
    device = await node.bench.device()
    node.cluster.meet(Node(name="a", incarnation=5))
    await node.advance(3)
    node.cluster.left_behind = [stored(device, number(2))]
    await node.advance(6)
    assert len(node.cluster.left_behind) == 1
    assert not node.core.warden


@bounded
async def test_orphans(node: NodeBench) -> None:
    """Plugins that a dead node had are not active any more."""
    bench = node.bench
    plugin = await bench.core.plugins.register(bench.admin, PluginDraft(name="plugin"))
    active = await bench.core.plugins.activate(plugin.topic)
    node.cluster.meet(Node(name="two", incarnation=5))
    await node.advance(3)
    node.cluster.orphans = [active]
    await node.advance(3)
    assert "orphans" not in node.cluster.asked
    node.cluster.meet(Node(name="two", incarnation=5, alive=False))
    await node.advance(3)
    assert (await bench.core.plugins.get(bench.admin, plugin.topic)).status.name == "INACTIVE"


@bounded
async def test_orphans_of_a_node_that_is_back(node: NodeBench) -> None:
    """A node that was started anew between two renewals has left plugins like one that died."""
    bench = node.bench
    node.cluster.meet(Node(name="z", incarnation=5))
    await node.advance(3)
    plugin = await bench.core.plugins.register(bench.admin, PluginDraft(name="plugin"))
    plugin = await bench.core.plugins.activate(plugin.topic)
    node.cluster.orphans = [plugin]
    node.cluster.meet(Node(name="z", incarnation=6))
    await node.advance(3)
    status = (await bench.core.plugins.get(bench.admin, plugin.topic)).status
    assert status.name == "INACTIVE"


@bounded
async def test_plugins_of_a_node_that_is_back(node: NodeBench) -> None:
    """A node that joins anew tells again which plugins are connected to it."""
    bench = node.bench
    plugin = await node.core.plugins.register(bench.admin, PluginDraft(name="plugin"))
    await node.core.plugins.activate(plugin.topic)
    joined = f"joined {plugin.id}"
    assert node.cluster.asked.count(joined) == 1
    node.cluster.meet(Node(name="one", incarnation=1, alive=False))
    await node.advance(7)
    assert node.cluster.asked.count(joined) == 2


@bounded
async def test_left_later(node: NodeBench) -> None:
    """That a plugin is connected no more is told when it can be."""
    bench = node.bench
    plugin = await node.core.plugins.register(bench.admin, PluginDraft(name="plugin"))
    await node.core.plugins.activate(plugin.topic)
    node.cluster.error = Unavailable("the database is away")
    with pytest.raises(Unavailable):
        await node.core.plugins.deactivate(plugin.topic)
    node.cluster.error = None
    await node.advance(3)
    # And once more: somebody may have connected elsewhere while it became inactive.
    assert node.cluster.asked.count(f"left {plugin.id}") == 3
    status = (await bench.core.plugins.get(bench.admin, plugin.topic)).status
    assert status.name == "INACTIVE"


@bounded
async def test_leaves(bench: Bench) -> None:
    """A node that stops gives its lease back when all that went is recorded, and renews no more."""
    node = NodeBench(bench)
    await node.core.join()
    device = await bench.device()
    attachment = node.core.presence.share(device, "a")
    node.gate.hold("append")
    node.core.presence.detach(attachment)
    left = Deferred.fromCoroutine(node.core.leave())
    assert "leave" not in node.cluster.asked
    await node.gate.answered("append")
    await node.gate.release("append")
    await left
    assert node.cluster.asked[-1] == "leave"
    await node.advance(10)
    assert node.cluster.asked[-1] == "leave"
