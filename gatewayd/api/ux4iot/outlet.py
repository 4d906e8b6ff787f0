"""Telemetry of one reactor turn, which goes to each connection in one piece."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from gatewayd.transport.socketio.packets import Batch, Prepared

if TYPE_CHECKING:
    from gatewayd.api.ux4iot.groups import Group

#: Bytes after which a group's frames do not wait for the end of the turn.
_ENOUGH = 2**16


class Outlet:
    """Sends groups what they are told, at the end of the reactor turn.

    Of messages that come together, each would be as dear as all of them, where many listen.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._frames: dict[Group, list[Prepared]] = {}
        self._bytes: dict[Group, int] = {}
        self._call: IDelayedCall | None = None

    def send(self, group: Group, frame: Prepared) -> None:
        """Send a group a frame, soon."""
        frames = self._frames.get(group)
        if frames is None:
            frames = self._frames[group] = []
            self._bytes[group] = 0
            if self._call is None:
                self._call = self._clock.callLater(0, self._flush_all)
        frames.append(frame)
        self._bytes[group] += len(frame.packet)
        if self._bytes[group] > _ENOUGH:
            self.flush(group)

    def flush(self, group: Group) -> None:
        """Send a group at once what it was told."""
        frames = self._frames.pop(group, None)
        if frames is not None:
            del self._bytes[group]
            group.send(Batch(frames))

    def stop(self) -> None:
        """Stop the timer."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _flush_all(self) -> None:
        self._call = None
        for group in tuple(self._frames):
            self.flush(group)
