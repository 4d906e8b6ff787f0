"""Users in PostgreSQL."""

from __future__ import annotations

from typing import Any

import msgspec

from gatewayd.core.model import Plugin, Role, Status, User
from gatewayd.core.queries import UserQuery
from gatewayd.errors import Duplicate, NotFound
from gatewayd.storage.pg import devices, names, plugins
from gatewayd.storage.pg.tx import Tx

_FIELDS = "login, role, status, password, last_login, attempts, data, intro_reviewed, all_types"
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


async def save(tx: Tx, user: User) -> User:
    """Insert or update a user. :raises Duplicate: :raises NotFound:"""
    values = (
        user.login, int(user.role), int(user.status), user.password, user.last_login,
        user.attempts, user.data, user.intro_reviewed, user.all_types,
    )  # fmt: skip
    saved = msgspec.structs.replace(user, id=user.id or await _insert(tx, user.login, values))
    known = await _hold(tx, saved) if user.id else None
    if known is not None:
        await tx.run(
            f"UPDATE users SET ({_FIELDS}) = (%s, %s, %s, %s, %s, %s, %s, %s, %s) WHERE id = %s",
            *values, user.id,
        )  # fmt: skip
    # Users are saved at every login, and hardly ever with other links.
    if known is None or known.networks != user.networks:
        await _link(tx, "user_network", "network", saved.id, user.networks)
    if known is None or known.types != user.types:
        await _link(tx, "user_device_type", "device_type", saved.id, user.types)
    return saved


async def _insert(tx: Tx, login: str, values: tuple[Any, ...]) -> int:
    await names.claim(tx, "users", login)
    rows = await tx.rows(
        f"INSERT INTO users ({_FIELDS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (login) DO NOTHING RETURNING id",
        *values,
    )
    if not rows:
        raise Duplicate("user", login)
    user_id: int = rows[0][0]
    return user_id


async def _hold(tx: Tx, user: User) -> User:
    """Return a user as it is, that nobody else changes now, and may have the login of another."""
    await tx.rows("SELECT 1 FROM users WHERE id = %s FOR UPDATE", user.id)
    known = await get(tx, user.id)
    if known is None:
        raise NotFound("user", user.id)
    if known.login != user.login:
        await names.claim(tx, "users", user.login)
        if await tx.rows("SELECT 1 FROM users WHERE login = %s", user.login):
            raise Duplicate("user", user.login)
    return known


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


async def delete(tx: Tx, user_id: int) -> list[Plugin] | None:
    """Delete a user with its plugins, and return those; None: there is no such user."""
    # From here on no plugin comes to it.
    if not await tx.rows("SELECT 1 FROM users WHERE id = %s FOR UPDATE", user_id):
        return None
    gone = await plugins.delete_of(tx, user_id)
    await tx.run("DELETE FROM users WHERE id = %s", user_id)
    return gone
