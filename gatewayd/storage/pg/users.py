"""Users in PostgreSQL."""

from __future__ import annotations

from typing import Any

import msgspec

from gatewayd.core.model import Plugin, Role, Status, User
from gatewayd.core.queries import UserQuery
from gatewayd.errors import Conflict, Duplicate, NotFound
from gatewayd.storage.pg import devices, names, plugins
from gatewayd.storage.pg.tx import Tx

_FIELDS = "login, role, status, password, last_login, attempts, data, intro_reviewed, all_types"
#: What is not changed by logins.
_ACCOUNT = "login, role, status, password, data, intro_reviewed, all_types"
# One statement, so that a user and what it is linked to are of one moment.
_USER = (
    f"SELECT id, {_FIELDS}, "
    "ARRAY(SELECT network FROM user_network WHERE user_id = id), "
    "ARRAY(SELECT device_type FROM user_device_type WHERE user_id = id) FROM users"
)


def _user(row: tuple[Any, ...]) -> User:
    return User(
        id=row[0], login=row[1], role=Role(row[2]), status=Status(row[3]), password=row[4],
        last_login=row[5], attempts=row[6], data=row[7], intro_reviewed=row[8],
        all_types=row[9], networks=frozenset(row[10]), types=frozenset(row[11]),
    )  # fmt: skip


async def get(tx: Tx, user_id: int) -> User | None:
    """Return a user."""
    rows = await tx.rows(f"{_USER} WHERE id = %s", user_id)
    return _user(rows[0]) if rows else None


async def by_login(tx: Tx, login: str) -> User | None:
    """Return the user with that login."""
    rows = await tx.rows(f"{_USER} WHERE login = %s", login)
    return _user(rows[0]) if rows else None


def _where(query: UserQuery) -> tuple[str, list[Any]]:
    where = ["TRUE"]
    values: list[Any] = []
    login = query.login if query.pattern is None else None
    for condition, value in (
        ("login = %s", login),
        (names.like("login"), query.pattern),
        ("role = %s", query.role),
        ("status = %s", query.status),
    ):
        if value is not None:
            where.append(condition)
            values.append(value)
    return " AND ".join(where), values


async def find(tx: Tx, query: UserQuery) -> list[User]:
    """List users."""
    where, values = _where(query)
    way = "DESC" if query.order.descending else "ASC"
    key = f"login {way}, " if query.order.field == "login" else ""
    limit, page = devices.paging(query.order)
    rows = await tx.rows(f"{_USER} WHERE {where} ORDER BY {key}id {way}{limit}", *values, *page)
    return [_user(row) for row in rows]


async def count(tx: Tx, query: UserQuery) -> int:
    """Count users."""
    where, values = _where(query)
    rows = await tx.rows(f"SELECT count(*) FROM users WHERE {where}", *values)
    result: int = rows[0][0]
    return result


async def save(tx: Tx, user: User, was: User | None = None) -> User:
    """Insert a user, or change the one that was read as ``was``.

    :raises Conflict: :raises Duplicate: :raises NotFound:
    """
    if was is None:
        saved = msgspec.structs.replace(user, id=await _insert(tx, user))
    else:
        saved = await _change(tx, user, was)
    if was is None or was.networks != user.networks:
        await _link(tx, "user_network", "network", saved.id, user.networks)
    if was is None or was.types != user.types:
        await _link(tx, "user_device_type", "device_type", saved.id, user.types)
    return saved


def _account(user: User) -> tuple[Any, ...]:
    return (
        user.login, int(user.role), int(user.status), user.password, user.data,
        user.intro_reviewed, user.all_types,
    )  # fmt: skip


async def _insert(tx: Tx, user: User) -> int:
    await names.claim(tx, "users", user.login)
    rows = await tx.rows(
        f"INSERT INTO users ({_ACCOUNT}, last_login, attempts) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (login) DO NOTHING RETURNING id",
        *_account(user), user.last_login, user.attempts,
    )  # fmt: skip
    if not rows:
        raise Duplicate("user", user.login)
    user_id: int = rows[0][0]
    return user_id


async def _change(tx: Tx, user: User, was: User) -> User:
    """Change what is no link, when nobody else changes the user; return it as it is to be."""
    await tx.rows("SELECT 1 FROM users WHERE id = %s FOR UPDATE", was.id)
    known = await get(tx, was.id)
    if known is None:
        raise NotFound("user", was.id)
    if not known.is_as(was):
        raise Conflict("version")
    if known.login != user.login:
        await names.claim(tx, "users", user.login)
        if await tx.rows("SELECT 1 FROM users WHERE login = %s", user.login):
            raise Duplicate("user", user.login)
    await tx.run(
        f"UPDATE users SET ({_ACCOUNT}) = (%s, %s, %s, %s, %s, %s, %s) WHERE id = %s",
        *_account(user), was.id,
    )  # fmt: skip
    return msgspec.structs.replace(
        user, id=known.id, last_login=known.last_login, attempts=known.attempts
    )


async def _link(tx: Tx, table: str, column: str, user: int, members: frozenset[int]) -> None:
    """Make the user's networks or device types exactly ``members``. :raises NotFound:"""
    wanted = sorted(members)
    there = await tx.rows(
        f"SELECT id FROM {column} WHERE id = ANY(%s::bigint[]) ORDER BY id FOR KEY SHARE", wanted
    )
    if unknown := members.difference(row[0] for row in there):
        raise NotFound("device type" if column == "device_type" else column, min(unknown))
    await tx.run(
        f"DELETE FROM {table} WHERE user_id = %s AND {column} <> ALL(%s::bigint[])", user, wanted
    )
    await tx.run(
        f"INSERT INTO {table} (user_id, {column}) SELECT %s, unnest(%s::bigint[]) "
        "ON CONFLICT DO NOTHING",
        user, wanted,
    )  # fmt: skip


# What logins change: narrow statements, so that they undo nothing. The user is read by another one:
# the first may have waited for somebody who changed its links.


async def note_login(tx: Tx, user_id: int, at: int) -> User | None:
    """Record that a user came in, unless it came later."""
    noted = await tx.run(
        "UPDATE users SET last_login = greatest(last_login, %s) WHERE id = %s", at, user_id
    )
    return await get(tx, user_id) if noted else None


async def count_attempt(tx: Tx, user_id: int, most: int) -> User | None:
    """Count a wrong password; at ``most`` the user is locked. None: there is no active one."""
    counted = await tx.run(
        "UPDATE users SET attempts = CASE WHEN attempts + 1 >= %s THEN 0 ELSE attempts + 1 END, "
        "status = CASE WHEN attempts + 1 >= %s THEN %s ELSE status END "
        "WHERE id = %s AND status = %s",
        most, most, int(Status.LOCKED), user_id, int(Status.ACTIVE),
    )  # fmt: skip
    return await get(tx, user_id) if counted else None


async def forget_attempts(tx: Tx, user_id: int) -> User | None:
    """Count wrong passwords from 0 again."""
    forgotten = await tx.run("UPDATE users SET attempts = 0 WHERE id = %s", user_id)
    return await get(tx, user_id) if forgotten else None


async def delete(tx: Tx, user_id: int) -> list[Plugin] | None:
    """Delete a user with its plugins, and return those; None: there is no such user."""
    # From here on no plugin comes to it.
    if not await tx.rows("SELECT 1 FROM users WHERE id = %s FOR UPDATE", user_id):
        return None
    gone = await plugins.delete_of(tx, user_id)
    await tx.run("DELETE FROM users WHERE id = %s", user_id)
    return gone
