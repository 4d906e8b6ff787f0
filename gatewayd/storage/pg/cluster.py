"""What the nodes keep together in a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from gatewayd.core.cluster import ChangeKind, ChangeObserver, Node, StoredAttachment
from gatewayd.core.model import Plugin
from gatewayd.errors import ConfigError
from gatewayd.storage.pg import attachments, nodes, plugins
from gatewayd.storage.pg.changes import Follower, Recorder
from gatewayd.storage.pg.journal import Journal
from gatewayd.storage.pg.lane import Lane
from gatewayd.storage.pg.listener import Listener
from gatewayd.storage.pg.pool import Readers

_LOOK = 0.5  # seconds until somebody else's lease is looked at again
# A lease that nobody renews is over so many seconds after its end, whatever was done to the
# database's clock.
_GRACE = 2.0


@attrs.frozen
class Ways:
    """The connections that a cluster uses.

    :ivar leases: has nothing to do that takes long.
    :ivar registry: for plugins. :ivar hub: for announcements, behind what they are about.
    """

    leases: Lane
    registry: Lane
    hub: Lane
    readers: Readers


class Host(Protocol):
    """What a cluster has to do with the log of its store.

    :ivar journal: appends under the lease of this node. :ivar listener: hears of other nodes.
    :ivar now: the time of the database's clock in ms, or less.
    """

    journal: Journal
    listener: Listener
    now: Callable[[], int]

    def follow_others(self) -> Deferred[None]:
        """Begin to hear of other nodes."""


class PostgresCluster:
    """A :class:`gatewayd.core.cluster.ClusterStore` in a PostgreSQL database.

    :param name: this node's. :param lease: ms for which its lease holds.
    :param recorder: tells of what this node changes. :param host: the store that all this is in.
    """

    def __init__(
        self,
        name: str,
        lease: int,
        ways: Ways,
        reactor: Any,
        recorder: Recorder,
        host: Host,
    ) -> None:
        self._name = name
        self._lease = lease
        self._ways = ways
        self._reactor = reactor
        self._recorder = recorder
        self._host = host
        host.journal.others = lambda: recorder.others
        self._follower = Follower(name, ways.readers)
        self._incarnation = 0

    @property
    def name(self) -> str:
        """This node's name."""
        return self._name

    def now(self) -> int:
        """Return the time of the database's clock, ms since the epoch: never later than it is."""
        return self._host.now()

    # Leases

    def join(self, advertise: str, fingerprint: bytes) -> Deferred[Node]:
        """Take a lease. :raises ConfigError: :raises Unavailable:"""
        return Deferred.fromCoroutine(self._join(advertise, fingerprint))

    async def _join(self, advertise: str, fingerprint: bytes) -> Node:
        deadline = self._reactor.seconds() + self._lease / 1000 + _GRACE
        first: int | None = None
        while True:
            taken = await self._ways.leases.submit(
                self._take, advertise, fingerprint, self._reactor.seconds() >= deadline
            )
            if isinstance(taken, nodes.Joined):
                break
            first = taken if first is None else first
            if taken > first:
                raise ConfigError(
                    f'another gatewayd runs as node "{self._name}" with this database; each needs '
                    "a name of its own in [node]"
                )
            await deferLater(self._reactor, _LOOK)
        self._host.journal.lease = (self._name, taken.node.incarnation)
        self._recorder.others = taken.others
        if not self._incarnation:
            self._follower.start(taken.change)
            self._host.listener.changed.append(self._follower.look)
            self._host.listener.joined = self._joined
            await self._host.follow_others()
        self._incarnation = taken.node.incarnation
        return taken.node

    async def _take(
        self, tx: Any, advertise: str, fingerprint: bytes, by_force: bool
    ) -> nodes.Joined | int:
        return await nodes.join(
            tx, self._name, self._incarnation, advertise, fingerprint,
            lease=self._lease, by_force=by_force,
        )  # fmt: skip

    def renew(self) -> Deferred[list[Node]]:
        """Renew the lease; fires with all nodes. :raises Superseded: :raises Unavailable:"""
        found = self._ways.leases.submit(nodes.renew, self._name, self._incarnation, self._lease)
        return found.addCallback(self._met)

    def _met(self, found: list[Node]) -> list[Node]:
        self._recorder.others = any(node.alive and node.name != self._name for node in found)
        return found

    def _joined(self) -> None:
        # If it is this one itself, the next renewal knows better.
        self._recorder.others = True

    def leave(self) -> Deferred[None]:
        """Give the lease back. :raises Unavailable:"""
        return self._ways.leases.submit(nodes.leave, self._name, self._incarnation)

    # Attachments

    def attachments(self) -> Deferred[list[StoredAttachment]]:
        """List all attachments on nodes that are alive."""
        return self._ways.readers.submit(attachments.living)

    def stranded(self, limit: int) -> Deferred[list[StoredAttachment]]:
        """List up to ``limit`` attachments on nodes that have no lease any more."""
        return self._ways.readers.submit(attachments.stranded, limit)

    # Changes

    def announce(self, kind: ChangeKind, subject: bytes) -> Deferred[None]:
        """Tell the other nodes something. :raises Unavailable:"""
        size = 256 + len(subject)
        return self._ways.hub.submit(self._recorder.announce, kind, subject, size=size)

    def follow(self, observer: ChangeObserver) -> None:
        """Call ``observer`` with what other nodes change from now on."""
        self._follower.observe(observer)

    # Plugins

    def plugin_joined(self, plugin_id: int) -> Deferred[None]:
        """Know that this node has connections of a plugin. :raises Unavailable:"""
        return self._ways.registry.submit(plugins.joined, plugin_id, self._name, self._incarnation)

    def plugin_left(self, plugin_id: int) -> Deferred[bool]:
        """Know that it has none any more; fires with whether no living node has one."""
        return self._ways.registry.submit(plugins.left, plugin_id, self._name)

    def orphaned_plugins(self) -> Deferred[list[Plugin]]:
        """List the active plugins that no living node has."""
        return self._ways.readers.submit(plugins.orphaned)
