"""Socket.IO on a listener."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource

from gatewayd.transport.body import BodyRules
from gatewayd.transport.census import Census
from gatewayd.transport.request import GatewayRequest, error_body
from gatewayd.transport.rest import Answer
from gatewayd.transport.socketio.asking import (
    BAD_REQUEST,
    UNKNOWN_SID,
    WEBSOCKET,
    Asking,
    EngineError,
)
from gatewayd.transport.socketio.clients import Clients
from gatewayd.transport.socketio.connection import Application
from gatewayd.transport.socketio.conversation import Conversation
from gatewayd.transport.socketio.deadlines import Deadlines
from gatewayd.transport.socketio.polling import CORS, PollingResource
from gatewayd.transport.socketio.rules import EngineRules
from gatewayd.transport.socketio.session import EngineSession
from gatewayd.transport.websocket import WebSocketFactory, WebSocketLimits, WebSocketResource

_PATHS = ("/socket.io/", "/socket.io")


class SocketIO:
    """Socket.IO 5 over Engine.IO 4, by HTTP polling and WebSocket, at ``/socket.io/``.

    It is a mount, with rules of its own for bodies and refusals.

    :param application: learns of the clients.
    :param sockets: the limits of WebSockets. Those of connections hold for all clients, the
        polling ones included, and so does the send window; the keepalive is Engine.IO's own.
    :ivar clients: who is there.
    """

    def __init__(
        self,
        application: Application,
        sockets: WebSocketLimits,
        rules: EngineRules,
        reactor: IReactorTime,
    ) -> None:
        limits = attrs.evolve(sockets, message=rules.max_payload, keepalive=0.0)
        lonely: Deadlines[Conversation] = Deadlines(lambda each: each.client.close(), reactor)
        self.clients = Clients(
            lambda client: Conversation(client, application, rules, lonely), limits, rules, reactor
        )
        self._body_rules = BodyRules(rules.max_payload)
        self._factory = WebSocketFactory(lambda: EngineSession(self.clients), limits, reactor)
        self._sockets = WebSocketResource(self._factory, self._accept)
        self._polling = PollingResource(self.clients)

    # Mount

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
        """Return what upgrades requests for Engine.IO's path."""
        return self._sockets if path in _PATHS else None

    def resource(self, path: str) -> IResource | None:
        """Return what answers Engine.IO's polling."""
        return self._polling if path in _PATHS else None

    def body_rules(self, path: str, request: GatewayRequest) -> BodyRules | None:
        """Return what the body of a client's packets may take."""
        return self._body_rules if path in _PATHS else None

    def refusal(self, path: str, code: int) -> Answer | None:
        """Return what the HTTP layer refuses polling with, for pages of other origins too."""
        return Answer(code, error_body(code), CORS) if path in _PATHS else None

    # Life

    def start(self) -> None:
        """Begin to serve."""
        self.clients.draining = False
        self._factory.start()

    async def stop(self, timeout: float) -> None:
        """Close every client; new ones are refused from now on.

        :param timeout: seconds that those with a WebSocket have to close it too.
        """
        self.clients.draining = True
        self.clients.close_polling()
        await self._factory.shutdown(timeout)
        self.clients.cut_all()
        self._factory.stop()

    def _accept(self, request: Any) -> Asking:
        """Decide about a WebSocket handshake. :raises Refused: it is not as it has to be."""
        asking = Asking.of(request)
        client = self.clients.get(asking.sid) if asking.sid else None
        if asking.sid and client is None:
            raise EngineError(UNKNOWN_SID)
        if asking.transport != WEBSOCKET or (client is not None and not client.upgradable):
            raise EngineError(BAD_REQUEST)
        if client is None:
            asking.check_version()
            self.clients.check_room(Census.host(request.getClientAddress()))
        return asking
