"""The reading half of the log: replay, lists, single messages, and what retention drops."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from gatewayd.core.model import Command, Delivery, Device, Event, Kind
from gatewayd.core.queries import Filter, Listing, Page, Pending, Replay
from gatewayd.storage.rows import EVENT, read_command, read_event, read_page

_COMMAND = (
    "c.stream, c.seq, c.name, c.network, c.type, c.ts, c.stamp, c.updated, c.user, c.parameters, "
    "c.lifetime, c.status, c.result, c.changed"
)
_JOIN = (
    f"SELECT {EVENT}, d.id, {_COMMAND} FROM event e JOIN device d ON d.uid = e.stream "
    "LEFT JOIN command c ON c.stream = e.stream AND c.seq = e.ref AND e.kind IN (2, 3)"
)


def _marks(values: Iterable[Any]) -> str:
    return ", ".join("?" for _ in values)


def _conditions(wanted: Filter) -> tuple[list[str], list[Any]]:
    """Translate a filter to SQL."""
    where = [f"e.kind IN ({_marks(wanted.kinds)})"]
    values: list[Any] = [int(kind) for kind in wanted.kinds]
    for column, allowed in (
        ("e.network", wanted.networks),
        ("e.type", wanted.types),
        ("e.name", wanted.names),
    ):
        if allowed is not None:
            where.append(f"{column} IN ({_marks(allowed)})")
            values.extend(allowed)
    return where, values


def read(db: sqlite3.Connection, replay: Replay) -> Page:
    """Return the next page of a replay.

    Within one device the cursor is the sequence number, over several devices the position.
    """
    where, values = _conditions(replay.filter)
    cursor = _start(db, replay) if replay.cursor is None else replay.cursor
    if replay.filter.stream is None:
        where[:0] = ["e.position > ?", "e.ts > ?"]
        values[:0] = [cursor, replay.since]
        order = "e.position"
    else:
        where[:0] = ["e.stream = ?", "e.seq > ?", "e.network <> 0"]
        values[:0] = [replay.filter.stream, cursor]
        order = "e.seq"
    where.append("(e.kind <> 2 OR ifnull(c.lifetime, 0) = 0 OR e.ts + c.lifetime * 1000 > ?)")
    # A command whose row retention has dropped cannot be shown any more.
    where.append("(e.kind NOT IN (2, 3) OR c.seq IS NOT NULL)")
    values.append(replay.now)
    rows = db.execute(
        f"{_JOIN} WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?", [*values, replay.limit]
    )
    events, cut = read_page(rows, replay.bytes)
    if events:
        cursor = events[-1].position if replay.filter.stream is None else events[-1].seq
    complete = len(events) < replay.limit and not cut
    return Page(events=events, cursor=cursor, complete=complete)


def _start(db: sqlite3.Connection, replay: Replay) -> int:
    """Return the cursor of the last event that a replay does not want."""
    if replay.filter.stream is None:
        # One statement: an event that is committed meanwhile is either the first one or behind.
        # By the index on ts, so that only what will be read anyway is looked at.
        row = db.execute(
            "SELECT coalesce((SELECT min(position) - 1 FROM event INDEXED BY event_ts "
            "WHERE ts > ?), "
            "(SELECT max(position) FROM event), 0)",
            (replay.since,),
        ).fetchone()
        return row[0]  # type: ignore[no-any-return]
    # Times grow with the sequence, so going down from the end touches only what is wanted.
    row = db.execute(
        "SELECT seq FROM event WHERE stream = ? AND ts <= ? ORDER BY seq DESC LIMIT 1",
        (replay.filter.stream, replay.since),
    ).fetchone()
    return row[0] if row is not None else 0


def horizon(db: sqlite3.Connection) -> int:
    """Return the ms up to which retention has dropped events."""
    row = db.execute("SELECT value FROM meta WHERE name = 'horizon'").fetchone()
    return row[0] if row is not None else 0


def event(db: sqlite3.Connection, stream: int, seq: int, device: str) -> Event | None:
    """Return one event of any kind."""
    row = db.execute(f"{_JOIN} WHERE e.stream = ? AND e.seq = ?", (stream, seq)).fetchone()
    return None if row is None else read_event(row)


def notification(db: sqlite3.Connection, device: Device, seq: int) -> Event | None:
    """Return one notification."""
    found = event(db, device.uid, seq, device.id)
    return found if found is not None and found.kind is Kind.NOTIFICATION else None


_SORT = {"timestamp": "stamp", "name": "name", "status": "status"}


def _listed(listing: Listing, alias: str) -> tuple[str, list[Any]]:
    """Return the WHERE, ORDER BY and LIMIT of a listing."""
    where = [f"{alias}.stream = ?"]
    values: list[Any] = [listing.stream]
    for condition, value in (
        ("stamp >= ?", listing.start),
        ("stamp <= ?", listing.end),
        ("name = ?", listing.name),
        ("status = ? COLLATE NOCASE", listing.status),
    ):
        if value is not None:
            where.append(f"{alias}.{condition}")
            values.append(value)
    way = "DESC" if listing.order.descending else "ASC"
    column = _SORT[listing.order.field or "timestamp"]
    # Equal keys keep the order of insertion, and descending is the exact reverse.
    order = f"{alias}.{column} {way}, {alias}.stamp {way}, {alias}.seq {way}"
    take = -1 if listing.order.take is None else listing.order.take
    values.extend((take, listing.order.skip))
    return f"WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ? OFFSET ?", values


def notifications(db: sqlite3.Connection, listing: Listing) -> list[Event]:
    """List the notifications of a device."""
    rest, values = _listed(listing, "e")
    rest = rest.replace("WHERE ", "WHERE e.kind = 1 AND ", 1)
    return [read_event(row) for row in db.execute(f"{_JOIN} {rest}", values)]


def command(db: sqlite3.Connection, device: Device, seq: int) -> Command | None:
    """Return one command."""
    row = db.execute(
        f"SELECT {_COMMAND} FROM command c JOIN device d ON d.uid = c.stream "
        "WHERE c.stream = ? AND c.seq = ?",
        (device.uid, seq),
    ).fetchone()
    return None if row is None else read_command(row, device.id)


def commands(db: sqlite3.Connection, listing: Listing) -> list[Command]:
    """List the commands of a device."""
    rest, values = _listed(listing, "c")
    rows = db.execute(
        f"SELECT d.id, {_COMMAND} FROM command c JOIN device d ON d.uid = c.stream {rest}", values
    )
    return [read_command(row[1:], row[0]) for row in rows]


def pending(db: sqlite3.Connection, query: Pending) -> list[Event]:
    """Return the insertions of the commands that wait for their device, oldest first."""
    where = [
        "c.stream = ?",
        "c.seq > ?",
        "c.delivery < 2",
        "c.delivery < ?",
        "c.changed = 0",
        "c.ts <= ?",
        "(ifnull(c.lifetime, 0) = 0 OR c.ts + c.lifetime * 1000 > ?)",
    ]
    values: list[Any] = [
        query.stream,
        query.after,
        Delivery.CONFIRMED if query.pushed else Delivery.PUSHED,
        query.until,
        query.now,
    ]
    if query.names is not None:
        where.append(f"c.name IN ({_marks(query.names)})")
        values.extend(query.names)
    rows = db.execute(
        f"SELECT {EVENT}, d.id, {_COMMAND} FROM command c JOIN device d ON d.uid = c.stream "
        "JOIN event e ON e.stream = c.stream AND e.seq = c.seq "
        f"WHERE {' AND '.join(where)} ORDER BY c.seq LIMIT ?",
        [*values, query.limit],
    )
    return read_page(rows, query.bytes)[0]


def mark(db: sqlite3.Connection, stream: int, seqs: Sequence[int], delivery: Delivery) -> None:
    """Record how far commands have come."""
    db.executemany(
        "UPDATE command SET delivery = ? WHERE stream = ? AND seq = ? AND delivery < ?",
        [(int(delivery), stream, seq, int(delivery)) for seq in seqs],
    )


def sweep(db: sqlite3.Connection, before: int, limit: int) -> int:
    """Drop up to ``limit`` rows of each table that are older than ``before``."""
    newest = db.execute(
        "SELECT max(ts) FROM (SELECT ts FROM event WHERE ts < ? ORDER BY ts LIMIT ?)",
        (before, limit),
    ).fetchone()[0]
    if newest is not None:
        db.execute(
            "INSERT INTO meta VALUES ('horizon', ?) "
            "ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
            (newest,),
        )
    gone = db.execute(
        "DELETE FROM event WHERE position IN "
        "(SELECT position FROM event WHERE ts < ? ORDER BY ts LIMIT ?)",
        (before, limit),
    ).rowcount
    gone += db.execute(
        "DELETE FROM command WHERE (stream, seq) IN "
        "(SELECT stream, seq FROM command WHERE updated < ? AND ts < ? LIMIT ?)",
        (before, before, limit),
    ).rowcount
    gone += db.execute(
        "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE ts < ? LIMIT ?)",
        (before, limit),
    ).rowcount
    return gone + _sweep_orphan(db, limit)


def _sweep_orphan(db: sqlite3.Connection, limit: int) -> int:
    """Drop a part of the timeline of one deleted device."""
    row = db.execute("SELECT stream FROM orphan LIMIT 1").fetchone()
    if row is None:
        return 0
    gone = 0
    for table, key in (("event", "position"), ("command", "seq")):
        gone += db.execute(
            f"DELETE FROM {table} WHERE stream = ? AND {key} IN "
            f"(SELECT {key} FROM {table} WHERE stream = ? LIMIT ?)",
            (row[0], row[0], limit),
        ).rowcount
    if gone == 0:
        db.execute("DELETE FROM orphan WHERE stream = ?", row)
        gone = 1
    return gone
