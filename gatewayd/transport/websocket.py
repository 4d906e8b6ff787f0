"""WebSocket APIs on a listener: their limits, their factory, and what they are built from."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from autobahn.twisted.websocket import WebSocketServerFactory
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime

from gatewayd.transport.census import Census
from gatewayd.transport.endpoint import Refused, WebSocketResource
from gatewayd.transport.keepalive import Wheel
from gatewayd.transport.session import WebSocketSession

__all__ = [
    "Refused",
    "WebSocketFactory",
    "WebSocketLimits",
    "WebSocketResource",
    "WebSocketSession",
]

_GOING_AWAY: int = WebSocketSession.CLOSE_STATUS_CODE_GOING_AWAY


@attrs.frozen
class WebSocketLimits:
    """What one listener allows its WebSocket clients.

    :ivar message: the longest frame and message payload that is received, in bytes.
    :ivar send_window: how many bytes may wait for a client that reads too slowly.
    :ivar keepalive: seconds between two pings; 0 for none.
    :ivar close: seconds a client has to finish a close before its connection is cut.
    :ivar connections: how many clients may be connected at a time.
    :ivar connections_per_address: how many of them from one address.
    """

    message: int = 2**20
    send_window: int = 2**20
    keepalive: float = 30.0
    close: float = 3.0
    connections: int = 50_000
    connections_per_address: int = 10_000


class WebSocketFactory(WebSocketServerFactory):
    """Makes the sessions of one WebSocket API on one listener, and owns their timers.

    :ivar sessions: the sessions that hold a connection, those that are closing included.
    :ivar limits: what the clients are allowed.
    :ivar reactor: where all time comes from.
    :ivar wheel: visits each session for its keepalive.
    :ivar draining: True when new handshakes are refused.
    """

    def __init__(
        self,
        session: Callable[[], WebSocketSession],
        limits: WebSocketLimits,
        reactor: IReactorTime,
    ) -> None:
        super().__init__(server="", reactor=reactor)
        self.limits = limits
        self.sessions: set[WebSocketSession] = set()
        self.draining = False
        self.wheel: Wheel[WebSocketSession] = Wheel(
            limits.keepalive, lambda session: session.keep_alive(), reactor
        )
        self._session = session
        self._census = Census(limits.connections_per_address)
        self._unflushed: list[WebSocketSession] = []
        self._flush_call: IDelayedCall | None = None
        self._last_gone: list[Deferred[None]] = []

    def has_room(self, host: str | None) -> bool:
        """Whether one more connection is allowed, from that address."""
        full = self.draining or len(self.sessions) >= self.limits.connections
        return not full and self._census.has_room(host)

    def count(self, session: WebSocketSession) -> None:
        """Know that a session has taken its connection."""
        self.sessions.add(session)
        self._census.enter(session.host)

    def start(self) -> None:
        """Accept handshakes and send keepalive pings."""
        self.draining = False
        self.wheel.start()

    def stop(self) -> None:
        """Stop the timers; the sessions stay as they are."""
        self.wheel.stop()
        if self._flush_call is not None:
            self._flush_call.cancel()
            self._flush()

    def shutdown(self, timeout: float) -> Deferred[None]:
        """Close every session with 1001, and refuse handshakes from now on.

        :param timeout: seconds after which those that are still there are aborted.
        :returns: fires when the last one is gone.
        """
        self.draining = True
        for session in tuple(self.sessions):
            session.close(_GOING_AWAY, "going away")
        if not self.sessions:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._last_gone.append(gone)
        cut = self.reactor.callLater(timeout, self._abort_all)

        def done(result: None) -> None:
            if cut.active():
                cut.cancel()

        return gone.addCallback(done)

    def buildProtocol(self, addr: IAddress | None) -> WebSocketSession:
        """Make a session; :class:`~twisted.internet.interfaces.IProtocolFactory`."""
        session = self._session()
        session.factory = self
        return session

    def getConnectionCount(self) -> int:
        """Return how many sessions hold a connection."""
        return len(self.sessions)

    def flush_soon(self, session: WebSocketSession) -> None:
        """Flush *session* at the end of this reactor turn."""
        if self._flush_call is None:
            self._flush_call = self.reactor.callLater(0, self._flush)
        self._unflushed.append(session)

    def forget(self, session: WebSocketSession) -> None:
        """Let go of a session whose connection is gone."""
        self.wheel.discard(session)
        if session in self.sessions:
            self.sessions.discard(session)
            self._census.leave(session.host)
        if not self.sessions:
            waiters, self._last_gone = self._last_gone, []
            for waiter in waiters:
                waiter.callback(None)

    def _flush(self) -> None:
        self._flush_call = None
        sessions, self._unflushed = self._unflushed, []
        for session in sessions:
            session.flush()

    def _abort_all(self) -> None:
        for session in tuple(self.sessions):
            session.abort()
