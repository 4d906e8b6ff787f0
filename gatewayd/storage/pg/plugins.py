"""Plugins in PostgreSQL."""

from __future__ import annotations

from typing import Any

import msgspec

from gatewayd.core.model import Plugin, PluginFilter, PluginStatus
from gatewayd.core.queries import PluginQuery
from gatewayd.errors import Conflict, NotFound, Unavailable
from gatewayd.storage.pg import devices, names
from gatewayd.storage.pg.tx import Tx

_FIELDS = "name, description, topic, filter, status, subscription, user_id, parameters"
_CHANGING = "name, description, filter, status, subscription, parameters"


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


async def save(tx: Tx, plugin: Plugin, was: Plugin | None = None) -> Plugin:
    """Insert a plugin, or change the one that was read as ``was``.

    :raises Conflict: :raises NotFound:
    """
    values = (
        plugin.name, plugin.description, msgspec.json.encode(plugin.filter), int(plugin.status),
        plugin.subscription, plugin.parameters,
    )  # fmt: skip
    if was is None:
        if not await tx.rows("SELECT 1 FROM users WHERE id = %s FOR KEY SHARE", plugin.user):
            raise NotFound("user", plugin.user)
        rows = await tx.rows(
            f"INSERT INTO plugin ({_CHANGING}, topic, user_id) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
            *values, plugin.topic, plugin.user,
        )  # fmt: skip
        return msgspec.structs.replace(plugin, id=rows[0][0])
    await _check(tx, was)
    await tx.run(
        f"UPDATE plugin SET ({_CHANGING}) = (%s, %s, %s, %s, %s, %s) WHERE id = %s",
        *values, was.id,
    )  # fmt: skip
    return msgspec.structs.replace(plugin, id=was.id, topic=was.topic, user=was.user)


async def _check(tx: Tx, was: Plugin) -> None:
    """Let a plugin be as it was until the transaction ends. :raises Conflict: :raises NotFound:"""
    rows = await tx.rows(
        f"SELECT id, {_FIELDS} FROM plugin WHERE id = %s FOR NO KEY UPDATE", was.id
    )
    if not rows:
        raise NotFound("plugin", was.topic)
    if _plugin(rows[0]) != was:
        raise Conflict("version")


async def delete(tx: Tx, plugin_id: int) -> list[Plugin]:
    """Delete a plugin, and return it."""
    rows = await tx.rows(f"DELETE FROM plugin WHERE id = %s RETURNING id, {_FIELDS}", plugin_id)
    return [_plugin(row) for row in rows]


async def delete_of(tx: Tx, user_id: int) -> list[Plugin]:
    """Delete the plugins of a user, and return them by id."""
    rows = await tx.rows(f"DELETE FROM plugin WHERE user_id = %s RETURNING id, {_FIELDS}", user_id)
    return sorted(map(_plugin, rows), key=lambda plugin: plugin.id)


# Where a plugin has connections


async def joined(tx: Tx, plugin_id: int, node: str, incarnation: int) -> None:
    """Know that a node has connections of a plugin, unless that is gone.

    :raises Unavailable: the node has lost its lease.
    """
    if not await _hold(tx, plugin_id):
        return
    mine = await tx.rows(
        "SELECT 1 FROM node WHERE name = %s AND incarnation = %s AND until > clock_timestamp() "
        "FOR KEY SHARE",
        node, incarnation,
    )  # fmt: skip
    if not mine:
        raise Unavailable("this node has lost its lease")
    await tx.run(
        "INSERT INTO plugin_node (plugin, node) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        plugin_id, node,
    )  # fmt: skip


async def left(tx: Tx, plugin_id: int, node: str) -> bool:
    """Know that a node has none any more; return whether no living one has."""
    await _hold(tx, plugin_id)
    await tx.run("DELETE FROM plugin_node WHERE plugin = %s AND node = %s", plugin_id, node)
    rows = await tx.rows(f"SELECT NOT {_somewhere('%s')}", plugin_id)
    nowhere: bool = rows[0][0]
    return nowhere


async def _hold(tx: Tx, plugin_id: int) -> bool:
    """Let nobody else connect or disconnect a plugin; return whether it is there."""
    held = await tx.rows("SELECT 1 FROM plugin WHERE id = %s FOR NO KEY UPDATE", plugin_id)
    return bool(held)


async def orphaned(tx: Tx) -> list[Plugin]:
    """List the active plugins that no living node has, by id."""
    rows = await tx.rows(
        f"SELECT id, {_FIELDS} FROM plugin WHERE status = %s AND NOT {_somewhere('plugin.id')} "
        "ORDER BY id",
        int(PluginStatus.ACTIVE),
    )
    return [_plugin(row) for row in rows]


def _somewhere(plugin_id: str) -> str:
    return (
        "EXISTS (SELECT 1 FROM plugin_node p JOIN node n ON n.name = p.node "
        f"WHERE p.plugin = {plugin_id} AND n.until > clock_timestamp())"
    )
