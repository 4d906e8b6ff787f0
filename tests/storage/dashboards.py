"""The part of an iotkit dashboard's database that a gateway meets, for each way of keeping it."""

from __future__ import annotations

from typing import NamedTuple
from uuid import NAMESPACE_URL, uuid5

from tests.storage.postgres import PostgresServer

_SCHEMA = """
DROP SCHEMA IF EXISTS dashboard CASCADE;
CREATE SCHEMA dashboard;
GRANT USAGE ON SCHEMA dashboard TO gateway;
CREATE TYPE dashboard.enum_transport_type AS ENUM ('mqtt', 'ws');
"""
_BY_ID = """
CREATE TABLE dashboard.devices (id varchar(255) PRIMARY KEY);
CREATE TABLE dashboard."connectionBindings" (
    id uuid PRIMARY KEY,
    "deviceId" varchar(255) NOT NULL REFERENCES dashboard.devices (id),
    "lastConnectedAt" timestamptz NOT NULL,
    server varchar(255) NOT NULL,
    "connectingStatus" boolean DEFAULT false,
    type dashboard.enum_transport_type,
    created timestamptz,
    updated timestamptz,
    UNIQUE ("deviceId", type)
);
"""
_FUNCTION = """
CREATE FUNCTION dashboard.update_device_connection(
    device varchar, at_server varchar, status boolean, transport dashboard.enum_transport_type)
RETURNS SETOF dashboard."connectionBindings" SECURITY DEFINER LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM dashboard.devices WHERE id = device) THEN
        RETURN;
    END IF;
    RETURN QUERY INSERT INTO dashboard."connectionBindings" AS b
    VALUES (gen_random_uuid(), device, now(), at_server, status, transport, now(), now())
    ON CONFLICT ("deviceId", type) DO UPDATE SET server = at_server,
        "connectingStatus" = status, updated = now(),
        "lastConnectedAt" = CASE WHEN status THEN now() ELSE b."lastConnectedAt" END
    RETURNING *;
END $$;
"""
_BY_UID = """
CREATE TABLE dashboard.devices (
    uid uuid PRIMARY KEY, id varchar(255) NOT NULL, "accountId" uuid, UNIQUE (id, "accountId"));
CREATE TABLE dashboard."connectionBindings" (
    id uuid PRIMARY KEY,
    "deviceUID" uuid NOT NULL REFERENCES dashboard.devices (uid),
    "lastConnectedAt" timestamptz NOT NULL,
    server varchar(255) NOT NULL,
    "connectingStatus" boolean DEFAULT false,
    type dashboard.enum_transport_type,
    created timestamptz,
    updated timestamptz,
    UNIQUE ("deviceUID", type)
);
"""
_RIGHTS = """
GRANT SELECT, INSERT, UPDATE ON dashboard."connectionBindings" TO gateway;
GRANT SELECT ON dashboard.devices TO gateway;
"""
SCHEMAS = {
    "function": _SCHEMA + _BY_ID + _FUNCTION,
    "table": _SCHEMA + _BY_ID + _RIGHTS,
    "uid": _SCHEMA + _BY_UID + _RIGHTS,
}


class Row(NamedTuple):
    """A row of the dashboard's table; times as they come."""

    id: str
    server: str
    status: bool
    connected_at: object
    created: object
    updated: object


class Dashboard:
    """A new schema in a server."""

    def __init__(self, server: PostgresServer, flavour: str) -> None:
        self.server = server
        self.flavour = flavour
        server.execute(SCHEMAS[flavour])

    def add(self, device_id: str, account: str = "account") -> None:
        """Add a device to the dashboard."""
        if self.flavour == "uid":
            uid, owner = (
                str(uuid5(NAMESPACE_URL, name)) for name in (account + device_id, account)
            )
            self.server.execute(
                "INSERT INTO dashboard.devices VALUES (%s, %s, %s)", uid, device_id, owner
            )
        else:
            self.server.execute("INSERT INTO dashboard.devices VALUES (%s)", device_id)

    def row(self, device_id: str) -> Row | None:
        """Return the row of a device; the dashboard looks for its transport, too."""
        key = '"deviceUID"' if self.flavour == "uid" else '"deviceId"'
        column = "d.uid" if self.flavour == "uid" else "d.id"
        rows = self.server.execute(
            f'SELECT b.id, server, "connectingStatus", "lastConnectedAt", created, updated '
            f'FROM dashboard."connectionBindings" b JOIN dashboard.devices d ON {key} = {column} '
            "WHERE d.id = %s AND type = 'ws'",
            device_id,
        )
        return Row(*rows[0]) if rows else None

    def status(self, device_id: str) -> bool | None:
        """Return whether a device is connected, None when it has no row."""
        row = self.row(device_id)
        return None if row is None else row.status

    def count(self, status: bool) -> int:
        """Count the devices that are connected, or are not."""
        ((count,),) = self.server.execute(
            'SELECT count(*) FROM dashboard."connectionBindings" WHERE "connectingStatus" = %s',
            status,
        )
        return int(count)
