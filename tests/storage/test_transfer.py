"""All that a store keeps, out of a database of one driver and into one of any other."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from gatewayd.errors import ConfigError
from gatewayd.storage.transfer import stream
from gatewayd.storage.transfer.database import Database, Missing, check_versions
from gatewayd.storage.transfer.pg import PgDatabase
from gatewayd.storage.transfer.rows import Configuration, Identity, LogEnd, Network, Row
from gatewayd.storage.transfer.sqlite import SQLiteDatabase
from tests.storage.furnished import furnish_everything, goes_on, told
from tests.storage.pg_place import PostgresPlace
from tests.storage.postgres import PASSWORD, PostgresServer
from tests.storage.store_bench import Rig, SQLitePlace, bounded

_NUMBERS = count(1)


class Sites:
    """Makes databases of either driver, and removes them."""

    def __init__(self, directory: Path, server: PostgresServer) -> None:
        self._directory = directory
        self._server = server
        self._places: list[PostgresPlace] = []

    def new(self, driver: str) -> Any:
        """Return the place of a new database, whose store is not started."""
        number = next(_NUMBERS)
        if driver == "sqlite":
            return SQLitePlace(self._directory / f"{number}.db")
        place = PostgresPlace(self._server, f"transfer{number}")
        place.create()
        self._places.append(place)
        return place

    def drop(self) -> None:
        for place in self._places:
            place.drop()


@pytest.fixture(name="sites")
def build_sites(tmp_path: Path, store_server: PostgresServer) -> Iterator[Sites]:
    sites = Sites(tmp_path, store_server)
    yield sites
    sites.drop()


def opened(place: Any, *, create: bool = True) -> Database:
    """Return the database of a place."""
    if isinstance(place, SQLitePlace):
        return SQLiteDatabase(place.path, create=create)
    return PgDatabase(place.url)


def quiet(table: str, rows: int) -> None:
    """Tell nobody."""


def exported(place: Any) -> bytes:
    """Return all that is in a database as a stream."""
    out = io.BytesIO()
    with opened(place, create=False) as source:
        check_versions(source)
        stream.write("1.0", source.rows(), out, quiet)
    return out.getvalue()


def imported(place: Any, lines: bytes) -> None:
    """Put a stream into a database."""
    rows = stream.read(io.BytesIO(lines), quiet)
    with opened(place) as target:
        target.migrate()
        target.fill(rows)


def fill(place: Any, *rows: Row) -> None:
    """Put rows into a database."""
    with opened(place) as target:
        target.migrate()
        target.fill(rows)


DRIVERS = ("sqlite", "postgresql")


@pytest.mark.parametrize("target", DRIVERS)
@pytest.mark.parametrize("source", DRIVERS)
@bounded
async def test_everything(sites: Sites, source: str, target: str) -> None:
    """What is imported is what was exported, to the letter, and the store goes on from there."""
    old, new = sites.new(source), sites.new(target)
    await old.store.start()
    rig = Rig(old)
    await rig.furnish()
    await furnish_everything(rig)
    expected = await told(rig)
    await old.store.stop()
    lines = exported(old)
    (end,) = (row for row in stream.read(io.BytesIO(lines), quiet) if isinstance(row, LogEnd))
    tables = {line.split(b'"')[3] for line in lines.splitlines()[1:-1]}
    assert len(tables) == 27  # a row of everything there is
    imported(new, lines)
    assert exported(new) == lines
    await new.store.start()
    new.clock.now = old.clock.now
    copy = Rig(new)
    copy.network, copy.type = rig.network, rig.type
    assert [_plain(each) for each in await told(copy)] == [_plain(each) for each in expected]
    await goes_on(copy, end)
    await new.store.stop()


def _plain(answer: Any) -> Any:
    """Return an answer without what a driver may know and another not."""
    if isinstance(answer, list):
        for each in answer:
            if hasattr(each, "foreign"):
                each.foreign = False
    return answer


@pytest.mark.parametrize("target", DRIVERS)
@pytest.mark.parametrize("source", DRIVERS)
@bounded
async def test_swept(sites: Sites, source: str, target: str) -> None:
    """Also when retention has dropped all of the log it goes on where it ended."""
    old, new = sites.new(source), sites.new(target)
    await old.store.start()
    rig = Rig(old)
    await rig.furnish()
    device = await rig.device()
    for _ in range(3):
        last = await rig.note(device)
    await old.store.stop()
    lines = exported(old).splitlines(keepends=True)
    kept = [line for line in lines[:-1] if not line.startswith(b'{"table":"event"')]
    ends = stream.End(end={**stream._END.decode(lines[-1]).end})
    del ends.end["event"]
    lines = [*kept, stream._ENCODER.encode(ends) + b"\n"]
    imported(new, b"".join(lines))
    for _ in range(2):  # and once more, out of the one and into another
        assert exported(new) == b"".join(lines)
        newer = sites.new(target)
        imported(newer, exported(new))
        new = newer
    await new.store.start()
    event = await Rig(new).note(device)
    assert (event.position, event.seq) == (last.position + 1, last.seq + 1)
    assert event.ts > last.ts
    await new.store.stop()


@pytest.mark.parametrize("driver", DRIVERS)
@bounded
async def test_not_into_one_that_is_used(sites: Sites, driver: str) -> None:
    """A database with a user, a device or anything else is refused, and stays as it is."""
    place = sites.new(driver)
    fill(place, Configuration(1, "name", "value", 0))
    before = exported(place)
    with pytest.raises(
        ConfigError, match="is not empty, there are rows in its table conf"
    ) as refused:
        fill(place, Network(1, "home", None))
    assert PASSWORD not in str(refused.value)
    assert exported(place) == before


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([Network(1, "planted", None), Network(2, "planted", None)], "do not fit together"),
        ([Network(1, "a", None), Identity("event", 1)], "ids of a table that has none"),
    ],
)
def test_nothing_or_all(sites: Sites, driver: str, rows: list[Row], reason: str) -> None:
    """With the first row that does not fit, nothing at all is there; no row is shown."""
    place = sites.new(driver)
    with pytest.raises(ConfigError, match=reason) as refused:
        fill(place, *rows)
    assert "planted" not in str(refused.value)
    with opened(place) as left:
        assert [type(row) for row in left.rows()] == [LogEnd]
    fill(place, Network(1, "a", None))


@pytest.mark.parametrize("driver", DRIVERS)
def test_cut(sites: Sites, driver: str) -> None:
    """Of a stream that was cut nothing is imported, however much of it is there."""
    place, target = sites.new(driver), sites.new(driver)
    fill(place, Network(1, "a", None), Network(2, "b", None))
    lines = exported(place)
    with pytest.raises(stream.Broken, match="it was cut"):
        imported(target, lines[: lines.rindex(b"{")])
    with opened(target) as left:
        assert [type(row) for row in left.rows()] == [LogEnd]


@pytest.mark.parametrize("driver", DRIVERS)
@bounded
async def test_old_and_new_schemas(sites: Sites, driver: str) -> None:
    """A database of another schema is refused: one is brought up first, the other never."""
    place = sites.new(driver)
    if driver == "sqlite":
        execute(place, "PRAGMA user_version = 0")  # a file, without anything in it
    with pytest.raises(ConfigError, match="there is nothing in the database"):
        exported(place)
    with opened(place) as database:
        newest = database.versions()[1]
        assert database.versions() == (0, newest)
        database.migrate()
        assert database.versions() == (newest, newest)
        database.migrate()
    set_version(place, newest - 1)
    with pytest.raises(ConfigError, match=f"has schema {newest - 1}, not {newest}; .*gatewayd mig"):
        exported(place)
    set_version(place, newest + 1)
    with pytest.raises(ConfigError, match="written by a newer version"):
        exported(place)
    with pytest.raises(ConfigError, match="written by a newer version"):
        fill(place)


def execute(place: Any, statement: str) -> None:
    """Run a statement in a database."""
    if isinstance(place, PostgresPlace):
        place.execute(statement)
        return
    with SQLiteDatabase(place.path, create=True) as database:
        database._db.execute(statement)


def set_version(place: Any, number: int) -> None:
    """Let a database have another schema, as far as it says."""
    if isinstance(place, PostgresPlace):
        execute(place, f"UPDATE schema_version SET version = {number}")
    else:
        execute(place, f"PRAGMA user_version = {number}")


@bounded
async def test_sqlite_in_use(sites: Sites) -> None:
    """While a gateway has the file open, nothing is read out of it or put into it."""
    place = sites.new("sqlite")
    await place.store.start()
    for create in (False, True):
        with (
            pytest.raises(ConfigError, match="in use by another gatewayd"),
            SQLiteDatabase(place.path, create=create),
        ):
            pass
    await place.store.stop()
    assert exported(place)


def test_sqlite_that_is_none(tmp_path: Path) -> None:
    """A file that is missing is not made for an export, and what is no database is told."""
    path = tmp_path / "new" / "a.db"
    with (
        pytest.raises(Missing, match=f"there is no database {path}"),
        SQLiteDatabase(path, create=False),
    ):
        pass
    assert not path.parent.exists()
    with SQLiteDatabase(path, create=True):
        assert path.stat().st_mode & 0o777 == 0o600
    other = tmp_path / "text"
    other.write_text("no database" * 100)
    with (
        pytest.raises(ConfigError, match=f"cannot use the database {other}: "),
        SQLiteDatabase(other, create=False),
    ):
        pass
    with (
        pytest.raises(ConfigError, match="cannot use the database"),
        SQLiteDatabase(tmp_path, create=False),
    ):
        pass


def test_server_that_lets_nobody_in(sites: Sites, store_server: PostgresServer) -> None:
    """What the server refuses is told without the password."""
    place = sites.new("postgresql")
    for url in (
        store_server.url_of(password="pl4nted", database=place.name),
        store_server.url_of(database="none"),
        "postgresql://u:pl4nted@127.0.0.1:1/db",
    ):
        with (
            pytest.raises(ConfigError, match="cannot use the PostgreSQL database ") as refused,
            PgDatabase(url),
        ):
            pass
        assert "pl4nted" not in str(refused.value)
        assert PASSWORD not in str(refused.value)


def test_server_that_forbids(sites: Sites) -> None:
    """A role that may not read, or write, is told."""
    place = sites.new("postgresql")
    fill(place)
    place.execute("REVOKE ALL ON users FROM gateway")
    place.execute("ALTER TABLE users OWNER TO postgres")
    with pytest.raises(ConfigError, match="permission denied"):
        exported(place)
    with pytest.raises(ConfigError, match="permission denied"):
        fill(place)


@bounded
async def test_one_moment(sites: Sites) -> None:
    """An export of a server's database is of the moment in which it began."""
    place = sites.new("postgresql")
    fill(place, Network(1, "a", None))
    with opened(place) as source:
        rows = source.rows()
        first = next(rows)
        place.execute("INSERT INTO device_type (name) VALUES ('later')")
        with pytest.raises(psycopg2.errors.LockNotAvailable):  # no day is dropped meanwhile
            place.execute("SET lock_timeout = '50ms'; DROP TABLE event_default")
        assert [type(row).__name__ for row in (first, *rows)][:2] == ["Network", "LogEnd"]


@bounded
async def test_gateway_that_begins_meanwhile(sites: Sites) -> None:
    """While rows are imported, a server lets nobody write to any table."""
    place = sites.new("postgresql")
    seen = []

    def rows() -> Iterator[Row]:
        yield Network(1, "a", None)
        other = psycopg2.connect(place.url)
        with other.cursor() as cursor:
            cursor.execute("SET lock_timeout = '50ms'")
            with pytest.raises(psycopg2.errors.LockNotAvailable):
                cursor.execute("INSERT INTO users (login, role, status, password) "
                               "VALUES ('a', 0, 0, '')")  # fmt: skip
            seen.append(True)
        other.close()

    with opened(place) as target:
        target.migrate()
        target.fill(rows())
    assert seen
