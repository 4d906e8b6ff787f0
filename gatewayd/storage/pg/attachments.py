"""The live sockets of devices, on whatever node, in PostgreSQL.

Every node that has some has a row in ``node``. A number holds the incarnation of the node in its
upper bits, so that what an earlier one has left behind is told from what it has now.
"""

from __future__ import annotations

from typing import Any

from gatewayd.core.cluster import StoredAttachment
from gatewayd.core.model import Device
from gatewayd.storage.pg.tx import Tx

_COLUMNS = (
    "a.node, a.number, a.protocol, a.epoch, a.since, "
    "d.uid, d.id, d.name, d.network, d.type, d.data, d.blocked"
)
# Of which nodes the attachments from one number on, and below another, live.
_LIVING = """
    SELECT name, incarnation << 32 AS first, (incarnation + 1) << 32 AS next FROM node
    WHERE until > clock_timestamp()
"""
_STRANDED = """
    SELECT name, CASE WHEN until > clock_timestamp() THEN incarnation << 32
    ELSE 9223372036854775807 END AS next FROM node
"""


def _attachment(row: tuple[Any, ...]) -> StoredAttachment:
    uid, id_, name, network, type_, data, blocked = row[5:]
    return StoredAttachment(
        node=row[0], number=row[1], protocol=row[2], epoch=row[3], since=row[4],
        device=Device(
            uid=uid, id=id_, name=name, network=network, type=type_, data=data, blocked=blocked
        ),
    )  # fmt: skip


async def living(tx: Tx) -> list[StoredAttachment]:
    """List those on nodes that are alive. One statement: all of one moment."""
    rows = await tx.rows(
        f"SELECT {_COLUMNS} FROM ({_LIVING}) n "
        "JOIN attachment a ON a.node = n.name AND a.number >= n.first AND a.number < n.next "
        "JOIN device d ON d.uid = a.stream ORDER BY a.node, a.number"
    )
    return [_attachment(row) for row in rows]


async def stranded(tx: Tx, limit: int) -> list[StoredAttachment]:
    """List up to ``limit`` that dead nodes have left behind, or earlier incarnations of living."""
    rows = await tx.rows(
        f"SELECT {_COLUMNS} FROM ({_STRANDED}) n "
        "JOIN attachment a ON a.node = n.name AND a.number < n.next "
        "JOIN device d ON d.uid = a.stream ORDER BY a.node, a.number LIMIT %s",
        limit,
    )
    return [_attachment(row) for row in rows]
