"""Leases of nodes that share a PostgreSQL database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_twisted

from gatewayd.core.cluster import LEASE
from gatewayd.errors import ConfigError, Superseded, Unavailable
from gatewayd.storage.pg import cluster
from tests.storage.pg_members import FINGERPRINT, Nodes, attach, furnish
from tests.storage.pg_place import PostgresPlace, pause
from tests.storage.store_bench import bounded, the_reactor


@pytest_twisted.async_yield_fixture(name="nodes")
async def gather_nodes(pg_place: PostgresPlace) -> AsyncIterator[Nodes]:
    """Begin with no nodes."""
    nodes = Nodes(pg_place)
    yield nodes
    await nodes.stop()


@bounded
async def test_join(nodes: Nodes) -> None:
    """A node has a lease by the database's clock, and each renewal gives it a whole one."""
    store = await nodes.start("a", shared_clock=True)
    node = await store.cluster.join("http://10.0.0.1:8090", FINGERPRINT)
    assert (node.name, node.advertise, node.alive) == ("a", "http://10.0.0.1:8090", True)
    assert store.cluster.name == "a"
    assert 0 <= node.until - store.cluster.now() <= LEASE + 1
    nodes.end("a", after=1)
    (renewed,) = await store.cluster.renew()
    assert renewed.until >= node.until
    assert (renewed.incarnation, renewed.advertise) == (node.incarnation, node.advertise)


@bounded
async def test_name_of_another(nodes: Nodes) -> None:
    """A name that somebody has, and keeps, is refused; who has it does not notice."""
    first = await nodes.join("a")
    second = (await nodes.start("a")).cluster.join("", FINGERPRINT)
    refused = []
    second.addErrback(lambda failure: refused.append(failure.value))
    while not refused:
        await pause(0.1)
        await first.cluster.renew()
    assert isinstance(refused[0], ConfigError)
    assert 'another gatewayd runs as node "a"' in str(refused[0])
    (node,) = await first.cluster.renew()
    assert node.alive


@bounded
async def test_predecessor_dead(nodes: Nodes) -> None:
    """The lease of a node that is dead is waited for, and not longer."""
    first = await nodes.join("a")
    (before,) = await first.cluster.renew()
    nodes.end("a", after=1.2)
    second = await nodes.start("a")
    joining = second.cluster.join("", FINGERPRINT)
    await pause(0.4)
    assert not joining.called
    after = await joining
    assert after.incarnation > before.incarnation
    with pytest.raises(Superseded):
        await first.cluster.renew()
    with pytest.raises(Unavailable, match="lost its lease"):
        await attach(first, await furnish(second), 1)


@bounded
async def test_clock_set_back(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that nobody renews ends, also when the database's clock does not get that far."""
    monkeypatch.setattr(cluster, "_GRACE", 0.3)
    first = await nodes.join("a", lease=500)
    nodes.end("a", after=3600)
    await nodes.join("a", lease=500)
    with pytest.raises(Superseded):
        await first.cluster.renew()


@bounded
async def test_other_fingerprint(nodes: Nodes) -> None:
    """A node that has other secrets than one that is alive is refused, and told which."""
    await nodes.join("a")
    other = await nodes.start("b")
    with pytest.raises(ConfigError, match=r'"a".*cluster key.*tokens'):
        await other.cluster.join("", b"other")
    nodes.end("a")
    await other.cluster.join("", b"other")
    nodes.end("b")
    # Its own earlier one does not count.
    await other.cluster.join("", FINGERPRINT)


@pytest.mark.parametrize("attempt", range(3))
@bounded
async def test_fingerprints_at_once(nodes: Nodes, attempt: int) -> None:
    """Of two with different secrets that join at once one is refused."""
    joining = [(await nodes.start(name)).cluster.join("", name.encode()) for name in ("a", "b")]
    refused = 0
    for each in joining:
        try:
            await each
        except ConfigError:
            refused += 1
    assert refused == 1


@bounded
async def test_lease_lost(nodes: Nodes) -> None:
    """Who has lost its lease is told so and writes nothing, until it has joined anew."""
    store = await nodes.join("a")
    device = await furnish(store)
    (before,) = await store.cluster.renew()
    nodes.end("a")
    with pytest.raises(Superseded):
        await store.cluster.renew()
    with pytest.raises(Unavailable, match="lost its lease"):
        await attach(store, device, 1)
    after = await store.cluster.join("", FINGERPRINT)
    assert after.incarnation > before.incarnation
    await attach(store, device, 2)
    assert [each.name for each in await store.cluster.renew()] == ["a"]


@bounded
async def test_joins_again_at_once(nodes: Nodes) -> None:
    """A node does not wait for its own lease."""
    store = await nodes.join("a")
    before = (await store.cluster.renew())[0].incarnation
    joining = store.cluster.join("", FINGERPRINT).addTimeout(LEASE / 2000, the_reactor())
    assert (await joining).incarnation > before


@bounded
async def test_not_joined(nodes: Nodes) -> None:
    """A store whose node has not joined writes without a lease, and cannot renew one."""
    store = await nodes.start("a")
    await attach(store, await furnish(store), 1)
    with pytest.raises(Superseded):
        await store.cluster.renew()
    await store.cluster.leave()


@bounded
async def test_all_nodes(nodes: Nodes) -> None:
    """Every node sees all others, and who is dead."""
    stores = [await nodes.join(name) for name in ("b", "c", "a")]
    nodes.end("c")
    for store in (stores[0], stores[2]):
        found = await store.cluster.renew()
        assert [(each.name, each.alive) for each in found] == [
            ("a", True), ("b", True), ("c", False),
        ]  # fmt: skip
    assert len({each.incarnation for each in found}) == 3


@bounded
async def test_leave(nodes: Nodes) -> None:
    """Nothing is left of a node that goes, and its name is free at once."""
    first, other = await nodes.join("a"), await nodes.join("b")
    (before, _) = await first.cluster.renew()
    await first.cluster.leave()
    assert [each.name for each in await other.cluster.renew()] == ["b"]
    with pytest.raises(Superseded):
        await first.cluster.renew()
    second = await nodes.start("a")
    joined = await second.cluster.join("", FINGERPRINT)
    assert joined.incarnation > before.incarnation
    # The one that has gone takes nothing from its successor.
    await first.cluster.leave()
    assert len(await second.cluster.renew()) == 2


@bounded
async def test_leave_with_attachments(nodes: Nodes) -> None:
    """A node that goes with devices attached is dead at once, and is there until they are not."""
    first, other = await nodes.join("a"), await nodes.join("b")
    await attach(first, await furnish(first), 1)
    await first.cluster.leave()
    found = await other.cluster.renew()
    assert [(each.name, each.alive) for each in found] == [("a", False), ("b", True)]
    assert [each.node for each in await other.cluster.stranded(9)] == ["a"]


@bounded
async def test_forgotten(nodes: Nodes) -> None:
    """The first living node forgets those that are long dead, unless something is left of them."""
    stores = {name: await nodes.join(name) for name in ("a", "b", "c", "d")}
    await attach(stores["d"], await furnish(stores["d"]), 1)
    for name in ("c", "d"):
        nodes.age(name)
    await stores["b"].cluster.renew()
    assert len(await stores["b"].cluster.renew()) == 4
    await stores["a"].cluster.renew()
    assert [each.name for each in await stores["b"].cluster.renew()] == ["a", "b", "d"]


@bounded
async def test_shadowed_until_grows(nodes: Nodes) -> None:
    """A node that knows less than another does not take back up to when the log is kept."""
    first, second = await nodes.join("a"), await nodes.join("b")
    for store, until in ((first, 10), (second, 30), (first, 20)):
        await store.keep_shadows([], [], until, 9)
    assert await first.shadowed_until() == await second.shadowed_until() == 30
