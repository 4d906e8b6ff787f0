"""The nodes that share a store: what each has to tell the others, and what they keep together.

A node is one process. Alone, with an embedded store, it has no cluster, and nothing in here is
used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred

from gatewayd.core.model import Device, Plugin

#: ms for which a lease holds, by the clock of the store.
LEASE = 10_000


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A node, as the store has it.

    :ivar incarnation: grows each time the name is taken anew.
    :ivar advertise: the base URL of its internal listener; "" for none.
    :ivar until: ms since the epoch, by the store's clock: when its lease ends, unless renewed.
    :ivar alive: whether the lease held when it was read.
    """

    name: str
    incarnation: int
    advertise: str = ""
    until: int = 0
    alive: bool = True


class StoredAttachment(msgspec.Struct, frozen=True, kw_only=True):
    """A live socket of a device on some node.

    :ivar node: the name of the node. :ivar number: which no other attachment ever had.
    :ivar epoch: for an exclusive attachment the number of its reign; None for one that shares.
    :ivar since: ms since the epoch.
    """

    node: str
    number: int
    device: Device
    protocol: str
    epoch: int | None
    since: int


class ChangeKind(StrEnum):
    """What of the registry was changed, and what the subject of the change is.

    The subject is a JSON text; the classes that make and take it are named where it is not plain.
    """

    #: a device was saved: its id
    DEVICE = "device"
    #: a device was deleted: the :class:`Device`
    DEVICE_GONE = "device gone"
    #: a user was saved, or deleted: its id
    USER = "user"
    USER_GONE = "user gone"
    #: a network or device type was deleted: its id
    GROUP_GONE = "group gone"
    #: a plugin was saved, or deleted: the :class:`gatewayd.core.model.Plugin`
    PLUGIN = "plugin"
    PLUGIN_GONE = "plugin gone"
    #: a setting was put or deleted: its name
    SETTING = "setting"
    #: the keys that sign tokens were changed: the id of the key
    SIGNING_KEY = "signing key"
    #: how a device authenticates, lets the gateway in, or signs was changed: its uid
    DEVICE_KEY = "device key"
    DEVICE_LOGIN = "device login"
    DEVICE_SECRET = "device secret"  # noqa: S105 - no password
    #: a live session was changed: its id
    SESSION = "session"
    #: some are over: the ids of those that the store has forgotten, which may be used again; or an
    #: object that says what is refused from now on: see :mod:`gatewayd.core.shared_sessions`
    SESSIONS_GONE = "sessions gone"
    #: last values were forgotten: see :mod:`gatewayd.core.hub.last_values`
    VALUES_FORGOTTEN = "values forgotten"
    #: another hub said whether a device is connected: see
    #: :mod:`gatewayd.core.hub.connection_states`
    STATE = "state"
    #: everything may have changed: what was changed was not kept long enough; null
    ALL = "all"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change that another node made, after it was committed.

    :ivar number: 1, 2, 3, ... in commit order.
    """

    number: int
    kind: ChangeKind
    subject: bytes


#: Called with the changes of other nodes, in commit order.
ChangeObserver = Callable[[Sequence[Change]], None]


class ClusterStore(Protocol):
    """What the nodes of a cluster keep together. Its store is a :class:`Store` too.

    While this node holds no lease, the store refuses to append to the log.
    """

    @property
    def name(self) -> str:
        """This node's name."""

    def now(self) -> int:
        """Return the time of the store's clock, ms since the epoch: never later than it is."""

    def join(self, advertise: str, fingerprint: bytes) -> Deferred[Node]:
        """Take a lease in the name of this node; fires with it. Ends what it had before.

        It waits for the lease of a predecessor to end, when nobody renews that.

        :param advertise: the base URL of the internal listener; "" for none.
        :param fingerprint: of what all nodes have to have in common.
        :raises ConfigError: another node runs by that name; or others have another fingerprint.
        :raises Unavailable: the store cannot be reached.
        """

    def renew(self) -> Deferred[list[Node]]:
        """Renew the lease; fires with all nodes, dead ones too, of which something is left.

        :raises Superseded: the lease ended, or somebody has taken the name.
        :raises Unavailable: the store cannot be reached.
        """

    def leave(self) -> Deferred[None]:
        """Give the lease back. :raises Unavailable:"""

    def attachments(self) -> Deferred[list[StoredAttachment]]:
        """List all attachments on nodes that are alive; in it is all that was published so far."""

    def stranded(self, limit: int) -> Deferred[list[StoredAttachment]]:
        """List up to ``limit`` attachments on nodes that have no lease any more."""

    def announce(self, kind: ChangeKind, subject: bytes) -> Deferred[None]:
        """Tell the other nodes something; fires when it is on disk. :raises Unavailable:"""

    def follow(self, observer: ChangeObserver) -> None:
        """Call ``observer`` with what other nodes change from now on."""

    def plugin_joined(self, plugin_id: int) -> Deferred[None]:
        """Know that this node has connections of a plugin; of one that is gone nothing is kept.

        :raises Unavailable: this node has no lease, or the store cannot be reached.
        """

    def plugin_left(self, plugin_id: int) -> Deferred[bool]:
        """Know that it has none any more; fires with whether no living node has any.

        :raises Unavailable:
        """

    def orphaned_plugins(self) -> Deferred[list[Plugin]]:
        """List the active plugins that no living node has connections of."""
