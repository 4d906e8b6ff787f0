"""What devices said last and what is wanted of them, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gatewayd.core.shadow import ConnectionState, LastValue, StoredTwin
from gatewayd.storage.pg import arrays
from gatewayd.storage.pg.digests import digest
from gatewayd.storage.pg.tx import Tx

# What was deleted stays so when the message that it came from is read again.
_KEEP_VALUES = """
    INSERT INTO last_value AS known (stream, place, key, seq, stamp, value)
    SELECT * FROM unnest(
        %s::bigint[], %s::bytea[], %s::text[], %s::bigint[], %s::bigint[], %s::bytea[]
    )
    ON CONFLICT (stream, place) DO UPDATE SET
        seq = excluded.seq, stamp = excluded.stamp, value = excluded.value
    WHERE excluded.seq > known.seq OR (excluded.seq = known.seq AND excluded.value IS NULL)
"""
# A node that knows less does not write over what another one has kept.
_KEEP_STATES = """
    INSERT INTO connection_state AS known (stream, connected, stamp, heard, sequence)
    SELECT * FROM unnest(%s::bigint[], %s::boolean[], %s::bigint[], %s::bigint[], %s::text[])
    ON CONFLICT (stream) DO UPDATE SET
        connected = excluded.connected, stamp = excluded.stamp, heard = excluded.heard,
        sequence = greatest(known.sequence, excluded.sequence)
    WHERE excluded.heard >= known.heard
"""
# What is said anew meanwhile has another seq, and stays.
_FORGET = """
    DELETE FROM last_value known USING (
        SELECT stream, place, seq, row_number() OVER (
            PARTITION BY stream, value IS NULL ORDER BY seq DESC, key
        ) AS age
        FROM last_value WHERE stream = ANY(%s::bigint[])
    ) AS old
    WHERE known.stream = old.stream AND known.place = old.place AND known.seq = old.seq
        AND old.age > %s
"""
_STATE = "SELECT stream, connected, stamp, heard, sequence FROM connection_state"


async def twin(tx: Tx, uid: int) -> StoredTwin | None:
    """Return the twin of a device."""
    rows = await tx.rows("SELECT version, document FROM twin WHERE uid = %s", uid)
    return StoredTwin(version=rows[0][0], document=rows[0][1]) if rows else None


async def last_values(tx: Tx, uid: int) -> list[LastValue]:
    """Return what a device said last, by key; without what was deleted."""
    rows = await tx.rows(
        "SELECT key, value, stamp, seq FROM last_value "
        "WHERE stream = %s AND value IS NOT NULL ORDER BY key",
        uid,
    )
    return [
        LastValue(stream=uid, key=row[0], value=row[1], stamp=row[2], seq=row[3]) for row in rows
    ]


def _state(row: tuple[Any, ...]) -> ConnectionState:
    return ConnectionState(
        stream=row[0], connected=row[1], stamp=row[2], heard=row[3], sequence=row[4]
    )


async def connection_state(tx: Tx, uid: int) -> ConnectionState | None:
    """Return whether a device is connected, as it was kept."""
    rows = await tx.rows(f"{_STATE} WHERE stream = %s", uid)
    return _state(rows[0]) if rows else None


async def connected(tx: Tx) -> list[ConnectionState]:
    """List the states of those that are connected."""
    return [_state(row) for row in await tx.rows(f"{_STATE} WHERE connected ORDER BY stream")]


async def shadowed_until(tx: Tx) -> int | None:
    """Return the ms up to which the log is in what was kept."""
    rows = await tx.rows("SELECT value FROM meta WHERE name = 'shadowed'")
    return rows[0][0] if rows else None


async def keep(
    tx: Tx,
    values: Sequence[LastValue],
    states: Sequence[ConnectionState],
    until: int,
    limit: int,
) -> None:
    """Keep what devices said last; of each only the ``limit`` keys that it said last."""
    streams = sorted({value.stream for value in values})
    there = await _hold(tx, {*streams, *(state.stream for state in states)})
    await arrays.write(
        tx,
        _KEEP_VALUES,
        [
            (value.stream, place, value.key, value.seq, value.stamp, value.value)
            for place, value in _newest(values)
            if value.stream in there
        ],
    )
    last = {state.stream: state for state in states if state.stream in there}
    await arrays.write(
        tx,
        _KEEP_STATES,
        [
            (state.stream, state.connected, state.stamp, state.heard, state.sequence)
            for _, state in sorted(last.items())
        ],
    )
    await _forget_oldest(tx, streams, limit)
    await tx.run(
        "INSERT INTO meta AS m (name, value) VALUES ('shadowed', %s) "
        "ON CONFLICT (name) DO UPDATE SET value = greatest(m.value, excluded.value)",
        until,
    )


def _newest(values: Iterable[LastValue]) -> list[tuple[bytes, LastValue]]:
    """Return what one statement may write: of each key what counts in the end, in their order."""
    newest: dict[tuple[int, bytes], LastValue] = {}
    for value in values:
        place = value.stream, digest(value.key)
        known = newest.get(place)
        if (
            known is None
            or value.seq > known.seq
            or (value.seq == known.seq and value.value is None)
        ):
            newest[place] = value
    return [(place, newest[stream, place]) for stream, place in sorted(newest)]


async def _hold(tx: Tx, streams: set[int]) -> set[int]:
    """Return which devices are not gone, and keep them from going."""
    rows = await tx.rows(
        "SELECT uid FROM device WHERE uid = ANY(%s::bigint[]) ORDER BY uid FOR KEY SHARE",
        sorted(streams),
    )
    return {row[0] for row in rows}


async def _forget_oldest(tx: Tx, streams: list[int], limit: int) -> None:
    """Leave ``limit`` keys of each device, and as many deleted ones: those of the newest messages.

    They guard against messages that are read again, and the oldest are not.
    """
    many = await tx.rows(
        "SELECT stream FROM last_value WHERE stream = ANY(%s::bigint[]) "
        "GROUP BY stream HAVING count(*) > %s",
        streams, limit,
    )  # fmt: skip
    if many:
        await tx.run(_FORGET, [row[0] for row in many], limit)
