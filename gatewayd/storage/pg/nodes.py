"""The nodes that share a database, each with a lease on its name."""

from __future__ import annotations

from typing import Any

import attrs

from gatewayd.core.cluster import Node
from gatewayd.errors import ConfigError, Superseded
from gatewayd.storage.pg import changes
from gatewayd.storage.pg.frames import CHANNEL, JOINED
from gatewayd.storage.pg.tx import Tx

_ALIVE = "until > clock_timestamp()"
_NEXT = "clock_timestamp() + %s * interval '1 millisecond'"
_FIELDS = (
    f"name, incarnation, advertise, (extract(epoch FROM until) * 1000)::bigint, {_ALIVE} AS alive"
)
# The others notify this one of what they write from now on, and not when they renew next.
_WAKE = f"SELECT pg_notify('{CHANNEL}', '{JOINED}')"
# Who has locked it is the only one to append.
_END = "SELECT 1 FROM log_end FOR UPDATE"
# Plugins that a node had go with its row.
_FORGET = """
    DELETE FROM node n WHERE until < clock_timestamp() - interval '1 day'
    AND NOT EXISTS (SELECT 1 FROM attachment a WHERE a.node = n.name)
"""


@attrs.frozen
class Joined:
    """A lease that was taken, and what was there at that moment.

    :ivar others: whether another node is alive. :ivar change: the number of the last change.
    """

    node: Node
    others: bool
    change: int


def _node(row: tuple[Any, ...]) -> Node:
    name, incarnation, advertise, until, alive = row
    return Node(name=name, incarnation=incarnation, advertise=advertise, until=until, alive=alive)


async def join(
    tx: Tx,
    name: str,
    own: int,
    advertise: str,
    fingerprint: bytes,
    *,
    lease: int,
    by_force: bool,
) -> Joined | int:
    """Take a lease; return it, or until when (ms) the name is somebody else's.

    :param own: the incarnation that this process had before; 0 for none.
    :param lease: ms for which it holds. :param by_force: take it from whoever has it.
    :raises ConfigError: a node that is alive has another fingerprint.
    """
    # What its predecessor is just appending is finished first. Of two that join at once the second
    # sees the first.
    await tx.run(_END)
    await tx.run("LOCK TABLE node IN SHARE ROW EXCLUSIVE MODE")
    await _compare(tx, name, fingerprint)
    known = await tx.rows(f"SELECT {_FIELDS} FROM node WHERE name = %s FOR UPDATE", name)
    if known and not by_force:
        holder = _node(known[0])
        if holder.alive and holder.incarnation != own:
            return holder.until
    await tx.run("DELETE FROM plugin_node WHERE node = %s", name)
    rows = await tx.rows(
        "INSERT INTO node (name, incarnation, advertise, fingerprint, until) "
        f"VALUES (%s, nextval('incarnation'), %s, %s, {_NEXT}) ON CONFLICT (name) DO UPDATE SET "
        "incarnation = excluded.incarnation, advertise = excluded.advertise, "
        f"fingerprint = excluded.fingerprint, until = excluded.until RETURNING {_FIELDS}",
        name, advertise, fingerprint, lease,
    )  # fmt: skip
    await tx.run(_WAKE)
    ((others, change),) = await tx.rows(
        f"SELECT EXISTS (SELECT 1 FROM node WHERE name <> %s AND {_ALIVE}), number FROM change_end",
        name,
    )
    return Joined(_node(rows[0]), others, change)


async def _compare(tx: Tx, name: str, fingerprint: bytes) -> None:
    """See that those who are alive have the same fingerprint. :raises ConfigError:"""
    different = await tx.rows(
        f"SELECT name FROM node WHERE name <> %s AND fingerprint <> %s AND {_ALIVE} "
        "ORDER BY name LIMIT 1",
        name, fingerprint,
    )  # fmt: skip
    if different:
        raise ConfigError(
            f'node "{different[0][0]}", which shares the database, has other secrets: all nodes '
            "need the same cluster key and the same secrets for tokens"
        )


async def renew(tx: Tx, name: str, incarnation: int, lease: int) -> list[Node]:
    """Renew a lease that holds, for ``lease`` ms; return all nodes, by name. :raises Superseded:

    The first of those that are alive forgets what is old.
    """
    held = await tx.run(
        f"UPDATE node SET until = {_NEXT} WHERE name = %s AND incarnation = %s AND {_ALIVE}",
        lease, name, incarnation,
    )  # fmt: skip
    if not held:
        raise Superseded(name)
    nodes = [_node(row) for row in await tx.rows(f"SELECT {_FIELDS} FROM node ORDER BY name")]
    if name == next(node.name for node in nodes if node.alive):
        await tx.run(_FORGET)
        await changes.sweep(tx)
    return nodes


async def leave(tx: Tx, name: str, incarnation: int) -> None:
    """End a lease, and forget the node unless it has attachments."""
    await tx.run(_END)  # or it may have some more in a moment
    mine = await tx.rows(
        "SELECT 1 FROM node WHERE name = %s AND incarnation = %s FOR UPDATE", name, incarnation
    )
    if not mine:
        return
    await tx.run("UPDATE node SET until = clock_timestamp() WHERE name = %s", name)
    await tx.run(
        "DELETE FROM node n WHERE name = %s "
        "AND NOT EXISTS (SELECT 1 FROM attachment a WHERE a.node = n.name)",
        name,
    )
