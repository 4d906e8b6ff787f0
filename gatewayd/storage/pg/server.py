"""What a database has to be before a store uses it."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from gatewayd.errors import ConfigError
from gatewayd.storage.dsn import Dsn
from gatewayd.storage.pg.journal import Journal
from gatewayd.storage.pg.link import Link
from gatewayd.storage.pg.migrate import migrate
from gatewayd.storage.pg.partitions import add_days
from gatewayd.storage.pg.pool import unusable
from gatewayd.storage.pg.tx import Tx
from gatewayd.storage.postgres import Lost, Refused, Session

_MIGRATING = 3600.0  # seconds that a statement of a migration may take
_log = Logger()


async def prepare(dsn: Dsn, reactor: Any, journal: Journal) -> None:
    """See to it that the database keeps what it acknowledges and has our schema; open the log.

    :raises ConfigError: it cannot be used.
    """
    session = Session(dsn, reactor, _MIGRATING, lambda _: None)
    link = Link(session)
    try:
        await session.open()
        await check(link)
        await migrate(link)
        link.begin()
        await add_days(link)
        await link.commit()
        await journal.open(link)
    except (Lost, Refused) as error:
        raise unusable(dsn, error) from None
    finally:
        session.close()


async def check(tx: Tx) -> None:
    """Refuse a database that would lose what it has acknowledged. :raises ConfigError:"""
    found = {}
    for name in ("synchronous_commit", "server_encoding", "fsync"):
        found[name] = (await tx.rows(f"SHOW {name}"))[0][0]
    if found["synchronous_commit"] == "off":
        raise ConfigError(
            "the PostgreSQL database has synchronous_commit = off: it would lose messages that "
            "were acknowledged; set it to on for the gateway's role, the database or the server"
        )
    if found["server_encoding"] != "UTF8":
        raise ConfigError(
            f"the PostgreSQL database has the encoding {found['server_encoding']}; make one with "
            "ENCODING 'UTF8'"
        )
    if found["fsync"] == "off":
        _log.warn("the PostgreSQL server has fsync = off: a power cut may destroy the database")
