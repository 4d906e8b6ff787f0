"""What is known of a device between its messages: what it said last, and what is wanted of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class StoredTwin(msgspec.Struct, frozen=True, kw_only=True):
    """A device's twin as it is stored.

    :ivar version: grows by one with every change; 1 for the first.
    :ivar document: see :mod:`gatewayd.core.hub.twin`.
    """

    version: int
    document: bytes


class LastValue(msgspec.Struct, frozen=True, kw_only=True):
    """What a device last said under one key.

    :ivar value: JSON; None when it was deleted, so that what was said before does not come back.
    :ivar stamp: the time of the message, ms since the epoch.
    :ivar seq: the message's number in the device's timeline: an older one never replaces a newer.
    """

    stream: int
    key: str
    value: bytes | None
    stamp: int
    seq: int


class ConnectionState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a device is connected, as far as it does not show by its sockets here.

    :ivar stamp: since when, ms since the epoch.
    :ivar heard: when it was last confirmed, ms since the epoch.
    :ivar sequence: of the hub that said so, its own number of that; "" when it was no hub. Texts
        of one length that compare as the numbers do.
    """

    stream: int
    connected: bool
    stamp: int
    heard: int
    sequence: str = ""


def shadows_size(values: Sequence[LastValue], states: Sequence[ConnectionState]) -> int:
    """Return about how many bytes they hold in memory."""
    held = sum(128 + len(value.key) + len(value.value or b"") for value in values)
    return 256 + held + 128 * len(states)
