"""Which devices are attached to other nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gatewayd.core.attachment import Attachment
from gatewayd.core.cluster import Node

_Key = tuple[str, int]


class Attendance:
    """The attachments on other nodes, as far as the log and the store have told.

    Those of a node count while its lease holds, and a new incarnation ends those of the last one.
    They are kept until the log says that they are over: a node that was thought dead may have
    renewed its lease in time.
    """

    def __init__(self) -> None:
        self._by_device: dict[int, dict[_Key, Attachment]] = {}
        self._by_node: dict[str, dict[int, Attachment]] = {}
        #: of each node, the last incarnation whose attachments do not count
        self._over: dict[str, int] = {}
        self._latest: dict[str, int] = {}
        #: of the nodes that were there when the nodes were last looked at
        self._incarnations: dict[str, int] = {}
        #: what went while the store is read
        self._gone: set[_Key] | None = None

    def of(self, uid: int) -> list[Attachment]:
        """Return the attachments of a device that count."""
        known = self._by_device.get(uid)
        if known is None:
            return []
        return [each for each in known.values() if self._counts(each)]

    def _counts(self, attachment: Attachment) -> bool:
        return attachment.incarnation > self._over.get(attachment.node, 0)

    def add(self, attachment: Attachment) -> None:
        """Know of an attachment."""
        self._begin(attachment.node, attachment.incarnation)
        key = attachment.node, attachment.number
        self._by_device.setdefault(attachment.device.uid, {})[key] = attachment
        self._by_node.setdefault(attachment.node, {})[attachment.number] = attachment

    def remove(self, attachment: Attachment) -> None:
        """Know that an attachment is over."""
        key = attachment.node, attachment.number
        if self._gone is not None:
            self._gone.add(key)
        known = self._by_node.get(attachment.node, {}).pop(attachment.number, None)
        if known is not None:
            self._unlist(known)
            if not self._by_node[attachment.node]:
                del self._by_node[attachment.node]

    def _unlist(self, attachment: Attachment) -> None:
        members = self._by_device.get(attachment.device.uid, {})
        members.pop((attachment.node, attachment.number), None)
        if not members:
            self._by_device.pop(attachment.device.uid, None)

    def forget(self, uid: int) -> None:
        """Let go of a device."""
        for attachment in list(self._by_device.get(uid, {}).values()):
            self.remove(attachment)

    # The store

    def expect(self) -> None:
        """Know that the store is read; :meth:`load` has to follow."""
        self._gone = set()

    def load(self, attachments: Iterable[Attachment]) -> None:
        """Take over what was read, without what went meanwhile."""
        gone, self._gone = self._gone or set(), None
        for each in attachments:
            known = self._by_node.get(each.node, {})
            if (each.node, each.number) not in gone and each.number not in known:
                self.add(each)

    # Nodes

    def know(self, nodes: Sequence[Node]) -> bool:
        """Know how all nodes are; return whether attachments may count that did not before."""
        before = dict(self._over)
        present = {node.name: node.incarnation for node in nodes}
        for name, incarnation in self._incarnations.items():
            if name not in present:  # it left, with all that it had
                self._over[name] = max(incarnation, self._over.get(name, 0))
        for node in nodes:
            self._begin(node.name, node.incarnation)
            # The log may have told of a newer incarnation already.
            over = node.incarnation - 1 if node.alive else node.incarnation
            self._over[node.name] = max(over, self._latest[node.name] - 1)
        self._incarnations = present
        return any(over < before.get(name, 0) for name, over in self._over.items())

    def _begin(self, name: str, incarnation: int) -> None:
        """Let go of what a node had in earlier incarnations: those are over for good."""
        if incarnation > self._latest.get(name, 0):
            self._latest[name] = incarnation
            self._over[name] = max(incarnation - 1, self._over.get(name, 0))
            for each in list(self._by_node.get(name, {}).values()):
                if each.incarnation < incarnation:
                    self.remove(each)
