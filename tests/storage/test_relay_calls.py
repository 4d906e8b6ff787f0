"""Relayed requests in SQLite: on disk when they are acknowledged, and counted as what they hold."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from gatewayd.core.model import DeviceLogin
from gatewayd.errors import Unavailable
from tests.storage.conformance_relay_calls import draft, ended
from tests.storage.store_bench import Rig, SQLitePlace, bounded, together


def kept(path: Path) -> list[tuple[object, ...]]:
    """Look at the calls as another process would."""
    db = sqlite3.connect(path)
    rows = db.execute("SELECT id, status, body FROM relay_call ORDER BY id").fetchall()
    db.close()
    return rows


@bounded
async def test_committed_when_acknowledged(rig: Rig, sqlite_place: SQLitePlace) -> None:
    """What has become of a call is committed when the caller learns of it."""
    call = draft(await rig.device())
    await rig.store.begin_call(call)
    assert kept(sqlite_place.path) == [("c", None, None)]
    await rig.store.end_call(ended(call))
    assert kept(sqlite_place.path) == [("c", 200, ended(call).body)]
    await rig.store.delete_device(call.stream)
    assert kept(sqlite_place.path) == []


@bounded
async def test_pending_limit(tmp_path: Path) -> None:
    """Bodies, headers and certificates count towards what may be in flight."""
    place = SQLitePlace(tmp_path / "gatewayd.db", pending=20_000)
    await place.store.start()
    rig = Rig(place)
    await rig.furnish()
    device = await rig.device()
    calls = [draft(device, "1", key="k"), draft(device, "2")]
    await together([rig.store.begin_call(call) for call in calls])
    large = b"x" * 10_000
    for write in (
        lambda: rig.store.end_call(ended(calls[0], body=large)),
        lambda: rig.store.end_call(ended(calls[1], headers=large)),
        lambda: rig.store.set_device_login(device.uid, DeviceLogin(base_url="", ca=large)),
    ):
        first, second = write(), write()
        with pytest.raises(Unavailable):
            await second
        await first
    assert place.store.healthy
    assert await rig.store.call("1") == ended(calls[0], body=large)
    await place.store.stop()
