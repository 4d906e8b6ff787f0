"""A connection to a device, which carries one exchange after another."""

from __future__ import annotations

from typing import Any, BinaryIO, Protocol

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from gatewayd.device.certificates import is_for
from gatewayd.device.destination import Destination
from gatewayd.device.framing import Framing, framing
from gatewayd.device.head import Head, HeadReader
from gatewayd.device.response import Body, Response
from gatewayd.device.rules import HttpRules
from gatewayd.device.upload import Upload
from gatewayd.errors import BadAnswer, NoAnswer

#: Seconds that a device has to take the end of a connection.
_CLOSING = 5.0
#: Bytes that are read at once: of heads and small bodies, and of bodies that go on.
_USUAL = 64 * 1024
_STREAMING = 512 * 1024


class Stale(BadAnswer):
    """The connection was closed before anything of an answer came."""


class Owner(Protocol):
    """Who is told what becomes of a connection."""

    def give(self, connection: Connection) -> None:
        """Take a connection that is ready for another exchange."""

    def forget(self, connection: Connection) -> None:
        """Know that a connection is closed, or is being closed."""


@implementer(IHandshakeListener)
class Connection(TwistedProtocol):
    """One connection; it has one exchange at a time, and reads only what is waited for.

    :ivar ready: fires when requests can be sent; with :exc:`BadAnswer` when the device is not who
        it should be. Cancelling it closes the connection.
    """

    def __init__(
        self, destination: Destination, rules: HttpRules, clock: IReactorTime, owner: Owner
    ) -> None:
        self.destination = destination
        self.ready: Deferred[None] = Deferred(lambda _: self.abort())
        self._rules = rules
        self._clock = clock
        self._owner = owner
        self._method = ""
        self._upload: Upload | None = None
        self._reader: HeadReader | None = None
        self._waiting: Deferred[Response] | None = None
        self._head: Head | None = None
        self._framing: Framing | None = None
        self._body: Body | None = None
        self._closing: IDelayedCall | None = None

    def exchange(
        self, method: str, head: bytes, body: BinaryIO | None, size: int
    ) -> Deferred[Response]:
        """Send a request; fires when the head of the answer is there, and maybe all of it.

        Cancelling closes the connection.

        :raises Stale: it was closed before. :raises BadAnswer: what came is no answer.
        :raises NoAnswer: the body of the request could not be read.
        """
        self._method = method
        self._reader = HeadReader(self._rules.most_head, self._rules.most_lines)
        waiting = self._waiting = Deferred(lambda _: self.abort())
        self._wire.write(head)
        if body is not None:
            self._upload = Upload(body, size, self._wire, self._unreadable)
            self._upload.start()
        return waiting

    def pause(self) -> None:
        """See :class:`~gatewayd.device.response.Source`."""
        self._wire.pauseProducing()

    def resume(self) -> None:
        """See :class:`~gatewayd.device.response.Source`."""
        self._wire.resumeProducing()

    def abort(self) -> None:
        """Close it at once; nobody is told anything more."""
        self._leave()
        self._wire.abortConnection()

    def close(self) -> None:
        """Close it in order, while it has no exchange."""
        self._leave()
        self._wire.loseConnection()
        self._closing = self._clock.callLater(_CLOSING, self._wire.abortConnection)

    # What the device does.

    def connectionMade(self) -> None:
        """Be ready, unless there is to be TLS first."""
        self._wire.setTcpNoDelay(True)
        if not self.destination.base.secure:
            self.ready.callback(None)

    def handshakeCompleted(self) -> None:
        """Be ready if it is the device."""
        if is_for(self._wire.getPeerCertificate(), self.destination.base.host):
            self.ready.callback(None)
        else:
            self.abort()
            self.ready.errback(BadAnswer("its certificate is not for its host"))

    def dataReceived(self, data: bytes) -> None:
        """Read what is waited for."""
        try:
            if self._waiting is not None:
                self._read_head(data)
            elif self._framing is not None:
                self._read_body(data)
            else:
                self.abort()  # nobody asked for anything
        except BadAnswer as error:
            self._fail(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell whoever waits for something what that means."""
        closing, self._closing = self._closing, None
        if closing is not None and closing.active():
            closing.cancel()
        if not self.ready.called:
            self._leave()
            self.ready.errback(BadAnswer(f"there is no TLS with it: {_why(reason)}"))
        elif self._waiting is not None and self._reader is not None:
            self._fail(
                BadAnswer("it closed the connection in the head of its answer")
                if self._reader.begun
                else Stale("it closed the connection without an answer")
            )
        elif self._framing is not None:
            self._end_body(self._framing, bool(reason.check(ConnectionDone)))
        else:
            self._leave()

    # How the answer is read.

    def _read_head(self, data: bytes) -> None:
        assert self._reader is not None
        found = self._reader.feed(data)
        if found is None:
            return
        head, rest = found
        framed = framing(head, self._method)
        payload, excess = framed.feed(rest)
        waiting, self._waiting = self._waiting, None
        assert waiting is not None
        self._head = head
        if framed.done:
            self._finish(excess)
            waiting.callback(Response(head, payload))
            return
        self._framing = framed
        # A large body comes in fewer, larger pieces.
        self._wire.bufferSize = _STREAMING
        self._body = Body(self, framed.length, payload, self._rules.body_idle, self._clock)
        self.pause()
        waiting.callback(Response(head, self._body))

    def _read_body(self, data: bytes) -> None:
        assert self._framing is not None
        body, framed = self._body, self._framing
        assert body is not None
        payload, excess = framed.feed(data)
        body.received(payload)
        # Whoever takes the body may have given it up.
        if framed.done and self._body is body:
            self._finish(excess)
            body.ended()

    def _end_body(self, framed: Framing, clean: bool) -> None:
        body = self._body
        assert body is not None
        try:
            framed.end(clean)
        except BadAnswer as error:
            self._fail(error)
        else:
            self._leave()
            body.ended()

    def _finish(self, excess: bytes) -> None:
        """Let the connection be used again, or close it: the answer is complete."""
        assert self._head is not None
        persistent = self._head.persistent
        upload, self._upload = self._upload, None
        if self._body is not None:
            self._wire.bufferSize = _USUAL
        self._framing = self._body = self._head = None
        if excess or (upload is not None and not upload.done):
            if upload is not None:
                upload.stop()
            self.abort()
        elif persistent:
            self.resume()
            self._owner.give(self)
        else:
            self.close()

    def _fail(self, error: Exception) -> None:
        waiting, body = self._waiting, self._body
        self.abort()
        if waiting is not None:
            waiting.errback(error)
        elif body is not None:
            body.ended(error)

    def _unreadable(self) -> None:
        self._fail(NoAnswer("the body of the request cannot be read"))

    def _leave(self) -> None:
        """Have nothing to do with any exchange any more."""
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.stop()
        self._waiting = self._reader = self._framing = self._body = self._head = None
        self._owner.forget(self)

    @property
    def _wire(self) -> Any:
        """The transport: TCP, or TLS over it."""
        return self.transport


def _why(reason: Failure) -> str:
    """Return why there is no TLS, in the words of OpenSSL; none of it is the device's."""
    error = reason.value
    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list):
        return ", ".join(str(each[-1]) for each in error.args[0]) or "closed"
    return "closed"
