"""The body of a request on its way to a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

_PIECE = 64 * 1024


@implementer(IPushProducer)
class Upload:
    """Sends a file, no faster than the device takes it.

    :param transport: the connection's.
    :param failed: is called when the file cannot be read to its end.
    :ivar done: whether all was sent.
    """

    def __init__(
        self, file: BinaryIO, size: int, transport: Any, failed: Callable[[], None]
    ) -> None:
        self.done = size == 0
        self._file = file
        self._left = size
        self._transport = transport
        self._failed = failed
        self._running = False

    def start(self) -> None:
        """Begin."""
        if not self.done:
            self._transport.registerProducer(self, True)
            self.resumeProducing()

    def stop(self) -> None:
        """Read no more; nothing happens when that is so already."""
        if self._left:
            self._left = 0
            self._transport.unregisterProducer()

    def resumeProducing(self) -> None:
        """Send until the connection has enough."""
        self._running = True
        while self._running and self._left:
            try:
                piece = self._file.read(min(_PIECE, self._left))
            except (OSError, ValueError):  # the latter of a file that was closed
                piece = b""
            if not piece:
                self.stop()
                self._failed()
                return
            self._left -= len(piece)
            self.done = self._left == 0
            self._transport.write(piece)
            if self.done:
                self._transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """Wait until there is room."""
        self._running = False

    def stopProducing(self) -> None:
        """Read no more: the connection is gone."""
        self._left = 0
