"""Connections that are sent the same frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from gatewayd.api.ux4iot import messages
from gatewayd.core.grants import Right
from gatewayd.transport.socketio.connection import Connection
from gatewayd.transport.socketio.packets import Batch, Prepared, event_packet


class Audience(NamedTuple):
    """What those have in common who are sent the same frames of a device.

    :ivar device: its id, as they spell it.
    :ivar namespace: of their connections.
    :ivar by_grant: whether they speak the older dialect.
    :ivar keys: for telemetry: the keys that they want; None for all.
    :ivar ordered: for telemetry that is held back: what must not overtake it.
    """

    device: str
    namespace: str
    by_grant: bool
    keys: frozenset[str] | None = None
    ordered: frozenset[Right] = frozenset()

    def choose(self, values: Mapping[str, msgspec.Raw]) -> Mapping[str, msgspec.Raw]:
        """Return the values of the keys that are wanted."""
        keys = self.keys
        if keys is None:
            return values
        return {key: value for key, value in values.items() if key in keys}

    def packet(self, data: bytes) -> Prepared:
        """Return a message as it is sent."""
        return event_packet(self.namespace, messages.DATA, data)

    def telemetry(self, values: Mapping[str, msgspec.Raw], stamp: int) -> list[Prepared]:
        """Return values as they are sent: together, in the older dialect each by itself.

        :param stamp: ms since the epoch.
        """
        parts = [{key: value} for key, value in values.items()] if self.by_grant else [values]
        return [self.packet(messages.telemetry(self.device, part, stamp)) for part in parts]


class Group:
    """An audience.

    :ivar held: whether telemetry is held back, see :class:`Coalescing`.
    :ivar waiting: what is held back. :ivar stamp: the time of the last of it, ms.
    """

    __slots__ = ("_connections", "_members", "audience", "held", "stamp", "waiting")

    def __init__(self, audience: Audience) -> None:
        self.audience = audience
        self.held = False
        self.waiting: dict[str, msgspec.Raw] = {}
        self.stamp = 0
        self._members: dict[Connection, None] = {}
        self._connections: tuple[Connection, ...] | None = None

    def __len__(self) -> int:
        return len(self._members)

    def add(self, connection: Connection) -> None:
        """Take a connection in."""
        self._members[connection] = None
        self._connections = None

    def remove(self, connection: Connection) -> None:
        """Let a connection go."""
        del self._members[connection]
        self._connections = None

    def send(self, batch: Batch) -> None:
        """Send frames to all."""
        connections = self._connections
        if connections is None:
            # Sending may close one, which takes it out of the members.
            connections = self._connections = tuple(self._members)
        for connection in connections:
            connection.send_all(batch)
