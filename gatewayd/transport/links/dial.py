"""Connecting to a device."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from gatewayd.core.line import Address, Ending
from gatewayd.transport.links.end import End
from gatewayd.transport.links.gear import Gear
from gatewayd.transport.links.stillness import Stillness

_BEGUN = {0, errno.EINPROGRESS, errno.EINTR}
_REFUSALS = {errno.ECONNREFUSED, errno.ECONNRESET}


def _no_change() -> None:
    """Stand for a connection that is not there yet."""


class Dial:
    """One attempt to connect to a device, which either succeeds or fails, unless it is cancelled.

    :param patience: fails it when it takes too long.
    :param connected: gets the connection.
    :param failed: gets the reason, ``REFUSED`` or ``UNREACHABLE``.
    """

    __slots__ = ("_connected", "_end", "_failed", "_gear", "_patience")

    def __init__(
        self,
        gear: Gear,
        patience: Stillness,
        connected: Callable[[End], object],
        failed: Callable[[Ending], object],
    ) -> None:
        self._gear = gear
        self._patience = patience
        self._connected = connected
        self._failed = failed
        self._end: End | None = None

    def start(self, device: Address) -> None:
        """Begin; it may fail at once."""
        family = socket.AF_INET6 if ":" in device.host else socket.AF_INET
        try:
            end = End(socket.socket(family, socket.SOCK_STREAM), self._lost)
        except OSError:
            self._failed(Ending.UNREACHABLE)
            return
        self._end = end
        end.socket.setblocking(False)
        end.tune()
        try:
            error = end.socket.connect_ex((device.host, device.port))
            if error in _BEGUN:
                end.doWrite = self._decided
                self._gear.poller.start_writing(end)
        except OSError as failure:
            error = failure.errno or errno.EINVAL
        if error in _BEGUN:
            self._patience.watch(self, _no_change, self._timed_out)
        else:
            self._fail(error)

    def cancel(self) -> None:
        """Give up; does nothing if it has succeeded or failed."""
        end, self._end = self._end, None
        if end is not None:
            self._patience.leave(self)
            self._gear.poller.forget(end)
            end.abort()

    def _decided(self) -> None:
        end = self._end
        if end is None:
            return
        error = end.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._fail(error)
            return
        self._end = None
        self._patience.leave(self)
        self._gear.poller.stop_writing(end)
        self._connected(end)

    def _lost(self, _reason: object = None) -> None:
        """A reactor that polls says that it is over; the socket knows why."""
        if self._end is not None:
            self._fail(self._end.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _timed_out(self) -> None:
        self._fail(errno.ETIMEDOUT)

    def _fail(self, error: int) -> None:
        self.cancel()
        self._failed(Ending.REFUSED if error in _REFUSALS else Ending.UNREACHABLE)
