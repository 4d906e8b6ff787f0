"""What was said last of whether a device is connected."""

from __future__ import annotations

import msgspec

from gatewayd.core.model import Device, Event
from gatewayd.core.shadow import ConnectionState


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What the nodes tell each other: what another hub said of a device.

    :ivar uid: the device. :ivar device: its id.
    :ivar stamp: since when, ms since the epoch. :ivar heard: when it was said, likewise.
    :ivar sequence: that hub's number of it; "" for none.
    """

    uid: int
    device: str
    connected: bool
    stamp: int
    heard: int
    sequence: str = ""


class Word(msgspec.Struct):
    """What was said last of a device; see :class:`ConnectionState`.

    :ivar device: its id; "" when it was not heard of since the start.
    :ivar recalled: whether what the store has of it is in it.
    """

    device: str
    connected: bool
    stamp: int
    heard: int
    sequence: str = ""
    recalled: bool = False

    def state(self, stream: int) -> ConnectionState:
        """Return it as it is kept."""
        return ConnectionState(
            stream=stream, connected=self.connected, stamp=self.stamp, heard=self.heard,
            sequence=self.sequence,
        )  # fmt: skip


def of_event(event: Event) -> Device:
    """Return as much of the device of an event as presence has to know."""
    return Device(
        uid=event.stream, id=event.device, name=event.device, network=event.network,
        type=event.type,
    )  # fmt: skip
