"""Keys and passwords that are shown to nobody, in SQLite."""

from __future__ import annotations

import sqlite3

from gatewayd.core.model import DeviceLogin, SigningKey
from gatewayd.errors import Duplicate, NotFound
from gatewayd.storage.journal import Journal


def signing_keys(db: sqlite3.Connection) -> list[SigningKey]:
    """List the keys that sign tokens, oldest first."""
    rows = db.execute("SELECT kid, pem, created FROM signing_key ORDER BY created, rowid")
    return [SigningKey(kid=row[0], pem=row[1], created=row[2]) for row in rows]


def add_signing_key(journal: Journal, key: SigningKey) -> None:
    """Keep a key. :raises Duplicate: there is one of that name."""
    db = journal.db
    if db.execute("SELECT 1 FROM signing_key WHERE kid = ?", (key.kid,)).fetchone() is not None:
        raise Duplicate("signing key", key.kid)
    db.execute(
        "INSERT INTO signing_key (kid, pem, created) VALUES (?, ?, ?)",
        (key.kid, key.pem, key.created),
    )


def drop_signing_key(journal: Journal, kid: str) -> bool:
    """Forget a key."""
    return bool(journal.db.execute("DELETE FROM signing_key WHERE kid = ?", (kid,)).rowcount)


def device_login(db: sqlite3.Connection, uid: int) -> DeviceLogin | None:
    """Return how a device lets the gateway in."""
    row = db.execute(
        "SELECT base_url, username, password, ca FROM device_login WHERE uid = ?", (uid,)
    ).fetchone()
    if row is None:
        return None
    return DeviceLogin(base_url=row[0], username=row[1], password=row[2], ca=row[3])


def set_device_login(journal: Journal, uid: int, login: DeviceLogin | None) -> None:
    """Keep or forget how a device lets the gateway in. :raises NotFound: it is gone."""
    db = journal.db
    _check_device(db, uid)
    if login is None:
        db.execute("DELETE FROM device_login WHERE uid = ?", (uid,))
        return
    db.execute(
        "INSERT OR REPLACE INTO device_login (uid, base_url, username, password, ca) "
        "VALUES (?, ?, ?, ?, ?)",
        (uid, login.base_url, login.username, login.password, login.ca),
    )


def device_secret(db: sqlite3.Connection, uid: int) -> bytes | None:
    """Return the key with which a device signs what it sends."""
    row = db.execute("SELECT secret FROM device_secret WHERE uid = ?", (uid,)).fetchone()
    return None if row is None else row[0]


def set_device_secret(journal: Journal, uid: int, secret: bytes | None) -> None:
    """Keep or forget the key with which a device signs. :raises NotFound: it is gone."""
    db = journal.db
    _check_device(db, uid)
    if secret is None:
        db.execute("DELETE FROM device_secret WHERE uid = ?", (uid,))
    else:
        db.execute("INSERT OR REPLACE INTO device_secret VALUES (?, ?)", (uid, secret))


def _check_device(db: sqlite3.Connection, uid: int) -> None:
    if db.execute("SELECT 1 FROM device WHERE uid = ?", (uid,)).fetchone() is None:
        raise NotFound("device", uid)


def secret(db: sqlite3.Connection, name: str) -> bytes | None:
    """Return a secret of the gateway's own."""
    row = db.execute("SELECT secret FROM secret WHERE name = ?", (name,)).fetchone()
    return None if row is None else row[0]


def keep_secret(journal: Journal, name: str, new: bytes) -> bytes:
    """Keep a secret unless there is one of that name; return the one that is kept."""
    journal.db.execute("INSERT OR IGNORE INTO secret VALUES (?, ?)", (name, new))
    kept = secret(journal.db, name)
    assert kept is not None
    return kept
