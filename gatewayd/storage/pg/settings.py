"""Named settings in PostgreSQL."""

from __future__ import annotations

from gatewayd.core.model import Setting
from gatewayd.storage.pg.tx import Tx

_FIELDS = "id, name, value, version"


async def get(tx: Tx, name: str) -> Setting | None:
    """Return a named setting."""
    rows = await tx.rows(f"SELECT {_FIELDS} FROM configuration WHERE name = %s", name)
    return _setting(*rows[0]) if rows else None


def _setting(id_: int, name: str, value: str, version: int) -> Setting:
    return Setting(id=id_, name=name, value=value, version=version)


async def put(tx: Tx, name: str, value: str) -> Setting:
    """Insert a setting with version 0, or replace it and count its version up."""
    rows = await tx.rows(
        "INSERT INTO configuration AS known (name, value) VALUES (%s, %s) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value, version = known.version + 1 "
        f"RETURNING {_FIELDS}",
        name, value,
    )  # fmt: skip
    return _setting(*rows[0])


async def delete(tx: Tx, name: str) -> bool:
    """Delete a named setting."""
    return bool(await tx.run("DELETE FROM configuration WHERE name = %s", name))
