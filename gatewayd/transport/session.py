"""One WebSocket connection: messages in and out, backpressure, keepalive and every way to end."""

from __future__ import annotations

from typing import Any

from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.util import encode_truncate
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IPushProducer, ISSLTransport, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gatewayd.transport import direct
from gatewayd.transport.frames import PING, close_frame, pong_frame, text_frame
from gatewayd.transport.parser import MessageParser

_log = Logger()

_OPEN: int = WebSocketServerProtocol.STATE_OPEN
_CLOSING: int = WebSocketServerProtocol.STATE_CLOSING
_CLOSED: int = WebSocketServerProtocol.STATE_CLOSED

_GOING_AWAY: int = WebSocketServerProtocol.CLOSE_STATUS_CODE_GOING_AWAY
_UNSUPPORTED_DATA: int = WebSocketServerProtocol.CLOSE_STATUS_CODE_UNSUPPORTED_DATA
_INTERNAL_ERROR: int = WebSocketServerProtocol.CLOSE_STATUS_CODE_INTERNAL_ERROR
_TRY_AGAIN_LATER: int = WebSocketServerProtocol.CLOSE_STATUS_CODE_TRY_AGAIN_LATER

# Twisted's transports pause their producer when this much waits in them.
_TRANSPORT_BUFFER = 2**16


@implementer(IPushProducer)
class WebSocketSession(MessageParser):
    """One WebSocket connection; each API extends it by the hooks.

    What is sent leaves in the order of the calls, whichever method was used. While the peer reads
    too slowly, frames wait here up to ``send_window`` bytes; one byte more and the connection is
    closed with code 1013. An exception in a hook is logged and closes with 1011.

    A session begins through :class:`WebSocketResource`, which answers the handshake for it.

    :ivar greeting: what the resource's ``accept`` returned for this handshake, else None.
    :ivar peer: the client's address, for logs.
    :ivar host: the client's address as it counts for the limit per address.
    :ivar websocket_protocol_in_use: the subprotocol that was chosen, else None.
    """

    greeting: Any = None
    peer: str = "?"
    host: str | None = None
    websocket_protocol_in_use: str | None = None

    _was_open = False
    _paused = False
    _waiting = 0  # bytes in the outbox
    _ping_sent = False
    _deadline: IDelayedCall | None = None

    def __init__(self) -> None:
        # Autobahn's own makes two Deferreds, one of them in the place of our flag is_open.
        self._outbox: list[bytes] = []
        self._drained: list[Deferred[None]] = []

    # Hooks.

    def subprotocol(self, offered: list[str]) -> str | None:
        """Choose one of the subprotocols the client offers, in its spelling; None for none."""
        return None

    def opened(self) -> None:
        """Begin: the handshake has been answered."""

    def text_received(self, payload: bytes) -> None:
        """Handle a whole text message, which is valid UTF-8."""

    def binary_received(self, payload: bytes) -> None:
        """Handle a whole binary message; unless overridden it is refused."""
        self.close(_UNSUPPORTED_DATA, "text frames only")

    def pinging(self) -> None:
        """Learn that a keepalive ping is about to be sent."""

    def ponged(self) -> None:
        """Learn that our latest ping was answered: all that was sent before it has arrived."""

    def closing(self) -> None:
        """Stop sending: a close has begun, whoever began it. Called at most once."""

    def closed(self) -> None:
        """End: the connection is gone. Called exactly once, if :meth:`opened` was."""

    # Services.

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent and will be received."""
        return self.state == _OPEN

    @property
    def writable(self) -> bool:
        """Whether the transport takes more; if not, what is sent has to wait here."""
        return not self._paused

    def send_text(self, payload: bytes) -> bool:
        """Send *payload*, which has to be UTF-8, as a text message at once.

        :returns: False when the connection is not open (any more); the message is dropped then.
        """
        if self.state != _OPEN:
            return False
        frame = text_frame(payload)
        if self._outbox or self._paused:
            return self._queue(frame)
        self.transport.write(frame)
        return True

    def send_frame(self, frame: bytes) -> bool:
        """Send a frame that is built already, at the end of this reactor turn.

        All frames of one turn go to the transport in one piece.

        :returns: False when the connection is not open (any more); the frame is dropped then.
        """
        if self.state != _OPEN:
            return False
        if self._paused:
            return self._queue(frame)
        if not self._outbox:
            self.factory.flush_soon(self)
        self._outbox.append(frame)
        self._waiting += len(frame)
        if self._waiting > _TRANSPORT_BUFFER:
            self._drain()
        return True

    def close(self, code: int, reason: str = "") -> None:
        """Begin the close handshake; messages that arrive from now on are ignored.

        Does nothing when the connection is not open.

        :param code: any close code, the ones of the protocol included.
        :param reason: cut to 123 bytes of UTF-8.
        """
        self.sendCloseFrame(code, encode_truncate(reason, 123))

    def when_writable(self) -> Deferred[None]:
        """Wait until the transport takes more.

        The Deferred fires also when the connection begins to close or is lost, so the waiter
        looks at :attr:`is_open`; it never fails.
        """
        if not self._paused or self.state != _OPEN:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._drained.append(waiter)
        return waiter

    def pause_reading(self) -> None:
        """Deliver nothing until :meth:`resume_reading`, and let the peer feel it.

        It holds from the next message on, even if that has been received already.
        """
        if self._reading and self.state == _OPEN:
            self._reading = False
            self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """Take back :meth:`pause_reading`; messages that waited are delivered before it returns."""
        if self._reading:
            return
        self._reading = True
        self._heard = True  # the peer had no chance to be
        self.transport.resumeProducing()
        if not self._parsing:
            self._parse()

    def abort(self) -> None:
        """Cut the connection; what was queued is lost."""
        if self not in self.factory.sessions:
            return
        self.state = _CLOSED
        self._forget_input()
        self._outbox.clear()
        self._waiting = 0
        self._stop_deadline()
        self.transport.abortConnection()
        self._release()

    # For the factory and the resource.

    def begin(self, response: bytes, early: bytes) -> None:
        """Answer the handshake and open; the resource calls it once it has given the transport.

        :param response: the HTTP answer, 101.
        :param early: what the client sent behind its handshake without waiting for the answer.
        """
        self.transport.write(response)
        self.state = _OPEN
        self._deaf = False
        self._was_open = True
        self.factory.wheel.add(self)
        try:
            self.opened()
        except Exception:
            self._hook_failed()
        if early:
            self.dataReceived(early)

    def flush(self) -> None:
        """Give the frames of this reactor turn to the transport."""
        if self._outbox and not self._paused:
            self._drain()

    def keep_alive(self) -> None:
        """Send a ping, or drop a peer of which nothing came since the last one."""
        if self.state != _OPEN or not self._reading:
            return
        if not self._heard:
            _log.debug("websocket {peer}: no sign of life", peer=self.peer)
            self.abort()
            return
        self._heard = False
        self.probe()

    def probe(self) -> None:
        """Send a ping now; its answer tells that all that was sent before has arrived.

        Nothing happens while one is under way: it would be unclear which the next pong answers.
        """
        if self.state != _OPEN or self._ping_sent:
            return
        try:
            self.pinging()
        except Exception:
            self._hook_failed()
        if self.state == _OPEN:
            self._ping_sent = True
            self._write(PING)

    # IProtocol and IPushProducer.

    def connectionMade(self) -> None:
        """Take the transport; the handshake has not been answered yet."""
        self.factory.count(self)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Clean up; the transport is gone."""
        self.state = _CLOSED
        self._forget_input()
        self._outbox.clear()
        self._waiting = 0
        self._paused = False
        self._reading = True
        self._stop_deadline()
        self._release()
        if self._was_open:
            try:
                self.closed()
            except Exception:
                _log.failure("websocket {peer}: closed() failed", peer=self.peer)
        self.factory.forget(self)

    def pauseProducing(self) -> None:
        """Keep what is sent; the transport has enough."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Send what has waited; the transport takes more."""
        self._paused = False
        self._drain()
        if not self._paused:
            self._release()

    def stopProducing(self) -> None:
        """Wait for :meth:`connectionLost`, which follows."""

    # Sending and closing.

    def _write(self, frame: bytes) -> None:
        if self._outbox or self._paused:
            self._queue(frame)
        else:
            self.transport.write(frame)

    def _queue(self, frame: bytes) -> bool:
        """Send *frame* after all that waits; False if that is more than the window allows."""
        self._outbox.append(frame)
        self._waiting += len(frame)
        if not self._paused:
            self._drain()
        elif self._waiting > self.factory.limits.send_window and self.state == _OPEN:
            self._outbox.clear()
            self._waiting = 0
            self.close(_TRY_AGAIN_LATER, "slow consumer")
            return False
        return True

    def _drain(self) -> None:
        """Move the outbox to the transport, in pieces, until the transport has enough."""
        outbox = self._outbox
        while outbox and not self._paused:
            if self._waiting <= _TRANSPORT_BUFFER:
                count, size = len(outbox), self._waiting
            else:
                count = size = 0
                while size < _TRANSPORT_BUFFER and count < len(outbox):
                    size += len(outbox[count])
                    count += 1
            data = outbox[0] if count == 1 else b"".join(outbox[:count])
            del outbox[:count]
            self._waiting -= size
            direct.write(self.transport, data)

    def _release(self) -> None:
        """Fire the Deferreds of :meth:`when_writable`."""
        if self._drained:
            waiters, self._drained = self._drained, []
            for waiter in waiters:
                waiter.callback(None)

    def _hang_up(self) -> None:
        """Send what is queued, then the end of the stream, and wait for the peer's.

        A socket that is closed while input is unread makes the kernel send a reset, which can
        destroy the close frame on its way. So only our side is closed here, and what still
        arrives is thrown away until the peer closes too or its time is up.
        """
        if self._deaf:
            return
        self.state = _CLOSED
        self._forget_input()
        self.transport.unregisterProducer()
        self._paused = False
        self._drain()
        if not self._reading:
            self._reading = True
            self.transport.resumeProducing()
        half_close = getattr(self.transport, "loseWriteConnection", None)
        if half_close is None or ISSLTransport.providedBy(self.transport):
            # TLS sends its own end-of-stream and keeps on reading until the peer's.
            self.transport.loseConnection()
        else:
            half_close()
        self._start_deadline()
        self._release()

    def _hook_failed(self) -> None:
        _log.failure("websocket {peer}: message handling failed", peer=self.peer)
        if self.state == _OPEN:
            self.close(_INTERNAL_ERROR, "internal error")
        else:
            self._hang_up()

    def _start_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.factory.reactor.callLater(
                self.factory.limits.close, self._out_of_time
            )

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _out_of_time(self) -> None:
        self._deadline = None
        self.abort()

    # What Autobahn's parser and its public methods call.

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        """Send a close frame after all that is queued, unless one has been sent."""
        if self.state != _OPEN:
            return
        self.state = _CLOSING
        self.closedByMe = not isReply
        self.localCloseCode = code
        self.localCloseReason = reasonUtf8
        self._write(close_frame(code, reasonUtf8 or b""))
        self._start_deadline()
        try:
            self.closing()
        except Exception:
            _log.failure("websocket {peer}: closing() failed", peer=self.peer)
        self._release()
        self.resume_reading()

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Send raw bytes after all that is queued; they are never chopped."""
        self._write(data)

    def onPing(self, payload: bytes) -> None:
        """Answer a ping."""
        if self.state == _OPEN:
            self._write(pong_frame(payload))

    def onPong(self, payload: bytes) -> None:
        """Notice the answer to our ping; any other pong is allowed and means nothing."""
        if self._ping_sent and not payload and self.state == _OPEN:
            self._ping_sent = False
            self.ponged()

    def onCloseFrame(self, code: int | None, reasonRaw: bytes | None) -> bool:
        """Answer a close frame with the same code and reason, and hang up."""
        if self.state == _OPEN:
            if code is not None and not _may_be_sent(code):
                return self._protocol_violation(f"invalid close code {code}")
            try:
                self.remoteCloseReason = (reasonRaw or b"").decode()
            except UnicodeDecodeError:
                return self._invalid_payload("close reason is not UTF-8")
            self.remoteCloseCode = code
            self.sendCloseFrame(code, reasonRaw, isReply=True)
        self.wasClean = True
        self._hang_up()
        return True

    def dropConnection(self, abort: bool = False) -> None:
        """Hang up; Autobahn asks for an abort even after a clean close handshake."""
        if abort and not self.wasClean:
            self.abort()
        else:
            self._hang_up()

    def _fail_connection(self, code: int = _GOING_AWAY, reason: str = "going away") -> None:
        _log.debug("websocket {peer}: {code} {reason}", peer=self.peer, code=code, reason=reason)
        self.failedByMe = True
        self.wasNotCleanReason = reason
        self.sendCloseFrame(code, encode_truncate(reason, 123))
        self._hang_up()


def _may_be_sent(code: int) -> bool:
    """Tell whether a peer may close with *code*: RFC 6455 section 7.4 and IANA's registry."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
