"""Shadows and live sessions in SQLite: all of a write is on disk, or nothing of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.grants import Grant, Right, SessionChange
from gatewayd.core.model import Entry, Event, Kind
from gatewayd.errors import Conflict, Unavailable
from gatewayd.storage.journal import Journal
from tests.storage.conformance_shadows import UNTIL, state, twin, value
from tests.storage.store_bench import Rig, SQLitePlace, bounded, seqs, together
from tests.storage.test_durability import NO_LIMIT, check_file, clash, held, pragma, stumble


def kept(path: Path, table: str) -> list[tuple[Any, ...]]:
    """Look at a table as another process would."""
    db = sqlite3.connect(path)
    rows = db.execute(f"SELECT * FROM {table}").fetchall()
    db.close()
    return rows


@bounded
async def test_committed_when_acknowledged(rig: Rig, sqlite_place: SQLitePlace) -> None:
    """What is to be kept is committed when who wants it so learns of it."""
    device, path = await rig.device(), sqlite_place.path
    await rig.note(device, twin=twin(1, b"one"))
    assert kept(path, "twin") == [(device.uid, 1, b"one")]
    await rig.store.keep_shadows([value(device, "k", 4)], [state(device)], UNTIL, 9)
    assert [row[1:3] for row in kept(path, "last_value")] == [("k", 4)]
    assert [row[:2] for row in kept(path, "connection_state")] == [(device.uid, 1)]
    assert kept(path, "meta") == [("shadowed", UNTIL)]
    grant = Grant(device="D", right=Right.TWIN)
    change = SessionChange(id="s", granted=frozenset({grant}))
    await rig.store.change_session(change)
    assert kept(path, "live_session_grant") == [("s", 0, "D", "twin", None)]
    await rig.store.drop_sessions(["s"])
    assert kept(path, "live_session_grant") == []
    assert await rig.store.keep_secret("name", b"s") == b"s"
    assert kept(path, "secret") == [("name", b"s")]


@pytest.mark.parametrize("fault", [stumble, clash, None])
@bounded
async def test_one_bad_job(
    sqlite_place: SQLitePlace, rig: Rig, fault: Callable[[Journal], None] | None
) -> None:
    """When a batch fails for one of its writes, the twins of the others change once, in order."""
    device = await rig.device()
    await rig.note(device, twin=twin(1))
    with held(sqlite_place) as release:
        before = [rig.note(device, twin=twin(2)), rig.note(device), rig.note(device, twin=twin(3))]
        late = rig.note(device, twin=twin(3, b"late"))
        bad: Deferred[Any]
        if fault is None:  # a command without its draft, that fails when its twin is taken already
            bad = rig.store.append(Entry(device=device, kind=Kind.COMMAND, twin=twin(4, b"bad")))
        else:
            bad = sqlite_place.in_writer(fault)
        after = [rig.note(device, twin=twin(4)), rig.note(device)]
        release()
    with pytest.raises(Unavailable):
        await bad
    with pytest.raises(Conflict):
        await late
    assert seqs(await together(before + after)) == [2, 3, 4, 5, 6]
    for _ in range(2):
        assert await rig.store.twin(device.uid) == twin(4)
        assert seqs(await rig.replay()) == [1, 2, 3, 4, 5, 6]
        await rig.place.reopen()


@bounded
async def test_full_database(sqlite_place: SQLitePlace, rig: Rig) -> None:
    """What does not fit leaves neither an event nor a twin, neither values nor their time."""
    device = await rig.device()
    await rig.note(device, twin=twin(1))
    await rig.store.keep_shadows([value(device, "k", 1)], [state(device)], UNTIL, 9)
    pages = await sqlite_place.in_writer(pragma, "page_count")
    await sqlite_place.in_writer(pragma, f"max_page_count = {pages}")
    large = b"x" * 50_000
    attempts: list[Callable[[], Deferred[Any]]] = [
        lambda: rig.note(device, twin=twin(2, large)),
        lambda: rig.store.keep_shadows(
            [value(device, "k", 2), value(device, "l", 2, large)], [state(device, False)], 0, 9
        ),
    ]
    for attempt in attempts:
        with pytest.raises(Unavailable):
            await attempt()
        assert not rig.store.healthy
    assert await rig.store.twin(device.uid) == twin(1)
    assert seqs(await rig.replay()) == [1]
    assert await rig.store.last_values(device.uid) == [value(device, "k", 1)]
    assert await rig.store.connection_state(device.uid) == state(device)
    assert await rig.store.shadowed_until() == UNTIL
    await sqlite_place.in_writer(pragma, f"max_page_count = {NO_LIMIT}")
    event: Event = await attempts[0]()
    assert event.seq == 2
    await attempts[1]()
    await rig.place.reopen()
    assert await rig.store.twin(device.uid) == twin(2, large)
    assert len(await rig.store.last_values(device.uid)) == 2
    assert await rig.store.connected() == []
    check_file(sqlite_place.path)


@bounded
async def test_deleted_values_do_not_pile_up(rig: Rig, sqlite_place: SQLitePlace) -> None:
    """A device that says ever new keys, which are deleted, takes no more room for that."""
    device = await rig.device()
    for seq in range(30):
        await rig.store.keep_shadows([value(device, f"k{seq}", seq)], [], UNTIL, 4)
        await rig.store.keep_shadows([value(device, f"k{seq}", seq, None)], [], UNTIL, 4)
    await rig.store.keep_shadows([value(device, f"l{n}", 50) for n in range(9)], [], UNTIL, 4)
    assert len(kept(sqlite_place.path, "last_value")) == 8
    assert len(await rig.store.last_values(device.uid)) == 4


@bounded
async def test_pending_limit(tmp_path: Path) -> None:
    """Twins, values and grants count towards what may be in flight."""
    place = SQLitePlace(tmp_path / "gatewayd.db", pending=20_000)
    await place.store.start()
    rig = Rig(place)
    await rig.furnish()
    device = await rig.device()
    large = b"x" * 10_000
    grant = Grant(device="D" * 10_000, right=Right.TWIN)
    values = [value(device, f"{number}", 1) for number in range(80)]
    writes: list[Callable[[], Deferred[Any]]] = [
        lambda: rig.note(device, twin=twin(1, large)),
        lambda: rig.store.keep_shadows([value(device, "k", 1, large)], [], UNTIL, 9),
        lambda: rig.store.keep_shadows(values, [], UNTIL, 9),
        lambda: rig.store.change_session(SessionChange(id="s", granted=frozenset({grant}))),
    ]
    for write in writes:
        first, second = write(), write()
        with pytest.raises(Unavailable):
            await second
        await first
    assert place.store.healthy
    await place.store.stop()
