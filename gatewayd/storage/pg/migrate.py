"""Numbered SQL migrations of a PostgreSQL database, forward only."""

from __future__ import annotations

import re
from importlib import resources

from gatewayd.errors import ConfigError
from gatewayd.storage.pg.link import Link

_NAME = re.compile(r"(\d{4})_\w+\.sql")
# Any number, as long as nobody else locks it in the same database.
_LOCK = 0x6761_7465_7761_7964


def scripts() -> list[tuple[int, str]]:
    """Return the migrations as (number, SQL), in order."""
    found = []
    for path in resources.files("gatewayd.storage.pg").joinpath("schema").iterdir():
        if match := _NAME.fullmatch(path.name):
            found.append((int(match[1]), path.read_text("utf-8")))
    return sorted(found)


async def migrate(link: Link) -> int:
    """Bring a database to the newest schema; return the schema's number.

    All that is missing is one transaction, so that a crash leaves a whole schema; of several
    processes that start at once, one does it and the others wait.

    :raises ConfigError: a newer gatewayd wrote this database. :raises Refused: :raises Lost:
    """
    known = scripts()
    newest = known[-1][0]
    await link.script(f"BEGIN; SELECT pg_advisory_xact_lock({_LOCK})")
    if (await link.rows("SELECT to_regclass('schema_version')"))[0][0] is None:
        await link.script(
            "CREATE TABLE schema_version (version bigint NOT NULL); "
            "INSERT INTO schema_version VALUES (0)"
        )
    current: int = (await link.rows("SELECT version FROM schema_version"))[0][0]
    if current > newest:
        raise ConfigError(
            f"the database has schema {current}, this gatewayd knows schemas up to {newest}: "
            "it was written by a newer version"
        )
    for number, sql in known:
        if number > current:
            await link.script(sql)
            await link.run("UPDATE schema_version SET version = %s", number)
    await link.commit()
    return newest
