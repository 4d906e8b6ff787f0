"""The reading half of the log in PostgreSQL: replay, lists, messages, and what retention drops."""

from __future__ import annotations

from typing import Any

from gatewayd.core.model import Command, Delivery, Device, Event, Kind
from gatewayd.core.queries import Filter, Listing, Page, Pending, Replay
from gatewayd.storage.pg.partitions import DAY
from gatewayd.storage.pg.tx import Tx
from gatewayd.storage.rows import EVENT, read_command, read_event, read_page

_COMMAND = (
    "c.stream, c.seq, c.name, c.network, c.type, c.ts, c.stamp, c.updated, c.user_id, "
    "c.parameters, c.lifetime, c.status, c.result, c.changed"
)
_TABLES = (
    "event e JOIN device d ON d.uid = e.stream "
    "LEFT JOIN command c ON c.stream = e.stream AND c.seq = e.ref AND e.kind IN (2, 3)"
)
_JOIN = f"SELECT {EVENT}, d.id, {_COMMAND} FROM {_TABLES}"


def _conditions(wanted: Filter) -> tuple[list[str], list[Any]]:
    """Translate a filter to SQL."""
    where = ["e.kind = ANY(%s::bigint[])"]
    values: list[Any] = [[int(kind) for kind in wanted.kinds]]
    for column, type_, allowed in (
        ("e.network", "bigint", wanted.networks),
        ("e.type", "bigint", wanted.types),
        ("e.name", "text", wanted.names),
    ):
        if allowed is not None:
            where.append(f"{column} = ANY(%s::{type_}[])")
            values.append([*allowed])
    return where, values


async def read(tx: Tx, replay: Replay) -> Page:
    """Return the next page of a replay.

    Within one device the cursor is the sequence number, over several devices the position.
    """
    # First: what comes after it may be missing below, and what is before it is not.
    ((until,),) = await tx.rows("SELECT position FROM log_end")
    where, values = _conditions(replay.filter)
    cursor = await _start(tx, replay) if replay.cursor is None else replay.cursor
    if replay.filter.stream is None:
        where[:0] = ["e.position > %s", "e.ts > %s"]
        values[:0] = [cursor, replay.since]
        order = "e.position"
    else:
        # Behind the cursor all is later anyway; but partitions that are older are left out.
        where[:0] = ["e.stream = %s", "e.seq > %s", "e.ts > %s", "e.network <> 0"]
        values[:0] = [replay.filter.stream, cursor, replay.since]
        order = "e.seq"
    where.append("(e.kind <> 2 OR coalesce(c.lifetime, 0) = 0 OR e.ts + c.lifetime * 1000 > %s)")
    # A command whose row retention has dropped cannot be shown any more.
    where.append("(e.kind NOT IN (2, 3) OR c.seq IS NOT NULL)")
    rows = await tx.rows(
        f"{_JOIN} WHERE {' AND '.join(where)} ORDER BY {order} LIMIT %s",
        *values, replay.now, replay.limit,
    )  # fmt: skip
    events, cut = read_page(rows, replay.bytes)
    if events:
        cursor = events[-1].position if replay.filter.stream is None else events[-1].seq
    complete = len(events) < replay.limit and not cut
    return Page(events=events, cursor=cursor, complete=complete, until=until)


async def _start(tx: Tx, replay: Replay) -> int:
    """Return the cursor of the last event that a replay does not want."""
    if replay.filter.stream is None:
        # One statement: an event that is committed meanwhile is either the first one or behind.
        # Within the day that is cut, with the sum the index on positions is of no use: it would be
        # walked from its beginning, where the one on ts has only what will be read anyway. The
        # later days are whole, so there that index has the answer at its beginning.
        midnight = (replay.since // DAY + 1) * DAY
        rows = await tx.rows(
            "SELECT coalesce(least("
            "(SELECT min(position + 0) FROM event WHERE ts > %s AND ts < %s), "
            "(SELECT min(position) FROM event WHERE ts >= %s)) - 1, "
            "(SELECT max(position) FROM event), 0)",
            replay.since, midnight, midnight,
        )  # fmt: skip
    else:
        # Times grow with the sequence, so going down from the end touches only what is wanted.
        rows = await tx.rows(
            "SELECT seq FROM event WHERE stream = %s AND ts <= %s ORDER BY seq DESC LIMIT 1",
            replay.filter.stream, replay.since,
        )  # fmt: skip
    return rows[0][0] if rows else 0


# The epoch of an exclusive attachment that lives is its own; else that of the device now will do,
# because it is an attachment of the past.
_GAP = f"""
    WITH page AS (
        SELECT e.position, coalesce(octet_length(e.body), 0) +
            coalesce(octet_length(c.parameters), 0) + coalesce(octet_length(c.result), 0) AS size
        FROM {_TABLES} WHERE e.position > %s AND e.position <= %s ORDER BY e.position LIMIT %s
    ), sized AS (
        SELECT position, sum(size) OVER (ORDER BY position) - size AS before,
            count(*) OVER () AS rows
        FROM page
    )
    SELECT {EVENT}, d.id, {_COMMAND}, coalesce(a.epoch, s.epoch, 0), sized.rows FROM {_TABLES}
    JOIN sized ON sized.position = e.position
    LEFT JOIN stream s ON s.uid = e.stream
    LEFT JOIN attachment a
        ON a.stream = e.stream AND a.since = e.ts AND e.kind = {int(Kind.ATTACHED)}
    WHERE e.position > %s AND e.position <= %s AND sized.before < %s ORDER BY e.position
"""
_GAP_EVENTS = 1000
_GAP_BYTES = 1024 * 1024


async def between(tx: Tx, after: int, until: int) -> tuple[list[Event], int]:
    """Return a page of the events of some positions, in order, and up to which it goes."""
    rows = await tx.rows(_GAP, after, until, _GAP_EVENTS, after, until, _GAP_BYTES)
    events = []
    for row in rows:
        event = read_event(row)
        event.epoch = row[-2]
        events.append(event)
    complete = not rows or len(rows) == rows[0][-1] < _GAP_EVENTS
    return events, until if complete else events[-1].position


async def keyed(tx: Tx, keys: list[str]) -> dict[str, Event]:
    """Return the events that were recorded under idempotency keys and are still there."""
    rows = await tx.rows(
        f"SELECT i.key, {EVENT}, d.id, {_COMMAND} FROM idempotency i "
        f"JOIN ({_TABLES}) ON e.stream = i.stream AND e.seq = i.seq "
        "WHERE i.key = ANY(%s::text[])",
        keys,
    )
    return {row[0]: read_event(row[1:]) for row in rows}


async def horizon(tx: Tx) -> int:
    """Return the ms up to which retention has dropped events."""
    rows = await tx.rows("SELECT value FROM meta WHERE name = 'horizon'")
    return rows[0][0] if rows else 0


async def notification(tx: Tx, device: Device, seq: int) -> Event | None:
    """Return one notification."""
    rows = await tx.rows(
        f"{_JOIN} WHERE e.stream = %s AND e.seq = %s AND e.kind = 1", device.uid, seq
    )
    return read_event(rows[0]) if rows else None


_SORT = {"timestamp": "stamp", "name": "name", "status": "status"}


def _listed(listing: Listing, alias: str) -> tuple[str, list[Any]]:
    """Return the conditions, ORDER BY and LIMIT of a listing."""
    where = [f"{alias}.stream = %s"]
    values: list[Any] = [listing.stream]
    for condition, value in (
        ("{}.stamp >= %s", listing.start),
        ("{}.stamp <= %s", listing.end),
        ("{}.name = %s", listing.name),
        # Only the case of ASCII letters makes no difference.
        ('lower({}.status) = lower(%s COLLATE "C")', listing.status),
    ):
        if value is not None:
            where.append(condition.format(alias))
            values.append(value)
    way = "DESC NULLS LAST" if listing.order.descending else "ASC NULLS FIRST"
    plain = way.split()[0]  # as the index has it, in which nothing is NULL
    sort = _SORT[listing.order.field or "timestamp"]
    first = f"{alias}.status {way}, " if sort == "status" else ""
    first = f"{alias}.name {plain}, " if sort == "name" else first
    # Equal keys keep the order of insertion, and descending is the exact reverse.
    order = f"{first}{alias}.stamp {plain}, {alias}.seq {plain}"
    values.extend((listing.order.take, listing.order.skip))
    return f"{' AND '.join(where)} ORDER BY {order} LIMIT %s OFFSET %s", values


async def notifications(tx: Tx, listing: Listing) -> list[Event]:
    """List the notifications of a device."""
    rest, values = _listed(listing, "e")
    if listing.start is not None:
        # No message shows a time after that at which it was taken: older partitions are left out.
        rest, values = f"e.ts >= %s AND {rest}", [listing.start, *values]
    return [
        read_event(row) for row in await tx.rows(f"{_JOIN} WHERE e.kind = 1 AND {rest}", *values)
    ]


async def command(tx: Tx, device: Device, seq: int) -> Command | None:
    """Return one command."""
    rows = await tx.rows(
        f"SELECT {_COMMAND} FROM command c JOIN device d ON d.uid = c.stream "
        "WHERE c.stream = %s AND c.seq = %s",
        device.uid, seq,
    )  # fmt: skip
    return read_command(rows[0], device.id) if rows else None


async def commands(tx: Tx, listing: Listing) -> list[Command]:
    """List the commands of a device."""
    rest, values = _listed(listing, "c")
    rows = await tx.rows(
        f"SELECT d.id, {_COMMAND} FROM command c JOIN device d ON d.uid = c.stream WHERE {rest}",
        *values,
    )
    return [read_command(row[1:], row[0]) for row in rows]


async def to_update(tx: Tx, keys: list[tuple[int, int]]) -> dict[tuple[int, int], Command]:
    """Lock commands and return them by stream and seq, without the ids of their devices."""
    rows = await tx.rows(
        f"SELECT {_COMMAND} FROM command c "
        "WHERE (c.stream, c.seq) IN (SELECT * FROM unnest(%s::bigint[], %s::bigint[])) "
        "ORDER BY c.stream, c.seq FOR UPDATE",
        [stream for stream, _ in keys], [seq for _, seq in keys],
    )  # fmt: skip
    return {(row[0], row[1]): read_command(row, "") for row in rows}


async def pending(tx: Tx, query: Pending) -> list[Event]:
    """Return the insertions of the commands that wait for their device, oldest first."""
    where = [
        "c.stream = %s",
        "c.seq > %s",
        "c.delivery < 2",
        "c.delivery < %s",
        "NOT c.changed",
        "c.ts <= %s",
        "(coalesce(c.lifetime, 0) = 0 OR c.ts + c.lifetime * 1000 > %s)",
    ]
    values: list[Any] = [
        query.stream,
        query.after,
        int(Delivery.CONFIRMED if query.pushed else Delivery.PUSHED),
        query.until,
        query.now,
    ]
    if query.names is not None:
        where.append("c.name = ANY(%s::text[])")
        values.append([*query.names])
    rows = await tx.rows(
        f"SELECT {EVENT}, d.id, {_COMMAND} FROM command c JOIN device d ON d.uid = c.stream "
        "JOIN event e ON e.stream = c.stream AND e.seq = c.seq "
        f"WHERE {' AND '.join(where)} ORDER BY c.seq LIMIT %s",
        *values, query.limit,
    )  # fmt: skip
    return read_page(rows, query.bytes)[0]
