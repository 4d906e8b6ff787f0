"""Where the body of a device's answer ends."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from gatewayd.device.head import Head
from gatewayd.errors import BadAnswer

_LENGTH = re.compile(rb"[0-9]{1,18}")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
#: Bytes: of the line before a chunk, and of all trailers together.
_LONGEST_LINE = 4096
_MOST_TRAILERS = 64 * 1024
_CUT_SHORT = "its answer was cut short"


class Framing(Protocol):
    """Takes a body out of what comes.

    :ivar done: whether the body is complete.
    """

    done: bool

    @property
    def length(self) -> int | None:
        """Bytes of the whole body; None when only its end tells."""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what is of the body, and what came after its end.

        :raises BadAnswer: it is malformed.
        """

    def end(self, clean: bool) -> None:
        """Know that nothing more comes. :raises BadAnswer: that is too early."""


class Counted:
    """A body of so many bytes."""

    def __init__(self, length: int) -> None:
        self.length: int | None = length
        self.done = length == 0
        self._left = length

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """See :class:`Framing`."""
        payload, excess = data[: self._left], data[self._left :]
        self._left -= len(payload)
        self.done = self._left == 0
        return payload, excess

    def end(self, clean: bool) -> None:
        """See :class:`Framing`."""
        raise BadAnswer(_CUT_SHORT)


class UntilClosed:
    """A body that ends with the connection."""

    def __init__(self) -> None:
        self.length: int | None = None
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """See :class:`Framing`."""
        return data, b""

    def end(self, clean: bool) -> None:
        """See :class:`Framing`. After a reset nobody knows whether that was all."""
        if not clean:
            raise BadAnswer(_CUT_SHORT)


class Chunked:
    """A body in chunks, each of which says how long it is."""

    def __init__(self) -> None:
        self.length: int | None = None
        self.done = False
        self._held = bytearray()
        self._left = 0
        self._trailers = 0
        self._step: Callable[[list[bytes]], bool] = self._read_size

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """See :class:`Framing`."""
        self._held += data
        payload: list[bytes] = []
        while not self.done and self._step(payload):
            pass
        excess = b""
        if self.done:
            excess, self._held = bytes(self._held), bytearray()
        return b"".join(payload), excess

    def end(self, clean: bool) -> None:
        """See :class:`Framing`."""
        raise BadAnswer(_CUT_SHORT)

    # Each step returns whether there may be another one.

    def _read_size(self, _payload: list[bytes]) -> bool:
        line = self._line()
        if line is None:
            return False
        match = _SIZE.fullmatch(line)
        if match is None:
            raise BadAnswer("a chunk of its answer has no size")
        self._left = int(match[1], 16)
        self._step = self._read_data if self._left else self._read_trailer
        return True

    def _read_data(self, payload: list[bytes]) -> bool:
        piece = bytes(self._held[: self._left])
        del self._held[: self._left]
        payload.append(piece)
        self._left -= len(piece)
        if self._left == 0:
            self._step = self._read_end
        return self._left == 0

    def _read_end(self, _payload: list[bytes]) -> bool:
        if len(self._held) < 2:
            return False
        if not self._held.startswith(b"\r\n"):
            raise BadAnswer("a chunk of its answer does not end where it should")
        del self._held[:2]
        self._step = self._read_size
        return True

    def _read_trailer(self, _payload: list[bytes]) -> bool:
        line = self._line()
        if line is None:
            return False
        self._trailers += len(line)
        if self._trailers > _MOST_TRAILERS:
            raise BadAnswer("the trailers of its answer are too large")
        self.done = not line
        return True

    def _line(self) -> bytes | None:
        """Take a line from what is held; None when it is not whole."""
        end = self._held.find(b"\r\n", 0, _LONGEST_LINE)
        if end < 0:
            if len(self._held) >= _LONGEST_LINE:
                raise BadAnswer("a line between the chunks of its answer is too long")
            return None
        line = bytes(self._held[:end])
        del self._held[: end + 2]
        return line


def framing(head: Head, method: str) -> Framing:
    """Return how the answer to a request is framed. :raises BadAnswer: nobody can tell."""
    if method == "HEAD" or head.status in (204, 304):
        return Counted(0)
    codings = head.values(b"transfer-encoding")
    if codings:
        # What also has a length is not read by it; such a connection is not used again.
        if [each.lower() for each in codings] != [b"chunked"]:
            raise BadAnswer("its answer has a transfer encoding that nobody knows")
        return Chunked()
    lengths = {each.strip() for each in b",".join(head.values(b"content-length")).split(b",")}
    if lengths == {b""} and not head.values(b"content-length"):
        return UntilClosed()
    if len(lengths) > 1 or not _LENGTH.fullmatch(min(lengths)):
        raise BadAnswer("the length of its answer is none")
    return Counted(int(min(lengths)))
