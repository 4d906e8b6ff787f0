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
        #: Every connection that is kept, the longest kept first, and until when.
        self._until: dict[Connection, float] = {}
        self._kept: dict[Destination, list[Connection]] = {}
        #: One timer for all, which is left as it is when a connection is taken.
        self._timer: IDelayedCall | None = None
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
        self._until[connection] = self._clock.seconds() + self._rules.kept_idle
        if self._closed or len(kept) > self._rules.kept_each:
            kept[0].close()
        elif len(self._until) > self._rules.kept:
            next(iter(self._until)).close()
        if self._timer is None and not self._closed:
            self._timer = self._clock.callLater(self._rules.kept_idle, self._expire)

    def forget(self, connection: Connection) -> None:
        """See :class:`~gatewayd.device.connection.Owner`."""
        if self._until.pop(connection, None) is None:
            return
        kept = self._kept[connection.destination]
        kept.remove(connection)
        if not kept:
            del self._kept[connection.destination]

    def _expire(self) -> None:
        """Close the connections that nobody wanted for so long."""
        self._timer = None
        now = self._clock.seconds()
        for connection, until in list(self._until.items()):
            if until > now:
                self._timer = self._clock.callLater(until - now, self._expire)
                return
            connection.close()

    def close(self) -> None:
        """Close every connection, also those that are given back later."""
        self._closed = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        for connection in list(self._until):
            connection.abort()
