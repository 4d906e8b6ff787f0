"""What retention drops of the log in PostgreSQL."""

from __future__ import annotations

from gatewayd.storage.pg.tx import Tx


async def sweep(tx: Tx, before: int, limit: int) -> int:
    """Drop up to ``limit`` rows of each table that are older than ``before``."""
    gone = await _sweep_events(tx, before, limit)
    # The conditions again: a row that was updated meanwhile is looked at anew, and is not old.
    gone += await tx.run(
        "DELETE FROM command WHERE (stream, seq) IN "
        "(SELECT stream, seq FROM command WHERE updated < %s AND ts < %s LIMIT %s) "
        "AND updated < %s AND ts < %s",
        before, before, limit, before, before,
    )  # fmt: skip
    gone += await tx.run(
        "DELETE FROM idempotency WHERE key IN "
        "(SELECT key FROM idempotency WHERE ts < %s LIMIT %s) AND ts < %s",
        before, limit, before,
    )  # fmt: skip
    return gone + await _sweep_orphan(tx, limit)


async def _sweep_events(tx: Tx, before: int, limit: int) -> int:
    """Drop the oldest events, and note up to which time."""
    rows = await tx.rows(
        "WITH gone AS (DELETE FROM event WHERE position IN "
        "(SELECT position FROM event WHERE ts < %s ORDER BY ts LIMIT %s) RETURNING ts) "
        "SELECT count(*), max(ts) FROM gone",
        before, limit,
    )  # fmt: skip
    gone: int = rows[0][0]
    if gone:
        await tx.run(
            "INSERT INTO meta AS m (name, value) VALUES ('horizon', %s) "
            "ON CONFLICT (name) DO UPDATE SET value = greatest(m.value, excluded.value)",
            rows[0][1],
        )
    return gone


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
