"""Opening and closing the SQLite store: who may, with which file, and what is left behind."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from gatewayd.errors import ConfigError
from gatewayd.storage import migrate
from tests.storage.store_bench import Rig, SQLitePlace, bounded, threads


@bounded
async def test_one_gateway_per_file(sqlite_place: SQLitePlace) -> None:
    """A second store on the same file is refused by name, and does not harm the first."""
    second = SQLitePlace(sqlite_place.path)
    with pytest.raises(ConfigError, match="in use") as caught:
        await second.store.start()
    assert str(sqlite_place.path) in str(caught.value)
    await second.store.stop()
    rig = Rig(sqlite_place)
    await rig.furnish()
    await sqlite_place.store.stop()
    third = SQLitePlace(sqlite_place.path)
    await third.store.start()
    await third.store.stop()


@bounded
async def test_newer_schema(tmp_path: Path) -> None:
    """A file of a newer gatewayd is refused as such, and left as it is."""
    path = tmp_path / "gatewayd.db"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 9999")
    place = SQLitePlace(path)
    with pytest.raises(ConfigError, match="newer"):
        await place.store.start()
    assert db.execute("PRAGMA user_version").fetchone() == (9999,)
    assert db.execute("SELECT * FROM sqlite_master").fetchall() == []
    db.execute("PRAGMA user_version = 0")
    db.close()
    again = SQLitePlace(path)
    await again.store.start()
    await again.store.stop()
    assert threads() == []


@bounded
async def test_unusable_paths(tmp_path: Path) -> None:
    """A file that cannot be opened, or is no database, is refused by name."""
    (tmp_path / "file").write_text("text " * 1000)
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "db", tmp_path / "folder", tmp_path / "file"):
        place = SQLitePlace(path)
        with pytest.raises(ConfigError) as caught:
            await place.store.start()
        assert str(path) in str(caught.value)
        await place.store.stop()
    assert (tmp_path / "file").read_text() == "text " * 1000
    assert threads() == []


@bounded
async def test_broken_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that fails is refused by the file's name; the file can be opened later."""
    path = tmp_path / "gatewayd.db"
    with monkeypatch.context() as patch:
        broken = [*migrate.scripts(), (2, "CREATE TABLE a (b); SELECT nonsense FROM a;")]
        patch.setattr(migrate, "scripts", lambda: broken)
        place = SQLitePlace(path)
        with pytest.raises(ConfigError, match="nonsense") as caught:
            await place.store.start()
        assert str(path) in str(caught.value)
    place = SQLitePlace(path)
    await place.store.start()
    await Rig(place).furnish()
    await place.store.stop()


@bounded
async def test_folders_are_made(tmp_path: Path) -> None:
    """Missing folders on the way to the file are made."""
    place = SQLitePlace(tmp_path / "a" / "b" / "gatewayd.db")
    await place.store.start()
    await place.store.stop()
    assert place.path.exists()


@pytest.mark.parametrize("existing", [False, True])
@bounded
async def test_file_modes(tmp_path: Path, existing: bool) -> None:
    """Nobody else may read any of the store's files, whatever the umask."""
    path = tmp_path / "gatewayd.db"
    mask = os.umask(0)
    try:
        if existing:
            path.touch(0o666)
        place = SQLitePlace(path)
        await place.store.start()
        await Rig(place).furnish()
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    finally:
        os.umask(mask)
    await place.store.stop()
    assert modes.keys() >= {"gatewayd.db", "gatewayd.db-wal"}
    assert {name: mode for name, mode in modes.items() if mode != 0o600} == {}


@bounded
async def test_nothing_left_running(tmp_path: Path) -> None:
    """A store that was stopped leaves no thread and no journal beside its file."""
    place = SQLitePlace(tmp_path / "gatewayd.db")
    await place.store.start()
    await Rig(place).furnish()
    await place.store.stop()
    assert threads() == []
    assert {file.name for file in tmp_path.iterdir()} <= {"gatewayd.db", "gatewayd.db.lock"}
