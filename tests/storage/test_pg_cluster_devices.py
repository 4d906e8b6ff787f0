"""What the nodes of a cluster keep together of devices and plugins, in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_twisted

from gatewayd.core.model import Plugin, PluginStatus, Role, User
from gatewayd.errors import Unavailable
from gatewayd.storage.pg.store import PostgresStore
from tests.storage.pg_members import FINGERPRINT, Nodes, attach, furnish
from tests.storage.pg_place import PostgresPlace
from tests.storage.store_bench import bounded, together


@pytest_twisted.async_yield_fixture(name="nodes")
async def gather_nodes(pg_place: PostgresPlace) -> AsyncIterator[Nodes]:
    """Begin with no nodes."""
    nodes = Nodes(pg_place)
    yield nodes
    await nodes.stop()


async def incarnation(store: PostgresStore) -> int:
    """Return the incarnation of the node of a store."""
    nodes = await store.cluster.renew()
    return next(node.incarnation for node in nodes if node.name == store.cluster.name)


async def plugin(store: PostgresStore, topic: str, status: PluginStatus) -> Plugin:
    """Insert a plugin with its user."""
    user = await store.save_user(User(id=0, login=topic, role=Role.ADMIN, password=""))
    return await store.save_plugin(
        Plugin(id=0, name=topic, topic=topic, user=user.id, status=status)
    )


@bounded
async def test_attachments(nodes: Nodes) -> None:
    """What is attached anywhere is seen everywhere, with its device."""
    a, b = await nodes.join("a"), await nodes.join("b")
    first, second = await furnish(a, "1"), await furnish(b, "2")
    one, two = await incarnation(a) << 32, await incarnation(b) << 32
    await attach(a, first, one, exclusive=True)
    await attach(b, second, two)
    await attach(b, first, two + 2**32 - 1, exclusive=True)
    found = await a.cluster.attachments()
    assert [(each.node, each.number, each.device, each.epoch) for each in found] == [
        ("a", one, first, 1), ("b", two, second, None), ("b", two + 2**32 - 1, first, 2),
    ]  # fmt: skip
    assert {each.protocol for each in found} == {"devicehive"}
    assert found[0].since == nodes.place.clock.now
    assert await b.cluster.attachments() == found
    assert await b.cluster.stranded(9) == []
    await a.delete_device(first.uid)
    assert [each.device for each in await a.cluster.attachments()] == [second]


@bounded
async def test_attachments_of_a_dead_node(nodes: Nodes) -> None:
    """They live no longer, and can be had until they are ended; so many at a time as wanted."""
    a, b = await nodes.join("a"), await nodes.join("b")
    device = await furnish(a)
    first = await incarnation(b) << 32
    for number in range(3):
        await attach(b, device, first + number)
    await attach(a, device, await incarnation(a) << 32)
    nodes.end("b")
    assert [each.node for each in await a.cluster.attachments()] == ["a"]
    assert [each.number for each in await a.cluster.stranded(2)] == [first, first + 1]
    assert len(await a.cluster.stranded(9)) == 3


@bounded
async def test_attachments_of_an_earlier_incarnation(nodes: Nodes) -> None:
    """What a node had before it joined anew is not what it has."""
    a, b = await nodes.join("a"), await nodes.join("b")
    device = await furnish(a)
    old = await incarnation(b) << 32
    await attach(b, device, old + 2**32 - 1)
    nodes.end("b")
    new = (await b.cluster.join("", FINGERPRINT)).incarnation << 32
    await attach(b, device, new)
    assert [each.number for each in await a.cluster.attachments()] == [new]
    assert [each.number for each in await a.cluster.stranded(9)] == [old + 2**32 - 1]


@bounded
async def test_plugins(nodes: Nodes) -> None:
    """The last living node to lose a plugin is told so."""
    a, b, c = [await nodes.join(name) for name in ("a", "b", "c")]
    active = await plugin(a, "p", PluginStatus.ACTIVE)
    await plugin(a, "idle", PluginStatus.INACTIVE)
    assert await b.cluster.orphaned_plugins() == [active]
    for store in (a, a, b, c):
        await store.cluster.plugin_joined(active.id)
    assert await b.cluster.orphaned_plugins() == []
    assert not await a.cluster.plugin_left(active.id)
    nodes.end("c")
    assert await b.cluster.plugin_left(active.id)
    assert await b.cluster.orphaned_plugins() == [active]


@bounded
async def test_plugin_left_at_once(nodes: Nodes) -> None:
    """Of nodes that lose a plugin at once exactly one is the last."""
    stores = [await nodes.join(name) for name in ("a", "b", "c")]
    active = await plugin(stores[0], "p", PluginStatus.ACTIVE)
    for _ in range(10):
        await together(store.cluster.plugin_joined(active.id) for store in stores)
        left = await together(store.cluster.plugin_left(active.id) for store in stores)
        assert sorted(left) == [False, False, True]


@bounded
async def test_plugins_of_a_predecessor(nodes: Nodes) -> None:
    """A node that joins anew, or has left, has no plugins any more."""
    a, b = await nodes.join("a"), await nodes.join("b")
    active = await plugin(a, "p", PluginStatus.ACTIVE)
    await b.cluster.plugin_joined(active.id)
    nodes.end("b")
    with pytest.raises(Unavailable, match="lost its lease"):
        await b.cluster.plugin_joined(active.id)
    await b.cluster.join("", FINGERPRINT)
    assert await a.cluster.orphaned_plugins() == [active]
    await b.cluster.plugin_joined(active.id)
    await b.cluster.leave()
    assert await a.cluster.orphaned_plugins() == [active]


@bounded
async def test_plugin_gone(nodes: Nodes) -> None:
    """A plugin that is deleted has connections nowhere."""
    store = await nodes.join("a")
    active = await plugin(store, "p", PluginStatus.ACTIVE)
    await store.cluster.plugin_joined(active.id)
    await store.delete_plugin(active.id)
    await store.cluster.plugin_joined(active.id)
    assert await store.cluster.plugin_left(active.id)
    assert await store.cluster.orphaned_plugins() == []
