"""Networks and device types in PostgreSQL."""

from __future__ import annotations

from typing import Any

from gatewayd.core.model import Device, Group, GroupKind
from gatewayd.core.queries import GroupQuery
from gatewayd.errors import Conflict, Duplicate, NotEmpty, NotFound
from gatewayd.storage.pg import devices, names
from gatewayd.storage.pg.tx import Tx

_TABLE = {GroupKind.NETWORK: "network", GroupKind.DEVICE_TYPE: "device_type"}
_COLUMN = {GroupKind.NETWORK: "network", GroupKind.DEVICE_TYPE: "type"}


def _group(row: tuple[Any, ...]) -> Group:
    return Group(id=row[0], name=row[1], description=row[2])


async def get(tx: Tx, kind: GroupKind, group_id: int) -> Group | None:
    """Return a network or device type."""
    rows = await tx.rows(
        f"SELECT id, name, description FROM {_TABLE[kind]} WHERE id = %s", group_id
    )
    return _group(rows[0]) if rows else None


def _where(query: GroupQuery) -> tuple[str, list[Any]]:
    where = ["TRUE"]
    values: list[Any] = []
    if query.name is not None:
        where.append("name = %s")
        values.append(query.name)
    if query.pattern is not None:
        where.append(names.like("name"))
        values.append(query.pattern)
    if query.ids is not None:
        where.append("id = ANY(%s::bigint[])")
        values.append([*query.ids])
    return " AND ".join(where), values


async def find(tx: Tx, kind: GroupKind, query: GroupQuery) -> list[Group]:
    """List networks or device types."""
    where, values = _where(query)
    way = "DESC" if query.order.descending else "ASC"
    key = f"name {way}, " if query.order.field == "name" else ""
    limit, page = devices.paging(query.order)
    rows = await tx.rows(
        f"SELECT id, name, description FROM {_TABLE[kind]} WHERE {where} "
        f"ORDER BY {key}id {way}{limit}",
        *values, *page,
    )  # fmt: skip
    return [_group(row) for row in rows]


async def count(tx: Tx, kind: GroupKind, query: GroupQuery) -> int:
    """Count networks or device types."""
    where, values = _where(query)
    rows = await tx.rows(f"SELECT count(*) FROM {_TABLE[kind]} WHERE {where}", *values)
    result: int = rows[0][0]
    return result


async def insert(tx: Tx, kind: GroupKind, name: str, description: str | None) -> Group:
    """Insert a network or device type. :raises Duplicate:"""
    await names.claim(tx, _TABLE[kind], name)
    rows = await tx.rows(
        f"INSERT INTO {_TABLE[kind]} (name, description) VALUES (%s, %s) "
        "ON CONFLICT (name) DO NOTHING RETURNING id, name, description",
        name, description,
    )  # fmt: skip
    if not rows:
        raise Duplicate(kind.value, name)
    return _group(rows[0])


async def update(tx: Tx, kind: GroupKind, group: Group, was: Group) -> None:
    """Change the one that was read as ``was``.

    :raises Conflict: :raises NotFound: :raises Duplicate:
    """
    table = _TABLE[kind]
    await names.claim(tx, table, group.name)
    if await tx.rows(f"SELECT 1 FROM {table} WHERE name = %s AND id <> %s", group.name, was.id):
        raise Duplicate(kind.value, group.name)
    changed = await tx.run(
        f"UPDATE {table} SET name = %s, description = %s "
        "WHERE id = %s AND (name, description) IS NOT DISTINCT FROM (%s, %s)",
        group.name, group.description, was.id, was.name, was.description,
    )  # fmt: skip
    if changed:
        return
    if await get(tx, kind, was.id) is None:
        raise NotFound(kind.value, was.id)
    raise Conflict("version")


async def delete(tx: Tx, kind: GroupKind, group_id: int, force: bool) -> list[Device]:
    """Delete it, with ``force`` also its devices. :raises NotFound: :raises NotEmpty:"""
    table, column = _TABLE[kind], _COLUMN[kind]
    # From here on no device comes into it; one that another transaction takes out stays.
    if not await tx.rows(f"SELECT 1 FROM {table} WHERE id = %s FOR UPDATE", group_id):
        raise NotFound(kind.value, group_id)
    members = await devices.in_group(tx, column, group_id)
    if members and not force:
        raise NotEmpty(kind.value, [device.id for device in members[:100]])
    gone = await devices.delete_from(tx, [device.uid for device in members], column, group_id)
    await tx.run(f"DELETE FROM {table} WHERE id = %s", group_id)
    return gone
