"""Fetching a document from a real server, whatever that does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from gatewayd.transport.fetch import FetchError, fetch, is_trusted
from tests.storage.store_bench import bounded, the_reactor

Serve = Callable[[bytes], Any]
OK = b"HTTP/1.1 200 OK\r\n"


class Server(Protocol):
    """Answers a request with what it was given, and keeps the connection unless it ``ends``.

    :ivar closed: fires when the client has gone.
    """

    def __init__(self, answer: bytes, ends: bool) -> None:
        self.answer = answer
        self.ends = ends
        self.received = b""
        self.closed: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self.received.endswith(b"\r\n\r\n") and self.transport is not None:
            self.transport.write(self.answer)
            if self.ends:
                self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(None)


class Site(Factory):
    """A server for one connection after the other."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.ends = False
        self.connections: list[Server] = []

    def buildProtocol(self, address: Any) -> Server:
        self.connections.append(Server(self.answer, self.ends))
        return self.connections[-1]


class Served:
    """Where a site is."""

    def __init__(self, site: Site, port: Any) -> None:
        self.site = site
        self.port = port
        self.url = f"http://127.0.0.1:{port.getHost().port}/keys?a=1"

    async def fetch(self, **options: Any) -> bytes:
        return await fetch(self.url, the_reactor(), **options)

    async def fails(self, **options: Any) -> str:
        with pytest.raises(FetchError) as caught:
            await self.fetch(**options)
        for connection in self.site.connections:
            await connection.closed
        return str(caught.value)


@pytest_twisted.async_yield_fixture(name="serve")
async def start_servers() -> AsyncIterator[Any]:
    """Return what starts a server with an answer."""
    ports: list[Any] = []

    async def serve(answer: bytes) -> Served:
        site = Site(answer)
        ports.append(await TCP4ServerEndpoint(the_reactor(), 0, interface="127.0.0.1").listen(site))
        return Served(site, ports[-1])

    yield serve
    for port in ports:
        await maybeDeferred(port.stopListening)


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 2\r\n\r\n{}",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    ],
)
@bounded
async def test_fetch(serve: Any, answer: bytes) -> None:
    """A document is fetched with a plain request, and the connection is not kept."""
    served = await serve(answer)
    assert await served.fetch() == b"{}"
    (connection,) = served.site.connections
    await connection.closed
    assert connection.received.startswith(b"GET /keys?a=1 HTTP/1.1\r\n")
    assert b"Accept-Encoding" not in connection.received


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}", "HTTP 404"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n{}", "HTTP 404"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
         "HTTP 302"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "HTTP 204"),
        (b"garbage\r\n\r\n", ""),
    ],
)  # fmt: skip
@bounded
async def test_refused(serve: Any, answer: bytes, why: str) -> None:
    """Any other answer than a document is a failure; nothing is followed."""
    served = await serve(answer)
    assert why in await served.fails()
    assert len(served.site.connections) == 1


@pytest.mark.parametrize(
    "head",
    [OK + b"Content-Length: 5000\r\n\r\n", OK + b"\r\n", OK + b"Content-Length: 10**9\r\n\r\n"],
)
@bounded
async def test_too_large(serve: Any, head: bytes) -> None:
    """A document that is too large is dropped at once, with its connection."""
    served = await serve(head + b"x" * 3000)
    assert await served.fails(limit=2999)


@pytest.mark.parametrize("answer", [b"", OK, OK + b"Content-Length: 5\r\n\r\n", OK + b"\r\nhalf"])
@bounded
async def test_slow(serve: Any, answer: bytes) -> None:
    """A server that does not come to an end is left, wherever it stops."""
    served = await serve(answer)
    assert await served.fails(timeout=0.05) == "it takes more than 0.05 s"


@bounded
async def test_cut_short(serve: Any) -> None:
    """A part of a document is not taken for the whole."""
    served = await serve(OK + b"Content-Length: 5\r\n\r\n{}")
    served.site.ends = True
    assert await served.fails()


@bounded
async def test_cancel(serve: Any) -> None:
    """Who does not want the document any more leaves no connection behind."""
    served = await serve(OK + b"Content-Length: 5\r\n\r\n12")
    getting = fetch(served.url, the_reactor())
    while not served.site.connections or not served.site.connections[0].received:
        await _turn()
    getting.addErrback(lambda failure: None)
    getting.cancel()
    await served.site.connections[0].closed


async def _turn() -> None:
    turn: Deferred[None] = Deferred()
    the_reactor().callLater(0, turn.callback, None)
    await turn


@bounded
async def test_nobody_there(serve: Any) -> None:
    """A server that is down is a failure with a reason."""
    served = await serve(b"")
    await served.port.stopListening()
    assert "refused" in await served.fails()


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("https://login.example/keys", True),
        ("http://login.example/keys", False),
        ("http://localhost:8080/keys", True),
        ("http://127.0.0.1/keys", True),
        ("http://127.1.2.3/keys", True),
        ("http://[::1]:80/keys", True),
        ("https://127.0.0.1/keys", True),
        ("http://127.0.0.1.evil.example/keys", False),
        ("http://localhost.evil.example/keys", False),
        ("http://127.0.0.1@evil.example/keys", False),
        ("http://10.0.0.1/keys", False),
        ("file:///etc/passwd", False),
        ("ftp://localhost/keys", False),
        ("https:///keys", False),
        ("http://[", False),
        ("", False),
    ],
)
@bounded
async def test_trusted(url: str, trusted: bool) -> None:
    """Nobody on the way may change what is fetched."""
    assert is_trusted(url) is trusted
    if not trusted:
        with pytest.raises(FetchError, match="neither https"):
            await fetch(url, the_reactor())
