"""Plugins in SQLite."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from gatewayd.core.model import Plugin, PluginFilter, PluginStatus
from gatewayd.core.queries import PluginQuery
from gatewayd.errors import Conflict, NotFound
from gatewayd.storage import devices
from gatewayd.storage.journal import Journal

_FIELDS = "name, description, topic, filter, status, subscription, user, parameters"
_CHANGING = "name, description, filter, status, subscription, parameters"


def _plugin(row: tuple[Any, ...]) -> Plugin:
    return Plugin(
        id=row[0], name=row[1], description=row[2], topic=row[3],
        filter=msgspec.json.decode(row[4], type=PluginFilter), status=PluginStatus(row[5]),
        subscription=row[6], user=row[7], parameters=row[8],
    )  # fmt: skip


def get(db: sqlite3.Connection, topic: str) -> Plugin | None:
    """Return the plugin with that topic."""
    row = db.execute(f"SELECT id, {_FIELDS} FROM plugin WHERE topic = ?", (topic,)).fetchone()
    return None if row is None else _plugin(row)


def _where(query: PluginQuery) -> tuple[str, list[Any]]:
    where = ["1"]
    values: list[Any] = []
    for condition, value in (
        ("name = ?", query.name),
        ("name GLOB ?", None if query.pattern is None else devices.glob(query.pattern)),
        ("topic = ?", query.topic),
        ("status = ?", query.status),
        ("user = ?", query.user),
    ):
        if value is not None:
            where.append(condition)
            values.append(value)
    return " AND ".join(where), values


def find(db: sqlite3.Connection, query: PluginQuery) -> list[Plugin]:
    """List plugins."""
    where, values = _where(query)
    way = "DESC" if query.order.descending else "ASC"
    key = f"name {way}, " if query.order.field == "name" else ""
    limit, page = devices.paging(query.order)
    rows = db.execute(
        f"SELECT id, {_FIELDS} FROM plugin WHERE {where} ORDER BY {key}id {way}{limit}",
        [*values, *page],
    )
    return [_plugin(row) for row in rows]


def count(db: sqlite3.Connection, query: PluginQuery) -> int:
    """Count plugins."""
    where, values = _where(query)
    result: int = db.execute(f"SELECT count(*) FROM plugin WHERE {where}", values).fetchone()[0]
    return result


def save(journal: Journal, plugin: Plugin, was: Plugin | None = None) -> Plugin:
    """Insert a plugin, or change the one that was read as ``was``.

    :raises Conflict: :raises NotFound:
    """
    db = journal.db
    values = (
        plugin.name, plugin.description, msgspec.json.encode(plugin.filter), int(plugin.status),
        plugin.subscription, plugin.parameters,
    )  # fmt: skip
    if was is None:
        if db.execute("SELECT 1 FROM user WHERE id = ?", (plugin.user,)).fetchone() is None:
            raise NotFound("user", plugin.user)
        plugin_id = db.execute(
            f"INSERT INTO plugin ({_CHANGING}, topic, user) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, plugin.topic, plugin.user),
        ).lastrowid
        assert plugin_id is not None
        return msgspec.structs.replace(plugin, id=plugin_id)
    row = db.execute(f"SELECT id, {_FIELDS} FROM plugin WHERE id = ?", (was.id,)).fetchone()
    if row is None:
        raise NotFound("plugin", was.topic)
    if _plugin(row) != was:
        raise Conflict("version")
    sets = ", ".join(f"{field} = ?" for field in _CHANGING.split(", "))
    db.execute(f"UPDATE plugin SET {sets} WHERE id = ?", (*values, was.id))
    return msgspec.structs.replace(plugin, id=was.id, topic=was.topic, user=was.user)


def delete(journal: Journal, plugin_id: int) -> bool:
    """Delete a plugin."""
    return bool(journal.db.execute("DELETE FROM plugin WHERE id = ?", (plugin_id,)).rowcount)
