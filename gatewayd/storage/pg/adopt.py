"""Taking over what another server kept, in PostgreSQL."""

from __future__ import annotations

from typing import Any

from gatewayd.core.estate import Estate
from gatewayd.core.model import Device, Group, User
from gatewayd.errors import Invalid
from gatewayd.storage.pg import arrays, settings
from gatewayd.storage.pg.tx import Tx

_EMPTY = (
    "SELECT NOT EXISTS (SELECT 1 FROM users) AND NOT EXISTS (SELECT 1 FROM network) "
    "AND NOT EXISTS (SELECT 1 FROM device_type) AND NOT EXISTS (SELECT 1 FROM device)"
)


async def adopt(tx: Tx, estate: Estate) -> bool:
    """Insert an estate with its ids, unless there is one already. :raises Invalid:"""
    if not await _empty(tx):
        return False
    # Now nobody else writes, and what others have written meanwhile is seen.
    await tx.run("LOCK TABLE users, network, device_type, device IN EXCLUSIVE MODE")
    if not await _empty(tx):
        return False
    await _add_groups(tx, "network", estate.networks)
    await _add_groups(tx, "device_type", estate.types)
    await _add_users(tx, estate.users)
    await _link(
        tx, "user_network", "network", [(u.id, n) for u in estate.users for n in u.networks]
    )
    await _link(
        tx, "user_device_type", "device_type", [(u.id, t) for u in estate.users for t in u.types]
    )
    await _add_devices(tx, estate.devices)
    for name, value in estate.settings.items():
        await settings.put(tx, name, value)
    return True


async def _empty(tx: Tx) -> bool:
    rows = await tx.rows(_EMPTY)
    empty: bool = rows[0][0]
    return empty


async def _insert(tx: Tx, sql: str, rows: list[tuple[Any, ...]], rule: str) -> None:
    """Insert rows, whose columns are the statement's arrays; those left out break the rule."""
    if await arrays.write(tx, sql, rows) != len(rows):
        raise Invalid("estate", "rows", rule=rule)


async def _count_on(tx: Tx, table: str, column: str, ids: list[int]) -> None:
    """Let a table go on above the highest id that was given to it, or that it ever gave out."""
    if ids:
        sequence = f"pg_get_serial_sequence('{table}', '{column}')"
        await tx.rows(f"SELECT setval({sequence}, greatest(nextval({sequence}) - 1, %s))", max(ids))


async def _add_groups(tx: Tx, table: str, groups: list[Group]) -> None:
    await _insert(
        tx,
        f"INSERT INTO {table} (id, name, description) "
        "SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[]) ON CONFLICT DO NOTHING",
        [(group.id, group.name, group.description) for group in groups],
        f"something in {table} is there twice",
    )
    await _count_on(tx, table, "id", [group.id for group in groups])


async def _add_users(tx: Tx, users: list[User]) -> None:
    await _insert(
        tx,
        "INSERT INTO users (id, login, role, status, password, last_login, attempts, data, "
        "intro_reviewed, all_types) SELECT * FROM unnest(%s::bigint[], %s::text[], "
        "%s::smallint[], %s::smallint[], %s::text[], %s::bigint[], %s::bigint[], %s::bytea[], "
        "%s::boolean[], %s::boolean[]) ON CONFLICT DO NOTHING",
        [
            (
                user.id, user.login, int(user.role), int(user.status), user.password,
                user.last_login, user.attempts, user.data, user.intro_reviewed, user.all_types,
            )
            for user in users
        ],
        "a user is there twice",
    )  # fmt: skip
    await _count_on(tx, "users", "id", [user.id for user in users])


async def _link(tx: Tx, table: str, column: str, links: list[tuple[Any, ...]]) -> None:
    await _insert(
        tx,
        f"INSERT INTO {table} (user_id, {column}) SELECT link.* "
        f"FROM unnest(%s::bigint[], %s::bigint[]) AS link (user_id, id) JOIN {column} USING (id)",
        links,
        f"a user's {column} is not there",
    )


async def _add_devices(tx: Tx, devices: list[Device]) -> None:
    await _insert(
        tx,
        "INSERT INTO device (uid, id, id_fold, name, network, type, data, blocked) SELECT new.* "
        "FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::bigint[], "
        "%s::bigint[], %s::bytea[], %s::boolean[]) "
        "AS new (uid, id, id_fold, name, network, type, data, blocked) "
        "JOIN network n ON n.id = new.network JOIN device_type t ON t.id = new.type "
        "ON CONFLICT DO NOTHING",
        [
            (
                device.uid, device.id, device.id.upper(), device.name, device.network,
                device.type, device.data, device.blocked,
            )
            for device in devices
        ],
        "a device is there twice, or in what is not there",
    )  # fmt: skip
    uids = [device.uid for device in devices]
    await tx.run("INSERT INTO stream (uid) SELECT unnest(%s::bigint[])", uids)
    await _count_on(tx, "device", "uid", uids)
