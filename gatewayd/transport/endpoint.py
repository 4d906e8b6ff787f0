"""The HTTP side of a WebSocket: the opening handshake and its refusals."""

from __future__ import annotations

from base64 import b64encode
from binascii import Error, a2b_base64
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from http import HTTPStatus
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
from autobahn.twisted import resource as autobahn_resource
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.iweb import IRequest
from twisted.web.server import NOT_DONE_YET

from gatewayd.errors import Unavailable
from gatewayd.transport.census import Census

if TYPE_CHECKING:
    from gatewayd.transport.session import WebSocketSession
    from gatewayd.transport.websocket import WebSocketFactory

_log = Logger()

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_UPGRADE = (b"Upgrade", b"websocket")


class Refused(Exception):
    """A request is answered with an error and not upgraded.

    :ivar code: the HTTP status.
    :ivar body: what the answer contains.
    :ivar content_type: of the body.
    :ivar headers: further header fields of the answer.
    """

    def __init__(
        self,
        code: int,
        body: bytes,
        content_type: bytes = b"application/json",
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(f"HTTP {code}")
        self.code = code
        self.body = body
        self.content_type = content_type
        self.headers = headers

    def answer(self, request: Any) -> int:
        """Finish *request* with this; the result is for a resource's ``render``."""
        request.setResponseCode(self.code)
        request.setHeader(b"Content-Type", self.content_type)
        request.setHeader(b"Content-Length", b"%d" % len(self.body))
        for name, value in self.headers:
            request.setHeader(name, value)
        request.write(self.body)
        request.finish()
        return NOT_DONE_YET


def refusal(
    code: int, message: str | None = None, headers: Sequence[tuple[bytes, bytes]] = ()
) -> Refused:
    """Return a refusal with a JSON body.

    :param message: what is wrong; by default the status itself.
    """
    text = message or f"HTTP {code} {HTTPStatus(code).phrase}"
    return Refused(code, msgspec.json.encode({"error": code, "message": text}), headers=headers)


def tokens(request: IRequest, name: bytes) -> list[str]:
    """Return the elements of a comma separated header field, all its lines together."""
    lines = request.requestHeaders.getRawHeaders(name, [])
    elements = (element.strip(b" \t") for line in lines for element in line.split(b","))
    return [element.decode("latin-1") for element in elements if element]


def wants_websocket(request: IRequest) -> bool:
    """Tell whether the client asks for the WebSocket protocol."""
    return any(token.lower() == "websocket" for token in tokens(request, b"Upgrade"))


@attrs.frozen
class Handshake:
    """A client's opening handshake that obeys RFC 6455 section 4.2.1.

    :ivar key: the value of Sec-WebSocket-Key.
    :ivar subprotocols: what the client offers, in its order and spelling.
    """

    key: bytes
    subprotocols: list[str]

    @classmethod
    def of(cls, request: Any) -> Handshake:
        """Read and check the handshake.

        :raises Refused: it is none, or broken, or for another version.
        """
        if request.channel.transport is None:
            # The stream of an HTTP/2 connection cannot be upgraded, and may not say "Upgrade".
            raise refusal(426, "WebSocket needs HTTP/1.1")
        if request.method != b"GET":
            raise refusal(405, headers=[(b"Allow", b"GET")])
        if request.clientproto != b"HTTP/1.1":
            raise refusal(400, "WebSocket needs HTTP/1.1")
        if not wants_websocket(request):
            raise refusal(426, headers=[_UPGRADE])
        if not any(token.lower() == "upgrade" for token in tokens(request, b"Connection")):
            raise refusal(400, "Connection does not say upgrade")
        headers = request.requestHeaders
        if headers.getRawHeaders(b"Sec-WebSocket-Version", []) != [b"13"]:
            version = (b"Sec-WebSocket-Version", b"13")
            raise refusal(426, "WebSocket version is not 13", [_UPGRADE, version])
        keys = headers.getRawHeaders(b"Sec-WebSocket-Key", [])
        if len(keys) != 1 or not _is_key(keys[0]):
            raise refusal(400, "Sec-WebSocket-Key is missing or ill-formed")
        subprotocols = tokens(request, b"Sec-WebSocket-Protocol")
        if len(set(subprotocols)) < len(subprotocols):
            raise refusal(400, "Sec-WebSocket-Protocol names one twice")
        return cls(keys[0], subprotocols)

    def response(self, subprotocol: str | None) -> bytes:
        """Return the HTTP answer that accepts the handshake."""
        chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol is not None else ""
        accept = b64encode(sha1(self.key + _MAGIC, usedforsecurity=False).digest())
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (accept, chosen.encode("latin-1"))
        )


class WebSocketResource(autobahn_resource.WebSocketResource):
    """Upgrades the requests it gets to sessions of a factory.

    It checks the whole handshake itself and answers what is wrong with a short JSON body;
    Autobahn would answer with a page of its own, or close the connection.

    :param accept: called with the request when the handshake is right; what it returns, or the
        awaitable that it returns yields, becomes the session's ``greeting``. If it raises
        :class:`Refused`, that is the answer and there is no upgrade.
    """

    def __init__(
        self,
        factory: WebSocketFactory,
        accept: Callable[[IRequest], Awaitable[Any] | Any] | None = None,
    ) -> None:
        super().__init__(factory)
        self._sessions = factory
        self._accept = accept

    def render(self, request: Any) -> int:
        """Answer *request*, at once or when ``accept`` has decided."""
        try:
            handshake = Handshake.of(request)
            self._check_room(request)
            greeting = None if self._accept is None else self._accept(request)
            if not isawaitable(greeting):
                self._upgrade(request, handshake, greeting)
                return NOT_DONE_YET
        except Exception as error:
            return _refuse(request, error)
        deciding = Deferred.fromCoroutine(self._upgrade_later(request, handshake, greeting))
        request.notifyFinish().addErrback(lambda _gone: deciding.cancel())
        return NOT_DONE_YET

    async def _upgrade_later(
        self, request: Any, handshake: Handshake, greeting: Awaitable[Any]
    ) -> None:
        try:
            result = await greeting
            if request.channel is not None:
                self._check_room(request)
                self._upgrade(request, handshake, result)
        except Exception as error:
            if request.channel is not None:
                _refuse(request, error)

    def _check_room(self, request: Any) -> None:
        if not self._sessions.has_room(Census.host(request.getClientAddress())):
            raise refusal(503)

    def _upgrade(self, request: Any, handshake: Handshake, greeting: Any) -> None:
        """Give the request's transport to a new session."""
        session = self._sessions.buildProtocol(request.getClientAddress())
        session.greeting = greeting
        session.host = Census.host(request.getClientAddress())
        session.peer = session.host or "?"
        chosen = session.subprotocol(handshake.subprotocols)
        if chosen is not None and chosen not in handshake.subprotocols:
            raise ValueError(f"subprotocol {chosen!r} was not offered")
        session.websocket_protocol_in_use = chosen
        early = _take_unread(request.channel)
        # The HTTP channel is the transport's producer, and Autobahn leaves it so.
        request.channel.transport.unregisterProducer()
        # It replays the request to the session, which is deaf until it begins.
        autobahn_resource.WebSocketResource(_Ready(session)).render(request)
        session.begin(handshake.response(chosen), early)


@attrs.frozen
class _Ready:
    """A factory, to Autobahn's takeover, whose session has been prepared already."""

    session: WebSocketSession

    def buildProtocol(self, _address: object) -> WebSocketSession:
        return self.session


def _refuse(request: Any, error: Exception) -> int:
    if isinstance(error, Unavailable):
        error = refusal(503)  # whoever asks cannot be known now
    elif not isinstance(error, Refused):
        _log.failure("WebSocket handshake for {path} failed", path=request.path)
        error = refusal(500)
    return error.answer(request)


def _is_key(value: bytes) -> bool:
    """Tell whether *value* is the base64 form of 16 bytes."""
    try:
        return len(value) == 24 and len(a2b_base64(value, strict_mode=True)) == 16
    except Error:
        return False


def _take_unread(channel: Any) -> bytes:
    """Take what the HTTP channel has received behind the request.

    A client may send frames without waiting for the answer. Twisted's channel keeps them, for a
    next request, in two private places: what came together with the request, and what came later.
    """
    later = getattr(channel, "_dataBuffer", [])
    unread = b"".join(later) + getattr(channel, "_buffer", b"")
    later.clear()
    channel._buffer = b""
    return unread
