"""What an append checks and keeps besides the log: leases, attachments, the database's clock."""

from __future__ import annotations

from typing import Any

import psycopg2
import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.model import Delivery, Entry, Event, Kind
from gatewayd.errors import Superseded, Unavailable
from gatewayd.storage.pg.store import PostgresStore
from tests.storage.pg_followers import Node
from tests.storage.pg_place import PostgresPlace, held, pause
from tests.storage.store_bench import START, Place, Rig, bounded, rising, seqs, the_reactor


@pytest.fixture(name="place")
def choose_place(pg_place: PostgresPlace) -> Place:
    """Be the place of the store under test."""
    return pg_place


# The lease


@bounded
async def test_lease(pg_place: PostgresPlace, rig: Rig, nodes: tuple[Node, Node]) -> None:
    """A store that has lost its lease writes nothing; with a new one it writes again."""
    a, _ = nodes
    device = await rig.device()
    first = await rig.order(device)
    insert = (
        "INSERT INTO node (name, incarnation, advertise, fingerprint, until) "
        "VALUES ('a', %s, '', '', clock_timestamp() + %s::interval)"
    )
    pg_place.execute(insert, 7, "10 s")
    a.store.journal.lease = ("a", 7)
    assert (await a.note(device)).seq == 2
    for lease, ago in ((("a", 7), "-1 ms"), (("a", 6), "10 s"), (("b", 7), "10 s")):
        pg_place.execute("UPDATE node SET until = clock_timestamp() + %s::interval", ago)
        a.store.journal.lease = lease
        calls: list[Deferred[Any]] = [
            a.note(device, key="k"), rig.answer(device, 1, status="ok"),
            a.store.mark(device.uid, [first.seq], Delivery.CONFIRMED), rig.attach(device),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(Unavailable, match="this node has lost its lease"):
                await call
    assert seqs(await rig.replay()) == [1, 2]
    assert pg_place.execute("SELECT delivery, status FROM command") == [(0, None)]
    assert pg_place.execute("SELECT count(*) FROM idempotency") == [(0,)]
    a.store.journal.lease = ("a", 7)
    assert (await a.note(device, key="k")).seq == 3
    assert a.store.healthy


@bounded
async def test_lease_is_renewed_meanwhile(
    pg_place: PostgresPlace, rig: Rig, nodes: tuple[Node, Node]
) -> None:
    """Appends and renewals do not wait for each other."""
    a, _ = nodes
    device = await rig.device()
    pg_place.execute(
        "INSERT INTO node (name, incarnation, advertise, fingerprint, until) "
        "VALUES ('a', 1, '', '', clock_timestamp() + interval '10 s')"
    )
    a.store.journal.lease = ("a", 1)
    db = psycopg2.connect(
        host=str(pg_place.server.directory), port=pg_place.server.port, user="postgres",
        dbname=pg_place.name,
    )  # fmt: skip
    with db.cursor() as cursor:
        cursor.execute("UPDATE node SET until = clock_timestamp() + interval '20 s'")
        assert (await a.note(device)).seq == 1
    db.rollback()
    db.close()


# Attachments


def attachments(place: PostgresPlace) -> list[tuple[Any, ...]]:
    return place.execute(
        "SELECT node, number, stream, protocol, epoch, since FROM attachment ORDER BY number"
    )


@bounded
async def test_attachments(pg_place: PostgresPlace, rig: Rig, nodes: tuple[Node, Node]) -> None:
    """They are kept and forgotten with their events."""
    _, b = nodes
    device = await rig.device()

    def come(number: int, *, exclusive: bool) -> Deferred[Event]:
        return rig.attach(device, name="ws", attachment=number, node="a", exclusive=exclusive)

    def go(number: int, store: PostgresStore | None = None) -> Deferred[Event]:
        entry = Entry(
            device=device, kind=Kind.DETACHED, name="ws", attachment=number, node="a"
        )  # fmt: skip
        return (store or rig.store).append(entry)

    first, second = await come(1, exclusive=True), await come(2, exclusive=False)
    assert attachments(pg_place) == [
        ("a", 1, device.uid, "ws", 1, first.ts),
        ("a", 2, device.uid, "ws", None, second.ts),
    ]
    third = await come(3, exclusive=True)
    assert third.epoch == 2
    assert [row[1] for row in attachments(pg_place)] == [1, 2, 3]
    await go(2, b.store)
    with pytest.raises(Superseded):
        await go(2)
    with held(pg_place) as release:
        together = [go(1), go(1), come(4, exclusive=False), go(4), go(4)]
        await pause(0.05)
        release()
    events, refused = [], 0
    for each in together:
        try:
            events.append(await each)
        except Superseded:
            refused += 1
    assert (seqs(events), refused) == ([5, 6, 7], 2)
    assert [row[1] for row in attachments(pg_place)] == [3]
    assert await rig.store.delete_device(device.uid)
    assert attachments(pg_place) == []


@bounded
async def test_epochs_in_a_gap(rig: Rig, nodes: tuple[Node, Node]) -> None:
    """Who reads of a takeover knows its epoch, or a later one when that is over."""
    a, b = nodes
    a.store.journal.others = lambda: False
    device = await rig.device()
    for number in (1, 2, 3):
        last = await rig.attach(device, name="ws", attachment=number, node="a")
    entry = Entry(device=device, kind=Kind.DETACHED, name="ws", attachment=2, node="a")
    last = await a.store.append(entry)
    await b.sees(last.position, 4)
    assert [event.epoch for event in b.seen] == [1, 3, 3, 3]


# Clocks


@bounded
async def test_clocks_an_hour_apart(pg_place: PostgresPlace, rig: Rig) -> None:
    """With the database's clock the walls of the nodes do not matter: times grow."""
    hour = 3_600_000
    device = await rig.device()
    stores = []
    for wall in (START, START + hour):
        store = PostgresStore(
            pg_place.url, the_reactor(), lambda wall=wall: wall, shared_clock=True  # type: ignore[misc]
        )  # fmt: skip
        await store.start()
        stores.append(store)
    events = []
    for number in range(10):
        store = stores[number % 2]
        before = [each.now() for each in stores]
        events.append(await store.append(Entry(device=device, kind=Kind.NOTIFICATION)))
        # What a reader would resume from is earlier than all that is recorded later.
        assert max(before) <= events[-1].ts
    assert rising([event.ts for event in events])
    told = [events[-1].ts, *(store.now() for store in stores)]
    ((now,),) = pg_place.execute("SELECT extract(epoch FROM clock_timestamp()) * 1000")
    assert all(0 <= float(now) - each < 5000 for each in told)
    for store in stores:
        await store.stop()


@bounded
async def test_wall_of_its_own(rig: Rig) -> None:
    """Without it, the store's wall is what it records."""
    device = await rig.device()
    rig.clock.now = START + 12345
    assert (await rig.note(device)).ts == START + 12345
