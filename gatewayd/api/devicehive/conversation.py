"""What every WebSocket session of this API has: replies in order, and an end without loose ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from gatewayd.transport.lane import Lane
from gatewayd.transport.websocket import WebSocketSession

if TYPE_CHECKING:
    from gatewayd.api.devicehive.api import DeviceHive


class Conversation(WebSocketSession):
    """A socket on which requests are answered in their order.

    :ivar ended: whether a close has begun, though a request may still run.
    """

    ended = False

    def __init__(self, api: DeviceHive) -> None:
        super().__init__()
        self.api = api
        self._patience: IDelayedCall | None = None

    def opened(self) -> None:
        """Begin; somebody has to authenticate in time."""
        limits = self.api.limits
        self.lane = Lane(
            self.send_text, limits.in_flight, self.pause_reading, self.resume_reading, self.defect
        )
        self._patience = self.api.reactor.callLater(
            limits.authentication, self.close, 1008, "authentication timeout"
        )

    def defect(self, failure: Failure) -> bytes:
        """Return the reply to a request whose handler failed; that is logged already."""
        raise NotImplementedError

    def trust(self) -> None:
        """Know that somebody on this socket has authenticated; it may stay."""
        patience, self._patience = self._patience, None
        if patience is not None and patience.active():
            patience.cancel()

    def leave(self, code: int, reason: str) -> None:
        """Close once the requests that were taken have their replies."""
        self.settle().addCallback(lambda _: self.close(code, reason))

    def settle(self) -> Deferred[None]:
        """Fire when every request that was taken has its reply: shutdown waits for it."""
        self.pause_reading()
        return self.lane.when_idle()

    def closing(self) -> None:
        """Know that nothing can be sent any more."""
        self.ended = True

    def closed(self) -> None:
        """Leave nothing behind."""
        self.closing()
        self.lane.close()
        self.trust()
