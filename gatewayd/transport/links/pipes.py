"""The pipes through which the kernel moves bytes from one socket to another."""

from __future__ import annotations

import fcntl
import os
import sys

#: Bytes that a pipe should hold, and with it the most that is moved at once.
ROOM = 1024 * 1024
#: With less room than that, copying is the faster way. A process without privileges gets such
#: pipes when it has many.
_LEAST = 64 * 1024
#: How many empty pipes are kept for later.
_SPARE = 16


class Pipe:
    """A pipe, as its two descriptors."""

    __slots__ = ("read", "write")

    def __init__(self, read: int, write: int) -> None:
        self.read = read
        self.write = write

    def close(self) -> None:
        """Close it, with what is in it."""
        os.close(self.read)
        os.close(self.write)


class Pipes:
    """One pipe for all who move bytes, and one of its own for each who could not finish.

    What goes into the shared pipe leaves it within the same event, unless the target has no room.
    Then the pipe is kept for the rest, and another one becomes the shared one. So most links need
    no pipe, and the one they share stays in the processor's cache.

    :ivar shared: an empty pipe, if there is one now.
    """

    def __init__(self) -> None:
        self.shared: Pipe | None = None
        self._spare: list[Pipe] = []
        self._useless = False

    def renew(self) -> Pipe | None:
        """Make sure that there is a shared pipe; None: the system allows no more."""
        if self.shared is None and not self._useless:
            self.shared = self._another()
        return self.shared

    def give_up(self) -> None:
        """Offer no pipe any more: this kernel does not move bytes between sockets."""
        self._useless = True
        self.spoil()

    def keep(self) -> Pipe | None:
        """Take the shared pipe away, with its content.

        :returns: None if there is no other one to replace it: it stays the shared one, and has to
            be emptied at once.
        """
        another = self._another()
        if another is None:
            return None
        kept, self.shared = self.shared, another
        return kept

    def give_back(self, pipe: Pipe) -> None:
        """Return a pipe that was taken away and is empty now."""
        if len(self._spare) < _SPARE:
            self._spare.append(pipe)
        else:
            pipe.close()

    def spoil(self) -> None:
        """Throw the shared pipe away, since what is in it is for nobody."""
        if self.shared is not None:
            self.shared.close()
            self.shared = None

    def close(self) -> None:
        """Close all that have not been taken away; later use makes new ones."""
        self.spoil()
        while self._spare:
            self._spare.pop().close()

    def _another(self) -> Pipe | None:
        return self._spare.pop() if self._spare else _make()


def _make() -> Pipe | None:
    try:
        pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return None
    try:
        room = fcntl.fcntl(pipe.write, fcntl.F_SETPIPE_SZ, ROOM)
    except OSError:
        room = fcntl.fcntl(pipe.write, fcntl.F_GETPIPE_SZ)
    if room < _LEAST:
        pipe.close()
        return None
    return pipe


def pipes_for_platform() -> Pipes | None:
    """Return pipes, if the kernel can move bytes through them."""
    return Pipes() if sys.platform == "linux" and hasattr(os, "splice") else None
