"""A live socket of a device, and what its timeline says of it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gatewayd.core.cluster import StoredAttachment
from gatewayd.core.model import Device, Entry, Event, Kind

#: The bits of a number of an attachment that are counted within an incarnation of a node.
COUNTED = 32


class Attachment:
    """A live socket of a device.

    :ivar superseded: tells it that another one speaks for the device now, or that the device is
        gone. :ivar lost: tells it that it counts no longer, whoever comes: it has to go.
    :ivar epoch: for an exclusive attachment the number of its reign; a writer with an older one
        is refused. None for attachments that share.
    :ivar since: ms since the epoch.
    :ivar node: the name of the node that has it; "" for this one.
    :ivar number: which no other attachment ever had; 0 for a node that is alone for ever.
    :ivar position: of its beginning in the log, when it is exclusive; 0 for long ago.
    """

    __slots__ = (
        "device", "epoch", "lost", "node", "number", "position", "protocol", "since", "superseded",
    )  # fmt: skip

    def __init__(
        self,
        device: Device,
        protocol: str,
        superseded: Callable[[], None],
        lost: Callable[[], None] | None = None,
        *,
        node: str = "",
        number: int = 0,
    ) -> None:
        self.device = device
        self.protocol = protocol
        self.superseded = superseded
        self.lost = lost or superseded
        self.node = node
        self.number = number
        self.epoch: int | None = None
        self.since = 0
        self.position = 0

    @property
    def incarnation(self) -> int:
        """Of its node, when it began."""
        return self.number >> COUNTED


class Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the event of a coming or going says.

    :ivar node: "" when nobody shares the store. :ivar attachment: the number.
    :ivar exclusive: whether those that began before it are over.
    """

    protocol: str = ""
    node: str = ""
    attachment: int = 0
    exclusive: bool = False


def to_entry(attachment: Attachment, node: str, kind: Kind, *, exclusive: bool = False) -> Entry:
    """Return what the timeline says of a coming or going.

    :param node: the name of the node that has it; "" for one that is alone for ever.
    """
    shared = bool(node)
    body = Body(attachment.protocol, node, attachment.number, exclusive and shared)
    return Entry(
        device=attachment.device, kind=kind, name=attachment.protocol,
        body=msgspec.json.encode(body), exclusive=exclusive,
        attachment=attachment.number if shared else None, node=node,
    )  # fmt: skip


def from_event(event: Event) -> tuple[Attachment, bool] | None:
    """Return whose coming or going an event is, and whether the attachment is exclusive.

    None: it does not say of which node.
    """
    try:
        body = msgspec.json.decode(event.body or b"{}", type=Body)
    except msgspec.MsgspecError:
        return None
    if not body.node:
        return None
    device = Device(
        uid=event.stream, id=event.device, name=event.device, network=event.network,
        type=event.type,
    )  # fmt: skip
    attachment = _elsewhere(device, body.protocol, body.node, body.attachment)
    attachment.since = event.ts
    if body.exclusive:
        attachment.epoch, attachment.position = event.epoch, event.position
    return attachment, body.exclusive


def from_stored(stored: StoredAttachment) -> Attachment:
    """Return an attachment as the store has it."""
    attachment = _elsewhere(stored.device, stored.protocol, stored.node, stored.number)
    attachment.since, attachment.epoch = stored.since, stored.epoch
    return attachment


def _elsewhere(device: Device, protocol: str, node: str, number: int) -> Attachment:
    """Return an attachment that nobody here can tell anything."""
    return Attachment(device, protocol, lambda: None, node=node, number=number)
