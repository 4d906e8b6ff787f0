"""Places of databases of both drivers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.moving.site import Site
from tests.storage.conftest import empty_database, store_server
from tests.storage.pg_place import PostgresPlace

__all__ = ["empty_database", "store_server"]


@pytest.fixture(name="old")
def build_old(tmp_path: Path) -> Site:
    return Site(tmp_path / "old")


@pytest.fixture(name="new")
def build_new(tmp_path: Path) -> Site:
    return Site(tmp_path / "new")


@pytest.fixture(name="large")
def build_large(tmp_path: Path, empty_database: PostgresPlace) -> Site:
    return Site(tmp_path / "large", empty_database.url)
