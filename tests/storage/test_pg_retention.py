"""The log in PostgreSQL by days: where events go, how days are made, and how they go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import time

import psycopg2
import pytest

from gatewayd.core.model import Device, Event, Kind
from gatewayd.core.queries import Filter, Listing
from gatewayd.storage.pg.partitions import AHEAD, DAY, add_days, days
from tests.storage.pg_place import PostgresPlace
from tests.storage.pg_writers import Directory
from tests.storage.store_bench import ALL, START, Place, Rig, bounded, seqs, together

#: So many days are there already when a test begins.
THERE = 1 + AHEAD


@pytest.fixture(name="place")
def choose_place(pg_place: PostgresPlace) -> Place:
    """Be the place of the store under test, at the time that it really is."""
    pg_place.clock.now = today() * DAY + DAY // 2
    return pg_place


def today() -> int:
    return int(time() * 1000) // DAY


def partitions(place: PostgresPlace) -> list[str]:
    """Return the tables that hold the events of a day."""
    rows = place.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'event'::regclass"
    )
    return sorted(name for (name,) in rows if name != "event_default")


def tables(place: PostgresPlace) -> dict[int, str]:
    """Return in which table events are, by their number."""
    return dict(place.execute("SELECT seq, tableoid::regclass::text FROM event"))


def add_day(place: PostgresPlace, day: int) -> str:
    """Make the partition of a day, as a gateway that ran then has; return its name."""
    name = place.execute(
        "SELECT to_char(to_timestamp(%s) AT TIME ZONE 'UTC', '\"event_\"YYYYMMDD')", day * 86_400
    )[0][0]
    assert place.execute("SELECT add_event_day(%s, %s, %s)", name, day * DAY, (day + 1) * DAY) == [
        (True,)
    ]
    place.execute(f"ALTER TABLE {name} OWNER TO gateway")
    return str(name)


async def note_at(rig: Rig, device: Device, *days_and_ms: tuple[int, int]) -> list[Event]:
    """Append notifications so many ms into each of some days."""
    found = []
    for day, ms in days_and_ms:
        rig.clock.now = day * DAY + ms
        found.append(await rig.note(device))
    return found


async def sweep(rig: Rig, before: int) -> int:
    """Sweep until nothing goes."""
    total = 0
    while gone := await rig.store.sweep(before, 100):
        total += gone
        assert total < 1000
    return total


@contextmanager
def used(place: PostgresPlace, table: str) -> Iterator[None]:
    """Be somebody who reads a table, and has not ended."""
    db = psycopg2.connect(
        host=str(place.server.directory), port=place.server.port, user="postgres", dbname=place.name
    )
    db.cursor().execute(f"SELECT 1 FROM {table}")
    try:
        yield
    finally:
        db.close()


@bounded
async def test_days_ahead(pg_place: PostgresPlace, rig: Rig) -> None:
    """There are partitions of today and the days to come; each event is in that of its day."""
    assert len(partitions(pg_place)) == THERE
    device = await rig.device()
    first = today()
    await note_at(rig, device, (first, 0), (first, DAY - 1), (first + 1, 0), (first + 9, 5))
    names = partitions(pg_place)
    assert tables(pg_place) == {1: names[0], 2: names[0], 3: names[1], 4: "event_default"}
    assert seqs(await rig.replay()) == [1, 2, 3, 4]


@bounded
async def test_days_are_made_again(pg_place: PostgresPlace, rig: Rig) -> None:
    """What is missing is made when the store is opened, and with each sweep."""
    names = partitions(pg_place)
    for again in (rig.place.reopen, lambda: rig.store.sweep(START, 10)):
        pg_place.execute(f"DROP TABLE {names[-1]}")
        await again()
        assert partitions(pg_place) == names


@bounded
async def test_day_that_has_begun(pg_place: PostgresPlace, rig: Rig) -> None:
    """A day that has rows in the default partition is left to that, and nothing fails."""
    names = partitions(pg_place)
    pg_place.execute(f"DROP TABLE {names[1]}")
    device = await rig.device()
    await note_at(rig, device, (today() + 1, 7))
    assert await rig.store.sweep(START, 10) == 0
    assert partitions(pg_place) == [names[0], names[2]]
    assert tables(pg_place) == {1: "event_default"}
    await rig.place.reopen()
    assert seqs(await rig.replay()) == [1]


@bounded
async def test_days_wait_for_nobody(pg_place: PostgresPlace, rig: Rig) -> None:
    """While somebody uses what is to be changed, it is left for another time."""
    names = partitions(pg_place)
    pg_place.execute(f"DROP TABLE {names[-1]}")
    old = add_day(pg_place, today() - 9)
    device = await rig.device()
    with used(pg_place, "event_default"):
        assert await rig.store.sweep(START, 10) == 0
    with used(pg_place, old):
        assert await rig.store.sweep((today() - 4) * DAY, 10) == 0
        await rig.note(device)
    assert partitions(pg_place) == [old, *names]
    assert rig.store.healthy
    assert await sweep(rig, (today() - 4) * DAY) == 1
    assert partitions(pg_place) == names


@bounded
async def test_days_go_whole(pg_place: PostgresPlace, rig: Rig) -> None:
    """A sweep drops each day that is wholly older, and leaves one that is older in part."""
    first = today() - 9
    for day in range(first, first + 3):
        add_day(pg_place, day)
    device = await rig.device()
    events = await note_at(
        rig, device, (first - 1, 3), (first, 1), (first, 9), (first + 1, 2), (first + 2, 3),
        (first + 2, 5),
    )  # fmt: skip
    assert set(tables(pg_place).values()) > {"event_default"}
    before = (first + 2) * DAY + 4
    assert await sweep(rig, before) == 3  # two days, and one row
    assert len(partitions(pg_place)) == THERE + 1
    assert seqs(await rig.replay()) == [5, 6]
    assert await rig.store.horizon() == events[3].ts
    listed = await rig.store.notifications(Listing(stream=device.uid, kind=Kind.NOTIFICATION))
    assert seqs(listed) == [6, 5]


@bounded
async def test_days_partly_kept(pg_place: PostgresPlace, rig: Rig) -> None:
    """Who keeps less than two days does not wait until a day is over."""
    device = await rig.device()
    day = today()
    events = await note_at(rig, device, (day, 1), (day, 3), (day, 5))
    assert await sweep(rig, day * DAY + 4) == 2
    assert len(partitions(pg_place)) == THERE
    assert seqs(await rig.replay()) == [3]
    assert await rig.store.horizon() == events[1].ts


@bounded
async def test_empty_day(pg_place: PostgresPlace, rig: Rig) -> None:
    """A day in which nothing happened goes, and is no horizon."""
    add_day(pg_place, today() - 9)
    assert await sweep(rig, (today() - 5) * DAY) == 1
    assert await rig.store.horizon() == 0


@bounded
async def test_commands_before_their_day(pg_place: PostgresPlace, rig: Rig) -> None:
    """A replay leaves out commands that are gone while their day is not, and is told of that."""
    day = today() - 9
    add_day(pg_place, day)
    device = await rig.device()
    rig.clock.now = day * DAY
    order = await rig.order(device)
    (note,) = await note_at(rig, device, (day, 5))
    assert await sweep(rig, day * DAY + 9) == 1
    assert await rig.replay() == [note]
    assert await rig.replay(Filter(kinds=ALL, stream=device.uid), order.ts - 1) == [note]
    assert await rig.store.horizon() == order.ts


@bounded
async def test_sweep_of_two_nodes(pg_place: PostgresPlace, rig: Rig) -> None:
    """Nodes that sweep at once drop each day once."""
    for day in range(today() - 20, today() - 10):
        add_day(pg_place, day)
    other = pg_place.another()
    await other.start()
    before = (today() - 5) * DAY
    for _ in range(20):
        await together([rig.store.sweep(before, 10), other.sweep(before, 10)])
    await other.stop()
    assert len(partitions(pg_place)) == THERE


@bounded
async def test_appends_while_days_go(pg_place: PostgresPlace, rig: Rig) -> None:
    """Appends go on, gapless, while days are made and dropped."""
    device = await rig.device()
    rig.clock.now = today() * DAY
    for day in range(today() - 20, today() - 10):
        add_day(pg_place, day)
        notes = [rig.note(device) for _ in range(20)]
        while await rig.store.sweep((today() - 5) * DAY, 10):
            pass
        await together(notes)
    assert seqs(await rig.replay()) == list(range(1, 201))


def test_days_made_at_once(directory: Directory) -> None:
    """Of two nodes that make days at once one does, and the other waits for nobody."""
    assert directory.read(days) == []
    assert directory.first.do(add_days) == THERE
    assert directory.read(add_days) == 0
    directory.first.end()
    assert directory.read(add_days) == 0
    assert directory.read(days) == list(range(today(), today() + THERE))
