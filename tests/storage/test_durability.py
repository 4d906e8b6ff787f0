"""What was acknowledged is on disk, whatever happens to the process or the disk."""

from __future__ import annotations

import random
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.model import Entry, Event, Kind
from gatewayd.core.queries import Filter
from gatewayd.errors import Unavailable
from gatewayd.storage.journal import Journal
from tests.storage.store_bench import ALL, Rig, SQLitePlace, bounded, rising, seqs

ROOT = Path(__file__).parents[2]
NO_LIMIT = 1_073_741_823


def pragma(journal: Journal, text: str) -> Any:
    """Run a PRAGMA on the writer's connection."""
    row = journal.db.execute(f"PRAGMA {text}").fetchone()
    return None if row is None else row[0]


def check_file(path: Path) -> None:
    """Let SQLite look for damage."""
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    db.close()


async def settle(writes: list[Deferred[Event]]) -> tuple[list[Event], int]:
    """Wait for appends; return the acknowledged events and how many were refused."""
    events: list[Event] = []
    refused = 0
    for write in writes:
        try:
            events.append(await write)
        except Unavailable:
            refused += 1
    return events, refused


@contextmanager
def held(place: SQLitePlace) -> Iterator[Callable[[], None]]:
    """Keep the writer busy, so that what is submitted meanwhile becomes one batch."""
    busy, go_on = threading.Event(), threading.Event()

    def wait(journal: Journal) -> None:
        busy.set()
        assert go_on.wait(10)

    done = place.in_writer(wait)
    assert busy.wait(10)
    try:
        yield go_on.set
    finally:
        go_on.set()
    assert not done.called


@bounded
async def test_pragmas(sqlite_place: SQLitePlace) -> None:
    """The writer syncs each commit, and the reader cannot write."""
    assert await sqlite_place.in_writer(pragma, "journal_mode") == "wal"
    assert await sqlite_place.in_writer(pragma, "synchronous") == 2
    assert await sqlite_place.in_writer(pragma, "foreign_keys") == 1
    reader = sqlite_place.store._reader
    assert await reader.submit(lambda db: db.execute("PRAGMA query_only").fetchone()[0]) == 1
    with pytest.raises(Unavailable):
        await reader.submit(lambda db: db.execute("DELETE FROM event"))


@bounded
async def test_killed(tmp_path: Path) -> None:
    """After SIGKILL at any moment, all that was acknowledged is there, once, without a gap."""
    path = tmp_path / "gatewayd.db"
    acknowledged: list[list[str]] = []
    for turn in range(4):
        command = [sys.executable, "-m", "tests.storage.appender", str(path), str(turn)]
        wanted = random.randrange(1, 600)
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(wanted)]
            process.kill()
            lines += process.stdout.readlines()
        assert all(lines), f"the writers ended by themselves, of {wanted} lines"
        acknowledged += [line.split() for line in lines]
        await check_log(path, acknowledged)
        check_file(path)


async def check_log(path: Path, acknowledged: list[list[str]]) -> None:
    """Compare the log with what its writers were told."""
    place = SQLitePlace(path)
    await place.store.start()
    rig = Rig(place)
    logged = await rig.replay()
    names = {(event.device, event.seq): event.name for event in logged}
    assert len({event.name for event in logged}) == len(logged)
    for device_id, seq, key in acknowledged:
        assert names[device_id, int(seq)] == key
    for device_id in {event.device for event in logged}:
        timeline = [event for event in logged if event.device == device_id]
        assert seqs(timeline) == list(range(1, len(timeline) + 1))
        assert rising([event.ts for event in timeline])
        await check_twin(rig, timeline)
    device_id, seq, key = acknowledged[-1]
    device = await place.store.device(device_id)
    assert device is not None
    retried = await rig.note(device, key, key=key)
    assert (retried.seq, retried.name) == (int(seq), key)
    await place.store.stop()


async def check_twin(rig: Rig, timeline: list[Event]) -> None:
    """Compare a twin with the events that changed it."""
    changes = [event.name for event in timeline if event.name.startswith("twin-")]
    names = [f"twin-{timeline[0].device}-{number}" for number in range(1, len(changes) + 1)]
    assert changes == names
    twin = await rig.store.twin(timeline[0].stream)
    found = (0, b"") if twin is None else (twin.version, twin.document)
    assert found == (len(names), names[-1].encode() if names else b"")


@bounded
async def test_full_database(sqlite_place: SQLitePlace, rig: Rig) -> None:
    """A full database refuses appends, shows nothing of them, still reads, and recovers."""
    device = await rig.device()
    seen: list[Event] = []
    rig.store.observe(seen.extend)
    kept = [await rig.note(device)]
    pages = await sqlite_place.in_writer(pragma, "page_count")
    await sqlite_place.in_writer(pragma, f"max_page_count = {pages + 6}")
    refused = 0
    for _ in range(20):
        events, refused = await settle(
            [rig.note(device, key=f"{len(kept)}.{n}", body=b"x" * 900) for n in range(10)]
        )
        kept += events
        if refused:
            break
    assert refused
    assert not rig.store.healthy
    assert await rig.replay() == kept
    for _ in range(3):
        with pytest.raises(Unavailable):
            await rig.note(device, key="again", body=b"x" * 50_000)
        assert not rig.store.healthy
    assert await rig.replay() == kept == seen
    await sqlite_place.in_writer(pragma, f"max_page_count = {NO_LIMIT}")
    kept.append(await rig.note(device, key="again", body=b"x" * 50_000))
    assert rig.store.healthy
    assert seqs(kept) == list(range(1, len(kept) + 1))
    await rig.place.reopen()
    assert await rig.replay() == kept
    check_file(sqlite_place.path)


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Let the system refuse to make any file larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@bounded
async def test_no_room_for_the_journal(sqlite_place: SQLitePlace, rig: Rig) -> None:
    """When the system refuses to write, so does the store; nothing is half there afterwards."""
    device = await rig.device()
    order = await rig.order(device)
    attached = await rig.attach(device)
    kept = [order, attached]
    wal = sqlite_place.path.with_name(sqlite_place.path.name + "-wal")
    with file_limit(wal.stat().st_size + 100_000):
        for _ in range(30):
            events, refused = await settle([rig.note(device, body=b"x" * 8000) for _ in range(5)])
            kept += events
            if refused:
                break
        assert not rig.store.healthy
        for _ in range(3):
            with pytest.raises(Unavailable):
                await rig.attach(device, body=b"x" * 100_000)
            with pytest.raises(Unavailable):
                await rig.answer(device, order.seq, result=b"1" * 100_000)
        assert seqs(await rig.replay()) == seqs(kept)
        command = await rig.store.command(device, order.seq)
        assert command == order.command
    kept.append(await rig.note(device, epoch=attached.epoch))
    assert rig.store.healthy
    assert kept[-1].epoch == attached.epoch
    assert seqs(kept) == list(range(1, len(kept) + 1))
    await rig.place.reopen()
    assert seqs(await rig.replay()) == seqs(kept)
    check_file(sqlite_place.path)


def stumble(journal: Journal) -> None:
    """Fail half way, as no job should."""
    journal.db.execute("INSERT INTO configuration (name, value) VALUES ('half', 'done')")
    raise ZeroDivisionError


def clash(journal: Journal) -> None:
    """Break a rule of the schema."""
    journal.db.execute("INSERT INTO network (id, name) SELECT id, name FROM network")


@pytest.mark.parametrize("fault", [stumble, clash, None])
@bounded
async def test_one_bad_job(
    sqlite_place: SQLitePlace, rig: Rig, fault: Callable[[Journal], None] | None
) -> None:
    """A job that fails unexpectedly is refused alone; the rest of its batch is written once."""
    device = await rig.device()
    seen: list[Event] = []
    rig.store.observe(seen.extend)
    with held(sqlite_place) as release:
        before = [rig.attach(device), rig.note(device, key="a"), rig.order(device)]
        setting = rig.store.put_setting("s", "1")
        if fault is None:  # a command without its draft
            bad: Deferred[Any] = rig.store.append(Entry(device=device, kind=Kind.COMMAND))
        else:
            bad = sqlite_place.in_writer(fault)
        after = [rig.note(device, key="a"), rig.answer(device, 3, status="ok"), rig.attach(device)]
        release()
    with pytest.raises(Unavailable):
        await bad
    events, refused = await settle(before + after)
    assert refused == 0
    assert seqs(events) == [1, 2, 3, 2, 4, 5]
    assert [events[0].epoch, events[-1].epoch] == [1, 2]
    assert (await setting).version == 0
    assert await rig.store.setting("half") is None
    assert rig.store.healthy
    assert seqs(await rig.replay(Filter(kinds=ALL, stream=device.uid))) == [1, 2, 3, 4, 5]
    assert seqs(seen) == [1, 2, 3, 4, 5]
    await rig.place.reopen()
    assert (await rig.note(device)).seq == 6


@bounded
async def test_batches_are_one_transaction(sqlite_place: SQLitePlace, rig: Rig) -> None:
    """What gathers while the writer is busy is committed together."""
    device = await rig.device()
    sizes: list[int] = []
    rig.store.observe(lambda events: sizes.append(len(events)))
    with held(sqlite_place) as release:
        writes = [rig.note(device) for _ in range(400)]
        release()
    events, refused = await settle(writes)
    assert (len(events), refused) == (400, 0)
    await rig.store.put_setting("behind", "them")
    assert sizes == [400]


@bounded
async def test_pending_limit(tmp_path: Path) -> None:
    """When too much is in flight, writes are refused at once until some of it is done."""
    place = SQLitePlace(tmp_path / "gatewayd.db", pending=4000)
    await place.store.start()
    rig = Rig(place)
    await rig.furnish()
    device = await rig.device()
    for _ in range(3):
        with held(place) as release:
            writes = [rig.note(device, body=b"x" * 744) for _ in range(6)]
            refused = [write for write in writes if write.called]
            release()
        assert refused == writes[3:]
        events, count = await settle(writes)
        assert (len(events), count) == (3, 3)
    with pytest.raises(Unavailable):
        await rig.note(device, body=b"x" * 4000)
    assert place.store.healthy
    assert seqs(await rig.replay()) == list(range(1, 10))
    await place.store.stop()
