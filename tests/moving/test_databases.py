"""``gatewayd migrate``."""

from __future__ import annotations

from gatewayd.storage.migrate import scripts
from gatewayd.storage.transfer.sqlite import SQLiteDatabase
from tests.moving.site import Site
from tests.storage.pg_place import PostgresPlace

NEWEST = scripts()[-1][0]


def test_migrate(old: Site) -> None:
    """It says from which schema to which, and what it would do; twice does nothing."""
    assert old.migrate("--dry-run") == 0
    assert old.out == f"there is no database {old.database}; it would be made\n"
    assert not old.database.exists()
    assert old.migrate() == 0
    assert old.out == f"the database {old.database} was brought from schema 0 to {NEWEST}\n"
    for options in ([], ["--dry-run"]):
        assert old.migrate(*options) == 0
        assert old.out == f"the database {old.database} has schema {NEWEST}: nothing to do\n"


def test_migrate_what_is_older(old: Site) -> None:
    """What is older is brought up, and with --dry-run it is not."""
    with SQLiteDatabase(old.database, create=True) as database:
        database._db.executescript(scripts()[0][1] + "\nPRAGMA user_version = 1;")
    for _ in range(2):
        assert old.migrate("--dry-run") == 0
        assert f"would be brought from schema 1 to {NEWEST}" in old.out
    assert old.migrate() == 0
    assert f"was brought from schema 1 to {NEWEST}" in old.out


def test_migrate_a_server(large: Site, empty_database: PostgresPlace) -> None:
    """So it is with a database on a server."""
    assert large.migrate("--dry-run") == 0
    assert "would be brought from schema 0" in large.out
    assert empty_database.execute("SELECT to_regclass('event')") == [(None,)]
    assert large.migrate() == 0
    assert "was brought from schema 0" in large.out
    assert large.migrate() == 0
    assert "nothing to do" in large.out
    empty_database.execute("UPDATE schema_version SET version = 9999")
    for options in ([], ["--dry-run"]):
        assert large.migrate(*options) == 1
        assert "the database has schema 9999, this gatewayd knows schemas up to" in large.err
        assert large.out == ""


def test_migrate_what_is_newer(old: Site) -> None:
    """What a newer version wrote is refused in one line."""
    with SQLiteDatabase(old.database, create=True) as database:
        database._db.execute("PRAGMA user_version = 9999")
    for options in ([], ["--dry-run"]):
        assert old.migrate(*options) == 1
        assert old.err.startswith("gatewayd migrate: the database has schema 9999, this gatewayd ")
        assert old.err.count("\n") == 1
