"""Which devices are attached, through what, since when."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.internet.defer import Deferred

from gatewayd.core.model import Device, Entry, Event, Kind
from gatewayd.core.timeline import Timeline
from gatewayd.errors import NotFound


class Attachment:
    """A live socket of a device.

    :ivar epoch: for an exclusive attachment the number of its reign; a writer with an older one
        is refused. None for attachments that share.
    :ivar since: ms since the epoch.
    """

    __slots__ = ("device", "epoch", "protocol", "since", "superseded")

    def __init__(self, device: Device, protocol: str, superseded: Callable[[], None]) -> None:
        self.device = device
        self.protocol = protocol
        self.superseded = superseded
        self.epoch: int | None = None
        self.since = 0


class Presence:
    """All attachments; every coming and going is an event in the device's timeline."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._attached: dict[int, list[Attachment]] = {}
        self._awaited: dict[int, list[Deferred[None]]] = {}

    def of(self, device: Device) -> list[Attachment]:
        """Return the attachments of a device, oldest first; none means not connected."""
        return list(self._attached.get(device.uid, ()))

    def arrival(self, device: Device) -> Deferred[None]:
        """Fire when a device is attached the next time; cancel it when nobody waits any more.

        :raises NotFound: the device is deleted meanwhile.
        """
        arrived: Deferred[None] = Deferred(lambda arrived: self._unawait(device, arrived))
        self._awaited.setdefault(device.uid, []).append(arrived)
        return arrived

    def share(self, device: Device, protocol: str) -> Attachment:
        """Attach a socket that tolerates others of the same device."""
        attachment = Attachment(device, protocol, lambda: None)
        attachment.since = self._timeline.now()
        self._add(attachment)
        self._timeline.note(self._entry(attachment, Kind.ATTACHED))
        self._arrived(device)
        return attachment

    def take_over(
        self, device: Device, protocol: str, superseded: Callable[[], None]
    ) -> Deferred[Attachment]:
        """Attach the one socket that speaks for a device; fires when its epoch has begun.

        The one before is told by its ``superseded`` to close, and can no longer write.
        """
        attachment = Attachment(device, protocol, superseded)
        entry = self._entry(attachment, Kind.ATTACHED, exclusive=True)
        return self._timeline.append(entry).addCallback(self._taken, attachment)

    def _taken(self, event: Event, attachment: Attachment) -> Attachment:
        attachment.epoch = event.epoch
        attachment.since = event.ts
        for older in self.of(attachment.device):
            if older.epoch is not None and older.epoch < event.epoch:
                self.detach(older)
                older.superseded()
        self._add(attachment)
        self._arrived(attachment.device)
        return attachment

    def detach(self, attachment: Attachment) -> None:
        """Know that a socket is gone; a second call does nothing."""
        members = self._attached.get(attachment.device.uid, [])
        if attachment in members:
            members.remove(attachment)
            if not members:
                del self._attached[attachment.device.uid]
            self._timeline.note(self._entry(attachment, Kind.DETACHED))

    def forget(self, device: Device) -> None:
        """Drop the attachments of a device that is deleted, and tell its sockets and who waits."""
        for attachment in self._attached.pop(device.uid, []):
            attachment.superseded()
        for arrived in self._awaited.pop(device.uid, []):
            if not arrived.called:
                arrived.errback(NotFound("device", device.id))

    def _add(self, attachment: Attachment) -> None:
        self._attached.setdefault(attachment.device.uid, []).append(attachment)

    def _arrived(self, device: Device) -> None:
        """Tell who waits, after the attachment was noted: what they record comes later."""
        for arrived in self._awaited.pop(device.uid, []):
            if not arrived.called:  # one of them may give another one up
                arrived.callback(None)

    def _unawait(self, device: Device, arrived: Deferred[None]) -> None:
        waiting = self._awaited.get(device.uid, [])
        if arrived in waiting:
            waiting.remove(arrived)
            if not waiting:
                del self._awaited[device.uid]

    @staticmethod
    def _entry(attachment: Attachment, kind: Kind, exclusive: bool = False) -> Entry:
        body = msgspec.json.encode({"protocol": attachment.protocol})
        return Entry(
            device=attachment.device, kind=kind, name=attachment.protocol, body=body,
            exclusive=exclusive,
        )  # fmt: skip
