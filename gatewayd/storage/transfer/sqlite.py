"""All rows of an SQLite database."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gatewayd.errors import ConfigError
from gatewayd.storage.file_lock import FileLock
from gatewayd.storage.journal import END_POSITION, END_TS
from gatewayd.storage.migrate import migrate, scripts
from gatewayd.storage.transfer.database import Missing, not_empty
from gatewayd.storage.transfer.rows import (
    NUMBERED,
    TABLES,
    Identity,
    LogEnd,
    Meta_,
    Row,
    SigningKey,
    batches,
    columns,
    flags,
    name_of,
)

# Of two keys that were made in the same ms, the first one is older.
_ORDER: dict[type[Row], str] = {SigningKey: "created, rowid"}
# The end of a log whose last events are gone; it has no table of its own.
_END = (END_POSITION, END_TS)


class SQLiteDatabase:
    """A :class:`~gatewayd.storage.transfer.database.Database` in a file.

    :param create: make it, mode 600, if it is not there.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        self._path = path
        self._create = create
        self._lock = FileLock(path)

    def __enter__(self) -> Self:
        if not (self._create or self._path.exists()):
            raise Missing(f"there is no database {self._path}")
        self._lock.take()
        try:
            # Private before SQLite opens it; the files that it keeps beside it get the same mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(self._path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA foreign_keys = ON")
        except (OSError, sqlite3.Error) as error:
            self._lock.release()
            raise self._unusable(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._db.close()
        self._lock.release()

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return str(self._path)

    def _unusable(self, error: Exception) -> ConfigError:
        return ConfigError(f"cannot use the database {self._path}: {error}")

    def versions(self) -> tuple[int, int]:
        """Return the number of its schema, and of the newest known one."""
        try:
            current: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return current, scripts()[-1][0]

    def migrate(self) -> None:
        """Bring it to the newest schema."""
        try:
            migrate(self._db)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def rows(self) -> Iterator[Row]:
        """Yield all that is in it."""
        try:
            self._db.execute("BEGIN")
            for table in TABLES:
                yield from self._table(table)
            yield self._end()
            yield from self._identities()
            self._db.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _table(self, table: type[Row]) -> Iterator[Row]:
        order = _ORDER.get(table, table.order)
        names = ", ".join(columns(table))
        flagged = flags(table)
        for values in self._db.execute(f"SELECT {names} FROM {name_of(table)} ORDER BY {order}"):
            if table is Meta_ and values[0] in _END:
                continue
            row = list(values)
            for index in flagged:
                row[index] = bool(row[index])
            yield table(*row)

    def _end(self) -> LogEnd:
        position, ts = self._db.execute(
            "SELECT coalesce(max(position), 0), coalesce(max(ts), 0) FROM event"
        ).fetchone()
        kept = dict(self._db.execute("SELECT name, value FROM meta WHERE name IN (?, ?)", _END))
        return LogEnd(
            position=max(position, kept.get(END_POSITION, 0)), ts=max(ts, kept.get(END_TS, 0))
        )

    def _identities(self) -> Iterator[Identity]:
        given = dict(self._db.execute("SELECT name, seq FROM sqlite_sequence"))
        for table in NUMBERED:
            if given.get(name_of(table)):
                yield Identity(name=name_of(table), last=given[name_of(table)])

    def fill(self, rows: Iterable[Row]) -> None:
        """Put rows into it, all or none."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._check_empty()
                for table, batch in batches(rows):
                    self._write(table, batch)
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
        except sqlite3.IntegrityError as error:
            raise ConfigError(f"the rows do not fit together: {error}") from None
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _check_empty(self) -> None:
        for table in TABLES:
            if self._db.execute(f"SELECT 1 FROM {name_of(table)} LIMIT 1").fetchone() is not None:
                raise not_empty(self.place, name_of(table))

    def _write(self, table: type[Row], batch: list[tuple[Any, ...]]) -> None:
        if table is Identity:
            for name, last in batch:
                self._count_on(name, last)
            return
        if table is LogEnd:
            table = Meta_
            batch = [
                (name, value) for ends in batch for name, value in zip(_END, ends, strict=True)
            ]
        names = ", ".join(columns(table))
        places = ", ".join("?" * len(columns(table)))
        self._db.executemany(f"INSERT INTO {name_of(table)} ({names}) VALUES ({places})", batch)

    def _count_on(self, name: str, last: int) -> None:
        """Give out no id again, be its row gone: what AUTOINCREMENT knows is never made less."""
        if name not in map(name_of, NUMBERED):
            raise ConfigError("the rows do not fit together: ids of a table that has none")
        changed = self._db.execute(
            "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (last, name)
        )
        if not changed.rowcount:
            self._db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, last))
