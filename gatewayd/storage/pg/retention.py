"""What retention drops of the log in PostgreSQL.

Events go by whole days, with their partition, so they live up to a day longer than other rows; but
those in the default partition go row by row, as do all when less than two days are kept. A replay
leaves out what it has of a command that is gone.
"""

from __future__ import annotations

from typing import Any

from gatewayd.storage.pg import partitions
from gatewayd.storage.pg.tx import Tx

#: ms; who keeps less than this does not wait until a day is over.
_BY_DAYS = 2 * partitions.DAY


async def sweep(tx: Tx, before: int, limit: int) -> int:
    """Drop one day that is older than ``before`` (ms), or up to ``limit`` rows of each table.

    :returns: how many rows went; a day counts as one. 0 when nothing is left to drop, or only a day
        that is in use.
    """
    latest = await partitions.drop_day(tx, before)
    if latest is not None:
        await _note(tx, latest)
        return 1
    by_days = before <= await partitions.now(tx) - _BY_DAYS
    gone = await _sweep_events(tx, "event_default" if by_days else "event", before, limit)
    gone += await _sweep_commands(tx, before, limit)
    gone += await tx.run(
        "DELETE FROM idempotency WHERE key IN "
        "(SELECT key FROM idempotency WHERE ts < %s LIMIT %s) AND ts < %s",
        before, limit, before,
    )  # fmt: skip
    return gone + await _sweep_orphan(tx, limit)


async def _sweep_events(tx: Tx, table: str, before: int, limit: int) -> int:
    """Drop the oldest events."""
    return await _drop(
        tx,
        f"DELETE FROM {table} WHERE (position, ts) IN "
        f"(SELECT position, ts FROM {table} WHERE ts < %s ORDER BY ts LIMIT %s)",
        before, limit,
    )  # fmt: skip


async def _sweep_commands(tx: Tx, before: int, limit: int) -> int:
    """Drop old commands, without which a replay leaves out their events."""
    # The conditions again: a row that was updated meanwhile is looked at anew, and is not old.
    return await _drop(
        tx,
        "DELETE FROM command WHERE (stream, seq) IN "
        "(SELECT stream, seq FROM command WHERE updated < %s AND ts < %s LIMIT %s) "
        "AND updated < %s AND ts < %s",
        before, before, limit, before, before,
    )  # fmt: skip


async def _drop(tx: Tx, statement: str, *values: Any) -> int:
    """Delete rows, and note up to which time."""
    rows = await tx.rows(
        f"WITH gone AS ({statement} RETURNING ts) SELECT count(*), max(ts) FROM gone", *values
    )
    gone: int = rows[0][0]
    if gone:
        await _note(tx, rows[0][1])
    return gone


async def _note(tx: Tx, latest: int) -> None:
    """Note that of what was recorded up to some time (ms) not all is there any more."""
    await tx.run(
        "INSERT INTO meta AS m (name, value) VALUES ('horizon', %s) "
        "ON CONFLICT (name) DO UPDATE SET value = greatest(m.value, excluded.value)",
        latest,
    )


async def _sweep_orphan(tx: Tx, limit: int) -> int:
    """Drop a part of the timeline of one deleted device."""
    rows = await tx.rows("SELECT stream FROM orphan LIMIT 1")
    if not rows:
        return 0
    stream = rows[0][0]
    gone = 0
    for table, key in (("event", "position"), ("command", "seq")):
        gone += await tx.run(
            f"DELETE FROM {table} WHERE stream = %s AND {key} IN "
            f"(SELECT {key} FROM {table} WHERE stream = %s LIMIT %s)",
            stream, stream, limit,
        )  # fmt: skip
    if gone == 0:
        await tx.run("DELETE FROM orphan WHERE stream = %s", stream)
        gone = 1
    return gone
