"""Batches of writes to PostgreSQL: what is in one, and what becomes of the bad ones."""

from __future__ import annotations

from typing import Any

import psycopg2
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, globalLogPublisher

from gatewayd.core.model import Entry, Event, GroupKind, Kind
from gatewayd.errors import Unavailable
from gatewayd.storage.pg.draft import Draft
from gatewayd.storage.pg.store import PostgresStore
from gatewayd.storage.pg.tx import Tx
from tests.storage.pg_place import PostgresPlace, held, pause
from tests.storage.store_bench import Place, Rig, bounded, rising, seqs, together
from tests.storage.test_durability import settle


@pytest.fixture(name="place")
def choose_place(pg_place: PostgresPlace) -> Place:
    """Be the place of the store under test."""
    return pg_place


def stumble(draft: Draft) -> None:
    """Fail half way, as no job should."""
    draft.position += 1
    raise ZeroDivisionError


@pytest.mark.parametrize("fault", ["defect", "draft", "text"])
@bounded
async def test_one_bad_job(pg_place: PostgresPlace, rig: Rig, fault: str) -> None:
    """A job that fails unexpectedly is refused alone; the rest of its batch is written once."""
    device = await rig.device()
    seen: list[Event] = []
    rig.store.observe(seen.extend)
    with held(pg_place) as release:
        before = [rig.attach(device), rig.note(device, key="a"), rig.order(device)]
        bad: Deferred[Any]
        if fault == "defect":
            bad = pg_place.store._log.submit(stumble)
        elif fault == "draft":  # a command without its draft
            bad = rig.store.append(Entry(device=device, kind=Kind.COMMAND))
        else:  # no text at all
            bad = rig.note(device, "half \ud800 pair")
        after = [rig.note(device, key="a"), rig.answer(device, 3, status="ok"), rig.attach(device)]
        await pause(0.1)
        release()
    with pytest.raises(Unavailable):
        await bad
    events, refused = await settle(before + after)
    assert refused == 0
    assert seqs(events) == [1, 2, 3, 2, 4, 5]
    assert [events[0].epoch, events[-1].epoch] == [1, 2]
    assert rig.store.healthy
    assert seqs(await rig.replay()) == [1, 2, 3, 4, 5] == seqs(seen)
    await rig.place.reopen()
    assert (await rig.note(device)).seq == 6


@bounded
async def test_one_bad_write(pg_place: PostgresPlace, rig: Rig) -> None:
    """A write of the registry that fails unexpectedly leaves nothing, and the next one works."""

    async def half(tx: Tx) -> None:
        await tx.run("INSERT INTO configuration (name, value) VALUES ('half', 'done')")
        raise ZeroDivisionError

    async def clash(tx: Tx) -> None:
        await tx.run("INSERT INTO configuration (name, value) VALUES ('half', 'done')")
        await tx.run("INSERT INTO network (id, name) SELECT id, name FROM network")

    for function in (half, clash):
        with pytest.raises(Unavailable):
            await pg_place.store._registry.submit(function)
    assert await rig.store.setting("half") is None
    assert (await rig.store.put_setting("half", "whole")).version == 0


@bounded
async def test_deadlock(pg_place: PostgresPlace, rig: Rig) -> None:
    """A transaction that the database gives up for another is done again."""
    for name in ("a", "b"):
        await rig.store.put_setting(name, "0")
    change = "UPDATE configuration SET value = value || 'x' WHERE name = %s"
    attempts = 0
    locked: list[Deferred[None]] = []
    other = psycopg2.connect(
        host=str(pg_place.server.directory), port=pg_place.server.port, user="postgres",
        dbname=pg_place.name,
    )  # fmt: skip
    cursor = other.cursor()
    cursor.execute("SET deadlock_timeout = '10s'")
    cursor.execute(change, ("a",))

    async def both(tx: Tx) -> None:
        nonlocal attempts
        attempts += 1
        await tx.run(change, "b")
        if attempts == 1:
            locked.append(deferToThread(finish))
            await pause(0.1)
        await tx.run(change, "a")

    def finish() -> None:
        cursor.execute(change, ("b",))
        other.commit()

    await pg_place.store._registry.submit(both)
    await locked[0]
    other.close()
    assert attempts == 2
    for name in ("a", "b"):
        setting = await rig.store.setting(name)
        assert setting is not None
        assert setting.value == "0xx"


@bounded
async def test_batches_are_one_transaction(pg_place: PostgresPlace, rig: Rig) -> None:
    """What gathers while the log is busy is committed together."""
    device = await rig.device()
    sizes: list[int] = []
    rig.store.observe(lambda events: sizes.append(len(events)))
    with held(pg_place) as release:
        writes = [rig.note(device) for _ in range(1001)]
        await pause(0.1)
        release()
    events, refused = await settle(writes)
    assert (len(events), refused) == (1001, 0)
    await rig.store.put_setting("behind", "them")
    assert sizes == [1, 500, 500]


@bounded
async def test_bad_observer(rig: Rig) -> None:
    """An observer that fails does not keep the store from writing."""
    device = await rig.device()
    failures: list[LogEvent] = []

    def watch(event: LogEvent) -> None:
        if "log_failure" in event:
            failures.append(event)

    def fail(events: object) -> None:
        raise ZeroDivisionError

    rig.store.observe(fail)
    globalLogPublisher.addObserver(watch)  # type: ignore[arg-type]
    try:
        for number in (1, 2):
            assert (await rig.note(device)).seq == number
        await rig.store.put_setting("behind", "them")
    finally:
        globalLogPublisher.removeObserver(watch)  # type: ignore[arg-type]
    assert [event["log_failure"].type for event in failures] == [ZeroDivisionError] * 2


@bounded
async def test_batches_are_not_too_long(pg_place: PostgresPlace, rig: Rig) -> None:
    """Large messages are not all put into one statement."""
    device = await rig.device()
    sizes: list[int] = []
    rig.store.observe(lambda events: sizes.append(len(events)))
    body = b"x" * 5_000_000
    with held(pg_place) as release:
        writes = [rig.note(device, body=body) for _ in range(4)]
        release()
    assert seqs(await together(writes)) == [1, 2, 3, 4]
    assert sizes[:2] == [1, 2]
    found = await rig.store.notification(device, 4)
    assert found is not None
    assert found.body == body


@bounded
async def test_patience(rig: Rig) -> None:
    """What may wait is written together, and not overtaken."""
    device = await rig.device()
    sizes: list[int] = []
    rig.store.observe(lambda events: sizes.append(len(events)))
    entry = Entry(device=device, kind=Kind.NOTIFICATION)
    waiting = [rig.store.append(entry, patience=0.05) for _ in range(5)]
    assert seqs(await together(waiting)) == [1, 2, 3, 4, 5]
    waiting = [rig.store.append(entry, patience=10) for _ in range(5)]
    assert (await rig.note(device)).seq == 11
    await together(waiting)
    await rig.store.put_setting("behind", "them")
    assert sizes == [5, 6]
    last = rig.store.append(entry, patience=10)
    await rig.store.stop()
    assert (await last).seq == 12


@bounded
async def test_pending_limit(pg_place: PostgresPlace, rig: Rig) -> None:
    """When too much is in flight, writes are refused at once until some of it is done."""
    device = await rig.device()
    await pg_place.store.stop()
    pg_place.store = pg_place.another(pending=4000)
    await pg_place.store.start()
    for _ in range(3):
        with held(pg_place) as release:
            writes = [rig.note(device, body=b"x" * 744) for _ in range(6)]
            refused = [write for write in writes if write.called]
            release()
        assert refused == writes[4:]
        events, count = await settle(writes)
        assert (len(events), count) == (4, 2)
    assert rig.store.healthy
    assert seqs(await rig.replay()) == list(range(1, 13))


@bounded
async def test_readers_cannot_write(pg_place: PostgresPlace, rig: Rig) -> None:
    """The connections that read have no right to write; those that write sync each commit."""

    async def write(tx: Tx) -> int:
        return await tx.run("DELETE FROM network")

    async def synced(tx: Tx) -> str:
        return str((await tx.rows("SHOW synchronous_commit"))[0][0])

    with pytest.raises(Unavailable):
        await pg_place.store._readers.submit(write)
    assert await rig.store.group(GroupKind.NETWORK, rig.network) is not None
    assert await pg_place.store._registry.submit(synced) == "on"


@bounded
async def test_two_on_one_database(pg_place: PostgresPlace, rig: Rig) -> None:
    """Two stores append to the same devices: gapless, in one order, told to both.

    Neither follows the other; each learns of its events when it writes itself.
    """
    other = pg_place.another()
    await other.start()
    devices = [await rig.device(f"D{number}") for number in range(3)]
    seen: dict[PostgresStore, list[Event]] = {pg_place.store: [], other: []}
    for store, events in seen.items():
        store.observe(events.extend)
    writes = []
    for number in range(300):
        entry = Entry(device=devices[number % 3], kind=Kind.NOTIFICATION, key=f"k{number // 2}")
        writes += [store.append(entry) for store in seen]
        if number % 10 == 0:
            await pause(0.001)
    await together(writes)
    for store in seen:
        await store.append(Entry(device=devices[0], kind=Kind.NOTIFICATION))
    last = await pg_place.store.append(Entry(device=devices[0], kind=Kind.NOTIFICATION))
    while pg_place.store.tail.position < last.position or other.tail.position < last.position - 1:
        await pause(0.01)
    logged = await rig.replay()
    for events in seen.values():
        for event in events:
            event.foreign = False
    assert seen[pg_place.store] == logged
    assert seen[other] == logged[:-1]
    for device in devices:
        timeline = [event for event in logged if event.stream == device.uid]
        assert seqs(timeline) == list(range(1, len(timeline) + 1))
        assert rising([event.ts for event in timeline])
    await other.stop()
