"""Networks and device types in SQLite."""

from __future__ import annotations

import sqlite3
from typing import Any

from gatewayd.core.model import Device, Group, GroupKind
from gatewayd.core.queries import GroupQuery
from gatewayd.errors import Conflict, Duplicate, NotEmpty, NotFound
from gatewayd.storage import devices
from gatewayd.storage.journal import Journal

_TABLE = {GroupKind.NETWORK: "network", GroupKind.DEVICE_TYPE: "device_type"}
_COLUMN = {GroupKind.NETWORK: "network", GroupKind.DEVICE_TYPE: "type"}


def get(db: sqlite3.Connection, kind: GroupKind, group_id: int) -> Group | None:
    """Return a network or device type."""
    row = db.execute(
        f"SELECT id, name, description FROM {_TABLE[kind]} WHERE id = ?", (group_id,)
    ).fetchone()
    return None if row is None else Group(id=row[0], name=row[1], description=row[2])


def _where(query: GroupQuery) -> tuple[str, list[Any]]:
    where = ["1"]
    values: list[Any] = []
    if query.name is not None:
        where.append("name = ?")
        values.append(query.name)
    if query.pattern is not None:
        where.append("name GLOB ?")
        values.append(devices.glob(query.pattern))
    if query.ids is not None:
        where.append(f"id IN ({', '.join('?' * len(query.ids))})")
        values.extend(query.ids)
    return " AND ".join(where), values


def find(db: sqlite3.Connection, kind: GroupKind, query: GroupQuery) -> list[Group]:
    """List networks or device types."""
    where, values = _where(query)
    way = "DESC" if query.order.descending else "ASC"
    key = f"name {way}, " if query.order.field == "name" else ""
    limit, page = devices.paging(query.order)
    rows = db.execute(
        f"SELECT id, name, description FROM {_TABLE[kind]} WHERE {where} "
        f"ORDER BY {key}id {way}{limit}",
        [*values, *page],
    )
    return [Group(id=row[0], name=row[1], description=row[2]) for row in rows]


def count(db: sqlite3.Connection, kind: GroupKind, query: GroupQuery) -> int:
    """Count networks or device types."""
    where, values = _where(query)
    sql = f"SELECT count(*) FROM {_TABLE[kind]} WHERE {where}"
    result: int = db.execute(sql, values).fetchone()[0]
    return result


def _check_name(db: sqlite3.Connection, kind: GroupKind, name: str, own: int = 0) -> None:
    row = db.execute(f"SELECT id FROM {_TABLE[kind]} WHERE name = ?", (name,)).fetchone()
    if row is not None and row[0] != own:
        raise Duplicate(kind.value, name)


def insert(journal: Journal, kind: GroupKind, name: str, description: str | None) -> Group:
    """Insert a network or device type. :raises Duplicate:"""
    _check_name(journal.db, kind, name)
    group_id = journal.db.execute(
        f"INSERT INTO {_TABLE[kind]} (name, description) VALUES (?, ?)", (name, description)
    ).lastrowid
    assert group_id is not None
    return Group(id=group_id, name=name, description=description)


def update(journal: Journal, kind: GroupKind, group: Group, was: Group) -> None:
    """Change the one that was read as ``was``.

    :raises Conflict: :raises NotFound: :raises Duplicate:
    """
    _check_name(journal.db, kind, group.name, was.id)
    known = get(journal.db, kind, was.id)
    if known is None:
        raise NotFound(kind.value, was.id)
    if known != was:
        raise Conflict("version")
    journal.db.execute(
        f"UPDATE {_TABLE[kind]} SET name = ?, description = ? WHERE id = ?",
        (group.name, group.description, was.id),
    )


def delete(journal: Journal, kind: GroupKind, group_id: int, force: bool) -> list[Device]:
    """Delete it, with ``force`` also its devices. :raises NotFound: :raises NotEmpty:"""
    if get(journal.db, kind, group_id) is None:
        raise NotFound(kind.value, group_id)
    members = devices.in_group(journal.db, _COLUMN[kind], group_id)
    if members and not force:
        raise NotEmpty(kind.value, [device.id for device in members[:100]])
    for device in members:
        devices.delete(journal, device.uid)
    journal.db.execute(f"DELETE FROM {_TABLE[kind]} WHERE id = ?", (group_id,))
    return members
