"""Socket.IO with one client: the namespaces that it is in."""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_urlsafe
from typing import Any

import msgspec
from twisted.logger import Logger

from gatewayd.transport.socketio.connection import Application, Connection
from gatewayd.transport.socketio.deadlines import Deadlines
from gatewayd.transport.socketio.engine import EngineClient
from gatewayd.transport.socketio.packets import (
    ACK,
    CONNECT,
    CONNECT_ERROR,
    DISCONNECT,
    EVENT,
    Malformed,
    Packet,
    Prepared,
    packet_head,
)
from gatewayd.transport.socketio.rules import EngineRules

_log = Logger()

_ID_BYTES = 15
_INTERNAL_ERROR = 1011
_TOO_MANY = msgspec.json.encode({"message": "too many namespaces"})


class Conversation:
    """Socket.IO with one client.

    :param lonely: when clients that are in no namespace must have asked for one.
    :ivar client: with whom.
    """

    __slots__ = ("_application", "_connections", "_lonely", "_rules", "client")

    def __init__(
        self,
        client: EngineClient,
        application: Application,
        rules: EngineRules,
        lonely: Deadlines[Conversation],
    ) -> None:
        self.client = client
        self._application = application
        self._rules = rules
        self._lonely = lonely
        self._connections: dict[str, Connection] = {}
        lonely.set(self, rules.connect)

    # Listener

    def alive(self) -> None:
        """Tell all that the client is alive."""
        for connection in tuple(self._connections.values()):
            if connection.open:
                self._tell(self._application.heard, connection)

    def message(self, payload: bytes) -> None:
        """Handle a packet. :raises Malformed: it is none, or at the wrong time."""
        packet = Packet.parse(payload)
        connection = self._connections.get(packet.namespace)
        if packet.type == CONNECT and connection is None:
            self._arrive(packet.namespace)
        elif packet.type == DISCONNECT:
            # It may have crossed our own.
            if connection is not None:
                self._leave(connection)
        elif packet.type in (EVENT, ACK) and connection is not None and connection.open:
            if packet.type == EVENT:
                self._tell(self._application.event, connection, packet.data)
        else:
            raise Malformed("not at this time")

    def ended(self) -> None:
        """Let go of all connections."""
        while self._connections:
            self._leave(next(iter(self._connections.values())))
        self._lonely.discard(self)

    # For connections

    def accept(self, connection: Connection) -> None:
        """Let the client into a namespace."""
        if self._holds(connection) and not connection.open:
            connection.open = True
            answer = msgspec.json.encode({"sid": token_urlsafe(_ID_BYTES)})
            self._send(CONNECT, connection.namespace, answer)

    def refuse(self, connection: Connection, data: bytes) -> None:
        """Turn the client away from a namespace."""
        if self._holds(connection) and not connection.open:
            self._send(CONNECT_ERROR, connection.namespace, data)
            self._leave(connection)

    def disconnect(self, connection: Connection) -> None:
        """Put the client out of a namespace, and close it if it was its last."""
        if self._holds(connection):
            self._send(DISCONNECT, connection.namespace)
            self._leave(connection)
            if not self._connections:
                self.client.close()

    # Inside

    def _holds(self, connection: Connection) -> bool:
        return self._connections.get(connection.namespace) is connection

    def _arrive(self, namespace: str) -> None:
        if len(self._connections) >= self._rules.namespaces:
            self._send(CONNECT_ERROR, namespace, _TOO_MANY)
            return
        self._lonely.discard(self)
        connection = Connection(self, namespace)
        self._connections[namespace] = connection
        self._tell(self._application.arrived, connection)

    def _leave(self, connection: Connection) -> None:
        connection.open = False
        del self._connections[connection.namespace]
        if not self._connections:
            self._lonely.set(self, self._rules.connect)
        self._tell(self._application.gone, connection)

    def _send(self, kind: int, namespace: str, data: bytes = b"") -> None:
        self.client.send(Prepared(packet_head(kind, namespace) + data))

    def _tell(self, hook: Callable[..., Any], *arguments: Any) -> None:
        """Call the application, whose failure is the end of the client."""
        try:
            hook(*arguments)
        except Exception:
            _log.failure("socket.io {host}: the application failed", host=self.client.host)
            self.client.close(_INTERNAL_ERROR, "internal error")
