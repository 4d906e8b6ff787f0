"""Taking over what another server kept, in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from gatewayd.core.estate import Estate
from gatewayd.core.model import Device, Group, User
from gatewayd.errors import Invalid
from gatewayd.storage import configuration
from gatewayd.storage.journal import Journal

_EMPTY = ("user", "network", "device_type", "device")


def adopt(journal: Journal, estate: Estate) -> bool:
    """Insert an estate with its ids, unless there is one already. :raises Invalid:

    AUTOINCREMENT goes on above the highest id of a table, also above one that was given to it.
    """
    db = journal.db
    if any(db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in _EMPTY):
        return False
    try:
        _add_groups(db, "network", estate.networks)
        _add_groups(db, "device_type", estate.types)
        _add_users(db, estate.users)
        _add_devices(db, estate.devices)
    except sqlite3.IntegrityError as error:
        raise Invalid("estate", "rows", rule=str(error)) from None
    for name, value in estate.settings.items():
        configuration.put(journal, name, value)
    return True


def _insert(db: sqlite3.Connection, table: str, columns: str, rows: Iterable[Any]) -> None:
    places = ", ".join("?" * len(columns.split(", ")))
    db.executemany(f"INSERT INTO {table} ({columns}) VALUES ({places})", rows)


def _add_groups(db: sqlite3.Connection, table: str, groups: list[Group]) -> None:
    rows = [(group.id, group.name, group.description) for group in groups]
    _insert(db, table, "id, name, description", rows)


def _add_users(db: sqlite3.Connection, users: list[User]) -> None:
    columns = (
        "id, login, role, status, password, last_login, attempts, data, intro_reviewed, all_types"
    )
    rows = [
        (
            user.id, user.login, int(user.role), int(user.status), user.password, user.last_login,
            user.attempts, user.data, int(user.intro_reviewed), int(user.all_types),
        )
        for user in users
    ]  # fmt: skip
    _insert(db, "user", columns, rows)
    networks = [(user.id, network) for user in users for network in user.networks]
    _insert(db, "user_network", "user, network", networks)
    types = [(user.id, type_) for user in users for type_ in user.types]
    _insert(db, "user_device_type", "user, device_type", types)


def _add_devices(db: sqlite3.Connection, devices: list[Device]) -> None:
    rows = [
        (
            device.uid, device.id, device.id.upper(), device.name, device.network, device.type,
            device.data, int(device.blocked),
        )
        for device in devices
    ]  # fmt: skip
    _insert(db, "device", "uid, id, id_fold, name, network, type, data, blocked", rows)
    _insert(db, "stream", "uid", [(device.uid,) for device in devices])
