"""Who goes on at another node from the last message that it saw gets no message twice."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, succeed

from gatewayd.core.access import UNLIMITED
from gatewayd.core.model import Entry, Event, Kind
from gatewayd.core.queries import Filter
from gatewayd.core.timeline import Timeline
from gatewayd.storage.pg.store import PostgresStore
from tests.storage.pg_place import PostgresPlace, pause
from tests.storage.store_bench import Place, Rig


@pytest_twisted.async_yield_fixture(name="place")
async def choose_place(pg_place: PostgresPlace) -> AsyncIterator[Place]:
    """Test the store on PostgreSQL."""
    yield pg_place


@pytest_twisted.async_yield_fixture()
async def behind(pg_place: PostgresPlace) -> AsyncIterator[PostgresStore]:
    """Return the store of another node, which does not hear what is done at the first one."""
    store = pg_place.another()
    await store.start()
    yield store
    await store.stop()


class Reader:
    """Keeps what it is delivered."""

    scope = UNLIMITED
    writable = True

    def __init__(self) -> None:
        self.seen: list[int] = []

    def when_writable(self) -> Deferred[None]:
        return succeed(None)

    def deliver(self, event: Event) -> None:
        self.seen.append(event.seq)

    def broken(self) -> None:
        raise AssertionError


@pytest.mark.parametrize("of_one", [True, False], ids=["one", "all"])
@pytest_twisted.ensureDeferred
async def test_seen_at_another_node(rig: Rig, behind: PostgresStore, of_one: bool) -> None:
    """What was seen before is not delivered when this node hears of it at last."""
    device = await rig.device()
    timeline = Timeline(behind, rig.clock, shared=True)
    reader = Reader()
    first = await rig.note(device)
    seen = await rig.note(device)
    wanted = Filter(kinds=frozenset({Kind.NOTIFICATION}), stream=device.uid if of_one else None)
    subscription = timeline.subscribe(wanted, reader, reader)
    assert timeline.position < first.position
    await subscription.catch_up(seen.ts)
    assert reader.seen == []
    entry = Entry(device=device, kind=Kind.NOTIFICATION, name="n")
    new = await behind.append(entry)
    while reader.seen[-1:] != [new.seq]:
        await pause(0.01)
    assert timeline.position == new.position
    assert reader.seen == [new.seq]


@pytest_twisted.ensureDeferred
async def test_told_while_the_log_is_read(rig: Rig, behind: PostgresStore) -> None:
    """Nor is it when this node hears of it before it has read the log."""
    device = await rig.device()
    timeline = Timeline(behind, rig.clock, shared=True)
    reader = Reader()
    seen = await rig.note(device)
    wanted = Filter(kinds=frozenset({Kind.NOTIFICATION}), stream=device.uid)
    subscription = timeline.subscribe(wanted, reader, reader)
    behind.tail.heard(seen.position)
    while timeline.position < seen.position:
        await pause(0.01)
    later = await rig.note(device)
    await subscription.catch_up(seen.ts)
    assert reader.seen == [later.seq]
