"""The iotkit API on a listener: echo-protocol on any path, and REST."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from gatewayd.api.iotkit.admission import Admission
from gatewayd.api.iotkit.dashboard import Dashboard
from gatewayd.api.iotkit.errors import from_http
from gatewayd.api.iotkit.pacing import Complaints, Pacing
from gatewayd.api.iotkit.registrations import Registrations
from gatewayd.api.iotkit.rules import IotKitRules
from gatewayd.api.iotkit.session import EchoSession, chosen
from gatewayd.api.iotkit.tokens import DeviceTokens
from gatewayd.core.bindings import Bindings
from gatewayd.core.gateway import Core
from gatewayd.transport.rest import Answer
from gatewayd.transport.websocket import (
    Refused,
    WebSocketFactory,
    WebSocketLimits,
    WebSocketResource,
)

__all__ = ["IotKit", "IotKitAlone", "IotKitRules"]

#: Where REST is.
REST = "/v1/api"


class IotKit:
    """The echo-protocol sockets of devices and dashboards over one core, and REST beside them.

    On a listener that serves others too, only what offers the protocol, or asks for REST, is its.

    :param bindings: where others look up who is connected, if anywhere; who makes it starts and
        stops it.
    :param rest: what answers below :data:`REST`, if anything.
    :ivar refusing: what refuses handshakes that do not offer the protocol.
    """

    def __init__(
        self,
        core: Core,
        reactor: IReactorTime,
        rules: IotKitRules,
        tokens: DeviceTokens,
        sockets: WebSocketLimits,
        bindings: Bindings | None = None,
        rest: IResource | None = None,
    ) -> None:
        self.reactor = reactor
        self.rules = rules
        self.admission = Admission(core.registry, core.devices, tokens, rules)
        self.registrations = Registrations(core, bindings, reactor)
        self.dashboard = Dashboard(core, rules, reactor)
        self.refusals = Pacing(reactor)
        self.complaints = Complaints(reactor)
        self._rest = rest
        self._factory = WebSocketFactory(lambda: EchoSession(self), sockets, reactor)
        self._sockets = WebSocketResource(self._factory)
        self.refusing = WebSocketResource(self._factory, _refuse)

    # Mount

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
        """Return the sockets, for whoever offers their protocol."""
        return None if chosen(list(subprotocols)) is None else self._sockets

    def resource(self, path: str) -> IResource | None:
        """Return REST for the paths that are REST's."""
        return self._rest if path == REST or path.startswith(f"{REST}/") else None

    def refusal(self, path: str, code: int) -> Answer | None:
        """Return what the HTTP layer refuses a request to REST with."""
        return None if self.resource(path) is None else from_http(code)

    # Life

    def start(self) -> None:
        """Begin to serve."""
        self._factory.start()

    async def stop(self, timeout: float) -> None:
        """Let what was taken be done, then close every socket and have that written.

        :param timeout: seconds, for each of the three.
        """
        self._factory.draining = True
        sessions = [each for each in self._factory.sessions if isinstance(each, EchoSession)]
        await self._within(timeout, DeferredList([e.settle() for e in sessions if e.is_open]))
        await self._factory.shutdown(timeout)
        await self._within(timeout, Deferred.fromCoroutine(self.registrations.settled()))
        self._factory.stop()

    async def _within(self, timeout: float, done: Deferred[Any]) -> None:
        await done.addTimeout(timeout, self.reactor, onTimeoutCancel=lambda *_: None)


class IotKitAlone:
    """The same on a listener that serves nothing else: it refuses the rest as these servers did."""

    def __init__(self, shared: IotKit) -> None:
        self._shared = shared
        self._nothing = _Nothing()

    # Mount

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource:
        """Return the sockets, or what answers who does not offer their protocol with 403."""
        return self._shared.websocket(path, subprotocols) or self._shared.refusing

    def refusal(self, path: str, code: int) -> Answer | None:
        """Return what the HTTP layer refuses a request to REST with."""
        return self._shared.refusal(path, code)

    def resource(self, path: str) -> IResource:
        """Return REST, or what answers everything else with 404."""
        return self._shared.resource(path) or self._nothing


class _Empty(Refused):
    """A refusal without a word."""

    def __init__(self, code: int) -> None:
        super().__init__(code, b"")

    def answer(self, request: Any) -> int:
        """Finish the request; the connection is closed after it."""
        request.setResponseCode(self.code)
        request.responseHeaders.removeHeader(b"Content-Type")
        request.setHeader(b"Content-Length", b"0")
        request.setHeader(b"Connection", b"close")
        request.channel.persistent = False
        request.write(b"")
        request.finish()
        return NOT_DONE_YET


def _refuse(request: IRequest) -> None:
    raise _Empty(403)


class _Nothing(Resource):
    """Is not there."""

    isLeaf = True

    def render(self, request: Any) -> int:
        return _Empty(404).answer(request)
