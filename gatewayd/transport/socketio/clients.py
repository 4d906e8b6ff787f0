"""All Engine.IO clients of a listener."""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_urlsafe

import msgspec
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from gatewayd.transport.census import Census
from gatewayd.transport.endpoint import refusal
from gatewayd.transport.socketio.asking import WEBSOCKET, Asking
from gatewayd.transport.socketio.deadlines import Deadlines
from gatewayd.transport.socketio.engine import EngineClient, Listener
from gatewayd.transport.socketio.packets import OPEN
from gatewayd.transport.socketio.rules import EngineRules
from gatewayd.transport.socketio.session import EngineSession
from gatewayd.transport.websocket import WebSocketLimits

_SID_BYTES = 18


class Clients:
    """All Engine.IO clients of a listener, and their timers.

    :param listen: makes what is above a client.
    :ivar draining: True when new clients are refused.
    :ivar beats: when each client must be asked whether it is there, or must have answered.
    :ivar probations: when a change to WebSocket must be done.
    """

    def __init__(
        self,
        listen: Callable[[EngineClient], Listener],
        limits: WebSocketLimits,
        rules: EngineRules,
        reactor: IReactorTime,
    ) -> None:
        self.limits = limits
        self.rules = rules
        self.draining = False
        self.beats: Deadlines[EngineClient] = Deadlines(EngineClient.beat, reactor)
        self.probations: Deadlines[EngineClient] = Deadlines(EngineClient.end_probation, reactor)
        self._listen = listen
        self._reactor = reactor
        self._clients: dict[str, EngineClient] = {}
        self._census = Census(limits.connections_per_address)
        self._unflushed: list[EngineClient] = []
        self._flush_call: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._clients)

    def get(self, sid: str) -> EngineClient | None:
        """Return the client of that name, if there is one."""
        return self._clients.get(sid)

    def check_room(self, host: str | None) -> None:
        """Look whether one more client is allowed, from that address.

        :raises Refused: it is not.
        """
        full = self.draining or len(self._clients) >= self.limits.connections
        if full or not self._census.has_room(host):
            raise refusal(503)

    def open(
        self, asking: Asking, host: str | None, session: EngineSession | None = None
    ) -> tuple[EngineClient, bytes]:
        """Make a client. :returns: it, and the packet that tells it so."""
        sid = token_urlsafe(_SID_BYTES)
        client = EngineClient(self, sid, asking.query, host, session)
        self._clients[sid] = client
        self._census.enter(host)
        client.listener = self._listen(client)
        self.beats.set(client, self.rules.ping_interval)
        return client, self._open_packet(client)

    def _open_packet(self, client: EngineClient) -> bytes:
        return OPEN + msgspec.json.encode(
            {
                "sid": client.sid,
                "upgrades": [WEBSOCKET] if client.polling else [],
                "pingInterval": round(self.rules.ping_interval * 1000),
                "pingTimeout": round(self.rules.ping_timeout * 1000),
                "maxPayload": self.rules.max_payload,
            }
        )

    def forget(self, client: EngineClient) -> None:
        """Let go of a client, to which nothing more is sent; again does nothing."""
        if self._clients.pop(client.sid, None) is not None:
            self.beats.discard(client)
            self._census.leave(client.host)

    def flush_soon(self, client: EngineClient) -> None:
        """Flush *client* at the end of this reactor turn."""
        if self._flush_call is None:
            self._flush_call = self._reactor.callLater(0, self._flush)
        self._unflushed.append(client)

    def _flush(self) -> None:
        self._flush_call = None
        clients, self._unflushed = self._unflushed, []
        for client in clients:
            client.flush()

    def close_polling(self) -> None:
        """Close the clients that have no WebSocket."""
        for client in tuple(self._clients.values()):
            if client.polling:
                client.close()

    def cut_all(self) -> None:
        """End every client that is left at once, and the timers with them."""
        for client in tuple(self._clients.values()):
            client.cut()
        if self._flush_call is not None:
            self._flush_call.cancel()
            self._flush()
