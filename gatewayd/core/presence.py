"""Which devices are attached, through what, since when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.core.attachment import COUNTED, Attachment, from_event, from_stored, to_entry
from gatewayd.core.attendance import Attendance
from gatewayd.core.cluster import ClusterStore, Node, StoredAttachment
from gatewayd.core.model import Device, Event, Kind
from gatewayd.core.timeline import Timeline
from gatewayd.errors import NotFound, Unavailable

NO_LEASE = "this node has lost its lease"


class Presence:
    """All attachments; every coming and going is an event in the device's timeline.

    In a cluster those on other nodes are known by their events. An attachment of this node lasts
    no longer than its lease.

    :param cluster: None when nobody shares the store.
    :ivar holds: whether this node has a lease now; asked before anything is attached.
    """

    log = Logger()

    def __init__(self, timeline: Timeline, cluster: ClusterStore | None = None) -> None:
        self.holds: Callable[[], bool] = lambda: True
        self._timeline = timeline
        self._cluster = cluster
        self._node = "" if cluster is None else cluster.name
        self._incarnation = 0
        self._counter = 0
        self._attached: dict[int, list[Attachment]] = {}
        self._awaited: dict[int, list[Deferred[None]]] = {}
        self._elsewhere = Attendance()
        self._recording: set[Deferred[None]] = set()
        #: of which it could not be recorded that they are over
        self._unsaid: list[Attachment] = []
        if cluster is not None:
            timeline.attendance = self._follow

    def of(self, device: Device) -> list[Attachment]:
        """Return the attachments of a device, oldest first; none means not connected."""
        here = list(self._attached.get(device.uid, ()))
        elsewhere = self._elsewhere.of(device.uid)
        if elsewhere:
            return sorted(here + elsewhere, key=lambda each: each.since)
        return here

    def arrival(self, device: Device) -> Deferred[None]:
        """Fire when a device is attached the next time; cancel it when nobody waits any more.

        :raises NotFound: the device is deleted meanwhile.
        """
        arrived: Deferred[None] = Deferred(lambda arrived: self._unawait(device, arrived))
        self._awaited.setdefault(device.uid, []).append(arrived)
        return arrived

    def share(
        self, device: Device, protocol: str, lost: Callable[[], None] = lambda: None
    ) -> Attachment:
        """Attach a socket that tolerates others of the same device.

        :param lost: tells it to go: it is not attached any more, though it did not ask for that.
        :raises Unavailable: this node has no lease, or the others cannot be told; nothing is
            attached.
        """
        attachment = self._begin(device, protocol, lambda: None, lambda: None)
        attachment.since = self._timeline.now()
        self._add(attachment)
        self._note(attachment, Kind.ATTACHED)
        if attachment not in self._attached.get(device.uid, ()):
            raise Unavailable("a device cannot be attached now")
        attachment.lost = lost
        self._arrived(device.uid)
        return attachment

    def take_over(
        self, device: Device, protocol: str, superseded: Callable[[], None]
    ) -> Deferred[Attachment]:
        """Attach the one socket that speaks for a device; fires when its epoch has begun.

        The one before is told by its ``superseded`` to close, and can no longer write.

        :raises Unavailable: it could not be recorded, or this node has no lease.
        """
        try:
            attachment = self._begin(device, protocol, superseded, superseded)
        except Unavailable as error:
            refused: Deferred[Attachment] = Deferred()
            refused.errback(error)
            return refused
        entry = to_entry(attachment, self._node, Kind.ATTACHED, exclusive=True)
        recorded = self._timeline.append(entry).addErrback(self._not_taken, attachment)
        return recorded.addCallback(self._taken, attachment)

    def _begin(
        self,
        device: Device,
        protocol: str,
        superseded: Callable[[], None],
        lost: Callable[[], None],
    ) -> Attachment:
        number = 0
        if self._cluster is not None:
            if not self.holds():
                raise Unavailable(NO_LEASE)
            self._counter += 1
            number = (self._incarnation << COUNTED) + self._counter
        return Attachment(device, protocol, superseded, lost, number=number)

    def _not_taken(self, failure: Failure, attachment: Attachment) -> Failure:
        """Know that an attachment was not recorded, as far as anybody knows."""
        if failure.check(Unavailable) and self._is_ours(attachment):
            self._unsaid.append(attachment)
        return failure

    def _taken(self, event: Event, attachment: Attachment) -> Attachment:
        if self._cluster is not None and not (self.holds() and self._is_ours(attachment)):
            raise Unavailable(NO_LEASE)
        attachment.epoch = event.epoch
        attachment.since = event.ts
        attachment.position = event.position
        self._supersede(attachment)
        self._add(attachment)
        if any(each.position > event.position for each in self.of(attachment.device)):
            # The other node was heard of before the store has answered.
            self.detach(attachment)
            attachment.superseded()
        self._arrived(attachment.device.uid)
        return attachment

    def _supersede(self, newer: Attachment) -> None:
        """Let the exclusive attachments go that began here before another one."""
        for older in tuple(self._attached.get(newer.device.uid, ())):
            if older.epoch is not None and older.position < newer.position:
                self.detach(older)
                self._tell(older.superseded)

    def detach(self, attachment: Attachment) -> None:
        """Know that a socket is gone; a second call does nothing."""
        if self._remove(attachment):
            self._note(attachment, Kind.DETACHED)

    def _remove(self, attachment: Attachment) -> bool:
        """Take away an attachment of this node; return whether it was there."""
        members = self._attached.get(attachment.device.uid, [])
        if attachment not in members:
            return False
        members.remove(attachment)
        if not members:
            del self._attached[attachment.device.uid]
        return True

    def forget(self, device: Device) -> None:
        """Drop the attachments of a device that is deleted, and tell its sockets and who waits."""
        self._elsewhere.forget(device.uid)
        for attachment in self._attached.pop(device.uid, []):
            self._tell(attachment.superseded)
        for arrived in self._awaited.pop(device.uid, []):
            if not arrived.called:
                arrived.errback(NotFound("device", device.id))

    def _add(self, attachment: Attachment) -> None:
        self._attached.setdefault(attachment.device.uid, []).append(attachment)

    def _arrived(self, uid: int) -> None:
        """Tell who waits, after the attachment was noted: what they record comes later."""
        for arrived in self._awaited.pop(uid, []):
            if not arrived.called:  # one of them may give another one up
                arrived.callback(None)

    def _unawait(self, device: Device, arrived: Deferred[None]) -> None:
        waiting = self._awaited.get(device.uid, [])
        if arrived in waiting:
            waiting.remove(arrived)
            if not waiting:
                del self._awaited[device.uid]

    # The lease

    async def start(self) -> None:
        """Read what is attached to other nodes. :raises Unavailable: it cannot be read."""
        if self._cluster is not None:
            self._elsewhere.expect()
            stored = await self._cluster.attachments()
            self._elsewhere.load(from_stored(each) for each in stored if each.node != self._node)

    def join(self, incarnation: int) -> None:
        """Know that this node has a lease: what is attached from now on has numbers of its own."""
        self._incarnation = incarnation
        self._counter = 0

    def fence(self) -> None:
        """Let every socket of this node go, at once: it has no lease any more."""
        self._incarnation = 0
        self._unsaid.clear()
        attached, self._attached = self._attached, {}
        for attachment in chain(*attached.values()):
            self._tell(attachment.lost)

    def know(self, nodes: Sequence[Node]) -> None:
        """Know how all nodes are: the attachments of one that is dead do not count.

        What could not be recorded before is recorded now.
        """
        others = [node for node in nodes if node.name != self._node]
        if self._elsewhere.know(others):
            for uid in tuple(self._awaited):
                if self._elsewhere.of(uid):
                    self._arrived(uid)
        unsaid, self._unsaid = self._unsaid, []
        for attachment in unsaid:
            self._note(attachment, Kind.DETACHED)

    def end(self, stranded: StoredAttachment) -> Deferred[Event]:
        """Record that an attachment of a dead node is over.

        :raises NotFound: the device is gone. :raises Unavailable: it cannot be recorded.
        """
        entry = to_entry(from_stored(stranded), stranded.node, Kind.DETACHED)
        return self._timeline.append(entry)

    async def settle(self) -> None:
        """Wait until what came and went is recorded, or could not be."""
        await DeferredList(list(self._recording))

    def _is_ours(self, attachment: Attachment) -> bool:
        """Whether an attachment of this node began under the lease that it has now."""
        return attachment.incarnation == self._incarnation

    def _tell(self, to_go: Callable[[], None]) -> None:
        """Tell a socket to go; a defect in that is nobody else's."""
        try:
            to_go()
        except Exception:
            self.log.failure("a socket could not be told to go")

    # The timeline

    def _note(self, attachment: Attachment, kind: Kind) -> None:
        entry = to_entry(attachment, self._node, kind)
        if self._cluster is None:
            self._timeline.note(entry)
            return
        recorded = self._timeline.append(entry).addCallbacks(
            lambda _: None, partial(self._not_recorded, attachment, kind)
        )
        self._recording.add(recorded)
        recorded.addBoth(lambda _: self._recording.discard(recorded))

    def _not_recorded(self, attachment: Attachment, kind: Kind, failure: Failure) -> None:
        """Let a socket go of which the others do not hear; tell of one that went later."""
        self._timeline.not_recorded(attachment.device, kind, failure)
        if failure.check(Unavailable) and self._is_ours(attachment):
            # Nobody may know whether its beginning was recorded.
            self._unsaid.append(attachment)
            if self._remove(attachment):
                self._tell(attachment.lost)

    def _follow(self, event: Event) -> None:
        """Know of an event in which something came or went, before anybody else does."""
        found = from_event(event)
        if found is None:
            return
        attachment, exclusive = found
        if attachment.node == self._node:
            if event.kind is Kind.DETACHED:
                self._ended(attachment)
        elif event.kind is Kind.DETACHED:
            self._elsewhere.remove(attachment)
        else:
            self._elsewhere.add(attachment)
            if exclusive:
                self._supersede(attachment)
            if self.of(attachment.device):
                self._arrived(event.stream)

    def _ended(self, ended: Attachment) -> None:
        """Let a socket of this node go: another node has taken this one for dead."""
        for attachment in tuple(self._attached.get(ended.device.uid, ())):
            if attachment.number == ended.number:
                self._remove(attachment)
                self._tell(attachment.lost)
