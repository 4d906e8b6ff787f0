"""Connections to devices that wait for another exchange."""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from gatewayd.device.connection import Connection
from gatewayd.device.destination import Destination
from gatewayd.device.rules import HttpRules


class Pool:
    """Keeps connections for a while."""

    def __init__(self, clock: IReactorTime, rules: HttpRules) -> None:
        self._clock = clock
        self._rules = rules
        #: Every connection that is kept, the longest kept first.
        self._timers: dict[Connection, IDelayedCall] = {}
        self._kept: dict[Destination, list[Connection]] = {}
        self._closed = False

    def take(self, destination: Destination) -> Connection | None:
        """Return the connection to a destination that was used last, None when there is none."""
        kept = self._kept.get(destination)
        if not kept:
            return None
        connection = kept[-1]
        self.forget(connection)
        return connection

    def give(self, connection: Connection) -> None:
        """See :class:`~gatewayd.device.connection.Owner`."""
        kept = self._kept.setdefault(connection.destination, [])
        kept.append(connection)
        self._timers[connection] = self._clock.callLater(self._rules.kept_idle, connection.close)
        if self._closed or len(kept) > self._rules.kept_each:
            kept[0].close()
        elif len(self._timers) > self._rules.kept:
            next(iter(self._timers)).close()

    def forget(self, connection: Connection) -> None:
        """See :class:`~gatewayd.device.connection.Owner`."""
        timer = self._timers.pop(connection, None)
        if timer is None:
            return
        if timer.active():
            timer.cancel()
        kept = self._kept[connection.destination]
        kept.remove(connection)
        if not kept:
            del self._kept[connection.destination]

    def close(self) -> None:
        """Close every connection, also those that are given back later."""
        self._closed = True
        for connection in list(self._timers):
            connection.abort()
