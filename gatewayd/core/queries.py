"""What can be asked of a store."""

from __future__ import annotations

import msgspec

from gatewayd.core.model import Event, Kind


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Sorting and paging.

    :ivar field: a field's name as the query's own table knows it; None for the natural order.
    :ivar take: how many at most; None for all.
    """

    field: str | None = None
    descending: bool = False
    take: int | None = None
    skip: int = 0


#: No sorting asked for, no limit.
NATURAL = Order()


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """Stored notifications or commands of one device.

    :ivar start: ms, inclusive; :ivar end: ms, inclusive; both compare the time shown.
    :ivar status: commands only; compared without case.
    """

    stream: int
    kind: Kind
    start: int | None = None
    end: int | None = None
    name: str | None = None
    status: str | None = None
    order: Order = Order(field="timestamp", descending=True)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events a subscriber wants; None in a field means any.

    Events of network 0 are the gateway's own announcements about a device (it was registered, it
    was changed): they pass only filters that name no device, network or type.

    :ivar stream: one device.
    :ivar networks: the network that the device was in when the event was recorded; so types.
    """

    kinds: frozenset[Kind]
    stream: int | None = None
    networks: frozenset[int] | None = None
    types: frozenset[int] | None = None
    names: frozenset[str] | None = None

    def wants(self, event: Event) -> bool:
        """Whether the event passes."""
        return (
            event.kind in self.kinds
            and (self.stream is None or (event.stream == self.stream and event.network != 0))
            and (self.names is None or event.name in self.names)
            and (self.networks is None or event.network in self.networks)
            and (self.types is None or event.type in self.types)
        )


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """A walk through the log.

    :ivar since: ms; only events recorded later.
    :ivar now: ms; commands whose lifetime was over by then are left out.
    :ivar cursor: where the last page ended; None at the start.
    """

    filter: Filter
    since: int
    now: int
    cursor: int | None = None
    limit: int = 500
    bytes: int = 256 * 1024


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the answer to a :class:`Replay`.

    :ivar complete: whether nothing more was in the log when it was read.
    :ivar until: the position up to which the log surely was there when it was read; 0 when that is
        no further than what was published by then.
    """

    events: list[Event]
    cursor: int
    complete: bool
    until: int = 0


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """Which commands of a device wait to be delivered.

    :ivar pushed: also those that were written to a socket but not confirmed.
    :ivar until: ms; only commands taken at or before it.
    :ivar after: only commands with a higher sequence number.
    :ivar bytes: about where a page ends; an answer has at least one command if any waits.
    """

    stream: int
    now: int
    until: int
    names: frozenset[str] | None = None
    pushed: bool = False
    after: int = 0
    limit: int = 500
    bytes: int = 256 * 1024


class DeviceQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A list of devices.

    The asker's visibility is ``networks``, ``types``, ``stream`` and ``ids``, those in upper case.
    """

    name: str | None = None
    pattern: str | None = None
    network: int | None = None
    network_name: str | None = None
    networks: frozenset[int] | None = None
    types: frozenset[int] | None = None
    stream: int | None = None
    ids: frozenset[str] | None = None
    order: Order = NATURAL


class GroupQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A list of networks or device types; ``ids`` is the asker's visibility."""

    name: str | None = None
    pattern: str | None = None
    ids: frozenset[int] | None = None
    order: Order = NATURAL


class UserQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A list of users; a pattern wins over a login."""

    login: str | None = None
    pattern: str | None = None
    role: int | None = None
    status: int | None = None
    order: Order = NATURAL


class PluginQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A list of plugins; ``user`` is their owner."""

    name: str | None = None
    pattern: str | None = None
    topic: str | None = None
    status: int | None = None
    user: int | None = None
    order: Order = NATURAL
