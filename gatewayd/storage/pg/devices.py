"""Devices in PostgreSQL.

Who changes several rows takes their locks in one order, so that nobody waits in a circle: networks
and device types, timelines by uid, devices, and then what belongs to them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from gatewayd.core.model import Device
from gatewayd.core.queries import DeviceQuery, Order
from gatewayd.errors import Conflict, Invalid, NotFound
from gatewayd.storage.pg import names
from gatewayd.storage.pg.tx import Tx

_COLUMNS = "d.uid, d.id, d.name, d.network, d.type, d.data, d.blocked"
_CHANGING = "name, network, type, data, blocked"


def _device(row: tuple[Any, ...]) -> Device:
    return Device(
        uid=row[0], id=row[1], name=row[2], network=row[3], type=row[4], data=row[5],
        blocked=row[6],
    )  # fmt: skip


def paging(order: Order) -> tuple[str, list[int | None]]:
    """Return the LIMIT of an order."""
    return " LIMIT %s OFFSET %s", [order.take, order.skip]


async def get(tx: Tx, device_id: str) -> Device | None:
    """Return the device with that id, ignoring case."""
    rows = await tx.rows(f"SELECT {_COLUMNS} FROM device d WHERE d.id_fold = %s", device_id.upper())
    return _device(rows[0]) if rows else None


async def save(tx: Tx, device: Device, was: Device | None = None) -> Device:
    """Insert a device, or change the one that was read as ``was``.

    :raises Conflict: :raises Invalid: :raises NotFound:
    """
    for field, table, key in (
        ("network", "network", device.network),
        ("type", "device_type", device.type),
    ):
        if not await tx.rows(f"SELECT 1 FROM {table} WHERE id = %s FOR KEY SHARE", key):
            raise Invalid("device", field, key, "unknown")
    if was is None:
        return await _register(tx, device)
    rows = await tx.rows(
        f"UPDATE device d SET ({_CHANGING}) = (%s, %s, %s, %s, %s) "
        f"WHERE d.uid = %s AND ({_CHANGING}) IS NOT DISTINCT FROM (%s, %s, %s, %s, %s) "
        f"RETURNING {_COLUMNS}",
        *_values(device), was.uid, *_values(was),
    )  # fmt: skip
    if rows:
        return _device(rows[0])
    if await tx.rows("SELECT 1 FROM device WHERE uid = %s", was.uid):
        raise Conflict("version")
    raise NotFound("device", was.id)


def _values(device: Device) -> tuple[Any, ...]:
    return (device.name, device.network, device.type, device.data, device.blocked)


async def _register(tx: Tx, device: Device) -> Device:
    """Insert a device with its timeline. :raises Conflict: there is one that has its id."""
    rows = await tx.rows(
        f"INSERT INTO device AS d ({_CHANGING}, id, id_fold) VALUES (%s, %s, %s, %s, %s, %s, %s) "
        f"ON CONFLICT (id_fold) DO NOTHING RETURNING {_COLUMNS}",
        *_values(device), device.id, device.id.upper(),
    )  # fmt: skip
    if not rows:
        raise Conflict("version")
    saved = _device(rows[0])
    await tx.run("INSERT INTO stream (uid) VALUES (%s)", saved.uid)
    return saved


async def delete(tx: Tx, uid: int) -> list[Device]:
    """Delete a device and return it; its timeline is orphaned, and dropped by the sweeper."""
    return await delete_from(tx, [uid], "uid", uid)


async def delete_from(tx: Tx, uids: list[int], column: str, expected: int) -> list[Device]:
    """Delete those devices whose ``column`` still has the expected value; return them by uid."""
    await tx.rows(
        "SELECT 1 FROM stream WHERE uid = ANY(%s::bigint[]) ORDER BY uid FOR UPDATE", uids
    )
    rows = await tx.rows(
        f"DELETE FROM device d WHERE d.uid = ANY(%s::bigint[]) AND d.{column} = %s "
        f"RETURNING {_COLUMNS}",
        uids, expected,
    )  # fmt: skip
    gone = sorted(map(_device, rows), key=lambda device: device.uid)
    await tx.run(
        "INSERT INTO orphan (stream) SELECT unnest(%s::bigint[]) ON CONFLICT DO NOTHING",
        [device.uid for device in gone],
    )
    return gone


_SORT = {"name": "d.name", "status": "d.blocked", "network": "n.name", "devicetype": "t.name"}


def _where(query: DeviceQuery) -> tuple[str, list[Any]]:
    where = ["TRUE"]
    values: list[Any] = []
    for condition, value in (
        ("d.name = %s", query.name),
        (names.like("d.name"), query.pattern),
        ("d.network = %s", query.network),
        ("n.name = %s", query.network_name),
        ("d.uid = %s", query.stream),
    ):
        if value is not None:
            where.append(condition)
            values.append(value)
    allowed: Collection[Any] | None
    for condition, allowed in (
        ("d.network = ANY(%s::bigint[])", query.networks),
        ("d.type = ANY(%s::bigint[])", query.types),
        ("d.id_fold = ANY(%s::text[])", query.ids),
    ):
        if allowed is not None:
            where.append(condition)
            values.append([*allowed])
    return (
        "FROM device d JOIN network n ON n.id = d.network JOIN device_type t ON t.id = d.type "
        f"WHERE {' AND '.join(where)}",
        values,
    )


async def find(tx: Tx, query: DeviceQuery) -> list[Device]:
    """List devices."""
    where, values = _where(query)
    way = "DESC" if query.order.descending else "ASC"
    key = f"{_SORT[query.order.field]} {way}, " if query.order.field else ""
    limit, page = paging(query.order)
    rows = await tx.rows(
        f"SELECT {_COLUMNS} {where} ORDER BY {key}d.uid {way}{limit}", *values, *page
    )
    return [_device(row) for row in rows]


async def count(tx: Tx, query: DeviceQuery) -> int:
    """Count devices."""
    where, values = _where(query)
    rows = await tx.rows(f"SELECT count(*) {where}", *values)
    result: int = rows[0][0]
    return result


async def in_group(tx: Tx, column: str, group: int) -> list[Device]:
    """Return the devices of a network or device type (``column``)."""
    rows = await tx.rows(
        f"SELECT {_COLUMNS} FROM device d WHERE d.{column} = %s ORDER BY d.uid", group
    )
    return [_device(row) for row in rows]


async def hold(tx: Tx, uid: int) -> None:
    """Keep a device from being deleted until the transaction ends. :raises NotFound: it is gone."""
    if not await tx.rows("SELECT 1 FROM device WHERE uid = %s FOR KEY SHARE", uid):
        raise NotFound("device", uid)


async def key(tx: Tx, uid: int) -> str | None:
    """Return the hash of the key with which a device authenticates."""
    rows = await tx.rows("SELECT hash FROM device_key WHERE uid = %s", uid)
    return rows[0][0] if rows else None


async def set_key(tx: Tx, uid: int, hashed: str) -> None:
    """Keep the hash of a device's key. :raises NotFound: the device is gone."""
    await hold(tx, uid)
    await tx.run(
        "INSERT INTO device_key (uid, hash) VALUES (%s, %s) "
        "ON CONFLICT (uid) DO UPDATE SET hash = excluded.hash",
        uid, hashed,
    )  # fmt: skip
