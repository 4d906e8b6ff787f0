"""Relayed requests whose answers are kept, in SQLite."""

from __future__ import annotations

import sqlite3
from typing import Any

from gatewayd.core.model import BARE_CALL, RelayCall
from gatewayd.errors import NotFound
from gatewayd.storage.journal import Journal

_FIELDS = "id, principal, stream, key, digest, created, expires, command, status, headers, body"


def _call(row: tuple[Any, ...]) -> RelayCall:
    return RelayCall(
        id=row[0], principal=row[1], stream=row[2], key=row[3], digest=row[4], created=row[5],
        expires=row[6], command=row[7], status=row[8], headers=row[9], body=row[10],
    )  # fmt: skip


def get(db: sqlite3.Connection, call_id: str) -> RelayCall | None:
    """Return a call."""
    row = db.execute(f"SELECT {_FIELDS} FROM relay_call WHERE id = ?", (call_id,)).fetchone()
    return None if row is None else _call(row)


def begin(journal: Journal, call: RelayCall) -> RelayCall | None:
    """Keep a call, unless one with its key is known; then return that. :raises NotFound:"""
    db = journal.db
    if db.execute("SELECT 1 FROM device WHERE uid = ?", (call.stream,)).fetchone() is None:
        raise NotFound("device", call.stream)
    if call.key is not None and (known := _keyed(db, call)) is not None:
        if known.expires > call.created:
            return known
        forget(journal, known.id)
    db.execute(
        f"INSERT INTO relay_call ({_FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            call.id, call.principal, call.stream, call.key, call.digest, call.created,
            call.expires, call.command, call.status, call.headers, call.body,
        ),
    )  # fmt: skip
    return None


def _keyed(db: sqlite3.Connection, call: RelayCall) -> RelayCall | None:
    """Return the call that has the key of this one."""
    row = db.execute(
        f"SELECT {_FIELDS} FROM relay_call WHERE principal = ? AND stream = ? AND key = ?",
        (call.principal, call.stream, call.key),
    ).fetchone()
    return None if row is None else _call(row)


def end(journal: Journal, call: RelayCall) -> None:
    """Keep what has become of a call, if it is known still."""
    journal.db.execute(
        "UPDATE relay_call SET command = ?, status = ?, headers = ?, body = ? WHERE id = ?",
        (call.command, call.status, call.headers, call.body, call.id),
    )


def forget(journal: Journal, call_id: str) -> None:
    """Forget a call that came to nothing."""
    journal.db.execute("DELETE FROM relay_call WHERE id = ?", (call_id,))


def sweep(journal: Journal, now: int, limit: int) -> int:
    """Forget up to ``limit`` calls that have expired at ``now``, those that did first."""
    return journal.db.execute(
        "DELETE FROM relay_call WHERE id IN "
        "(SELECT id FROM relay_call WHERE expires <= ? ORDER BY expires LIMIT ?)",
        (now, limit),
    ).rowcount


def kept_bytes(db: sqlite3.Connection) -> int:
    """Return the size of all calls together. SQLite knows a length without reading the bytes."""
    row = db.execute(
        "SELECT count(*) * ? + coalesce(sum(length(headers) + coalesce(length(body), 0)), 0) "
        "FROM relay_call",
        (BARE_CALL,),
    ).fetchone()
    return int(row[0])
