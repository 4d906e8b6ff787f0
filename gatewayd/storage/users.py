"""Users in SQLite."""

from __future__ import annotations

import sqlite3
from typing import Any

from gatewayd.core.model import Role, Status, User
from gatewayd.core.queries import UserQuery
from gatewayd.errors import Conflict, Duplicate, NotFound
from gatewayd.storage import devices
from gatewayd.storage.journal import Journal

_FIELDS = "login, role, status, password, last_login, attempts, data, intro_reviewed, all_types"
#: What is not changed by logins.
_ACCOUNT = "login, role, status, password, data, intro_reviewed, all_types"
_LINKS = (("user_network", "network"), ("user_device_type", "device_type"))


def _linked(db: sqlite3.Connection, table: str, column: str, user: int) -> frozenset[int]:
    rows = db.execute(f"SELECT {column} FROM {table} WHERE user = ?", (user,))
    return frozenset(row[0] for row in rows)


def _user(db: sqlite3.Connection, row: tuple[Any, ...]) -> User:
    return User(
        id=row[0], login=row[1], role=Role(row[2]), status=Status(row[3]), password=row[4],
        last_login=row[5], attempts=row[6], data=row[7], intro_reviewed=bool(row[8]),
        all_types=bool(row[9]), networks=_linked(db, "user_network", "network", row[0]),
        types=_linked(db, "user_device_type", "device_type", row[0]),
    )  # fmt: skip


def _one(db: sqlite3.Connection, column: str, value: object) -> User | None:
    row = db.execute(f"SELECT id, {_FIELDS} FROM user WHERE {column} = ?", (value,)).fetchone()
    return None if row is None else _user(db, row)


def get(db: sqlite3.Connection, user_id: int) -> User | None:
    """Return a user."""
    return _one(db, "id", user_id)


def by_login(db: sqlite3.Connection, login: str) -> User | None:
    """Return the user with that login."""
    return _one(db, "login", login)


def _where(query: UserQuery) -> tuple[str, list[Any]]:
    where = ["1"]
    values: list[Any] = []
    login = query.login if query.pattern is None else None
    for condition, value in (
        ("login = ?", login),
        ("login GLOB ?", None if query.pattern is None else devices.glob(query.pattern)),
        ("role = ?", query.role),
        ("status = ?", query.status),
    ):
        if value is not None:
            where.append(condition)
            values.append(value)
    return " AND ".join(where), values


def find(db: sqlite3.Connection, query: UserQuery) -> list[User]:
    """List users."""
    where, values = _where(query)
    way = "DESC" if query.order.descending else "ASC"
    key = f"login {way}, " if query.order.field == "login" else ""
    limit, page = devices.paging(query.order)
    rows = db.execute(
        f"SELECT id, {_FIELDS} FROM user WHERE {where} ORDER BY {key}id {way}{limit}",
        [*values, *page],
    ).fetchall()
    return [_user(db, row) for row in rows]


def count(db: sqlite3.Connection, query: UserQuery) -> int:
    """Count users."""
    where, values = _where(query)
    result: int = db.execute(f"SELECT count(*) FROM user WHERE {where}", values).fetchone()[0]
    return result


def save(journal: Journal, user: User, was: User | None = None) -> User:
    """Insert a user, or change the one that was read as ``was``.

    :raises Conflict: :raises Duplicate: :raises NotFound:
    """
    db = journal.db
    row = db.execute("SELECT id FROM user WHERE login = ?", (user.login,)).fetchone()
    if row is not None and (was is None or row[0] != was.id):
        raise Duplicate("user", user.login)
    user_id = _insert(db, user) if was is None else _change(db, user, was)
    for (table, column), members in zip(_LINKS, (user.networks, user.types), strict=True):
        _link(db, table, column, user_id, members)
    saved = get(db, user_id)
    assert saved is not None
    return saved


def _insert(db: sqlite3.Connection, user: User) -> int:
    user_id = db.execute(
        f"INSERT INTO user ({_ACCOUNT}, last_login, attempts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*_account(user), user.last_login, user.attempts),
    ).lastrowid
    assert user_id is not None
    return user_id


def _change(db: sqlite3.Connection, user: User, was: User) -> int:
    """Change what is no link. :raises Conflict: :raises NotFound:"""
    known = get(db, was.id)
    if known is None:
        raise NotFound("user", was.id)
    if not known.is_as(was):
        raise Conflict("version")
    sets = ", ".join(f"{field} = ?" for field in _ACCOUNT.split(", "))
    db.execute(f"UPDATE user SET {sets} WHERE id = ?", (*_account(user), was.id))
    return was.id


def _account(user: User) -> tuple[Any, ...]:
    return (
        user.login, int(user.role), int(user.status), user.password, user.data,
        int(user.intro_reviewed), int(user.all_types),
    )  # fmt: skip


def _link(
    db: sqlite3.Connection, table: str, column: str, user: int, members: frozenset[int]
) -> None:
    """Make the user's networks or device types exactly ``members``."""
    had = _linked(db, table, column, user)
    for gone in had - members:
        db.execute(f"DELETE FROM {table} WHERE user = ? AND {column} = ?", (user, gone))
    for new in members - had:
        if db.execute(f"SELECT 1 FROM {column} WHERE id = ?", (new,)).fetchone() is None:
            raise NotFound("device type" if column == "device_type" else column, new)
        db.execute(f"INSERT INTO {table} (user, {column}) VALUES (?, ?)", (user, new))


def note_login(journal: Journal, user_id: int, at: int) -> User | None:
    """Record that a user came in, unless it came later."""
    journal.db.execute(
        "UPDATE user SET last_login = max(coalesce(last_login, ?1), ?1) WHERE id = ?2",
        (at, user_id),
    )
    return get(journal.db, user_id)


def count_attempt(journal: Journal, user_id: int, most: int) -> User | None:
    """Count a wrong password; at ``most`` the user is locked. None: there is no active one."""
    counted = journal.db.execute(
        "UPDATE user SET attempts = iif(attempts + 1 >= ?1, 0, attempts + 1), "
        "status = iif(attempts + 1 >= ?1, ?2, status) WHERE id = ?3 AND status = ?4",
        (most, int(Status.LOCKED), user_id, int(Status.ACTIVE)),
    ).rowcount
    return get(journal.db, user_id) if counted else None


def forget_attempts(journal: Journal, user_id: int) -> User | None:
    """Count wrong passwords from 0 again."""
    journal.db.execute("UPDATE user SET attempts = 0 WHERE id = ?", (user_id,))
    return get(journal.db, user_id)


def delete(journal: Journal, user_id: int) -> bool:
    """Delete a user."""
    return bool(journal.db.execute("DELETE FROM user WHERE id = ?", (user_id,)).rowcount)
