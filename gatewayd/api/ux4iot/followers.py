"""The live side of a session: its connections, and what they want of devices."""

from __future__ import annotations

from gatewayd.api.ux4iot.feeds import Feeds
from gatewayd.api.ux4iot.interests import Interest
from gatewayd.api.ux4iot.recalls import Recall, Recalls
from gatewayd.core.grants import SUBSCRIBABLE, Grant, Right
from gatewayd.core.live_sessions import LiveSession
from gatewayd.transport.socketio.connection import Connection

#: What clients ask for before they subscribe to it.
_ASKED_FIRST = frozenset({Right.TELEMETRY, Right.STATE})


class Following:
    """A session that has connections.

    :ivar connections: all of them get the same.
    """

    def __init__(self, session: LiveSession, feeds: Feeds, recalls: Recalls) -> None:
        self.session = session
        self.connections: dict[Connection, None] = {}
        self._feeds = feeds
        self._recalls = recalls
        self._attached = session.used
        self._interests: dict[str, Interest] = {}
        for grant in session.subscriptions:
            self._want(grant)

    @property
    def used(self) -> bool:
        """Whether the session was used since a connection came the last time."""
        return self.session.used > self._attached

    # Connections

    def attach(self, connection: Connection, recall: bool) -> None:
        """Send a connection what the session wants from now on.

        :param recall: whether it is told what the devices said last, too.
        """
        self.connections[connection] = None
        self._attached = self.session.used
        for interest in self._interests.values():
            interest.feed.join(interest, connection)
        if recall:
            self._recalls.tell([
                Recall(interest, connection, _everything(interest.device))
                for interest in self._interests.values()
            ])  # fmt: skip

    def detach(self, connection: Connection) -> None:
        """Let a connection go."""
        del self.connections[connection]
        for interest in self._interests.values():
            interest.feed.leave(interest, connection)

    def close(self) -> None:
        """Want nothing any more."""
        for interest in self._interests.values():
            self._feeds.end(interest)
        self._interests.clear()

    # Follower

    def subscribed(self, grant: Grant) -> None:
        """Want more, and say what may have been missed."""
        interest = self._want(grant)
        for connection in tuple(self.connections):
            if self.session.by_grant:
                self._recalls.tell([Recall(interest, connection, [grant])])
            elif grant.right in _ASKED_FIRST:
                self._recalls.tell_late(interest, connection, grant)

    def unsubscribed(self, grant: Grant) -> None:
        """Want less; the next message is without it."""
        interest = self._interests.get(grant.device)
        if interest is not None:
            interest.remove(grant)
            if not interest.wants:
                del self._interests[grant.device]
                self._feeds.end(interest)

    def ended(self) -> None:
        """Put all connections out: the session is no more."""
        self.close()
        for connection in tuple(self.connections):
            connection.disconnect()

    def _want(self, grant: Grant) -> Interest:
        interest = self._interests.get(grant.device)
        if interest is None:
            interest = self._feeds.interest(grant.device, self.session)
            self._interests[grant.device] = interest
            for connection in self.connections:
                interest.feed.join(interest, connection)
        interest.add(grant)
        return interest


def _everything(device_id: str) -> list[Grant]:
    return [Grant(device=device_id, right=right) for right in SUBSCRIBABLE]
