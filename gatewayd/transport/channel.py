"""One HTTP/1.1 connection with deadlines, strict framing and a polite close."""

from __future__ import annotations

import enum
import math
import re
import sys
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers

from gatewayd.transport.body import BodyPace, NoRoom
from gatewayd.transport.head import head, refusal
from gatewayd.transport.request import RETRY, GatewayRequest
from gatewayd.transport.unsent import unsent

if TYPE_CHECKING:
    from gatewayd.transport.site import GatewaySite

#: Seconds that a client has to read an error and close, before the connection is aborted. With
#: the header deadline and two ticks of the site it keeps any silent client below 15 seconds.
CLOSE_SECONDS = 3.0

#: Bytes that are read and thrown away after an error, so that the kernel does not answer them
#: with a reset that would destroy the error on its way to the client.
DISCARD_BYTES = 16 * 1024 * 1024

# Longer numbers are never a sensible length, and int() raises ValueError from 4301 digits on.
_LENGTH_DIGITS = 18

_NO_HEADERS: Mapping[str, str] = {}

_TARGET = re.compile(rb"/[!-~]*|\*")
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]{0,255}")


class Phase(enum.Enum):
    """Where a connection stands; each phase but :attr:`HANDLING` has a deadline."""

    IDLE = enum.auto()  #: between two requests
    HEAD = enum.auto()  #: before the end of a request's headers
    BODY = enum.auto()  #: before the end of a request's body
    HANDLING = enum.auto()  #: a resource is preparing or writing the response
    CLOSING = enum.auto()  #: closed by us; input is thrown away
    GONE = enum.auto()  #: lost, or taken over by another protocol


class GatewayChannel(HTTPChannel):
    """A connection of a :class:`~gatewayd.transport.site.GatewaySite`.

    Twisted's own timeout is idle-only: a client that sends one byte per minute stays for ever.
    Here every phase has an absolute deadline, and the site's clock calls :meth:`expire`.

    Setting :attr:`transport` to None is how Autobahn's resource takes a connection over in the
    middle of a request. From then on the channel is :attr:`Phase.GONE` and touches nothing.

    :ivar due: when :meth:`expire` must be called, in seconds of the site's reactor.
    """

    site: GatewaySite
    requestFactory = GatewayRequest

    # The limits are judged here, with 431 instead of Twisted's 400.
    maxHeaders = sys.maxsize
    totalHeadersSize = sys.maxsize

    _transport: Any = None
    _secure: bool | None = None
    _host: Any = None
    _body: BodyPace  # of the latest body
    # Twisted sets it with a request line, and deletes it when the request is complete.
    _path = b""

    def __init__(self) -> None:
        super().__init__()
        self.due = math.inf
        self._phase = Phase.GONE
        self._phase_due = math.inf
        self._stall_due = math.inf
        self._stall_most = 0
        self._head_bytes = 0
        self._head_lines = 0
        self._discarded = 0
        #: the client's address, while the site counts this connection
        self.counted: str | None = None

    # ---- what every request asks, and Twisted would find out anew each time

    def isSecure(self) -> bool:
        """Whether it is encrypted."""
        if self._secure is None:
            self._secure = super().isSecure()
        return self._secure

    def getHost(self) -> Any:
        """Return our address."""
        if self._host is None:
            self._host = super().getHost()
        return self._host

    # ---- life of the connection

    @property
    def transport(self) -> Any:
        """Where to write; None when another protocol has taken the connection over."""
        return self._transport

    @transport.setter
    def transport(self, transport: Any) -> None:
        self._transport = transport
        if transport is None:
            self._leave()

    def connectionMade(self) -> None:
        """Begin to wait for the first request, or close if the site is full or stopping."""
        super().connectionMade()
        self.MAX_LENGTH = self.site.limits.header_bytes
        if self.site.admit(self):
            self._await_head()
        else:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave the site and tell the running request."""
        self._leave()
        super().connectionLost(reason)
        self.unregisterProducer()

    def _leave(self) -> None:
        self._phase = Phase.GONE
        self.site.forget(self)

    def _enter(self, phase: Phase, seconds: float) -> None:
        self._phase = phase
        self._phase_due = self.site.reactor.seconds() + seconds
        self._report()

    def _report(self) -> None:
        """Tell the site when to look at this connection again."""
        self.due = min(self._phase_due, self._stall_due)
        quiet = self._phase is Phase.IDLE and self._stall_due == math.inf
        self.site.watch(self, idle=quiet)

    def _await_head(self) -> None:
        self._head_bytes = self._head_lines = 0
        self._enter(Phase.HEAD, self.site.limits.header_seconds)

    def _await_body(self, idle: float | None) -> None:
        self._body = BodyPace(idle, self.site.limits, self.site.reactor.seconds())
        self._enter(Phase.BODY, self._body.grace)

    def expire(self, now: float) -> None:
        """Act on a deadline that has passed.

        :param now: the site's reactor's time in seconds.
        """
        if self._stall_due <= now or self._phase is Phase.CLOSING:
            self._judge_reader()
        elif self._phase is Phase.IDLE:
            self._close(CLOSE_SECONDS)
        elif self._phase is Phase.HEAD or (self._phase is Phase.BODY and self._body.is_late(now)):
            self.refuse(HTTPStatus.REQUEST_TIMEOUT)

    def drain(self) -> None:
        """Close now if no request has begun; a request under way may still be answered."""
        unused = self._phase is Phase.HEAD and not self._head_bytes and not self._buffer
        if unused or self._phase is Phase.IDLE:
            self._close(CLOSE_SECONDS)

    # ---- what the client sends

    def dataReceived(self, data: bytes) -> None:
        """Parse what has come, unless the connection is over."""
        if self._phase is Phase.GONE:
            return
        if self._phase is Phase.CLOSING:
            self._discard(data)
            return
        if self._phase is Phase.IDLE:
            self._await_head()
        super().dataReceived(data)
        # A response that is finished at once makes Twisted call this method within itself; then
        # the outer call goes on with the buffer.
        if self._busyReceiving or not self._buffer:
            return
        if self._phase is Phase.IDLE:
            self._await_head()
        if self._phase is Phase.HEAD and b"\n" in self._buffer:
            # Twisted waits for CR LF; a line that ends with LF alone would never be one.
            self.refuse(HTTPStatus.BAD_REQUEST)

    def lineReceived(self, line: bytes) -> None:
        """Take the request line or a header, within the limits and without continuation."""
        if self._phase is Phase.IDLE:
            self._await_head()
        elif self._phase is not Phase.HEAD:
            return
        self._head_bytes += len(line) + len(self.delimiter)
        self._head_lines += bool(line)
        limits = self.site.limits
        if self._head_bytes > limits.header_bytes or self._head_lines > limits.headers + 1:
            self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif line[:1] in (b" ", b"\t"):
            # RFC 9112 section 5.2: obs-fold; peers disagree on what it means.
            self.refuse(HTTPStatus.BAD_REQUEST)
        else:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a line that alone is longer than the headers may be."""
        self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _maybeChooseTransferDecoder(self, header: bytes, data: bytes) -> bool:
        # Twisted ignores "identity" (gone since RFC 7230) and passes any number to int().
        if header == b"Transfer-Encoding" and data.lower() != b"chunked":
            return self._failChooseTransferDecoder()
        if header == b"Content-Length" and data.isdigit() and len(data) > _LENGTH_DIGITS:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return False
        return bool(super()._maybeChooseTransferDecoder(header, data))

    def allHeadersReceived(self) -> None:
        """Judge the headers as a whole, before a body is asked for with ``100 Continue``."""
        if self._phase is not Phase.HEAD:
            return
        fault = self._fault()
        if fault is not None:
            self.refuse(fault)
            return
        if self.length == 0 or self._admit_body():
            super().allHeadersReceived()

    def _admit_body(self) -> bool:
        """Make room for the body of a request; tell whether it may come."""
        request = self.requests[-1]
        request.announce(self._command, self._path, self._version)
        rules = self.site.body_rules(request)
        if self.length is not None and self.length > rules.largest:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return False
        try:
            request.open_body(rules, self.length)
        except NoRoom:
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, RETRY)
            return False
        self._await_body(rules.idle)
        return True

    def _fault(self) -> HTTPStatus | None:
        """Find what is wrong with the request line and headers together, if anything is."""
        modern = self._version == b"HTTP/1.1"
        hosts = self.requests[-1].requestHeaders.getRawHeaders(b"Host", [])
        if len(hosts) != 1 and (modern or hosts):
            return HTTPStatus.BAD_REQUEST
        if hosts and not _HOST.fullmatch(hosts[0]):
            return HTTPStatus.BAD_REQUEST
        if not _TARGET.fullmatch(self._path):
            return HTTPStatus.BAD_REQUEST
        if self.length is None and not modern:
            # RFC 9112 section 6.1: HTTP/1.0 has no chunked encoding, so the framing is faulty.
            return HTTPStatus.BAD_REQUEST
        return None

    def rawDataReceived(self, data: bytes) -> None:
        """Take a piece of the body, or keep pipelined requests for later."""
        if self._phase is Phase.BODY:
            self._body.add(len(data), self.site.reactor.seconds())
        elif self._phase is not Phase.HANDLING:
            return
        super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        """Hand the complete request to its resource."""
        if self._phase in (Phase.HEAD, Phase.BODY):
            self._enter(Phase.HANDLING, math.inf)
            super().allContentReceived()

    # ---- what the client gets

    def requestDone(self, request: GatewayRequest) -> None:
        """Go on with the next request, or close when the client or the site wants that."""
        request.close_body()  # the next request may need the room; Twisted comes to it first
        if self._phase is Phase.HANDLING:
            self._enter(Phase.IDLE, self.site.limits.idle_seconds)
        if self._phase is not Phase.GONE:
            self.persistent = self.persistent and not self.site.stopping
            super().requestDone(request)

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Send a response's head, without Twisted's version banner."""
        if self.site.stopping:
            headers.setRawHeaders(b"Connection", [b"close"])
        if self.transport is not None:
            self.transport.write(head(b"%b %b %b" % (version, code, reason), headers))

    def write(self, data: bytes) -> None:
        """Send a piece of a response."""
        if self.transport is not None:
            super().write(data)

    def writeSequence(self, iovec: list[bytes]) -> None:
        """Send pieces of a response."""
        if self.transport is not None:
            super().writeSequence(iovec)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let a producer write, once the client has read what was sent before."""
        super().registerProducer(producer, streaming)
        if self._waitingForTransport and self._requestProducer is not None:
            self._requestProducer.pauseProducing()

    def pauseProducing(self) -> None:
        """Begin to count the time in which the client does not read."""
        if self._phase is not Phase.GONE:
            self._await_reader()
            super().pauseProducing()

    def _await_reader(self) -> None:
        seconds = self.site.limits.stall_seconds
        self._stall_due = self.site.reactor.seconds() + seconds
        self._stall_most = self._still_read(seconds)
        self._report()

    def _judge_reader(self) -> None:
        """Give a client that has read, if slowly, as much time again; drop any other."""
        if not 0 < unsent(self.transport) <= self._stall_most:
            self.abort()
        elif self._phase is Phase.CLOSING:
            self._await_close(self.site.limits.stall_seconds)
        else:
            self._await_reader()

    def _await_close(self, seconds: float) -> None:
        self._stall_due = math.inf
        self._stall_most = self._still_read(seconds)
        self._enter(Phase.CLOSING, seconds)

    def _still_read(self, seconds: float) -> int:
        """Return what may be left unread after some seconds by a client that reads."""
        return unsent(self.transport) - int(self.site.limits.body_rate * seconds)

    def resumeProducing(self) -> None:
        """Go on writing: the client has read everything."""
        if self._phase is Phase.GONE:
            return
        self._stall_due = math.inf
        if self._phase is Phase.IDLE:
            self._enter(Phase.IDLE, self.site.limits.idle_seconds)
        else:
            self._report()
        super().resumeProducing()

    def stopProducing(self) -> None:
        """Do nothing: the transport is lost, and with :meth:`connectionLost` the request knows.

        Were its producer stopped already here, whoever waits for that would take it for the
        producer's failure.
        """

    # ---- ends

    def loseConnection(self) -> None:
        """Close when everything has been sent; the client may take its usual time to read it."""
        self._close(self.site.limits.stall_seconds)

    def _close(self, seconds: float) -> None:
        if self._phase is Phase.GONE:
            return
        if self._phase is not Phase.CLOSING:
            self._await_close(seconds)
        super().loseConnection()

    def abort(self) -> None:
        """Drop the connection with whatever has not been sent."""
        if self._phase is not Phase.GONE:
            self._stall_due = math.inf
            self._enter(Phase.CLOSING, math.inf)
            self.transport.abortConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(HTTPStatus.BAD_REQUEST)

    def refuse(self, code: int, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        """Answer the request that is coming in with an error and close.

        The error has the form of the API that the request was for, if that is known.

        Only our side is closed at first, and what the client still sends is thrown away for a
        while: a full close with unread input makes the kernel send a reset, and the client
        would lose the answer.

        :param code: the HTTP status.
        :param headers: more headers.
        """
        if self._phase not in (Phase.HEAD, Phase.BODY):
            return
        path = self._path.partition(b"?")[0] if _TARGET.fullmatch(self._path) else b""
        answer = self.site.refusal(path.decode("ascii"), code)
        self.transport.write(refusal(answer, headers))
        for request in self.requests:
            request.close_body()
        self._stall_due = math.inf
        self._enter(Phase.CLOSING, CLOSE_SECONDS)
        self.clearLineBuffer()
        self.transport.unregisterProducer()
        self._networkProducer.resumeProducing()
        if self.isSecure():
            # TLS sends its close alert and goes on reading until the client's.
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > DISCARD_BYTES:
            self.abort()
