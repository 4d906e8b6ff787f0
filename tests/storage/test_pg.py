"""PostgreSQL keeps what every store promises."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_twisted

from tests.storage.conformance import StoreConformance
from tests.storage.pg_place import PostgresPlace
from tests.storage.store_bench import Place


@pytest_twisted.async_yield_fixture(name="place")
async def choose_place(pg_place: PostgresPlace) -> AsyncIterator[Place]:
    """Be the place of the store under test."""
    yield pg_place


class TestPostgres(StoreConformance):
    """The ``place`` is a database of its own."""
