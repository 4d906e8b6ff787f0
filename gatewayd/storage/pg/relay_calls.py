"""Relayed requests whose answers are kept, in PostgreSQL."""

from __future__ import annotations

from typing import Any

from gatewayd.core.model import BARE_CALL, RelayCall
from gatewayd.storage.pg import devices
from gatewayd.storage.pg.digests import digest
from gatewayd.storage.pg.tx import Tx

_FIELDS = "id, principal, stream, key, digest, created, expires, command, status, headers, body"


def _call(row: tuple[Any, ...]) -> RelayCall:
    return RelayCall(
        id=row[0], principal=row[1], stream=row[2], key=row[3], digest=row[4], created=row[5],
        expires=row[6], command=row[7], status=row[8], headers=row[9], body=row[10],
    )  # fmt: skip


async def get(tx: Tx, call_id: str) -> RelayCall | None:
    """Return a call."""
    rows = await tx.rows(f"SELECT {_FIELDS} FROM relay_call WHERE id = %s", call_id)
    return _call(rows[0]) if rows else None


async def begin(tx: Tx, call: RelayCall) -> RelayCall | None:
    """Keep a call, unless one with its key is known; then return that. :raises NotFound:"""
    await devices.hold(tx, call.stream)
    # Of two that begin at once with one key, the second finds no place, and then the first.
    while True:
        if (known := await _keyed(tx, call)) is not None:
            if known.expires > call.created:
                return known
            await forget(tx, known.id)
        if await _insert(tx, call):
            return None


async def _insert(tx: Tx, call: RelayCall) -> int:
    return await tx.run(
        f"INSERT INTO relay_call ({_FIELDS}, place) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (place) DO NOTHING",
        call.id, call.principal, call.stream, call.key, call.digest, call.created,
        call.expires, call.command, call.status, call.headers, call.body,
        _place(call),
    )  # fmt: skip


def _place(call: RelayCall) -> bytes | None:
    return None if call.key is None else digest(call.principal, call.stream, call.key)


async def _keyed(tx: Tx, call: RelayCall) -> RelayCall | None:
    """Return the call that has the key of this one; None also when it has none."""
    rows = await tx.rows(f"SELECT {_FIELDS} FROM relay_call WHERE place = %s", _place(call))
    return _call(rows[0]) if rows else None


async def end(tx: Tx, call: RelayCall) -> None:
    """Keep what has become of a call, if it is known still."""
    await tx.run(
        "UPDATE relay_call SET command = %s, status = %s, headers = %s, body = %s WHERE id = %s",
        call.command, call.status, call.headers, call.body, call.id,
    )  # fmt: skip


async def forget(tx: Tx, call_id: str) -> None:
    """Forget a call that came to nothing."""
    await tx.run("DELETE FROM relay_call WHERE id = %s", call_id)


async def sweep(tx: Tx, now: int, limit: int) -> int:
    """Forget up to ``limit`` calls that have expired at ``now``, those that did first.

    What another node is about to forget is left to it.
    """
    return await tx.run(
        "DELETE FROM relay_call WHERE id = ANY(ARRAY(SELECT id FROM relay_call "
        "WHERE expires <= %s ORDER BY expires LIMIT %s FOR UPDATE SKIP LOCKED))",
        now, limit,
    )  # fmt: skip


async def kept_bytes(tx: Tx) -> int:
    """Return the size of all calls together. A length is known without reading the bytes."""
    rows = await tx.rows(
        "SELECT count(*) * %s + coalesce(sum(octet_length(headers) + "
        "coalesce(octet_length(body), 0)), 0) FROM relay_call",
        BARE_CALL,
    )
    return int(rows[0][0])
