"""What devices said last and what is wanted of them, in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from gatewayd.core.shadow import ConnectionState, LastValue, StoredTwin
from gatewayd.storage.insert import Insert
from gatewayd.storage.journal import Journal

# What was deleted stays so when the message that it came from is read again.
_VALUES = Insert(
    "INSERT INTO last_value (stream, key, seq, stamp, value)",
    "(?,?,?,?,?)",
    " ON CONFLICT (stream, key) DO UPDATE SET "
    "seq = excluded.seq, stamp = excluded.stamp, value = excluded.value "
    "WHERE excluded.seq > seq OR (excluded.seq = seq AND excluded.value IS NULL)",
)
_STATES = Insert(
    "INSERT INTO connection_state (stream, connected, stamp, heard, sequence)",
    "(?,?,?,?,?)",
    "ON CONFLICT (stream) DO UPDATE SET connected = excluded.connected, stamp = excluded.stamp, "
    "heard = excluded.heard, sequence = max(sequence, excluded.sequence) "
    "WHERE excluded.heard >= heard",
)
_STATE = "SELECT stream, connected, stamp, heard, sequence FROM connection_state"


def twin(db: sqlite3.Connection, uid: int) -> StoredTwin | None:
    """Return the twin of a device."""
    row = db.execute("SELECT version, document FROM twin WHERE uid = ?", (uid,)).fetchone()
    return None if row is None else StoredTwin(version=row[0], document=row[1])


def last_values(db: sqlite3.Connection, uid: int) -> list[LastValue]:
    """Return what a device said last, by key; without what was deleted."""
    rows = db.execute(
        "SELECT key, value, stamp, seq FROM last_value "
        "WHERE stream = ? AND value IS NOT NULL ORDER BY key",
        (uid,),
    )
    return [
        LastValue(stream=uid, key=row[0], value=row[1], stamp=row[2], seq=row[3]) for row in rows
    ]


def _state(row: tuple[Any, ...]) -> ConnectionState:
    return ConnectionState(
        stream=row[0], connected=bool(row[1]), stamp=row[2], heard=row[3], sequence=row[4]
    )


def connection_state(db: sqlite3.Connection, uid: int) -> ConnectionState | None:
    """Return whether a device is connected, as it was kept."""
    row = db.execute(f"{_STATE} WHERE stream = ?", (uid,)).fetchone()
    return None if row is None else _state(row)


def connected(db: sqlite3.Connection) -> list[ConnectionState]:
    """List the states of those that are connected."""
    return [_state(row) for row in db.execute(f"{_STATE} WHERE connected ORDER BY stream")]


def shadowed_until(db: sqlite3.Connection) -> int | None:
    """Return the ms up to which the log is in what was kept."""
    row = db.execute("SELECT value FROM meta WHERE name = 'shadowed'").fetchone()
    return None if row is None else row[0]


def keep(
    journal: Journal,
    values: Sequence[LastValue],
    states: Sequence[ConnectionState],
    until: int,
    limit: int,
) -> None:
    """Keep what devices said last; of each only the ``limit`` keys that it said last."""
    db = journal.db
    streams = {value.stream for value in values}
    there = _there(db, streams | {state.stream for state in states})
    _VALUES.write(
        db,
        [
            (value.stream, value.key, value.seq, value.stamp, value.value)
            for value in values
            if value.stream in there
        ],
    )
    _STATES.write(
        db,
        [
            (state.stream, int(state.connected), state.stamp, state.heard, state.sequence)
            for state in states
            if state.stream in there
        ],
    )
    _forget_oldest(db, streams, limit)
    db.execute("INSERT OR REPLACE INTO meta VALUES ('shadowed', ?)", (until,))


def _json(streams: Iterable[int]) -> str:
    """Return a list of any length as one parameter, for json_each."""
    return msgspec.json.encode(list(streams)).decode()


def _there(db: sqlite3.Connection, streams: set[int]) -> set[int]:
    """Return which devices are not gone."""
    rows = db.execute(
        "SELECT uid FROM device WHERE uid IN (SELECT value FROM json_each(?))", (_json(streams),)
    )
    return {row[0] for row in rows}


def _forget_oldest(db: sqlite3.Connection, streams: set[int], limit: int) -> None:
    """Leave ``limit`` keys of each device, and as many deleted ones: those of the newest messages.

    They guard against messages that are read again, and the oldest are not.
    """
    many = db.execute(
        "SELECT stream FROM last_value WHERE stream IN (SELECT value FROM json_each(?)) "
        "GROUP BY stream HAVING count(*) > ?",
        (_json(streams), limit),
    ).fetchall()
    for (stream,) in many:
        for deleted in ("value IS NULL", "value IS NOT NULL"):
            db.execute(
                "DELETE FROM last_value WHERE stream = ? AND key IN "
                f"(SELECT key FROM last_value WHERE stream = ? AND {deleted} "
                "ORDER BY seq DESC, key LIMIT -1 OFFSET ?)",
                (stream, stream, limit),
            )
