"""A place for a PostgreSQL store: a database of its own on the server of the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from twisted.internet.task import deferLater

from gatewayd.storage.pg.store import PostgresStore
from tests.storage.postgres import USER, PostgresServer
from tests.storage.store_bench import Clock, the_reactor


class PostgresPlace:
    """A database for a PostgreSQL store.

    :ivar name: the database's.
    """

    def __init__(self, server: PostgresServer, name: str, **options: Any) -> None:
        self.server = server
        self.name = name
        self.clock = Clock()
        self._options = options
        self.store = self.another()

    @property
    def url(self) -> str:
        return self.server.url_of(database=self.name)

    def another(self, **options: Any) -> PostgresStore:
        """Return another store on the same database."""
        return PostgresStore(self.url, the_reactor(), self.clock, **(self._options | options))

    async def reopen(self) -> None:
        await self.store.stop()
        self.store = self.another()
        await self.store.start()

    def create(self, template: str = "template1") -> None:
        """Make the database as a copy of another."""
        self.server.execute(
            f"CREATE DATABASE {self.name} OWNER {USER} TEMPLATE {template} STRATEGY file_copy",
            database="postgres",
        )

    def drop(self) -> None:
        """Remove the database."""
        self.server.execute(f"DROP DATABASE {self.name} WITH (FORCE)", database="postgres")

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement in the database as the server's owner, and return its rows."""
        return self.server.execute(statement, *values, database=self.name)


async def pause(seconds: float) -> None:
    await deferLater(the_reactor(), seconds)


@contextmanager
def held(place: PostgresPlace) -> Iterator[Callable[[], None]]:
    """Keep the log's end locked, so that what is submitted meanwhile waits."""
    db = psycopg2.connect(
        host=str(place.server.directory), port=place.server.port, user="postgres", dbname=place.name
    )
    db.cursor().execute("SELECT 1 FROM log_end FOR UPDATE")
    try:
        yield db.close
    finally:
        db.close()
