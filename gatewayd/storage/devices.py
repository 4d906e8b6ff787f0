"""Devices in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any

import msgspec

from gatewayd.core.model import Device
from gatewayd.core.queries import DeviceQuery, Order
from gatewayd.errors import Conflict, Invalid, NotFound
from gatewayd.storage.journal import Journal

_COLUMNS = "d.uid, d.id, d.name, d.network, d.type, d.data, d.blocked"


def _device(row: tuple[Any, ...]) -> Device:
    return Device(
        uid=row[0], id=row[1], name=row[2], network=row[3], type=row[4], data=row[5],
        blocked=bool(row[6]),
    )  # fmt: skip


def glob(pattern: str) -> str:
    """Translate a LIKE pattern (``%`` any, ``_`` one) to GLOB, which respects case."""
    special = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    return "".join(special.get(letter, letter) for letter in pattern)


def paging(order: Order) -> tuple[str, list[int]]:
    """Return the LIMIT of an order."""
    return " LIMIT ? OFFSET ?", [-1 if order.take is None else order.take, order.skip]


def get(db: sqlite3.Connection, device_id: str) -> Device | None:
    """Return the device with that id, ignoring case."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM device d WHERE d.id_fold = ?", (device_id.upper(),)
    ).fetchone()
    return None if row is None else _device(row)


def save(journal: Journal, device: Device, was: Device | None = None) -> Device:
    """Insert a device, or change the one that was read as ``was``.

    :raises Conflict: :raises Invalid: :raises NotFound:
    """
    db = journal.db
    for field, table, key in (
        ("network", "network", device.network),
        ("type", "device_type", device.type),
    ):
        if db.execute(f"SELECT 1 FROM {table} WHERE id = ?", (key,)).fetchone() is None:
            raise Invalid("device", field, key, "unknown")
    values = (device.name, device.network, device.type, device.data, int(device.blocked))
    if was is None:
        return _register(db, device, values)
    known = _by_uid(db, was.uid)
    if known is None:
        raise NotFound("device", was.id)
    if known != was:
        raise Conflict("version")
    db.execute(
        "UPDATE device SET name = ?, network = ?, type = ?, data = ?, blocked = ? WHERE uid = ?",
        (*values, was.uid),
    )
    return msgspec.structs.replace(device, uid=was.uid, id=was.id)


def _register(db: sqlite3.Connection, device: Device, values: tuple[Any, ...]) -> Device:
    """Insert a device with its timeline."""
    if get(db, device.id) is not None:
        raise Conflict("version")
    uid = db.execute(
        "INSERT INTO device (name, network, type, data, blocked, id, id_fold) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*values, device.id, device.id.upper()),
    ).lastrowid
    assert uid is not None
    db.execute("INSERT INTO stream (uid) VALUES (?)", (uid,))
    return msgspec.structs.replace(device, uid=uid)


def _by_uid(db: sqlite3.Connection, uid: int) -> Device | None:
    row = db.execute(f"SELECT {_COLUMNS} FROM device d WHERE d.uid = ?", (uid,)).fetchone()
    return None if row is None else _device(row)


def delete(journal: Journal, uid: int) -> bool:
    """Delete a device; its timeline is orphaned at once and dropped by the sweeper."""
    journal.drop(uid)
    if not journal.db.execute("DELETE FROM device WHERE uid = ?", (uid,)).rowcount:
        return False
    journal.db.execute("INSERT OR IGNORE INTO orphan VALUES (?)", (uid,))
    return True


_SORT = {"name": "d.name", "status": "d.blocked", "network": "n.name", "devicetype": "t.name"}


def _where(query: DeviceQuery) -> tuple[str, list[Any]]:
    where = ["1"]
    values: list[Any] = []
    for condition, value in (
        ("d.name = ?", query.name),
        ("d.name GLOB ?", None if query.pattern is None else glob(query.pattern)),
        ("d.network = ?", query.network),
        ("n.name = ?", query.network_name),
        ("d.uid = ?", query.stream),
    ):
        if value is not None:
            where.append(condition)
            values.append(value)
    allowed: Collection[Any] | None
    for column, allowed in (
        ("d.network", query.networks),
        ("d.type", query.types),
        ("d.id_fold", query.ids),
    ):
        if allowed is not None:
            where.append(f"{column} IN ({', '.join('?' * len(allowed))})")
            values.extend(allowed)
    return (
        "FROM device d JOIN network n ON n.id = d.network JOIN device_type t ON t.id = d.type "
        f"WHERE {' AND '.join(where)}",
        values,
    )


def find(db: sqlite3.Connection, query: DeviceQuery) -> list[Device]:
    """List devices."""
    where, values = _where(query)
    way = "DESC" if query.order.descending else "ASC"
    key = f"{_SORT[query.order.field]} {way}, " if query.order.field else ""
    limit, page = paging(query.order)
    rows = db.execute(
        f"SELECT {_COLUMNS} {where} ORDER BY {key}d.uid {way}{limit}", [*values, *page]
    )
    return [_device(row) for row in rows]


def count(db: sqlite3.Connection, query: DeviceQuery) -> int:
    """Count devices."""
    where, values = _where(query)
    result: int = db.execute(f"SELECT count(*) {where}", values).fetchone()[0]
    return result


def in_group(db: sqlite3.Connection, column: str, group: int) -> list[Device]:
    """Return the devices of a network or device type (``column``)."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM device d WHERE d.{column} = ? ORDER BY d.uid", (group,)
    )
    return [_device(row) for row in rows]


def key(db: sqlite3.Connection, uid: int) -> str | None:
    """Return the hash of the key with which a device authenticates."""
    row = db.execute("SELECT hash FROM device_key WHERE uid = ?", (uid,)).fetchone()
    return None if row is None else row[0]


def set_key(journal: Journal, uid: int, hashed: str) -> None:
    """Keep the hash of a device's key. :raises NotFound: the device is gone."""
    if journal.db.execute("SELECT 1 FROM device WHERE uid = ?", (uid,)).fetchone() is None:
        raise NotFound("device", uid)
    journal.db.execute("INSERT OR REPLACE INTO device_key VALUES (?, ?)", (uid, hashed))
