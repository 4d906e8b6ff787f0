"""The partitions of the log in PostgreSQL: one for each day (UTC), which is dropped as a whole.

Days are added and dropped in transactions of their own: both lock out for a moment who reads or
writes, so whoever does it must not wait for anybody else meanwhile.
"""

from __future__ import annotations

from datetime import UTC, datetime

from gatewayd.storage.pg.tx import Tx

#: ms
DAY = 86_400_000
#: How many days are made ahead: so long a gateway may be away, or a clock be early.
AHEAD = 2

_NAME = "event_%Y%m%d"
# Any number, as long as nobody locks it for anything else in the same database.
_LOCK = 0x6761_7465_7761_7966


async def now(tx: Tx) -> int:
    """Return the time of the database's clock in ms."""
    rows = await tx.rows("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint")
    time: int = rows[0][0]
    return time


async def add_days(tx: Tx) -> int:
    """Make what is missing of the partitions from today on; return how many were made.

    A day that has rows in the default partition already is left to that.
    """
    today = await now(tx) // DAY
    wanted = range(today, today + 1 + AHEAD)
    if not set(wanted) - set(await days(tx)) or not await _alone(tx):
        return 0
    made = 0
    there = set(await days(tx))
    for day in wanted:
        if day not in there:
            rows = await tx.rows(
                "SELECT add_event_day(%s, %s, %s)", _name(day), day * DAY, (day + 1) * DAY
            )
            made += rows[0][0]
    return made


async def drop_day(tx: Tx, before: int) -> int | None:
    """Drop the oldest partition if all of it is older than ``before`` (ms).

    :returns: the latest time in it, 0 if it was empty; None: none was dropped. One that is in use
        can be dropped another time.
    """
    if not await _old(tx, before) or not await _alone(tx):
        return None
    old = await _old(tx, before)  # again: another may have dropped some until it had the lock
    if not old:
        return None
    latest: int | None = (await tx.rows("SELECT drop_event_day(%s)", _name(old[0])))[0][0]
    return latest


async def days(tx: Tx) -> list[int]:
    """Return the days since the epoch that have a partition, in order."""
    rows = await tx.rows(
        "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'event'::regclass AND c.relname <> 'event_default'"
    )
    return sorted(
        int(datetime.strptime(name, _NAME).replace(tzinfo=UTC).timestamp()) * 1000 // DAY
        for (name,) in rows
    )


async def _old(tx: Tx, before: int) -> list[int]:
    return [day for day in await days(tx) if (day + 1) * DAY <= before]


async def _alone(tx: Tx) -> bool:
    """Take the lock of who changes partitions; False: another node has it."""
    rows = await tx.rows(f"SELECT pg_try_advisory_xact_lock({_LOCK})")
    alone: bool = rows[0][0]
    return alone


def _name(day: int) -> str:
    return datetime.fromtimestamp(day * DAY // 1000, UTC).strftime(_NAME)
