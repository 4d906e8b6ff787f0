"""The live sessions that were granted something, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from gatewayd.core.grants import Grant, Right, SessionChange, StoredSession
from gatewayd.storage.pg import arrays
from gatewayd.storage.pg.digests import digest
from gatewayd.storage.pg.tx import Tx

# One statement: nothing changes while they are read.
_ALL = (
    "SELECT s.id, s.by_grant, s.met, g.subscribed, g.device, g.access, g.selector "
    "FROM live_session s LEFT JOIN live_session_grant g ON g.session = s.id"
)


async def every(tx: Tx) -> list[StoredSession]:
    """List all of them."""
    return _sessions(await tx.rows(f"{_ALL} ORDER BY s.id"))


async def get(tx: Tx, session_id: str) -> StoredSession | None:
    """Return one."""
    found = _sessions(await tx.rows(f"{_ALL} WHERE s.id = %s", session_id))
    return found[0] if found else None


def _sessions(rows: list[tuple[Any, ...]]) -> list[StoredSession]:
    flags: dict[str, tuple[bool, bool]] = {}
    granted: dict[str, set[Grant]] = {}
    subscribed: dict[str, set[Grant]] = {}
    for id_, by_grant, met, subscription, device, access, selector in rows:
        flags[id_] = (by_grant, met)
        if device is not None:
            grants = subscribed if subscription else granted
            grant = Grant(device=device, right=Right(access), selector=selector)
            grants.setdefault(id_, set()).add(grant)
    return [
        StoredSession(
            id=id_, by_grant=by_grant, met=met,
            grants=frozenset(granted.get(id_, ())),
            subscriptions=frozenset(subscribed.get(id_, ())),
        )
        for id_, (by_grant, met) in flags.items()
    ]  # fmt: skip


async def change(tx: Tx, wanted: SessionChange) -> None:
    """Change one, or store it."""
    await tx.run(
        "INSERT INTO live_session AS known (id, by_grant, met, used) VALUES (%s, %s, %s, %s) "
        "ON CONFLICT (id) DO UPDATE SET by_grant = excluded.by_grant, met = excluded.met, "
        "used = greatest(known.used, excluded.used)",
        wanted.id, wanted.by_grant, wanted.met, wanted.used,
    )  # fmt: skip
    gone = [*_rows(wanted.id, False, wanted.revoked), *_rows(wanted.id, True, wanted.unsubscribed)]
    if gone:
        await tx.run(
            "DELETE FROM live_session_grant WHERE place = ANY(%s::bytea[])",
            [row[0] for row in gone],
        )
    new = [*_rows(wanted.id, False, wanted.granted), *_rows(wanted.id, True, wanted.subscribed)]
    await arrays.write(
        tx,
        "INSERT INTO live_session_grant (place, session, subscribed, device, access, selector) "
        "SELECT * FROM unnest(%s::bytea[], %s::text[], %s::boolean[], %s::text[], %s::text[], "
        "%s::text[]) ON CONFLICT (place) DO NOTHING",
        new,
    )


def _rows(session: str, subscribed: bool, grants: Collection[Grant]) -> list[tuple[Any, ...]]:
    columns = [
        (session, subscribed, grant.device, grant.right.value, grant.selector) for grant in grants
    ]
    return [(digest(*row), *row) for row in columns]


async def drop(tx: Tx, ids: Sequence[str]) -> None:
    """Forget some with all that was granted to them."""
    await _lock(tx, ids)
    await tx.run("DELETE FROM live_session WHERE id = ANY(%s::text[])", [*ids])


async def touch(tx: Tx, ids: Sequence[str], now: int) -> None:
    """Know that some are used."""
    await _lock(tx, ids)
    await tx.run(
        "UPDATE live_session SET used = %s WHERE id = ANY(%s::text[]) AND used < %s",
        now, [*ids], now,
    )  # fmt: skip


async def drop_unused(tx: Tx, ids: Sequence[str], before: int) -> list[str]:
    """Forget those of some that were last used before; return which are gone."""
    await _lock(tx, ids)
    await tx.run(
        "DELETE FROM live_session WHERE id = ANY(%s::text[]) AND used < %s", [*ids], before
    )
    rows = await tx.rows("SELECT id FROM live_session WHERE id = ANY(%s::text[])", [*ids])
    return sorted({*ids}.difference(row[0] for row in rows))


async def _lock(tx: Tx, ids: Sequence[str]) -> None:
    """Lock some in one order: who changes several does not wait in a circle with another."""
    await tx.rows(
        "SELECT 1 FROM live_session WHERE id = ANY(%s::text[]) ORDER BY id FOR UPDATE", [*ids]
    )
