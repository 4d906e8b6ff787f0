"""``gatewayd migrate``: brings the database to the newest schema while no gateway runs."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from gatewayd import configuration
from gatewayd.configuration import Storage
from gatewayd.errors import ConfigError
from gatewayd.storage.transfer.database import Database, Missing
from gatewayd.storage.transfer.pg import PgDatabase
from gatewayd.storage.transfer.sqlite import SQLiteDatabase


def database(storage: Storage, *, create: bool) -> Database:
    """Return the database of a configuration, to be worked on as a whole.

    :param create: make it when it is not there; a PostgreSQL database always is.
    :raises ConfigError: this is no URL of a database.
    """
    if storage.is_shared:
        assert storage.url is not None
        return PgDatabase(storage.url.reveal())
    return SQLiteDatabase(storage.path, create=create)


def migrate(config_file: Path, dry_run: bool, out: TextIO, err: TextIO) -> int:
    """Bring the database of a configuration to the newest schema.

    :param dry_run: only tell what would be done.
    :return: the exit code: 0 when it has the newest schema, or would have; 1 when it cannot.
    """
    try:
        settings = configuration.load(config_file)
        out.write(f"{_migrate(settings.storage, dry_run)}\n")
    except ConfigError as problem:
        err.write(f"gatewayd migrate: {problem}\n")
        return 1
    return 0


def _migrate(storage: Storage, dry_run: bool) -> str:
    """Return what was done, or would be."""
    try:
        with database(storage, create=not dry_run) as opened:
            current, newest = opened.versions()
            if not dry_run or current > newest:
                opened.migrate()  # or it says why not
            place = opened.place
    except Missing as problem:
        return f"{problem}; it would be made"
    if current == newest:
        return f"the database {place} has schema {newest}: nothing to do"
    return (
        f"the database {place} {'would be' if dry_run else 'was'} brought from schema {current} "
        f"to {newest}"
    )
