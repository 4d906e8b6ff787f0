"""Numbered SQL migrations, forward only."""

from __future__ import annotations

import re
import sqlite3
from importlib import resources

from gatewayd.errors import ConfigError

_NAME = re.compile(r"(\d{4})_\w+\.sql")


def scripts() -> list[tuple[int, str]]:
    """Return the migrations as (number, SQL), in order."""
    found = []
    for path in resources.files("gatewayd.storage").joinpath("schema").iterdir():
        if match := _NAME.fullmatch(path.name):
            found.append((int(match[1]), path.read_text("utf-8")))
    return sorted(found)


def migrate(db: sqlite3.Connection) -> int:
    """Bring a database to the newest schema; return the schema's number.

    Each migration and its number are one transaction, so that a crash leaves a whole schema.

    :raises ConfigError: a newer gatewayd wrote this database.
    """
    known = scripts()
    current: int = db.execute("PRAGMA user_version").fetchone()[0]
    newest = known[-1][0]
    if current > newest:
        raise ConfigError(
            f"the database has schema {current}, this gatewayd knows schemas up to {newest}: "
            "it was written by a newer version"
        )
    for number, sql in known:
        if number > current:
            db.executescript(f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA user_version = {number};\nCOMMIT;")
    return newest
