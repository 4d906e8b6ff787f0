"""The way to the internal listeners of other nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO, cast

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.interfaces import IConsumer, IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from gatewayd.core.addresses import BaseUrl, Resolve, parse_address, parse_base_url
from gatewayd.core.cluster import Node
from gatewayd.core.exchange import Answer, Headers, Stream
from gatewayd.core.line import Address
from gatewayd.core.model import DeviceLogin
from gatewayd.core.peers import Passed, Peers
from gatewayd.device.connection import Connection, Stale
from gatewayd.device.destination import Destination
from gatewayd.device.dialing import Dialing
from gatewayd.device.head import Head
from gatewayd.device.pool import Pool
from gatewayd.device.response import Response
from gatewayd.device.rules import HttpRules
from gatewayd.errors import BadAnswer, NoAddress, NoAnswer, Offline, Unavailable

#: Requests to one node at a time.
MOST_AT_ONCE = 256
#: Bytes of an answer that is taken as a whole.
LARGEST = 4 * 1024 * 1024
#: Seconds until there is a connection; and in which an answer begins, after the node has taken
#: something of the request last.
CONNECT, RESPOND = 3.0, 30.0
#: Seconds between two warnings.
_MINUTE = 60.0
#: Whose requests may be sent again when nobody knows whether the node got them.
_REPEATABLE = frozenset({"GET", "HEAD"})
#: What each connection says for itself.
_OURS = frozenset({
    b"connection", b"content-length", b"date", b"keep-alive", b"server", b"trailer",
    b"transfer-encoding", b"upgrade",
})  # fmt: skip


@attrs.frozen(kw_only=True)
class PeerTerms:
    """How nodes speak to each other.

    :ivar prefix: what is before the paths. :ivar credential: what a node has to know.
    :ivar client: the name of the header that carries the client's Authorization.
    :ivar realm: tells who was refused: the node, not its client.
    :ivar ca: the certificates, PEM, by which others are known; None: whom the machine trusts.
    """

    prefix: str
    credential: str = attrs.field(repr=False)
    client: str
    realm: str
    ca: bytes | None = None


class PeerClient:
    """Passes requests on; see :class:`gatewayd.core.peers.Forwarder`."""

    log = Logger()

    def __init__(self, peers: Peers, terms: PeerTerms, resolve: Resolve, reactor: Any) -> None:
        rules = HttpRules(connect=CONNECT, kept_each=16)
        self._peers = peers
        self._terms = terms
        self._resolve = resolve
        self._reactor = reactor
        self._pool = Pool(reactor, rules)
        self._dialing = Dialing(reactor, rules, self._pool)
        self._running: dict[str, int] = {}
        self._warned: dict[str, float] = {}

    def close(self) -> None:
        """Close the connections that nothing uses."""
        self._pool.close()

    async def forward(self, node: Node, request: Passed) -> Answer:
        """Pass a request on, and return the answer, of which a large body still comes."""
        running = self._running.get(node.name, 0)
        if running >= MOST_AT_ONCE:
            raise Unavailable("too many requests to another node are under way")
        self._running[node.name] = running + 1
        place = _Place(lambda: self._leave(node))
        try:
            response = await self._ask(node, request)
            self._check(node, response)
        except BaseException:
            place.leave()
            raise
        body: bytes | Stream
        if isinstance(response.body, bytes):
            place.leave()
            body = response.body
        else:
            body = _Passing(response.body, place)
        headers = _headers(response.head, request.method)
        return Answer(status=response.head.status, headers=headers, body=body)

    async def ask(self, node: Node, request: Passed, patience: float) -> Answer:
        """Pass a request on, and return the whole answer."""
        asking = Deferred.fromCoroutine(self._whole(node, request))
        try:
            return await asking.addTimeout(patience, self._reactor)
        except TimedOut:
            raise NoAnswer(f"it did not answer in {patience:g} s") from None

    async def _whole(self, node: Node, request: Passed) -> Answer:
        answer = await self.forward(node, request)
        if isinstance(answer.body, bytes):
            return answer
        collected = _Collected(answer.body)
        try:
            await answer.body.pass_on(collected)
        except CancelledError:
            if collected.is_full:
                raise BadAnswer("its answer is too large") from None
            raise
        return attrs.evolve(answer, body=bytes(collected.content))

    def _leave(self, node: Node) -> None:
        self._running[node.name] -= 1
        if not self._running[node.name]:
            del self._running[node.name]

    def _check(self, node: Node, response: Response) -> None:
        """Refuse an answer to us. :raises BadAnswer: the node has another cluster key."""
        challenges = response.head.values(b"www-authenticate")
        if response.head.status != 401 or not any(
            self._terms.realm.encode() in each for each in challenges
        ):
            return
        if not isinstance(response.body, bytes):
            response.body.close()
        now = self._reactor.seconds()
        if now - self._warned.get(node.name, -_MINUTE) >= _MINUTE:
            self._warned[node.name] = now
            self.log.warn("node {node} has another cluster key than this one", node=node.name)
        raise BadAnswer("it has another cluster key")

    # How it is asked.

    async def _ask(self, node: Node, request: Passed) -> Response:
        """Send a request on a connection that is there, or a new one, and return the answer."""
        destination, text = await self._in_time(self._find(node, request))
        kept = self._pool.take(destination) if request.method in _REPEATABLE else None
        if kept is not None:
            try:
                return await self._answer(kept, request, text)
            except Stale:
                pass  # it was closed while nobody used it
        connection = await self._in_time(self._dialing.connect(destination))
        try:
            return await self._answer(connection, request, text)
        except Stale as error:
            raise NoAnswer(str(error)) from None

    async def _in_time(self, work: Any) -> Any:
        """Do what has to be done before anything is sent."""
        try:
            return await Deferred.fromCoroutine(work).addTimeout(CONNECT, self._reactor)
        except TimedOut:
            raise Offline("there was no connection to it in time") from None

    async def _find(self, node: Node, request: Passed) -> tuple[Destination, bytes]:
        """Return where a node listens, and what it is sent before the body."""
        url = self._peers.url(node.name)
        if url is None:
            raise Offline("it is gone")
        try:
            base = parse_base_url(url)
        except NoAddress as error:
            raise Offline(f"its address is wrong: {error}") from None
        host = base.host
        if parse_address(host) is None:
            found = await self._resolve(host)
            if not found:
                raise Offline("its host name is unknown")
            host = found[0]
        login = DeviceLogin(base_url=url, ca=self._terms.ca)
        destination = Destination(
            device=0, base=base, address=Address(host, base.port), login=login
        )
        return destination, self._head(base, request)

    def _head(self, base: BaseUrl, request: Passed) -> bytes:
        terms = self._terms
        target = f"{base.path}{terms.prefix}{request.target}"
        lines = [
            f"{request.method} {target} HTTP/1.1",
            f"Host: {base.authority}",
            f"Authorization: Bearer {terms.credential}",
        ]
        for name, value in request.headers:
            lines.append(f"{terms.client if name == 'Authorization' else name}: {value}")
        if request.body is not None:
            lines.append(f"Content-Length: {request.size}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def _answer(self, connection: Connection, request: Passed, text: bytes) -> Response:
        waiting: Deferred[Response]
        late = self._reactor.callLater(RESPOND, lambda: waiting.cancel())
        body = None if request.body is None else cast(BinaryIO, _Watched(request.body, late))
        waiting = connection.exchange(request.method, text, body, request.size)
        try:
            return await waiting
        except CancelledError:
            if late.active():  # the caller gave it up
                raise
            raise NoAnswer(f"it did not answer in {RESPOND:g} s") from None
        finally:
            if late.active():
                late.cancel()


def _headers(head: Head, method: str) -> Headers:
    """Return what is passed back; the length too, where there is no body that would tell it."""
    dropped = _OURS - {b"content-length"} if method == "HEAD" else _OURS
    return tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in head.headers
        if name not in dropped
    )


class _Watched:
    """A file whose every piece that is taken gives its reader more time."""

    def __init__(self, file: BinaryIO, late: IDelayedCall) -> None:
        self._file = file
        self._late = late

    def read(self, size: int) -> bytes:
        if self._late.active():
            self._late.reset(RESPOND)
        return self._file.read(size)


class _Place:
    """One of the requests that may be under way at a time."""

    def __init__(self, left: Callable[[], None]) -> None:
        self._left: Callable[[], None] | None = left

    def leave(self) -> None:
        left, self._left = self._left, None
        if left is not None:
            left()


class _Passing:
    """A body that still comes, which takes up a place until it is over."""

    def __init__(self, body: Stream, place: _Place) -> None:
        self._body = body
        self._place = place

    @property
    def length(self) -> int | None:
        return self._body.length

    def pass_on(self, consumer: IConsumer) -> Deferred[int]:
        return self._body.pass_on(consumer).addBoth(self._end)

    def close(self) -> None:
        self._body.close()
        self._place.leave()

    def _end(self, result: Any) -> Any:
        self._place.leave()
        return result


@implementer(IConsumer)
class _Collected:
    """Takes a body into memory, and closes it when it is too large.

    :ivar is_full: whether it was.
    """

    def __init__(self, body: Stream) -> None:
        self.content = bytearray()
        self.is_full = False
        self._body = body

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let it come at its own pace."""

    def unregisterProducer(self) -> None:
        """Do nothing: its end is told otherwise."""

    def write(self, data: bytes) -> None:
        """Keep a piece."""
        if not self.is_full:
            self.content += data
            if len(self.content) > LARGEST:
                self.is_full = True
                self._body.close()
