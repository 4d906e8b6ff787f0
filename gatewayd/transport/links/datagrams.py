"""Datagrams that are moved from one UDP socket to another, many at a time."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import attrs

from gatewayd.core.line import Address
from gatewayd.transport.links.addresses import canonical

#: How many datagrams are moved at most before others have their turn.
LIMIT = 64
#: The room for one datagram, in bytes: none is as long, so what fills it was cut off.
ROOM = 64 * 1024
#: The longest that is sent on: 64 KiB less the headers of UDP and IPv4.
LONGEST = 65_507

_BUFFER = 4 * 1024 * 1024  # bytes that may wait in a socket; the kernel may allow fewer
_MAPPED = "::ffff:"  # before an IPv4 address that an IPv6 socket is to reach

#: Where a datagram comes from or goes to, as Python's sockets have it.
Name = tuple[Any, ...]


@attrs.define(eq=False)
class Side:
    """One of the two sockets of a link.

    :ivar segments: the longest datagrams of which several are given to the kernel as one.
    """

    socket: socket.socket
    descriptor: int = attrs.field(init=False)
    family: int = attrs.field(init=False)
    segments: int = attrs.field(default=LONGEST, init=False)

    def __attrs_post_init__(self) -> None:
        self.descriptor = self.socket.fileno()
        self.family = int(self.socket.family)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)


def family(host: str) -> int:
    """Return the kind of an IP address: ``AF_INET`` or ``AF_INET6``."""
    return int(socket.AF_INET6 if ":" in host else socket.AF_INET)


def name(address: Address, family: int) -> Name:
    """Return how sockets of a family call an address.

    :raises ValueError: they cannot reach it, or its host is no IP address.
    """
    host = canonical(address).host
    if family == socket.AF_INET6 and ":" not in host:
        host = _MAPPED + host
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        found = socket.getaddrinfo(host, address.port, family, socket.SOCK_DGRAM, flags=flags)
    except socket.gaierror as error:
        raise ValueError(f"{address} cannot be reached from that interface") from error
    return found[0][4]


class Batch(ABC):
    """Room for datagrams, which are taken from a socket, looked at or replaced, and sent on.

    One does for all links of a reactor: nothing stays in it from one event to the next.

    :ivar sizes: how long each datagram is, in bytes.
    """

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._room = bytearray(LIMIT * ROOM)
        view = memoryview(self._room)
        self._slots = [view[start : start + ROOM] for start in range(0, len(view), ROOM)]

    @abstractmethod
    def receive(self, side: Side) -> None:
        """Take at least one, at most :data:`LIMIT`. :raises OSError: there is none."""

    @abstractmethod
    def sender(self, index: int) -> Name:
        """Return who sent one."""

    @abstractmethod
    def arrived(self, sender: Name | None = None) -> list[int]:
        """Return the indexes of those that are whole, and came from *sender* if it is given."""

    @abstractmethod
    def send(self, side: Side, indexes: Sequence[int], to: Name | None = None) -> list[int]:
        """Send some, in this order; *to* is for a socket that is not connected.

        :returns: the indexes of those that could not be sent.
        """

    def content(self, index: int) -> memoryview:
        """Return one, as long as it stays in the batch."""
        return self._slots[index][: self.sizes[index]]

    def replace(self, index: int, content: bytes) -> None:
        """Put something else in the place of one, at most :data:`ROOM` bytes."""
        self.sizes[index] = len(content)
        self._slots[index][: len(content)] = content


class LoopBatch(Batch):
    """Datagrams moved one by one, with Python's own calls."""

    def __init__(self) -> None:
        super().__init__()
        self._senders: list[Name] = []

    def receive(self, side: Side) -> None:
        """Take them until there is none left."""
        self.sizes = []
        self._senders = []
        take = side.socket.recvfrom_into
        for slot in self._slots:
            try:
                size, sender = take(slot)
            except OSError:
                if self.sizes:
                    return
                raise
            self.sizes.append(size)
            self._senders.append(sender)

    def sender(self, index: int) -> Name:
        """Return the sender as the socket gave it."""
        return self._senders[index]

    def arrived(self, sender: Name | None = None) -> list[int]:
        """Look at one after the other."""
        return [
            index
            for index, size in enumerate(self.sizes)
            if size < ROOM and (sender is None or self._senders[index] == sender)
        ]

    def send(self, side: Side, indexes: Sequence[int], to: Name | None = None) -> list[int]:
        """Send one after the other."""
        return [index for index in indexes if not self._send(side.socket, index, to)]

    def _send(self, through: socket.socket, index: int, to: Name | None) -> bool:
        for _ in range(2):  # the first call may fail for what became of an earlier datagram
            try:
                if to is None:
                    through.send(self.content(index))
                else:
                    through.sendto(self.content(index), to)
            except BlockingIOError:
                return False
            except OSError:
                continue
            return True
        return False
