"""One of the two sockets of a circuit."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress

_RESET = struct.pack("ii", 1, 0)
#: A peer that has vanished is noticed after two minutes; the system's default is two hours.
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in _KEEPALIVE.items()
        if hasattr(socket, name)
    ),
)


def _nothing(*_anything: object) -> None:
    """Stand for what is not waited for."""


class End:
    """A connected or connecting TCP socket, as a poller knows it.

    What is to be done on its events is assigned to it.

    :param lost: is called when the poller finds the connection broken.
    """

    __slots__ = ("connectionLost", "doRead", "doWrite", "fileno", "readConnectionLost", "socket")

    def __init__(self, connection: socket.socket, lost: Callable[..., None] = _nothing) -> None:
        self.socket = connection
        self.fileno = connection.fileno
        self.doRead: Callable[[], None] = _nothing
        self.doWrite: Callable[[], None] = _nothing
        self.readConnectionLost: Callable[..., None] = _nothing
        self.connectionLost: Callable[..., None] = lost

    def logPrefix(self) -> str:
        """Return what log lines about it begin with."""
        return "TcpLine"

    def tune(self) -> None:
        """Send small messages at once, and notice a peer that has vanished."""
        with suppress(OSError):  # with which some systems answer when the peer has gone already
            for level, option, value in _OPTIONS:
                self.socket.setsockopt(level, option, value)

    def unsent(self) -> int:
        """Return how many bytes the kernel holds that the peer has not confirmed."""
        try:
            answer = fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"\0\0\0\0")
        except OSError:
            return 0
        size: int = struct.unpack("i", answer)[0]
        return size

    def close(self) -> None:
        """Close it; the kernel still sends what it has."""
        self.doRead = self.doWrite = self.readConnectionLost = self.connectionLost = _nothing
        self.socket.close()

    def abort(self) -> None:
        """Close it so that the peer gets a reset."""
        reset(self.socket)
        self.close()


def reset(connection: socket.socket) -> None:
    """Close a connection so that the peer gets a reset."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()
