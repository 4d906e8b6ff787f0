"""Where the gateways of tests keep what they store: SQLite files, or databases on PostgreSQL.

The environment variable ``GATEWAYD_TEST_STORE`` says which: ``sqlite``, or ``postgresql``.
"""

from __future__ import annotations

import os
import shutil
from itertools import count
from pathlib import Path
from typing import Protocol

import pytest

from gatewayd.configuration import Secret, Storage
from tests.storage.postgres import USER, PostgresServer

#: Of all stores of a run; each has about ten, and a module's are open beside a test's.
_CONNECTIONS = 300
#: Where files are in memory, on systems that have it. The tests of an API are not about what
#: survives, and each of their writes would wait for the disk.
_MEMORY = "/dev/shm"
#: Bytes that have to be free there: containers often have 64 MiB in all.
_ENOUGH = 2 * 1024 * 1024 * 1024
_FIRST_START = "first_start"


def in_memory() -> str | None:
    """Return a directory whose files are in memory; None: there is none, or it is too small."""
    fits = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ENOUGH
    return _MEMORY if fits else None


class Stores(Protocol):
    """The stores of a run of the tests, each known by a path that belongs to one test."""

    def storage(self, path: Path) -> Storage:
        """Return the settings of the store of a path; the same path is the same store."""

    def exists(self, storage: Storage) -> bool:
        """Whether the store was made before, by who is asked here or by a gateway."""

    def create(self, storage: Storage) -> None:
        """Make a store with nothing in it."""

    def furnish(self, storage: Storage) -> None:
        """Make a store with what the first start has left that was kept."""

    def keep(self, storage: Storage) -> None:
        """Keep what a first start has left in a store that is closed."""

    def drop(self, directory: Path) -> None:
        """Remove the stores of the paths below a directory; it is about to go, too."""

    def end(self) -> None:
        """Leave nothing behind."""


class SQLiteStores:
    """Each is the file of its path."""

    def __init__(self) -> None:
        self._first_start = b""

    def storage(self, path: Path) -> Storage:
        return Storage(url=Secret(f"sqlite:///{path}"))

    def exists(self, storage: Storage) -> bool:
        return storage.path.exists()

    def create(self, storage: Storage) -> None:
        """Leave it to the gateway."""

    def furnish(self, storage: Storage) -> None:
        storage.path.parent.mkdir(parents=True, exist_ok=True)
        storage.path.write_bytes(self._first_start)

    def keep(self, storage: Storage) -> None:
        self._first_start = storage.path.read_bytes()

    def drop(self, directory: Path) -> None:
        """Leave it to who removes the directory."""

    def end(self) -> None:
        """There is nothing but files."""


class PostgresStores:
    """Each is a database of its own, on one server that starts when the first is wanted."""

    def __init__(self) -> None:
        self._server: PostgresServer | None = None
        self._numbers = count(1)
        self._names: dict[Path, str] = {}
        self._made: set[str] = set()

    def storage(self, path: Path) -> Storage:
        if path not in self._names:
            self._names[path] = f"store{next(self._numbers)}"
        return Storage(url=Secret(self._running().url_of(database=self._names[path])))

    def exists(self, storage: Storage) -> bool:
        return _name(storage) in self._made

    def create(self, storage: Storage) -> None:
        self._copy("template1", _name(storage))

    def furnish(self, storage: Storage) -> None:
        self._copy(_FIRST_START, _name(storage))

    def keep(self, storage: Storage) -> None:
        self._copy(_name(storage), _FIRST_START)

    def drop(self, directory: Path) -> None:
        for path in [path for path in self._names if path.is_relative_to(directory)]:
            name = self._names.pop(path)
            if name in self._made:
                self._made.remove(name)
                self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def end(self) -> None:
        if self._server is not None:
            self._server.destroy()
            self._server = None

    def _copy(self, source: str, name: str) -> None:
        self._execute(f"CREATE DATABASE {name} OWNER {USER} TEMPLATE {source} STRATEGY file_copy")
        self._made.add(name)

    def _execute(self, statement: str) -> None:
        self._running().execute(statement, database="postgres")

    def _running(self) -> PostgresServer:
        if self._server is None:
            self._server = PostgresServer(connections=_CONNECTIONS, parent=in_memory())
            self._server.create()
        return self._server


def _name(storage: Storage) -> str:
    """Return the name of a database of ours."""
    assert storage.url is not None
    return storage.url.reveal().rpartition("/")[2]


#: Whether the stores are databases on PostgreSQL.
ON_POSTGRESQL = os.environ.get("GATEWAYD_TEST_STORE", "sqlite") == "postgresql"
stores: Stores = PostgresStores() if ON_POSTGRESQL else SQLiteStores()


def sqlite_only(reason: str) -> pytest.MarkDecorator:
    """Mark a test that is about the SQLite file itself. :param reason: why it is."""
    return pytest.mark.skipif(ON_POSTGRESQL, reason=f"SQLite alone: {reason}")
