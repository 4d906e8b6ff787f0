"""Migrations: numbered, in order, each whole or not at all."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from gatewayd.errors import ConfigError
from gatewayd.storage import migrate

FIRST = (1, "CREATE TABLE a (x); INSERT INTO a VALUES (1);")
SECOND = (2, "CREATE TABLE b (y); INSERT INTO b SELECT x + 1 FROM a;")
THIRD = (3, "ALTER TABLE b ADD COLUMN z DEFAULT 7;")
BROKEN = (2, "CREATE TABLE b (y); UPDATE a SET x = 9; INSERT INTO nothing VALUES (1);")


@pytest.fixture(name="path")
def make_path(tmp_path: Path) -> Path:
    return tmp_path / "db"


@pytest.fixture(name="db")
def connect(path: Path) -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(path, isolation_level=None)
    yield db
    db.close()


def use(monkeypatch: pytest.MonkeyPatch, *scripts: tuple[int, str]) -> None:
    """Replace the migrations."""
    monkeypatch.setattr(migrate, "scripts", lambda: list(scripts))


def look(path: Path, sql: str) -> list[tuple[object, ...]]:
    """Query the file as another process would."""
    db = sqlite3.connect(path)
    rows = db.execute(sql).fetchall()
    db.close()
    return rows


def test_numbers() -> None:
    """The migrations are numbered 1, 2, 3, ... and every file of the folder is one."""
    numbers = [number for number, _ in migrate.scripts()]
    assert numbers == list(range(1, len(numbers) + 1))
    folder = resources.files("gatewayd.storage").joinpath("schema")
    files = [path.name for path in folder.iterdir() if not path.name.startswith("_")]
    assert len(files) == len(numbers)


def test_from_nothing(db: sqlite3.Connection, path: Path) -> None:
    """A new file gets the newest schema; a second time changes nothing."""
    newest = migrate.migrate(db)
    assert newest == migrate.scripts()[-1][0]
    assert look(path, "PRAGMA user_version") == [(newest,)]
    schema = look(path, "SELECT name, sql FROM sqlite_master ORDER BY name")
    tables = {"device", "event", "command", "user", "plugin", "device_login", "relay_call", "twin"}
    assert tables <= {name for name, _ in schema}
    assert migrate.migrate(db) == newest
    assert look(path, "SELECT name, sql FROM sqlite_master ORDER BY name") == schema


def test_no_transactions_of_their_own() -> None:
    """No migration begins or ends a transaction, or what failed would stay half done."""
    for number, sql in migrate.scripts():
        words = {line.split()[0].upper().rstrip(";") for line in sql.splitlines() if line.strip()}
        assert not words & {"BEGIN", "COMMIT", "END", "ROLLBACK", "PRAGMA", "VACUUM"}, number


def test_in_order(db: sqlite3.Connection, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is missing is applied, in order, and the data stays."""
    use(monkeypatch, FIRST)
    assert migrate.migrate(db) == 1
    use(monkeypatch, FIRST, SECOND, THIRD)
    assert migrate.migrate(db) == 3
    assert look(path, "SELECT x, y, z FROM a, b") == [(1, 2, 7)]
    assert look(path, "PRAGMA user_version") == [(3,)]


def test_each_step(db: sqlite3.Connection, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of any older schema gets what is missing, keeps its users, and is like a new one."""
    every = migrate.scripts()
    use(monkeypatch, every[0])
    migrate.migrate(db)
    db.execute("INSERT INTO user (login, role, status, password) VALUES ('u', 0, 0, '')")
    for newest in range(2, len(every) + 1):
        use(monkeypatch, *every[:newest])
        assert migrate.migrate(db) == newest
    assert look(path, "SELECT login FROM user") == [("u",)]
    assert look(path, "PRAGMA foreign_key_check") == []
    schema = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    fresh = sqlite3.connect(path.with_name("fresh"), isolation_level=None)
    migrate.migrate(fresh)
    fresh.close()
    assert look(path, schema) == look(path.with_name("fresh"), schema)


SCHEMA_3 = """
    INSERT INTO network VALUES (7, 'home', NULL);
    INSERT INTO device_type VALUES (8, 'plain', 'd');
    INSERT INTO device VALUES (9, 'D', 'D', 'name', 7, 8, X'7B7D', 1);
    INSERT INTO device_key VALUES (9, 'hash');
    INSERT INTO device_login VALUES (9, 'http://10.0.0.7', 'u', 'p', X'00');
    INSERT INTO stream VALUES (9, 2, 5, 1700000000000);
    INSERT INTO event VALUES (4, 9, 5, 1700000000000, 6, 1, 'note', X'31', 7, 8, 5);
    INSERT INTO command VALUES (9, 3, 'c', 7, 8, 1, 1, 1, NULL, NULL, NULL, 'ok', X'31', 1, 2);
    INSERT INTO meta VALUES ('horizon', 77);
    INSERT INTO signing_key VALUES ('k', X'00', 1);
    INSERT INTO relay_call VALUES ('r', 'user/1', 9, 'k', X'00', 1, 2, 3, 200, X'5B5D', X'00');
"""


def test_before_the_hub(
    db: sqlite3.Connection, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of schema 3 keeps all that is in it; its devices have no twin, and can have one."""
    every = migrate.scripts()
    use(monkeypatch, *every[:3])
    migrate.migrate(db)
    db.executescript(SCHEMA_3)
    tables = [row[0] for row in look(path, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    before = {table: look(path, f"SELECT * FROM {table}") for table in tables}
    use(monkeypatch, *every)
    migrate.migrate(db)
    assert {table: look(path, f"SELECT * FROM {table}") for table in tables} == before
    assert look(path, "PRAGMA integrity_check") == [("ok",)]
    assert look(path, "PRAGMA foreign_key_check") == []
    gone_with_device = ("twin", "last_value", "connection_state", "device_secret")
    for table in gone_with_device:
        assert look(path, f"SELECT * FROM {table}") == []
    db.execute("PRAGMA foreign_keys = ON")
    db.executescript("""
        INSERT INTO twin VALUES (9, 1, X'7B7D');
        INSERT INTO last_value VALUES (9, 'key', 5, 6, X'31');
        INSERT INTO connection_state VALUES (9, 1, 2, 3, '');
        INSERT INTO device_secret VALUES (9, X'00');
        DELETE FROM device;
    """)
    for table in gone_with_device:
        assert look(path, f"SELECT * FROM {table}") == []


def test_failure(db: sqlite3.Connection, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that fails leaves the schema before it whole; a good one goes on from there."""
    use(monkeypatch, FIRST, BROKEN, THIRD)
    with pytest.raises(sqlite3.Error, match="nothing"):
        migrate.migrate(db)
    db.close()
    check_first(path)
    use(monkeypatch, FIRST, SECOND, THIRD)
    again = sqlite3.connect(path, isolation_level=None)
    assert migrate.migrate(again) == 3
    again.close()
    assert look(path, "SELECT x, y, z FROM a, b") == [(1, 2, 7)]


def check_first(path: Path) -> None:
    """See that the file has exactly the first schema."""
    assert look(path, "PRAGMA user_version") == [(1,)]
    assert look(path, "SELECT name FROM sqlite_master") == [("a",)]
    assert look(path, "SELECT x FROM a") == [(1,)]
    assert look(path, "PRAGMA integrity_check") == [("ok",)]


KILLED = f"""
import os, signal, sqlite3, sys
from gatewayd.storage import migrate
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("PRAGMA cache_size = 1")
db.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
many = "INSERT INTO b SELECT value FROM (WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL " \\
       "SELECT value + 1 FROM n WHERE value < 50000) SELECT value FROM n);"
migrate.scripts = lambda: [
    {FIRST!r}, (2, "CREATE TABLE b (y); UPDATE a SET x = 9;" + many + "SELECT die();")
]
migrate.migrate(db)
"""


def test_killed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed in the middle of a migration leaves the schema before it whole."""
    ended = subprocess.run([sys.executable, "-c", KILLED, path], timeout=20, check=False)
    assert ended.returncode == -signal.SIGKILL
    check_first(path)
    use(monkeypatch, FIRST, SECOND)
    db = sqlite3.connect(path, isolation_level=None)
    assert migrate.migrate(db) == 2
    db.close()


def test_newer(db: sqlite3.Connection, path: Path) -> None:
    """A schema of a newer gatewayd is refused with both numbers, and not touched."""
    newest = migrate.scripts()[-1][0]
    db.execute(f"PRAGMA user_version = {newest + 1}")
    with pytest.raises(ConfigError, match="newer") as caught:
        migrate.migrate(db)
    assert f"{newest + 1}" in str(caught.value)
    assert look(path, "SELECT name FROM sqlite_master") == []
