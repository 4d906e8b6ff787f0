"""Request bodies: what one may take, where it is kept, and whether it still comes in."""

from __future__ import annotations

import math
from contextlib import suppress
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, BinaryIO, cast

import attrs

if TYPE_CHECKING:
    from gatewayd.transport.limits import HttpLimits

#: Seconds of a body before its rate is judged: the first round trips say nothing about it.
BODY_GRACE = 10.0


class NoRoom(Exception):
    """The temporary files of bodies take all the room that they may; nothing was kept."""


class BodyRoom:
    """The room that the temporary files of several bodies share.

    :param total: bytes of all of them together.
    :param directory: where they are, without a name; None: where the system has such files.
    :ivar used: bytes that are written, or kept free for a body that is announced.
    """

    def __init__(self, total: int, directory: str | None = None) -> None:
        self.directory = directory
        self.used = 0
        self._total = total

    def take(self, size: int) -> None:
        """Keep room for so many bytes more. :raises NoRoom: there is less."""
        if self.used + size > self._total:
            raise NoRoom
        self.used += size

    def give_back(self, size: int) -> None:
        """Return what was taken."""
        self.used -= size


@attrs.frozen
class BodyRules:
    """What the body of one request may take.

    :ivar largest: its bytes; more is 413.
    :ivar idle: seconds for which it may stand still; it may then last as long as it keeps the
        listener's rate. None: the listener's time for the whole of it.
    :ivar memory: bytes that are kept in memory, at least 1; a larger body is a temporary file.
    :ivar room: where temporary files have their place; when it is full, the request is 503.
        None: the whole body is kept in memory.
    """

    largest: int
    idle: float | None = None
    memory: int = 64 * 1024
    room: BodyRoom | None = None

    def open(self, length: int | None) -> BinaryIO:
        """Return the file for a body.

        :param length: its bytes; None: nobody knows.
        :raises NoRoom: it has no place.
        """
        if self.room is None:
            return BytesIO()
        return cast(BinaryIO, _Spool(self.memory, self.room, length or 0))


class _Spool(SpooledTemporaryFile[bytes]):
    """A body that is a temporary file as soon as it is too large for memory.

    A client that says how long its body is has the whole room from the beginning: it is better
    to refuse a body before it comes than in the middle.
    """

    def __init__(self, memory: int, room: BodyRoom, length: int) -> None:
        super().__init__(max_size=memory, dir=room.directory)
        self._memory = memory
        self._room = room
        self._taken = 0
        self._end = 0
        try:
            self._reach(length)
        except NoRoom:
            self.close()
            raise

    def _reach(self, end: int) -> None:
        """Keep room for a body of so many bytes. :raises NoRoom:"""
        if end > self._memory and end > self._taken:
            self._room.take(end - self._taken)
            self._taken = end

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Add a piece at the end. :raises NoRoom: :raises OSError: the disk does not take it."""
        self._reach(self._end + len(data))
        self._end += len(data)
        size = super().write(data)
        self.flush()  # now, while there is somebody to tell that the disk is full
        return size

    def close(self) -> None:
        """Delete the file and return its room; again does nothing."""
        with suppress(OSError):  # what could not be written is not needed any more
            super().close()
        taken, self._taken = self._taken, 0
        if taken:
            self._room.give_back(taken)


class BodyPace:
    """Tells whether a body comes in fast enough.

    :param idle: seconds for which it may stand still; None: it has ``limits.body_seconds``.
    :param now: the time in seconds; the body begins.
    :ivar grace: seconds after which it must be judged first.
    """

    __slots__ = ("_began", "_bytes", "_idle", "_moved", "_rate", "_whole", "grace")

    def __init__(self, idle: float | None, limits: HttpLimits, now: float) -> None:
        self._began = self._moved = now
        self._bytes = 0
        self._rate = limits.body_rate
        self._idle = math.inf if idle is None else idle
        self._whole = limits.body_seconds if idle is None else math.inf
        self.grace = min(BODY_GRACE, self._idle, self._whole)

    def add(self, size: int, now: float) -> None:
        """Count bytes that have come."""
        self._bytes += size
        self._moved = now

    def is_late(self, now: float) -> bool:
        """Tell whether the client has used up its time."""
        elapsed = now - self._began
        if elapsed >= self._whole or now - self._moved >= self._idle:
            return True
        return elapsed >= BODY_GRACE and self._bytes < self._rate * elapsed
