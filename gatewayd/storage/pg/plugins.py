"""Plugins in PostgreSQL."""

from __future__ import annotations

from typing import Any

import msgspec

from gatewayd.core.model import Plugin, PluginFilter, PluginStatus
from gatewayd.core.queries import PluginQuery
from gatewayd.errors import NotFound
from gatewayd.storage.pg import devices, names
from gatewayd.storage.pg.tx import Tx

_FIELDS = "name, description, topic, filter, status, subscription, user_id, parameters"


def _plugin(row: tuple[Any, ...]) -> Plugin:
    return Plugin(
        id=row[0], name=row[1], description=row[2], topic=row[3],
        filter=msgspec.json.decode(row[4], type=PluginFilter), status=PluginStatus(row[5]),
        subscription=row[6], user=row[7], parameters=row[8],
    )  # fmt: skip


async def get(tx: Tx, topic: str) -> Plugin | None:
    """Return the plugin with that topic."""
    rows = await tx.rows(f"SELECT id, {_FIELDS} FROM plugin WHERE topic = %s", topic)
    return _plugin(rows[0]) if rows else None


def _where(query: PluginQuery) -> tuple[str, list[Any]]:
    where = ["TRUE"]
    values: list[Any] = []
    for condition, value in (
        ("name = %s", query.name),
        (names.like("name"), query.pattern),
        ("topic = %s", query.topic),
        ("status = %s", query.status),
        ("user_id = %s", query.user),
    ):
        if value is not None:
            where.append(condition)
            values.append(value)
    return " AND ".join(where), values


async def find(tx: Tx, query: PluginQuery) -> list[Plugin]:
    """List plugins."""
    where, values = _where(query)
    way = "DESC" if query.order.descending else "ASC"
    key = f"name {way}, " if query.order.field == "name" else ""
    limit, page = devices.paging(query.order)
    rows = await tx.rows(
        f"SELECT id, {_FIELDS} FROM plugin WHERE {where} ORDER BY {key}id {way}{limit}",
        *values, *page,
    )  # fmt: skip
    return [_plugin(row) for row in rows]


async def count(tx: Tx, query: PluginQuery) -> int:
    """Count plugins."""
    where, values = _where(query)
    rows = await tx.rows(f"SELECT count(*) FROM plugin WHERE {where}", *values)
    result: int = rows[0][0]
    return result


async def save(tx: Tx, plugin: Plugin) -> Plugin:
    """Insert or update a plugin. :raises NotFound:"""
    if not await tx.rows("SELECT 1 FROM users WHERE id = %s FOR KEY SHARE", plugin.user):
        raise NotFound("user", plugin.user)
    values = (
        plugin.name, plugin.description, plugin.topic, msgspec.json.encode(plugin.filter),
        int(plugin.status), plugin.subscription, plugin.user, plugin.parameters,
    )  # fmt: skip
    places = "%s, %s, %s, %s, %s, %s, %s, %s"
    if plugin.id == 0:
        rows = await tx.rows(
            f"INSERT INTO plugin ({_FIELDS}) VALUES ({places}) RETURNING id", *values
        )
        return msgspec.structs.replace(plugin, id=rows[0][0])
    changed = await tx.run(
        f"UPDATE plugin SET ({_FIELDS}) = ({places}) WHERE id = %s", *values, plugin.id
    )
    if not changed:
        raise NotFound("plugin", plugin.topic)
    return plugin


async def delete(tx: Tx, plugin_id: int) -> bool:
    """Delete a plugin."""
    return bool(await tx.run("DELETE FROM plugin WHERE id = %s", plugin_id))
