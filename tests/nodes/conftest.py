"""Two gateways of one database, on a PostgreSQL server for all of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest
import pytest_twisted

from tests.storage.postgres import PostgresServer

if TYPE_CHECKING:
    from tests.nodes.pair import Pair


@pytest.fixture(scope="session")
def nodes_server() -> Iterator[PostgresServer]:
    """Run a PostgreSQL server."""
    server = PostgresServer(connections=100)
    try:
        server.create()
        yield server
    finally:
        server.destroy()


@pytest_twisted.async_yield_fixture()
async def pair(nodes_server: PostgresServer) -> AsyncIterator[Pair]:
    """Run two gateways on a new database."""
    # It imports the reactor, which pytest-twisted installs after it has read this file.
    from tests.nodes.pair import Pair

    pair = Pair(nodes_server)
    await pair.start()
    yield pair
    await pair.stop()
