"""What happened in a cluster, as its clients saw it and as the log has it, and what must be true.

Everything in here is plain data and functions: a check returns what is wrong, one line each.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import attrs

from gatewayd.core.model import Kind, message_seq


@attrs.frozen
class Logged:
    """An event as the log has it, but what retention may drop.

    :ivar tag: by which its sender knows it; None for what has none.
    """

    position: int
    stream: int
    seq: int
    ts: int
    kind: Kind
    device: str
    tag: str | None

    @classmethod
    def of(cls, row: Sequence[Any]) -> Logged:
        """Make it of position, stream, seq, ts, kind, device, body and parameters."""
        tag = None
        for body in row[6:8]:
            found = None if body is None else json.loads(bytes(body))
            if isinstance(found, dict):
                tag = tag or found.get("tag") or (found.get("result") or {}).get("tag")
        position, stream, seq, ts, kind, device = row[:6]
        return cls(position, stream, seq, ts, Kind(kind), device, tag)


@attrs.frozen
class Acknowledged:
    """A message that a node said it has. :ivar id: its public id, where it has one of its own."""

    device: str
    tag: str
    id: int | None


@attrs.define
class Seen:
    """What one reader was given, in the order of arrival, over all its connections.

    :ivar device: the one that it reads; None for all. :ivar messages: device, public id, tag.
    """

    name: str
    kind: Kind
    device: str | None
    messages: list[tuple[str, int, str]] = attrs.Factory(list)


@attrs.frozen
class History:
    """All of it."""

    log: list[Logged]
    acknowledged: list[Acknowledged]
    attempted: set[str]
    seen: list[Seen]

    def anomalies(self) -> list[str]:
        """Return everything that must not be."""
        return [
            *sequences(self.log),
            *losses(self.log, self.acknowledged, self.attempted),
            *deliveries(self.log, self.seen),
            *owners(self.log),
        ]


def by_device(log: Iterable[Logged]) -> dict[str, list[Logged]]:
    """Return the events of each device, in the order of the log."""
    found: dict[str, list[Logged]] = {}
    for event in sorted(log, key=lambda event: event.position):
        found.setdefault(event.device, []).append(event)
    return found


def sequences(log: Sequence[Logged]) -> Iterator[str]:
    """Check that numbers have no gap, in the order of the commits, and that times grow."""
    for device, events in by_device(log).items():
        numbers = [event.seq for event in events]
        if numbers != list(range(1, len(events) + 1)):
            yield f"{device}: sequence numbers are not 1..{len(events)} in commit order"
        times = [event.ts for event in events]
        if any(later <= earlier for earlier, later in pairwise(times)):
            yield f"{device}: times do not grow"


def losses(
    log: Sequence[Logged], acknowledged: Iterable[Acknowledged], attempted: set[str]
) -> Iterator[str]:
    """Check that what was acknowledged is there once, and nothing that nobody sent."""
    counted = Counter(event.tag for event in log if event.tag is not None)
    for tag, count in counted.items():
        if count > 1:
            yield f"{tag}: recorded {count} times"
        if tag not in attempted:
            yield f"{tag}: nobody sent it"
    tagged = {event.tag: event for event in log if event.tag is not None}
    for each in acknowledged:
        event = tagged.get(each.tag)
        if event is None:
            yield f"{each.tag}: acknowledged, and lost"
        elif event.device != each.device:
            yield f"{each.tag}: acknowledged for {each.device}, recorded for {event.device}"
        elif each.id is not None and message_seq(event.stream, each.id) != event.seq:
            yield f"{each.tag}: acknowledged under another number than it is recorded"


def deliveries(log: Sequence[Logged], readers: Iterable[Seen]) -> Iterator[str]:
    """Check that readers were given everything, once, and in the order of the log."""
    recorded = by_device(log)
    for reader in readers:
        devices = list(recorded) if reader.device is None else [reader.device]
        for device in devices:
            should = [
                event.tag
                for event in recorded.get(device, ())
                if event.kind is reader.kind and event.tag is not None
            ]
            got = [tag for its, _, tag in reader.messages if its == device]
            if got != should:
                yield f"{reader.name} of {device}: {_difference(should, got)}"


def _difference(should: Sequence[str | None], got: Sequence[str]) -> str:
    counted = Counter(got)
    twice = [tag for tag, count in counted.items() if count > 1]
    missed = [tag for tag in should if tag not in counted]
    if twice or missed:
        return f"missed {missed[:5]}, saw twice {twice[:5]}"
    return "not in the order of the log"


def owners(log: Sequence[Logged]) -> Iterator[str]:
    """Check that of the sockets that speak for a device, each writes in its own reign only.

    The tags of what they write are ``own/DEVICE/REIGN/NUMBER``; reigns are never used again.
    """
    for device, events in by_device(log).items():
        reigns: list[str] = []
        for event in events:
            if event.tag is not None and event.tag.startswith("own/"):
                reign = event.tag.split("/")[2]
                if not reigns or reigns[-1] != reign:
                    if reign in reigns:
                        yield f"{device}: {reign} wrote after {reigns[-1]} had taken over"
                    reigns.append(reign)
