"""One Engine.IO client: how packets reach it, its pings, its change to WebSocket and its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from gatewayd.transport.frames import text_frame
from gatewayd.transport.socketio.asking import POLLING, WEBSOCKET
from gatewayd.transport.socketio.packets import (
    CLOSE,
    MESSAGE,
    NOOP,
    PING,
    PONG,
    PROBE,
    PROBED,
    UPGRADE,
    Batch,
    BinaryRefused,
    EnginePacket,
    Malformed,
)

if TYPE_CHECKING:
    from gatewayd.transport.socketio.clients import Clients
    from gatewayd.transport.socketio.session import EngineSession

_log = Logger()

_PING = EnginePacket(PING)
#: What begins a binary message in an HTTP body.
_BASE64 = b"b"

_NORMAL = 1000
_PROTOCOL_ERROR = 1002
_UNSUPPORTED_DATA = 1003

#: So many bytes may wait for the next poll before :attr:`EngineClient.writable` says no.
_ENOUGH = 2**16
#: So many packets go with one poll: the official Python client takes no more.
_MOST_PACKETS = 16


class Listener(Protocol):
    """What is above one Engine.IO client."""

    def alive(self) -> None:
        """Learn that the client answered a ping, or sent a message, which follows."""

    def message(self, payload: bytes) -> None:
        """Handle a message. :raises Malformed: it is none."""

    def ended(self) -> None:
        """Let go of the client; called exactly once."""


class Poll(Protocol):
    """A request that waits for packets."""

    def answer(self, packets: list[bytes]) -> None:
        """Finish it."""


class EngineClient:
    """One Engine.IO client.

    It begins with HTTP polling or with a WebSocket. While it polls, packets wait here for the next
    poll, up to ``send_window`` bytes. A WebSocket that it opens later is on probation, and changes
    nothing, until the client says that all of its polls are over.

    :ivar sid: what its requests call it, which nobody else may know.
    :ivar query: of the URL by which it first came.
    :ivar host: its address as it counts for limits.
    :ivar first_transport: ``polling`` or ``websocket``.
    :ivar ended: whether nothing more is sent to it or heard of it.
    """

    __slots__ = (
        "_asked",
        "_clients",
        "_outbox",
        "_poll",
        "_probation",
        "_probed",
        "_session",
        "_waiters",
        "_waiting",
        "ended",
        "first_transport",
        "host",
        "listener",
        "query",
        "sid",
    )

    listener: Listener

    def __init__(
        self,
        clients: Clients,
        sid: str,
        query: Mapping[str, str],
        host: str | None,
        session: EngineSession | None,
    ) -> None:
        self._clients = clients
        self.sid = sid
        self.query = query
        self.host = host
        self.first_transport = POLLING if session is None else WEBSOCKET
        self.ended = False
        self._session = session
        self._probation: EngineSession | None = None
        self._probed = False
        self._poll: Poll | None = None
        self._outbox: list[bytes] = []
        self._waiting = 0  # bytes in the outbox
        self._waiters: list[Deferred[None]] = []
        self._asked = False  # a ping is not answered yet

    # For what is above.

    def send(self, packet: EnginePacket) -> bool:
        """Send a packet at the end of this reactor turn.

        :returns: False when the client is not there (any more); the packet is dropped then.
        """
        session = self._session
        if session is not None:
            return session.send_frame(packet.frame)
        if self.ended:
            return False
        return self._keep(packet.packet)

    def send_all(self, batch: Batch) -> bool:
        """Send packets as :meth:`send` does."""
        session = self._session
        if session is not None:
            return session.send_frame(batch.frames)
        return all(self.send(packet) for packet in batch.packets)

    @property
    def writable(self) -> bool:
        """Whether the client takes more; if not, what is sent has to wait here."""
        if self._session is not None:
            return self._session.writable
        return self._waiting < _ENOUGH

    def when_writable(self) -> Deferred[None]:
        """Wait until the client takes more, or is gone; the Deferred never fails."""
        if self._session is not None:
            return self._session.when_writable()
        if self.ended or self.writable:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)
        return waiter

    def close(self, code: int = _NORMAL, reason: str = "") -> None:
        """End it in good order: what was sent before still arrives.

        :param code: of the close frame, if it has a WebSocket.
        """
        session, ended = self._session, self.ended
        self._end()
        if session is not None:
            session.close(code, reason)
            self._clients.forget(self)
        elif not ended:
            self._answer_last()

    def refuse(self, error: Malformed) -> None:
        """End it because of what it sent."""
        binary = isinstance(error, BinaryRefused)
        self.close(_UNSUPPORTED_DATA if binary else _PROTOCOL_ERROR, str(error))

    def cut(self) -> None:
        """End it at once; what was queued is lost."""
        session, poll = self._session, self._poll
        self._poll = None
        self._end()
        self._forget_outbox()
        self._clients.forget(self)
        if session is not None:
            session.abort()
        if poll is not None:
            poll.answer([CLOSE])

    # For the transports.

    @property
    def polling(self) -> bool:
        """Whether it is by polling that packets reach it."""
        return self._session is None

    @property
    def upgradable(self) -> bool:
        """Whether it may try a WebSocket now."""
        return not self.ended and self._session is None and self._probation is None

    def receive(self, packet: bytes) -> None:
        """Handle a packet of the client. :raises Malformed: it is none, or not a client's."""
        kind = packet[:1]
        if self.ended:
            if kind == CLOSE:  # so it needs not be told
                self._clients.forget(self)
        elif kind == MESSAGE:
            self.listener.alive()
            if not self.ended:
                self.listener.message(packet[1:])
        elif kind == PONG:
            self._pong()
        elif kind == CLOSE:
            self._leave()
        elif kind == _BASE64:
            raise BinaryRefused
        elif kind not in (UPGRADE, NOOP):
            raise Malformed("unknown type of packet")

    def fetch(self, poll: Poll) -> None:
        """Answer a request for packets, now or when there are some.

        :raises Malformed: there is one already.
        """
        if self._poll is not None:
            raise Malformed("two polls at a time")
        self._poll = poll
        if self.ended:
            self._answer_last()
        elif self._outbox or self._probed:
            self._answer()

    def poll_lost(self, poll: Poll) -> None:
        """End it, because it did not wait for the answer to a poll."""
        if poll is self._poll:
            self._poll = None
            self.cut()

    def try_session(self, session: EngineSession) -> None:
        """Begin a change to WebSocket; it must be :attr:`upgradable`."""
        self._probation = session
        self._clients.probations.set(self, self._clients.rules.upgrade)

    def session_received(self, session: EngineSession, packet: bytes) -> None:
        """Handle a packet that came by a WebSocket."""
        if session is self._probation:
            self._try(session, packet)
            return
        try:
            self.receive(packet)
        except Malformed as error:
            self.refuse(error)

    def session_ended(self, session: EngineSession) -> None:
        """End it with its WebSocket, or go on polling if that was only on probation."""
        if session is self._probation:
            self._probation = None
            self._probed = False
            self._clients.probations.discard(self)
        elif session is self._session:
            self._end()
            self._clients.forget(self)

    # For the clock.

    def beat(self) -> None:
        """Ask whether the client is there, or end it if it did not answer."""
        if self.ended or self._asked:
            _log.debug("socket.io {host}: no sign of life", host=self.host)
            self.cut()
            return
        self._asked = True
        self._clients.beats.set(self, self._clients.rules.ping_timeout)
        self.send(_PING)

    def end_probation(self) -> None:
        """Give up a change to WebSocket that takes too long."""
        if self._probation is not None:
            self._probation.close(_NORMAL, "too late")

    def flush(self) -> None:
        """Answer the poll that waits with the packets of this reactor turn."""
        if self._outbox:
            self._answer()

    # Sending.

    def _keep(self, packet: bytes) -> bool:
        """Send *packet* with the next poll; False if that is more than the window allows."""
        self._append(packet)
        if self._waiting > self._clients.limits.send_window:
            _log.debug("socket.io {host}: slow consumer", host=self.host)
            self.cut()
            return False
        if self._poll is not None and len(self._outbox) == 1:
            self._clients.flush_soon(self)
        return True

    def _append(self, packet: bytes) -> None:
        self._outbox.append(packet)
        self._waiting += len(packet)

    def _answer(self) -> None:
        """Answer the poll that waits, if one does."""
        poll, self._poll = self._poll, None
        if poll is None:
            return
        packets = self._outbox[:_MOST_PACKETS]
        del self._outbox[:_MOST_PACKETS]
        self._waiting -= sum(map(len, packets))
        poll.answer(packets or [NOOP])
        if self.writable:
            self._release()

    def _answer_last(self) -> None:
        """Send the last packets, then the end; wait a while for a poll that takes them.

        The end has a poll of its own: socket.io-client acts on that at once, but on a message a
        little later, and would not learn that it was put out.
        """
        if self._outbox or self._poll is None:
            self._clients.beats.set(self, self._clients.rules.ping_timeout)
        else:
            self._clients.forget(self)
            self._append(CLOSE)
        self._answer()

    def _forget_outbox(self) -> None:
        self._outbox = []
        self._waiting = 0

    def _release(self) -> None:
        """Fire the Deferreds of :meth:`when_writable`."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)

    # What the client sends.

    def _pong(self) -> None:
        """Notice the answer to our ping; any other pong means nothing."""
        if self._asked:
            self._asked = False
            self._clients.beats.set(self, self._clients.rules.ping_interval)
            self.listener.alive()

    def _leave(self) -> None:
        """End it as the client wants."""
        if self._session is not None:
            self.close()
            return
        self._end()
        self._clients.forget(self)
        self._answer()

    def _try(self, session: EngineSession, packet: bytes) -> None:
        """Go on with a change to WebSocket."""
        if packet == PROBE:
            session.send_text(PROBED)
            self._probed = True
            self._answer()
        elif packet == UPGRADE and self._probed:
            self._change_to(session)
        else:
            session.close(_PROTOCOL_ERROR, "not a change of transport")

    def _change_to(self, session: EngineSession) -> None:
        """Send by WebSocket from now on, first what waits for a poll."""
        self._clients.probations.discard(self)
        self._probation = None
        self._probed = False
        self._session = session
        packets = self._outbox
        self._forget_outbox()
        for packet in packets:
            session.send_frame(text_frame(packet))
        self._release()

    # The end.

    def _end(self) -> None:
        """Hear and send no more; the last packets may still wait."""
        if self.ended:
            return
        self.ended = True
        self._session = None
        probation, self._probation = self._probation, None
        self._probed = False
        self._clients.probations.discard(self)
        if probation is not None:
            probation.close(_NORMAL)
        self.listener.ended()
        self._release()
