"""Transactions in a real PostgreSQL that are under way at the same time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import Any, TypeVar

import psycopg2

from gatewayd.core.model import Device, Group, GroupKind, RelayCall, Role, User
from gatewayd.core.shadow import LastValue
from gatewayd.storage.pg import devices, groups
from gatewayd.storage.pg.link import from_database, to_database
from gatewayd.storage.pg.migrate import scripts
from tests.storage.pg_place import PostgresPlace
from tests.storage.store_bench import HOUR, START

Result = TypeVar("Result")
#: Seconds in which anything here is over.
PATIENCE = 10


class Writer:
    """A connection of its own, whose transaction goes on until it is told to end."""

    def __init__(self, url: str) -> None:
        self._db = psycopg2.connect(url)
        self._thread = ThreadPoolExecutor(1)
        self.pid: int = self._db.info.backend_pid

    def do(self, function: Callable[..., Coroutine[Any, Any, Result]], *arguments: Any) -> Result:
        """Call ``function(tx, *arguments)`` in the transaction."""
        return self.begin(function, *arguments).result(PATIENCE)

    def begin(
        self, function: Callable[..., Coroutine[Any, Any, Result]], *arguments: Any
    ) -> Future[Result]:
        """Do the same in a thread."""
        return self._thread.submit(lambda: _drive(function(self, *arguments)))

    def end(self, *, undo: bool = False) -> None:
        """Commit, or roll back."""
        if undo:
            self._db.rollback()
        else:
            self._db.commit()

    def close(self) -> None:
        """Roll back and disconnect."""
        self._thread.shutdown()
        self._db.close()

    # A gatewayd.storage.pg.tx.Tx

    async def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self._db.cursor() as cursor:
            cursor.execute(sql, tuple(map(to_database, parameters)))
            return [tuple(map(from_database, row)) for row in cursor.fetchall()]

    async def run(self, sql: str, *parameters: Any) -> int:
        with self._db.cursor() as cursor:
            cursor.execute(sql, tuple(map(to_database, parameters)))
            return cursor.rowcount


def _drive(running: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine that waits for nothing but its statements."""
    try:
        running.send(None)
    except StopIteration as stop:
        result: Result = stop.value
        return result
    raise AssertionError("it waits for something else")


class Directory:
    """An empty database with the schema, and two writers.

    :ivar first: the one that comes first in :meth:`race`.
    """

    def __init__(self, place: PostgresPlace) -> None:
        self.place = place
        self.first = Writer(place.url)
        for _, script in scripts():
            self.first.do(_execute, script)
        self.first.end()
        self.second = Writer(place.url)

    def close(self) -> None:
        self.first.close()
        self.second.close()

    def save(self, function: Callable[..., Coroutine[Any, Any, Result]], *arguments: Any) -> Result:
        """Call a function in a transaction of its own."""
        try:
            result = self.first.do(function, *arguments)
        except BaseException:
            self.first.end(undo=True)
            raise
        self.first.end()
        return result

    def read(self, function: Callable[..., Coroutine[Any, Any, Result]], *arguments: Any) -> Result:
        """Look at what is committed."""
        result = self.second.do(function, *arguments)
        self.second.end()
        return result

    @contextmanager
    def race(
        self, function: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any, undo: bool = False
    ) -> Iterator[Future[Any]]:
        """Begin a call that has to wait for what the first has done and not committed.

        Then the first does what stands in the ``with``, and ends; the call goes on, and is
        committed unless it fails.
        """
        begun = self.second.begin(function, *arguments)
        until = monotonic() + PATIENCE
        waiting = "SELECT pg_blocking_pids(%s) <> '{}'"
        while not self.place.execute(waiting, self.second.pid)[0][0]:
            assert not begun.done(), "nobody had to wait"
            assert monotonic() < until
        yield begun
        self.first.end(undo=undo)
        self.second.end(undo=begun.exception(PATIENCE) is not None)


async def _execute(tx: Writer, script: str) -> None:
    await tx.run(script.replace("%", "%%"))


class House:
    """A network, a device type, and a device in them."""

    def __init__(self, directory: Directory) -> None:
        self.network = directory.save(groups.insert, GroupKind.NETWORK, "home", None)
        self.type = directory.save(groups.insert, GroupKind.DEVICE_TYPE, "plain", None)
        self.device = directory.save(devices.save, self.draft("D"))

    def draft(self, name: str) -> Device:
        return Device(uid=0, id=name, name=name, network=self.network.id, type=self.type.id)

    def group(self, kind: GroupKind) -> Group:
        return self.network if kind is GroupKind.NETWORK else self.type


def client(login: str, **fields: Any) -> User:
    """Make a user that is not stored yet."""
    return User(id=0, login=login, role=Role.CLIENT, **fields)


def call(house: House, call_id: str, **fields: Any) -> RelayCall:
    """Make a call to the device that begins."""
    values = {"key": "k", "principal": "user/1", "created": START, "expires": START + HOUR}
    return RelayCall(id=call_id, stream=house.device.uid, digest=b"d", **{**values, **fields})


def said(house: House, key: str, seq: int, value: bytes | None = b"1") -> LastValue:
    """Make what the device said."""
    return LastValue(stream=house.device.uid, key=key, value=value, stamp=START, seq=seq)
