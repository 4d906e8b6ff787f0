"""Named settings in SQLite."""

from __future__ import annotations

import sqlite3

from gatewayd.core.model import Setting
from gatewayd.storage.journal import Journal


def get(db: sqlite3.Connection, name: str) -> Setting | None:
    """Return a named setting."""
    row = db.execute(
        "SELECT id, name, value, version FROM configuration WHERE name = ?", (name,)
    ).fetchone()
    return None if row is None else Setting(id=row[0], name=row[1], value=row[2], version=row[3])


def put(journal: Journal, name: str, value: str) -> Setting:
    """Insert a setting with version 0, or replace it and count its version up."""
    journal.db.execute(
        "INSERT INTO configuration (name, value) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value, version = version + 1",
        (name, value),
    )
    setting = get(journal.db, name)
    assert setting is not None
    return setting


def delete(journal: Journal, name: str) -> bool:
    """Delete a named setting."""
    return bool(journal.db.execute("DELETE FROM configuration WHERE name = ?", (name,)).rowcount)
