"""The HTTP listener's factory: it keeps the connections, their clock and their end."""

from __future__ import annotations

import time
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.web.http import Request, datetimeToString
from twisted.web.resource import IResource
from twisted.web.server import Site

from gatewayd.transport.body import BodyRules
from gatewayd.transport.census import Census
from gatewayd.transport.channel import GatewayChannel
from gatewayd.transport.limits import HttpLimits
from gatewayd.transport.request import GatewayRequest, error_body
from gatewayd.transport.rest import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["GatewaySite", "HttpLimits"]

#: Seconds between two looks at the deadlines; no deadline is kept more exactly than this.
TICK = 1.0


@runtime_checkable
class Gate(Protocol):
    """What a root may have to say about a request that is not complete."""

    def body_rules(self, request: GatewayRequest) -> BodyRules | None:
        """Return what the body of a request may take; None: what the site's limits say."""

    def refusal(self, path: str, code: int) -> Answer | None:
        """Return what a request is refused with; None: the site's own JSON."""


class GatewaySite(Site):
    """Serve a resource tree over HTTP/1.1 within limits.

    One timer serves all connections and runs only while there are any. Idle connections are
    kept in the order in which they fall due, so that a tick costs nothing for them.

    :param root: the root of the resource tree; it may be a :class:`Gate` as well.
    :param limits: what a client may take.
    :param reactor: the source of time.
    :ivar stopping: whether :meth:`shutdown` was called.
    """

    protocol = GatewayChannel  # type: ignore[assignment]
    requestFactory = GatewayRequest
    displayTracebacks = False
    noisy = False

    def __init__(self, root: IResource, limits: HttpLimits, reactor: IReactorTime) -> None:
        # Twisted's own timeout, one delayed call per connection, stays off.
        super().__init__(root, timeout=None, reactor=reactor, parsePOSTFormSubmission=False)
        self.limits = limits
        self.stopping = False
        self._gate = root if isinstance(root, Gate) else None
        self._body_rules = BodyRules(limits.body)
        self._busy: set[GatewayChannel] = set()
        self._idle: dict[GatewayChannel, None] = {}
        self._tick_call: IDelayedCall | None = None
        self._second, self._date = -1, b""
        self._empty: list[Deferred[None]] = []
        self._census = Census(limits.connections_per_address)

    @property
    def connections(self) -> int:
        """How many connections speak HTTP here; those taken over by WebSocket do not count."""
        return len(self._busy) + len(self._idle)

    def acceptableProtocols(self) -> list[bytes]:
        """Offer HTTP/1.1 only in the TLS handshake: WebSocket takeover needs it."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """Do nothing: there is no access log, which Twisted would prepare here."""

    def stopFactory(self) -> None:
        """Do nothing; :meth:`shutdown` ends the connections."""

    def log(self, request: Request) -> None:
        """Write no line per request: formatting it costs a good part of the request itself."""

    # ---- what channels call

    def admit(self, channel: GatewayChannel) -> bool:
        """Tell whether a new connection may be served; if so, count it for its address."""
        host = Census.host(channel.transport.getPeer())
        full = self.stopping or self.connections >= self.limits.connections
        if full or not self._census.has_room(host):
            return False
        self._census.enter(host)
        channel.counted = host
        return True

    def body_rules(self, request: GatewayRequest) -> BodyRules:
        """Return what the body of a request may take, whose headers are complete."""
        own = self._gate and self._gate.body_rules(request)
        return own or self._body_rules

    def refusal(self, path: str, code: int) -> Answer:
        """Return what the HTTP layer refuses a request with.

        :param path: as the client sent it; "" when it is not known.
        """
        own = self._gate.refusal(path, code) if self._gate and path else None
        return own or Answer(code, error_body(code))

    def date(self) -> bytes:
        """Return the time of day as answers tell it, which is made once a second."""
        now = int(time.time())
        if now != self._second:
            self._second, self._date = now, datetimeToString(now)
        return self._date

    def watch(self, channel: GatewayChannel, *, idle: bool) -> None:
        """Look at a channel again when it falls due.

        :param idle: whether the channel has entered its keep-alive wait just now.
        """
        self._busy.discard(channel)
        self._idle.pop(channel, None)
        if idle:
            self._idle[channel] = None
        else:
            self._busy.add(channel)
        if self._tick_call is None:
            self._tick_call = self.reactor.callLater(TICK, self._tick)

    def forget(self, channel: GatewayChannel) -> None:
        """Drop a channel that is lost or taken over; unknown ones are ignored."""
        self._busy.discard(channel)
        self._idle.pop(channel, None)
        self._census.leave(channel.counted)
        channel.counted = None
        if self.connections:
            return
        if self._tick_call is not None:
            self._tick_call.cancel()
            self._tick_call = None
        waiting, self._empty = self._empty, []
        for deferred in waiting:
            deferred.callback(None)

    def _tick(self) -> None:
        self._tick_call = self.reactor.callLater(TICK, self._tick)
        now = self.reactor.seconds()
        for channel in list(self._due(now)):
            channel.expire(now)

    def _due(self, now: float) -> Iterator[GatewayChannel]:
        yield from (channel for channel in self._busy if channel.due <= now)
        yield from takewhile(lambda channel: channel.due <= now, self._idle)

    # ---- end

    def shutdown(self, timeout: float) -> Deferred[None]:
        """Close idle connections at once and the others after their running request.

        New connections are closed as soon as they are accepted.

        :param timeout: seconds after which the connections still open are aborted.
        :return: fires when no connection is left.
        """
        self.stopping = True
        for channel in [*self._busy, *self._idle]:
            channel.drain()
        done: Deferred[None] = Deferred()
        if not self.connections:
            done.callback(None)
            return done
        self._empty.append(done)
        abort_call = self.reactor.callLater(timeout, self._abort)

        def stop_waiting(result: None) -> None:
            if abort_call.active():
                abort_call.cancel()

        return done.addCallback(stop_waiting)

    def _abort(self) -> None:
        for channel in [*self._busy, *self._idle]:
            channel.abort()
