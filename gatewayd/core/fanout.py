"""Which subscribers an event goes to, found without looking at the others."""

from __future__ import annotations

from typing import Protocol

from gatewayd.core.model import Event, Kind
from gatewayd.core.queries import Filter


class Subscriber(Protocol):
    """Wants some events."""

    filter: Filter

    def offer(self, event: Event) -> None:
        """Take an event that passes the filter."""

    def close(self) -> None:
        """End; it removes itself."""


#: So many answers does a bucket remember at most.
_REMEMBERED = 1000

#: What of an event decides who wants it, once its bucket is found.
_Key = tuple[str | None, Kind, int, int]


class _Bucket:
    """Subscribers that share a device, network or type; by the names they want.

    Who wants a kind of event is worked out once, and again only when the members change.
    """

    __slots__ = ("_any", "_found", "_names")

    def __init__(self) -> None:
        self._any: dict[Subscriber, None] = {}
        self._names: dict[str, dict[Subscriber, None]] = {}
        self._found: dict[_Key, tuple[Subscriber, ...]] = {}

    def add(self, subscriber: Subscriber) -> None:
        self._found.clear()
        if subscriber.filter.names is None:
            self._any[subscriber] = None
        else:
            for name in subscriber.filter.names:
                self._names.setdefault(name, {})[subscriber] = None

    def remove(self, subscriber: Subscriber) -> None:
        self._found.clear()
        self._any.pop(subscriber, None)
        for name in subscriber.filter.names or ():
            members = self._names.get(name, {})
            members.pop(subscriber, None)
            if not members:
                self._names.pop(name, None)

    def find(self, event: Event) -> tuple[Subscriber, ...]:
        """Return who wants an event; the tuple outlives changes to the bucket."""
        name = event.name if event.name in self._names else None
        key = (name, event.kind, event.network, event.type)
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            members = (*self._any, *self._names.get(event.name, ()))
            found = tuple(each for each in members if each.filter.wants(event))
            self._found[key] = found
        return found

    def everyone(self) -> tuple[Subscriber, ...]:
        """Return all, each once."""
        found = dict(self._any)
        for members in self._names.values():
            found |= members
        return tuple(found)

    def __bool__(self) -> bool:
        return bool(self._any or self._names)


class Fanout:
    """The index of all live subscribers, by device, network, type and name."""

    def __init__(self) -> None:
        self._streams: dict[int, _Bucket] = {}
        self._networks: dict[int, _Bucket] = {}
        self._types: dict[int, _Bucket] = {}
        self._all = _Bucket()

    def _keys(self, wanted: Filter) -> tuple[dict[int, _Bucket], frozenset[int]] | None:
        """Return the most selective index of a filter and its keys there."""
        if wanted.stream is not None:
            return self._streams, frozenset({wanted.stream})
        if wanted.networks is not None:
            return self._networks, wanted.networks
        if wanted.types is not None:
            return self._types, wanted.types
        return None

    def add(self, subscriber: Subscriber) -> None:
        """Offer it events from now on."""
        place = self._keys(subscriber.filter)
        if place is None:
            self._all.add(subscriber)
        else:
            index, keys = place
            for key in keys:
                index.setdefault(key, _Bucket()).add(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        """Offer it nothing more."""
        place = self._keys(subscriber.filter)
        if place is None:
            self._all.remove(subscriber)
            return
        index, keys = place
        for key in keys:
            bucket = index.get(key)
            if bucket is not None:
                bucket.remove(subscriber)
                if not bucket:
                    del index[key]

    def of_stream(self, stream: int) -> tuple[Subscriber, ...]:
        """Return who subscribed to one device."""
        bucket = self._streams.get(stream)
        return () if bucket is None else bucket.everyone()

    def publish(self, event: Event) -> int:
        """Offer an event to everyone whose filter it passes; return how many that are, and one."""
        offered = 1
        for bucket in (
            self._streams.get(event.stream),
            self._networks.get(event.network),
            self._types.get(event.type),
            self._all,
        ):
            if bucket is not None:
                found = bucket.find(event)
                offered += len(found)
                for subscriber in found:
                    subscriber.offer(event)
        return offered
