"""Keys and passwords that are shown to nobody, in PostgreSQL."""

from __future__ import annotations

from gatewayd.core.model import DeviceLogin, SigningKey
from gatewayd.errors import Duplicate
from gatewayd.storage.pg import devices
from gatewayd.storage.pg.tx import Tx


async def signing_keys(tx: Tx) -> list[SigningKey]:
    """List the keys that sign tokens, oldest first."""
    rows = await tx.rows("SELECT kid, pem, created FROM signing_key ORDER BY created, number")
    return [SigningKey(kid=row[0], pem=row[1], created=row[2]) for row in rows]


async def add_signing_key(tx: Tx, key: SigningKey) -> None:
    """Keep a key. :raises Duplicate: there is one of that name."""
    added = await tx.run(
        "INSERT INTO signing_key (kid, pem, created) VALUES (%s, %s, %s) "
        "ON CONFLICT (kid) DO NOTHING",
        key.kid, key.pem, key.created,
    )  # fmt: skip
    if not added:
        raise Duplicate("signing key", key.kid)


async def drop_signing_key(tx: Tx, kid: str) -> bool:
    """Forget a key."""
    return bool(await tx.run("DELETE FROM signing_key WHERE kid = %s", kid))


async def device_login(tx: Tx, uid: int) -> DeviceLogin | None:
    """Return how a device lets the gateway in."""
    rows = await tx.rows(
        "SELECT base_url, username, password, ca FROM device_login WHERE uid = %s", uid
    )
    if not rows:
        return None
    base_url, username, password, ca = rows[0]
    return DeviceLogin(base_url=base_url, username=username, password=password, ca=ca)


async def set_device_login(tx: Tx, uid: int, login: DeviceLogin | None) -> None:
    """Keep or forget how a device lets the gateway in. :raises NotFound: it is gone."""
    await devices.hold(tx, uid)
    if login is None:
        await tx.run("DELETE FROM device_login WHERE uid = %s", uid)
        return
    await tx.run(
        "INSERT INTO device_login (uid, base_url, username, password, ca) "
        "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (uid) DO UPDATE SET "
        "base_url = excluded.base_url, username = excluded.username, "
        "password = excluded.password, ca = excluded.ca",
        uid, login.base_url, login.username, login.password, login.ca,
    )  # fmt: skip


async def device_secret(tx: Tx, uid: int) -> bytes | None:
    """Return the key with which a device signs what it sends."""
    rows = await tx.rows("SELECT secret FROM device_secret WHERE uid = %s", uid)
    return rows[0][0] if rows else None


async def set_device_secret(tx: Tx, uid: int, secret: bytes | None) -> None:
    """Keep or forget the key with which a device signs. :raises NotFound: it is gone."""
    await devices.hold(tx, uid)
    if secret is None:
        await tx.run("DELETE FROM device_secret WHERE uid = %s", uid)
        return
    await tx.run(
        "INSERT INTO device_secret (uid, secret) VALUES (%s, %s) "
        "ON CONFLICT (uid) DO UPDATE SET secret = excluded.secret",
        uid, secret,
    )  # fmt: skip


async def secret(tx: Tx, name: str) -> bytes | None:
    """Return a secret of the gateway's own."""
    rows = await tx.rows("SELECT secret FROM secret WHERE name = %s", name)
    return rows[0][0] if rows else None


async def keep_secret(tx: Tx, name: str, new: bytes) -> bytes:
    """Keep a secret unless there is one of that name; return the one that is kept."""
    await tx.run(
        "INSERT INTO secret (name, secret) VALUES (%s, %s) ON CONFLICT (name) DO NOTHING",
        name, new,
    )  # fmt: skip
    kept = await secret(tx, name)
    assert kept is not None
    return kept
