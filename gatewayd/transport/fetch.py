"""One small document from a web server."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

_HEADERS = Headers({"Accept": ["application/json"], "User-Agent": ["gatewayd"]})


class FetchError(Exception):
    """A document could not be had; the text says why."""


def fetch(
    url: str, reactor: Any, *, timeout: float = 10.0, limit: int = 1024 * 1024
) -> Deferred[bytes]:
    """Get a document; fires with its body.

    Redirects are not followed, and nothing is unpacked.

    :param url: https, or http on this machine.
    :param timeout: seconds that everything may take. :param limit: bytes of the body.
    :raises FetchError: it cannot be had, or is larger.
    """
    return Deferred.fromCoroutine(_fetch(url, reactor, timeout, limit))


async def _fetch(url: str, reactor: Any, timeout: float, limit: int) -> bytes:
    if not is_trusted(url):
        raise FetchError("the address is neither https, nor http on this machine")

    def late(result: object, timeout: float) -> bytes:
        raise FetchError(f"it takes more than {timeout:g} s")

    getting = Deferred.fromCoroutine(_get(url, Agent(reactor), limit))
    try:
        return await getting.addTimeout(timeout, reactor, late)
    except FetchError:
        raise
    except Exception as error:  # whatever sockets, TLS and HTTP come up with
        raise FetchError(_reason(error)) from None


def is_trusted(url: str) -> bool:
    """Whether what comes from an address is what its owner has put there."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and _is_here(host)))


def _is_here(host: str) -> bool:
    """Whether a host can be nothing but this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


async def _get(url: str, agent: Agent, limit: int) -> bytes:
    response: Any = await agent.request(b"GET", url.encode(), _HEADERS)
    body = _Body(limit)
    response.deliverBody(body)
    if response.code != 200:
        body.whole.addErrback(lambda failure: None)
        body.whole.cancel()
        raise FetchError(f"the answer is HTTP {response.code}")
    return await body.whole


class _Body(Protocol):
    """Takes a body up to a limit, and drops the connection when nobody wants it any more.

    :ivar whole: fires with it; cancel it to stop.
    """

    transport: Any

    def __init__(self, limit: int) -> None:
        self.whole: Deferred[bytes] = Deferred(lambda _: self.transport.loseConnection())
        self._limit = limit
        self._body = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """Keep a piece."""
        self._body += data
        if len(self._body) > self._limit and not self.whole.called:
            self.whole.errback(FetchError(f"it has more than {self._limit} bytes"))
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Be done; a body whose length nobody told ends with the connection."""
        if self.whole.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.whole.callback(bytes(self._body))
        else:
            self.whole.errback(reason)


def _reason(error: Exception) -> str:
    """Return what went wrong, also where Twisted wraps it."""
    reasons = getattr(error, "reasons", None)
    return Failure(error).getErrorMessage() if not reasons else reasons[0].getErrorMessage()
