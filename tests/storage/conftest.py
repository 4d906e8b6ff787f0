"""A store of its own for each test, and one PostgreSQL server for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest
import pytest_twisted

from tests.storage.pg_followers import PATIENCE, Node
from tests.storage.pg_place import PostgresPlace
from tests.storage.pg_writers import Directory, House
from tests.storage.postgres import PostgresServer
from tests.storage.store_bench import Place, Rig, SQLitePlace

_NUMBERS = count(1)


@pytest_twisted.async_yield_fixture()
async def sqlite_place(tmp_path: Path) -> AsyncIterator[SQLitePlace]:
    """Keep an SQLite store in a new file."""
    place = SQLitePlace(tmp_path / "gatewayd.db")
    await place.store.start()
    yield place
    await place.store.stop()


@pytest.fixture(scope="session")
def store_server() -> Iterator[PostgresServer]:
    """Run a PostgreSQL server; who stops or freezes it has it going again when the test ends."""
    server = PostgresServer(connections=100)
    try:
        server.create()
        yield server
    finally:
        server.destroy()


@pytest.fixture
def empty_database(store_server: PostgresServer) -> Iterator[PostgresPlace]:
    """Make a new database without a schema; its store is not started."""
    place = PostgresPlace(store_server, f"store{next(_NUMBERS)}")
    place.create()
    yield place
    place.drop()


@pytest.fixture(scope="session")
def store_template(store_server: PostgresServer) -> PostgresPlace:
    """Make a database of which there are copies when it has a schema."""
    place = PostgresPlace(store_server, "store0")
    place.create()
    return place


@pytest_twisted.async_yield_fixture()
async def pg_place(
    store_server: PostgresServer, store_template: PostgresPlace
) -> AsyncIterator[PostgresPlace]:
    """Keep a PostgreSQL store in a new database."""
    if store_template.execute("SELECT to_regclass('schema_version')") == [(None,)]:
        await store_template.store.start()
        await store_template.store.stop()
    place = PostgresPlace(store_server, f"store{next(_NUMBERS)}")
    place.create(store_template.name)
    await place.store.start()
    yield place
    await place.store.stop()
    place.drop()


@pytest_twisted.async_yield_fixture(name="nodes")
async def start_nodes(pg_place: PostgresPlace) -> AsyncIterator[tuple[Node, Node]]:
    """Have two nodes that notify each other."""
    await pg_place.store.stop()
    pg_place.store = pg_place.another(patience=PATIENCE)
    a, b = Node(pg_place.store), Node(pg_place.another(patience=PATIENCE))
    await a.start()
    await b.start()
    yield a, b
    await b.store.stop()


@pytest_twisted.async_yield_fixture(name="place")
async def choose_place(sqlite_place: SQLitePlace) -> AsyncIterator[Place]:
    """Be the place of the store under test; each driver's module has its own."""
    yield sqlite_place


@pytest_twisted.async_yield_fixture(name="rig")
async def furnish_rig(place: Place) -> AsyncIterator[Rig]:
    """Put a network and a device type into the store."""
    rig = Rig(place)
    await rig.furnish()
    yield rig


@pytest.fixture(name="directory")
def open_directory(empty_database: PostgresPlace) -> Iterator[Directory]:
    """Make a database with the schema, and two who write to it."""
    directory = Directory(empty_database)
    yield directory
    directory.close()


@pytest.fixture(name="house")
def build_house(directory: Directory) -> House:
    """Put a network, a device type and a device into it."""
    return House(directory)
