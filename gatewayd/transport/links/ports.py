"""The ports on which lines wait for their clients."""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable
from random import Random, SystemRandom

from twisted.internet.interfaces import IReactorTime

from gatewayd.core.line import Wire
from gatewayd.errors import NoFreePort

_BACKLOG = 512
#: Somebody else has the port, or it is not ours to have.
_TAKEN = {errno.EADDRINUSE, errno.EACCES}


class Port:
    """A bound socket, listening if it is for TCP, until it is closed.

    :ivar number: the port. :ivar socket: non-blocking.
    """

    def __init__(self, number: int, bound: socket.socket, released: Callable[[int], None]) -> None:
        self.number = number
        self.socket = bound
        self._released: Callable[[int], None] | None = released

    def close(self) -> None:
        """Close the socket and give the port back; does nothing the second time."""
        released, self._released = self._released, None
        if released is not None:
            self.socket.close()
            released(self.number)


class PortPool:
    """Hands out ports of a range, in an order that cannot be foreseen.

    Whoever connects to a line first may own it, so the next port must not be guessed. A port that
    was closed rests for a while: what was meant for the old line must not reach the next one. TCP
    and UDP ports have nothing to do with each other.

    :param first: the lowest port of the range. :param last: the highest.
    :param quarantine: seconds for which a closed port rests.
    :param random: what decides the order.
    """

    def __init__(
        self,
        first: int,
        last: int,
        clock: IReactorTime,
        quarantine: float = 30.0,
        random: Random | None = None,
    ) -> None:
        self._clock = clock
        self._quarantine = quarantine
        self._random = random or SystemRandom()
        self._free = {wire: list(range(first, last + 1)) for wire in Wire}
        self._resting: dict[Wire, deque[tuple[float, int]]] = {wire: deque() for wire in Wire}

    def take(self, wire: Wire, host: str) -> Port:
        """Bind a port on the interface *host*.

        :raises NoFreePort: all are taken or resting, or the process has no descriptor left.
        :raises OSError: *host* is no address of this machine.
        """
        free = self._free[wire]
        self._wake(wire)
        foreign: list[int] = []
        try:
            while free:
                number = self._draw(free)
                try:
                    bound = _bind(wire, host, number)
                except OSError as error:
                    foreign.append(number)
                    if error.errno in (errno.EMFILE, errno.ENFILE):
                        raise NoFreePort("no descriptor is left") from error
                    if error.errno not in _TAKEN:
                        raise
                else:
                    return Port(number, bound, lambda number: self._rest(wire, number))
        finally:
            free += foreign
        raise NoFreePort(f"{wire}: every port is taken")

    def _draw(self, free: list[int]) -> int:
        """Remove a random port, at the same cost however many there are."""
        index = self._random.randrange(len(free))
        free[index], free[-1] = free[-1], free[index]
        return free.pop()

    def _rest(self, wire: Wire, number: int) -> None:
        self._resting[wire].append((self._clock.seconds() + self._quarantine, number))

    def _wake(self, wire: Wire) -> None:
        resting, now = self._resting[wire], self._clock.seconds()
        while resting and resting[0][0] <= now:
            self._free[wire].append(resting.popleft()[1])


def _bind(wire: Wire, host: str, number: int) -> socket.socket:
    kind = socket.SOCK_STREAM if wire is Wire.TCP else socket.SOCK_DGRAM
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    try:
        bound.setblocking(False)
        if ":" in host:
            # "::" is every interface, those of IPv4 too, whatever the system's default is.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        if wire is Wire.TCP:
            # Connections of an earlier line may linger in the kernel, they do not matter. On UDP
            # it would let another program share the port.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, number))
        if wire is Wire.TCP:
            bound.listen(_BACKLOG)
    except BaseException:
        bound.close()
        raise
    return bound
