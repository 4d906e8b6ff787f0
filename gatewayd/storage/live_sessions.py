"""The live sessions that were granted something, in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from gatewayd.core.grants import Grant, Right, SessionChange, StoredSession
from gatewayd.storage.insert import Insert
from gatewayd.storage.journal import Journal

_GRANTS = Insert(
    "INSERT OR IGNORE INTO live_session_grant (session, subscribed, device, access, selector)",
    "(?,?,?,?,?)",
)
_AMONG = "id IN (SELECT value FROM json_each(?))"


# One statement: nothing changes while they are read.
_ALL = (
    "SELECT s.id, s.by_grant, s.met, g.subscribed, g.device, g.access, g.selector "
    "FROM live_session s LEFT JOIN live_session_grant g ON g.session = s.id"
)


def every(db: sqlite3.Connection) -> list[StoredSession]:
    """List all of them."""
    return _sessions(db.execute(f"{_ALL} ORDER BY s.id"))


def get(db: sqlite3.Connection, session_id: str) -> StoredSession | None:
    """Return one."""
    found = _sessions(db.execute(f"{_ALL} WHERE s.id = ?", (session_id,)))
    return found[0] if found else None


def _sessions(rows: Iterable[tuple[Any, ...]]) -> list[StoredSession]:
    flags: dict[str, tuple[bool, bool]] = {}
    granted: dict[str, set[Grant]] = {}
    subscribed: dict[str, set[Grant]] = {}
    for id_, by_grant, met, subscription, device, access, selector in rows:
        flags[id_] = (bool(by_grant), bool(met))
        if device is not None:
            grants = subscribed if subscription else granted
            grant = Grant(device=device, right=Right(access), selector=selector)
            grants.setdefault(id_, set()).add(grant)
    return [
        StoredSession(
            id=id_, by_grant=by_grant, met=met,
            grants=frozenset(granted.get(id_, ())),
            subscriptions=frozenset(subscribed.get(id_, ())),
        )
        for id_, (by_grant, met) in flags.items()
    ]  # fmt: skip


def change(journal: Journal, wanted: SessionChange) -> None:
    """Change one, or store it."""
    db = journal.db
    db.execute(
        "INSERT INTO live_session (id, by_grant, met, used) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET by_grant = excluded.by_grant, met = excluded.met, "
        "used = max(used, excluded.used)",
        (wanted.id, int(wanted.by_grant), int(wanted.met), wanted.used),
    )
    gone = [*_rows(wanted.id, 0, wanted.revoked), *_rows(wanted.id, 1, wanted.unsubscribed)]
    if gone:
        db.executemany(
            "DELETE FROM live_session_grant WHERE session = ? AND subscribed = ? AND device = ? "
            "AND access = ? AND selector IS ?",
            gone,
        )
    new = [*_rows(wanted.id, 0, wanted.granted), *_rows(wanted.id, 1, wanted.subscribed)]
    _GRANTS.write(db, new)


def _rows(session: str, subscribed: int, grants: Collection[Grant]) -> list[tuple[Any, ...]]:
    return [
        (session, subscribed, grant.device, grant.right.value, grant.selector) for grant in grants
    ]


def drop(journal: Journal, ids: Sequence[str]) -> None:
    """Forget some with all that was granted to them."""
    journal.db.execute(f"DELETE FROM live_session WHERE {_AMONG}", (_json(ids),))


def touch(journal: Journal, ids: Sequence[str], now: int) -> None:
    """Know that some are used."""
    journal.db.execute(
        f"UPDATE live_session SET used = max(used, ?) WHERE {_AMONG}", (now, _json(ids))
    )


def drop_unused(journal: Journal, ids: Sequence[str], before: int) -> list[str]:
    """Forget those of some that were last used before; return which are gone."""
    db = journal.db
    db.execute(f"DELETE FROM live_session WHERE {_AMONG} AND used < ?", (_json(ids), before))
    left = db.execute(f"SELECT id FROM live_session WHERE {_AMONG}", (_json(ids),))
    return sorted({*ids}.difference(row[0] for row in left))


def _json(ids: Sequence[str]) -> str:
    return msgspec.json.encode(list(ids)).decode()
