"""What a notification of the database carries from one node to the others.

Either :data:`CHANGE` or :data:`JOINED`, or a frame: a JSON array of the token of the store that
wrote, the position after which and the one up to which it wrote, and the events between them;
``null`` instead of these when they are too large, and have to be read.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gatewayd.core.model import Event, Kind

#: The channel of the database on which nodes notify one another.
CHANNEL = "gatewayd"
#: The notification that the registry was changed.
CHANGE = "change"
#: The notification that there is a node more.
JOINED = "joined"
_LONGEST = 7900  # bytes; the database takes less than 8000
_MOST = 16  # frames of one commit
_FRAMING = 100  # bytes of a frame at most, without its events


class _Command(msgspec.Struct, array_like=True):
    stream: int
    seq: int
    device: str
    name: str
    network: int
    type: int
    ts: int
    stamp: int
    updated: int
    user: int | None
    parameters: bytes | None
    lifetime: int | None
    status: str | None
    result: bytes | None
    changed: bool


class _Event(msgspec.Struct, array_like=True):
    stream: int
    seq: int
    ts: int
    stamp: int
    kind: Kind
    name: str
    device: str
    network: int
    type: int
    position: int
    body: bytes | None
    epoch: int
    command: _Command | None


class _Frame(msgspec.Struct, array_like=True):
    sender: str
    after: int
    upto: int
    events: list[_Event] | None


class Frame(msgspec.Struct, frozen=True):
    """Events that another store has committed.

    :ivar sender: its token.
    :ivar after: the position before the first event. :ivar upto: the last one's.
    :ivar events: None when they have to be read.
    """

    sender: str
    after: int
    upto: int
    events: list[Event] | None


def frames(sender: str, after: int, events: Sequence[Event]) -> list[str]:
    """Return the notifications of a commit.

    :param sender: the token of the store: a few letters and digits.
    :param after: the position before the first event; each event has the next one.
    """
    upto = after + len(events)
    pieces = _pieces(events)
    if pieces is None:
        return [f'["{sender}",{after},{upto},null]']
    found = []
    for piece in pieces:
        rows = ",".join(piece)
        found.append(f'["{sender}",{after},{after + len(piece)},[{rows}]]')
        after += len(piece)
    return found


def _pieces(events: Sequence[Event]) -> list[list[str]] | None:
    """Encode events, parted into what fits into a frame; None: they are too large."""
    room = _LONGEST - _FRAMING
    if sum(event.size for event in events) > _MOST * room:
        return None
    pieces: list[list[str]] = []
    left = 0
    for event in events:
        row = msgspec.json.encode(msgspec.convert(event, _Event, from_attributes=True))
        size = len(row) + 1
        if size > left:
            pieces.append([])
            left = room
        if size > left or len(pieces) > _MOST:
            return None
        pieces[-1].append(row.decode())
        left -= size
    return pieces


_decoder = msgspec.json.Decoder(_Frame)


def parse(payload: str) -> Frame:
    """Read a frame; its events are foreign. :raises ValueError: it is none."""
    frame = _decoder.decode(payload)
    events = None
    if frame.events is not None:
        events = [msgspec.convert(event, Event, from_attributes=True) for event in frame.events]
        for event in events:
            event.foreign = True
        if [event.position for event in events] != list(range(frame.after + 1, frame.upto + 1)):
            raise ValueError("the positions of a frame have a gap")
    return Frame(frame.sender, frame.after, frame.upto, events)
