"""How the releases of the iotkit dashboard keep the connections of their devices."""

from __future__ import annotations

from typing import Protocol
from uuid import uuid4

import attrs

from gatewayd.storage.postgres import Refused, Session


class BindingTable(Protocol):
    """Where it is kept which server a device is connected to."""

    async def write(self, session: Session, device_id: str, server: str, status: bool) -> None:
        """Write whether a device is connected to a server.

        :raises Refused: the dashboard does not take it, or has no such device. :raises Lost:
        """


class FunctionTable:
    """The dashboards until 2019 bring a function for it.

    They do not look who else has written: a device that has moved on to another server must not be
    written as disconnected from this one later.
    """

    async def write(self, session: Session, device_id: str, server: str, status: bool) -> None:
        """See :class:`BindingTable`."""
        rows = await session.run(
            "SELECT * FROM dashboard.update_device_connection"
            "(%(device)s, %(server)s, %(status)s, 'ws')",
            {"device": device_id, "server": server, "status": status},
        )
        if not rows:
            raise Refused("the dashboard has no such device")


@attrs.frozen
class PlainTable:
    """A table that servers write themselves, one row for each device and kind of transport.

    A device that is connected to another server by now stays so.

    :ivar connect: the statement that writes a connection; no row: there is no such device.
    :ivar disconnect: the statement that ends it, and keeps when it was made.
    """

    connect: str
    disconnect: str

    async def write(self, session: Session, device_id: str, server: str, status: bool) -> None:
        """See :class:`BindingTable`."""
        values = {"id": str(uuid4()), "device": device_id, "server": server}
        rows = await session.run(self.connect if status else self.disconnect, values)
        if status and not rows:
            raise Refused("the dashboard has no such device")


_BY_DEVICE_ID = PlainTable(
    connect="""
        INSERT INTO dashboard."connectionBindings"
            (id, "deviceId", "lastConnectedAt", server, "connectingStatus", type, created, updated)
        VALUES (%(id)s, %(device)s, now(), %(server)s, true, 'ws', now(), now())
        ON CONFLICT ("deviceId", type) DO UPDATE SET
            "lastConnectedAt" = EXCLUDED."lastConnectedAt", server = EXCLUDED.server,
            "connectingStatus" = EXCLUDED."connectingStatus", updated = EXCLUDED.updated
        RETURNING id
    """,
    disconnect="""
        UPDATE dashboard."connectionBindings" SET "connectingStatus" = false, updated = now()
        WHERE "deviceId" = %(device)s AND type = 'ws' AND server = %(server)s
        RETURNING id
    """,
)
# Two accounts may each have a device of the same id; which of them this is, nobody can tell.
_BY_UID = PlainTable(
    connect="""
        INSERT INTO dashboard."connectionBindings"
            (id, "deviceUID", "lastConnectedAt", server, "connectingStatus", type, created, updated)
        SELECT %(id)s::uuid, d.uid, now(), %(server)s, true, 'ws', now(), now()
        FROM dashboard.devices d WHERE d.id = %(device)s AND NOT EXISTS
            (SELECT FROM dashboard.devices other WHERE other.id = d.id AND other.uid <> d.uid)
        ON CONFLICT ("deviceUID", type) DO UPDATE SET
            "lastConnectedAt" = EXCLUDED."lastConnectedAt", server = EXCLUDED.server,
            "connectingStatus" = EXCLUDED."connectingStatus", updated = EXCLUDED.updated
        RETURNING id
    """,
    disconnect="""
        UPDATE dashboard."connectionBindings" SET "connectingStatus" = false, updated = now()
        WHERE "deviceUID" IN (SELECT uid FROM dashboard.devices WHERE id = %(device)s)
            AND type = 'ws' AND server = %(server)s
        RETURNING id
    """,
)
#: By the names that settings have for them.
BINDING_TABLES: dict[str, BindingTable] = {
    "function": FunctionTable(),
    "table": _BY_DEVICE_ID,
    "uid": _BY_UID,
}
