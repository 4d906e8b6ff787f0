"""Accepting the clients of a line."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from gatewayd.transport.links.gear import Gear

#: Connections in one event: others have to come to their turn as well.
_LIMIT = 64
#: Seconds without accepting when the process has no descriptor or no memory for it.
_PAUSE = 0.5
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Acceptor:
    """A listening socket; it is closed by whom it belongs to.

    :param accepted: gets each connection, non-blocking, and its peer as sockets name it.
    """

    def __init__(
        self,
        listening: socket.socket,
        accepted: Callable[[socket.socket, tuple[Any, ...]], object],
        gear: Gear,
    ) -> None:
        self._socket = listening
        self._accepted = accepted
        self._gear = gear
        self._resuming: IDelayedCall | None = None
        self._stopped = False

    def start(self) -> None:
        """Begin to accept."""
        self._gear.poller.start_reading(self)

    def stop(self) -> None:
        """Accept no more."""
        self._stopped = True
        self._gear.poller.forget(self)
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None

    def fileno(self) -> int:
        """Return the listening socket's descriptor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """Return what log lines about it begin with."""
        return "TcpLine"

    def doRead(self) -> None:
        """Accept those who wait, up to a limit."""
        for _ in range(_LIMIT):
            if self._stopped:
                return
            try:
                connection, name = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause()
                    return
                # Of one connection that has failed already, for instance ECONNABORTED: the others
                # have nothing to do with it.
                continue
            connection.setblocking(False)
            self._accepted(connection, name)

    def doWrite(self) -> None:
        """Do nothing: it is never written to."""

    def readConnectionLost(self, reason: Any = None) -> None:
        """Do nothing: a listening socket has no peer that could end."""

    def connectionLost(self, reason: Any = None) -> None:
        """Do nothing: a listening socket has no peer to lose."""

    def _pause(self) -> None:
        # The connections stay readable: to go on at once would be to turn in circles.
        self._gear.poller.stop_reading(self)
        self._resuming = self._gear.clock.callLater(_PAUSE, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        self._gear.poller.start_reading(self)
