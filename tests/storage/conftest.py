"""A store of its own for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_twisted

from tests.storage.store_bench import Place, Rig, SQLitePlace


@pytest_twisted.async_yield_fixture()
async def sqlite_place(tmp_path: Path) -> AsyncIterator[SQLitePlace]:
    """Keep an SQLite store in a new file."""
    place = SQLitePlace(tmp_path / "gatewayd.db")
    await place.store.start()
    yield place
    await place.store.stop()


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
