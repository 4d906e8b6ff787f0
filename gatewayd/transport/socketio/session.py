"""The WebSocket of an Engine.IO client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatewayd.transport.socketio.asking import Asking
from gatewayd.transport.websocket import WebSocketSession

if TYPE_CHECKING:
    from gatewayd.transport.socketio.clients import Clients
    from gatewayd.transport.socketio.engine import EngineClient


class EngineSession(WebSocketSession):
    """The WebSocket of an Engine.IO client, who came by it or changes to it.

    :ivar greeting: what its handshake asked for; an old client that it names may change to it.
    """

    greeting: Asking
    client: EngineClient | None = None

    def __init__(self, clients: Clients) -> None:
        super().__init__()
        self._clients = clients

    def opened(self) -> None:
        """Tell a new client that it is one, or wait for what an old one does."""
        if self.greeting.sid:
            self.client = self._clients.get(self.greeting.sid)
            assert self.client is not None  # the handshake was checked in this turn
            self.client.try_session(self)
        else:
            self.client, packet = self._clients.open(self.greeting, self.host, self)
            self.send_text(packet)

    def text_received(self, payload: bytes) -> None:
        """Handle a packet."""
        if self.client is not None:
            self.client.session_received(self, payload)

    def closing(self) -> None:
        """Tell the client, whoever closes."""
        if self.client is not None:
            self.client.session_ended(self)

    def closed(self) -> None:
        """Tell the client, if there was no close before."""
        self.closing()
