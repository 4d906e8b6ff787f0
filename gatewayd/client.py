"""A client of DeviceHive's WebSocket API, for ``gatewayd talk`` and the simulated device."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import urlsplit

import attrs
import msgspec
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket.util import parse_url
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS

from gatewayd import __version__

Message = dict[str, Any]

#: How long a server may take for the opening and for the closing handshake, in seconds.
OPENING_TIMEOUT = 10
CLOSING_TIMEOUT = 2
LARGEST_MESSAGE = 16 * 1024 * 1024


class Disconnected(Exception):
    """There is no connection, or it ended before the reply came; the message says why."""


class RequestFailed(Exception):
    """The server answered with an error.

    :ivar code: its number, as in HTTP.
    :ivar text: what the server says.
    :ivar reply: all of the answer.
    """

    def __init__(self, code: object, text: object, reply: Message | None = None) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text
        self.reply = {} if reply is None else reply


@attrs.frozen
class Credentials:
    """What a client logs in with: a login and its password, an access token or a refresh token.

    :raises ValueError: it is not exactly one of these.
    """

    login: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    access_token: str | None = attrs.field(default=None, repr=False)
    refresh_token: str | None = attrs.field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        given = [each is not None for each in (self.login, self.access_token, self.refresh_token)]
        if sum(given) != 1 or (self.login is None) != (self.password is None):
            raise ValueError("credentials are a login and its password, or one token")

    @classmethod
    def of_token(cls, token: str) -> Self:
        """Return the credentials that a token is, whichever of the two kinds it has."""
        return cls(refresh_token=token) if _is_refresh(token) else cls(access_token=token)


def _is_refresh(token: str) -> bool:
    """Tell what a token says of itself; nothing is verified, that is the server's part."""
    try:
        encoded = token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
        return bool(claims["payload"]["t"] == 0)
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return False


@attrs.frozen
class Address:
    """Where a WebSocket server is.

    :ivar url: as it was given.
    :ivar shown: the URL without its query and user, which may be secrets.
    """

    url: str
    shown: str
    host: str
    port: int
    secure: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the address in a ``ws:`` or ``wss:`` URL. :raises ValueError: it is none."""
        secure, host, port, _, path, _ = parse_url(url)
        if host == "unix" or not isinstance(port, int):
            raise ValueError("invalid WebSocket URL: not host and port")
        netloc = urlsplit(url).netloc.rpartition("@")[2]
        return cls(url, f"{'wss' if secure else 'ws'}://{netloc}{path}", host, port, secure)

    def endpoint(self, reactor: Any) -> IStreamClientEndpoint:
        """Return what connects to it; certificates are verified."""
        endpoint: Any = HostnameEndpoint(reactor, self.host, self.port)
        return wrapClientTLS(optionsForClientTLS(self.host), endpoint) if self.secure else endpoint


class Client(WebSocketClientProtocol):
    """One connection to a server.

    :ivar opened: fires when requests can be sent; fails with :class:`Disconnected` if they never
        can.
    :ivar on_push: takes what the server sends without being asked.
    :ivar on_lost: takes the reason when the connection has ended.
    """

    def __init__(self, clock: IReactorTime, welcome: Callable[[Client], None]) -> None:
        super().__init__()
        self.opened: Deferred[None] = Deferred()
        self.on_push: Callable[[Message], None] = lambda message: None
        self.on_lost: Callable[[str], None] = lambda reason: None
        self._clock = clock
        self._welcome = welcome
        # The server replies in the order of the requests, so that the first is mostly the one.
        self._pending: list[tuple[bytes, Deferred[Message]]] = []
        self._last_id = 0
        self._deadline: IDelayedCall | None = None
        self._closing: list[Deferred[None]] = []
        self._reason: str | None = None
        self._ended = False

    def request(self, action: str, **fields: Any) -> Deferred[Message]:
        """Send a request; return its reply, or fail with RequestFailed or Disconnected."""
        self._last_id += 1
        return self.send({"action": action, "requestId": self._last_id, **fields})

    def send(self, message: Message) -> Deferred[Message]:
        """Send a request as it is; return its reply, or fail with RequestFailed or Disconnected."""
        if self.state != self.STATE_OPEN:
            return fail(Disconnected("not connected"))
        key = msgspec.json.encode(message.get("requestId"))
        reply: Deferred[Message] = Deferred(lambda _: self._pending.remove((key, reply)))
        self._pending.append((key, reply))
        self.sendMessage(msgspec.json.encode(message))
        return reply

    async def log_in(self, credentials: Credentials) -> None:
        """Authenticate. :raises RequestFailed: the server does not accept the credentials."""
        token = credentials.access_token
        if credentials.refresh_token is not None:
            reply = await self.request("token/refresh", refreshToken=credentials.refresh_token)
            token = reply.get("accessToken")
        elif credentials.login is not None:
            reply = await self.request(
                "token", login=credentials.login, password=credentials.password
            )
            token = reply.get("accessToken")
        await self.request("authenticate", token=token)

    def close(self) -> Deferred[None]:
        """End the connection; fires when it has ended, which takes two seconds at most."""
        if self._ended:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self._closing.append(closed)
        if self.state == self.STATE_CONNECTING:
            self.abort("closed during the handshake")
        else:
            self._limit(CLOSING_TIMEOUT, "no answer to the closing handshake")
            self.sendClose(1000)
        return closed

    def abort(self, reason: str) -> None:
        """End the connection at once."""
        self._reason = self._reason or reason
        transport: Any = self.transport
        transport.abortConnection()

    # Autobahn's own timers are off: they run on the global reactor, and some outlive a connection.

    def _limit(self, seconds: float, reason: str) -> None:
        self._unlimit()
        self._deadline = self._clock.callLater(seconds, self.abort, reason)

    def _unlimit(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """Begin the handshake."""
        self._limit(OPENING_TIMEOUT, "no answer to the WebSocket handshake")
        self._welcome(self)
        super().connectionMade()

    def onOpen(self) -> None:  # noqa: N802 - Autobahn's name
        """Be ready for requests."""
        self._unlimit()
        self.opened.callback(None)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N802, N803 - Autobahn's
        """Take a reply or a push."""
        try:
            message = msgspec.json.decode(payload, type=Message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.abort("the server sent something that is no JSON object")
            return
        if "status" not in message:
            self.on_push(message)
            return
        reply = self._claim(message)
        if reply is not None and message["status"] == "error":
            error = RequestFailed(message.get("code"), message.get("error"), message)
            reply.errback(error)
        elif reply is not None:
            reply.callback(message)

    def _claim(self, message: Message) -> Deferred[Message] | None:
        """Return what waits for a reply, if anything does any more."""
        key = msgspec.json.encode(message.get("requestId"))
        for index, (wanted, reply) in enumerate(self._pending):
            # A request that the server could not even read is answered without its id.
            if wanted == key or "requestId" not in message:
                del self._pending[index]
                return reply
        return None

    def onCloseFrame(self, code: Any, reasonRaw: Any) -> Any:  # noqa: N802, N803 - Autobahn's
        """Wait for the end of the connection, not forever."""
        self._limit(CLOSING_TIMEOUT, "the server closed but kept the connection")
        return super().onCloseFrame(code, reasonRaw)

    def onClose(self, wasClean: bool, code: Any, reason: Any) -> None:  # noqa: N802, N803
        """Tell everybody who waits for something that the connection has ended."""
        self._unlimit()
        self._ended = True
        if self._reason is None and wasClean:
            self._reason = f"closed with code {code} {reason or ''}".rstrip()
        lost = self._reason or self.wasNotCleanReason or "connection lost"
        self.on_lost(lost)
        if not self.opened.called:
            self.opened.errback(Disconnected(lost))
        pending, self._pending = self._pending, []
        for _, reply in pending:
            reply.errback(Disconnected(lost))
        for closed in self._closing:
            closed.callback(None)


class ClientFactory(WebSocketClientFactory):
    """Makes the clients of one server.

    :param clock: times the handshakes.
    :param welcome: is called with each client as soon as its connection is there.
    """

    noisy = False

    def __init__(
        self, address: Address, reactor: Any, clock: IReactorTime, welcome: Callable[[Client], None]
    ) -> None:
        super().__init__(url=address.url, useragent=f"gatewayd/{__version__}", reactor=reactor)
        if ":" in self.host:
            self.host = f"[{self.host}]"  # what Autobahn forgets in the Host header
        self.setProtocolOptions(
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            serverConnectionDropTimeout=0,
            maxFramePayloadSize=LARGEST_MESSAGE,
            maxMessagePayloadSize=LARGEST_MESSAGE,
        )
        self._clock = clock
        self._welcome = welcome

    def buildProtocol(self, addr: object) -> Client:  # noqa: N802 - Twisted's name
        """Make a client."""
        client = Client(self._clock, self._welcome)
        client.factory = self
        return client


async def connect(reactor: Any, address: Address) -> Client:
    """Return a connected client, which has not logged in yet.

    :raises Disconnected: who answers is no WebSocket server.
    :raises twisted.internet.error.ConnectError: nobody answers.
    :raises twisted.internet.error.DNSLookupError: there is no such host.
    """
    factory: Any = ClientFactory(address, reactor, reactor, lambda client: None)
    client: Any = await address.endpoint(reactor).connect(factory)
    await client.opened
    assert isinstance(client, Client)
    return client
