"""All rows of a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import psycopg2
from psycopg2.extensions import ISOLATION_LEVEL_REPEATABLE_READ, connection, parse_dsn
from psycopg2.extras import execute_values

from gatewayd.errors import ConfigError
from gatewayd.storage.dsn import Dsn
from gatewayd.storage.pg.digests import digest
from gatewayd.storage.pg.link import Link, from_database, to_database
from gatewayd.storage.pg.migrate import migrate, scripts
from gatewayd.storage.pg.partitions import add_days
from gatewayd.storage.pg.pool import unusable
from gatewayd.storage.pg.server import check
from gatewayd.storage.postgres import Session
from gatewayd.storage.transfer.database import not_empty
from gatewayd.storage.transfer.rows import (
    NUMBERED,
    TABLES,
    Identity,
    LastValue,
    LiveSessionGrant,
    LogEnd,
    RelayCall,
    Row,
    SigningKey,
    User,
    batches,
    columns,
    name_of,
)

_TABLES: tuple[type[Row], ...] = (*TABLES, LogEnd)
_Result = TypeVar("_Result")
# Names that are SQL's own.
_NAMES: dict[type[Row], str] = {User: "users"}
_COLUMNS = {"user": "user_id"}
# Of two keys that were made in the same ms, the first one is older.
_ORDER: dict[type[Row], str] = {SigningKey: "created, number"}
# What stands in an index for other columns, here alone; see digests.
_PLACES: dict[type[Row], Callable[[tuple[Any, ...]], bytes | None]] = {
    RelayCall: lambda row: None if row[3] is None else digest(*row[1:4]),
    LastValue: lambda row: digest(row[1]),
    LiveSessionGrant: lambda row: digest(*row),
}
# Rows that are fetched at once. What is relayed may be large.
_AT_ONCE: dict[type[Row], int] = {RelayCall: 1}
_MANY = 200
_CONNECTING = 10  # seconds


class PgDatabase:
    """A :class:`~gatewayd.storage.transfer.database.Database` on a server. It waits for the server.

    :raises ConfigError: this is no URL of a database.
    """

    def __init__(self, url: str) -> None:
        self._dsn = Dsn(url)
        self._url = url

    def __enter__(self) -> Self:
        timeout = parse_dsn(self._url).get("connect_timeout", _CONNECTING)
        try:
            self._db = psycopg2.connect(
                self._url,
                connect_timeout=timeout,
                client_encoding="UTF8",
                application_name="gatewayd",
            )
            with self._db.cursor() as cursor:
                # Nobody knows how long the other end of a pipe takes.
                cursor.execute("SET statement_timeout = 0")
                cursor.execute("SET idle_in_transaction_session_timeout = 0")
            self._db.commit()
        except (psycopg2.Error, ValueError) as error:
            raise self._unusable(error) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._db.close()

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return self._dsn.place

    def _unusable(self, error: Exception) -> ConfigError:
        primary = error.diag.message_primary if isinstance(error, psycopg2.Error) else None
        # Its details would show what is in a row.
        return unusable(self._dsn, primary or self._dsn.tell(error))

    def versions(self) -> tuple[int, int]:
        """Return the number of its schema, and of the newest known one."""
        try:
            with self._db, self._db.cursor() as cursor:
                cursor.execute("SELECT to_regclass('schema_version') IS NOT NULL")
                current = 0
                if _one(cursor):
                    cursor.execute("SELECT version FROM schema_version")
                    current = _one(cursor)
        except psycopg2.Error as error:
            raise self._unusable(error) from None
        return current, scripts()[-1][0]

    def migrate(self) -> None:
        """Bring it to the newest schema."""
        self._db.autocommit = True  # it begins and commits by itself
        link = Link(cast(Session, _Statements(self._db)))
        try:
            _drive(check(link))
            _drive(migrate(link))
            link.begin()
            _drive(add_days(link))
            _drive(link.commit())
        except psycopg2.Error as error:
            raise self._unusable(error) from None
        self._db.autocommit = False

    def rows(self) -> Iterator[Row]:
        """Yield all that is in it at one moment."""
        try:
            self._db.set_session(ISOLATION_LEVEL_REPEATABLE_READ, readonly=True)
            self._lock("ACCESS SHARE")  # or retention could drop a day before it is read
            for table in _TABLES:
                yield from self._table(table)
            yield from self._identities()
            self._db.rollback()
        except psycopg2.Error as error:
            raise self._unusable(error) from None

    def _lock(self, mode: str) -> None:
        with self._db.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {', '.join(map(_table_name, _TABLES))} IN {mode} MODE")

    def _table(self, table: type[Row]) -> Iterator[Row]:
        with self._db.cursor(name=f"all_{name_of(table)}") as cursor:
            cursor.itersize = _AT_ONCE.get(table, _MANY)
            order = _ORDER.get(table, table.order)
            cursor.execute(f"SELECT {_names(table)} FROM {_table_name(table)} ORDER BY {order}")
            for values in cursor:
                yield table(*map(from_database, values))

    def _identities(self) -> Iterator[Identity]:
        with self._db.cursor() as cursor:
            for table in NUMBERED:
                cursor.execute(f"SELECT pg_sequence_last_value({_sequence(table)}::regclass)")
                if last := _one(cursor):
                    yield Identity(name=name_of(table), last=last)

    def fill(self, rows: Iterable[Row]) -> None:
        """Put rows into it, all or none."""
        try:
            try:
                self._lock("EXCLUSIVE")  # a gateway that begins meanwhile waits, and gives up
                self._check_empty()
                last: dict[str, int] = {}
                for table, batch in batches(rows):
                    if table is Identity:
                        last.update(batch)
                    else:
                        self._write(table, batch)
                self._count_on(last)
                self._db.commit()
            finally:
                if not self._db.closed:
                    self._db.rollback()
        except (psycopg2.IntegrityError, psycopg2.DataError) as error:
            raise ConfigError(
                f"the rows do not fit together: {error.diag.message_primary}"
            ) from None
        except psycopg2.Error as error:
            raise self._unusable(error) from None

    def _check_empty(self) -> None:
        with self._db.cursor() as cursor:
            for table in TABLES:
                cursor.execute(f"SELECT EXISTS (SELECT 1 FROM {_table_name(table)})")
                if _one(cursor):
                    raise not_empty(self.place, _table_name(table))

    def _write(self, table: type[Row], batch: list[tuple[Any, ...]]) -> None:
        with self._db.cursor() as cursor:
            if table is LogEnd:
                cursor.executemany("UPDATE log_end SET position = %s, ts = %s", batch)
                return
            names = _names(table)
            place = _PLACES.get(table)
            if place is not None:
                names += ", place"
                batch = [(*row, place(row)) for row in batch]
            execute_values(
                cursor,
                f"INSERT INTO {_table_name(table)} ({names}) VALUES %s",
                [tuple(map(to_database, row)) for row in batch],
                page_size=len(batch),
            )

    def _count_on(self, last: dict[str, int]) -> None:
        """Give out no id again, be its row gone: what a sequence knows is never made less."""
        if last.keys() - set(map(name_of, NUMBERED)):
            raise ConfigError("the rows do not fit together: ids of a table that has none")
        with self._db.cursor() as cursor:
            for table in NUMBERED:
                id_, name, sequence = columns(table)[0], _table_name(table), _sequence(table)
                cursor.execute(
                    f"SELECT setval({sequence}, greatest((SELECT max({id_}) FROM {name}), %s, "
                    f"pg_sequence_last_value({sequence}::regclass)))",
                    (last.get(name_of(table)),),
                )


class _Statements:
    """A connection of which a :class:`~gatewayd.storage.pg.link.Link` asks something."""

    def __init__(self, db: connection) -> None:
        self._db = db

    async def execute(
        self, statement: str, parameters: dict[str, Any] | tuple[Any, ...] | None
    ) -> tuple[list[tuple[Any, ...]], int]:
        with self._db.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else [], cursor.rowcount


def _drive(running: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine whose statements are answered before it can wait for them."""
    try:
        running.send(None)
    except StopIteration as stop:
        result: _Result = stop.value
        return result
    raise AssertionError("it waits for something else")


def _one(cursor: Any) -> Any:
    return cursor.fetchone()[0]


def _table_name(table: type[Row]) -> str:
    return _NAMES.get(table, name_of(table))


def _names(table: type[Row]) -> str:
    return ", ".join(_COLUMNS.get(name, name) for name in columns(table))


def _sequence(table: type[Row]) -> str:
    return f"pg_get_serial_sequence('{_table_name(table)}', '{columns(table)[0]}')"
