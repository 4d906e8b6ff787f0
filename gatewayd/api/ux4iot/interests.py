"""What one session wants of one device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gatewayd.api.ux4iot.groups import Audience, Group
from gatewayd.api.ux4iot.wants import Wants
from gatewayd.core.grants import Grant, Right

if TYPE_CHECKING:
    from gatewayd.api.ux4iot.feeds import Feed
    from gatewayd.core.live_sessions import LiveSession
    from gatewayd.transport.socketio.connection import Connection

_NONE: frozenset[Right] = frozenset()


class Interest:
    """What one session wants of one device, as it spells the id; it knows where that puts it.

    :ivar wants: to be changed by :meth:`add` and :meth:`remove`.
    :ivar groups: where its connections are. That may be behind what is wanted, until
        :meth:`Feed.settle`.
    """

    def __init__(self, feed: Feed, device: str, session: LiveSession) -> None:
        self.feed = feed
        self.device = device
        self.session = session
        self.wants = Wants()
        self.groups: dict[Connection, dict[Right, Group]] = {}

    def add(self, grant: Grant) -> None:
        """Want more."""
        self.wants.add(grant)
        self.feed.changed(self)

    def remove(self, grant: Grant) -> None:
        """Want less."""
        self.wants.remove(grant)
        self.feed.changed(self)

    def audience(self, namespace: str) -> Audience:
        """Return what decides how a connection is told something."""
        return Audience(self.device, namespace, self.session.by_grant)

    def audiences(self, throttled: bool) -> Callable[[str], dict[Right, Audience]]:
        """Return what tells for a namespace which audiences a connection belongs to.

        :param throttled: whether telemetry is held back at times.
        """
        wants = self.wants
        rights, telemetry = tuple(wants.rights), wants.telemetry
        keys = None if wants.every_key else frozenset(wants.keys)
        ordered = frozenset(rights) if throttled else _NONE

        def audiences(namespace: str) -> dict[Right, Audience]:
            plain = self.audience(namespace)
            found = dict.fromkeys(rights, plain)
            if telemetry:
                found[Right.TELEMETRY] = plain._replace(keys=keys, ordered=ordered)
            return found

        return audiences
