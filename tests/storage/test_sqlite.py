"""SQLite keeps what every store promises."""

from __future__ import annotations

from tests.storage.conformance import StoreConformance


class TestSQLite(StoreConformance):
    """The ``place`` is the one of this folder."""
