"""HTTP devices on real sockets, good and bad ones, and who asks them."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from gatewayd.core.addresses import Addresses, Resolve
from gatewayd.core.exchange import Answer, Request
from gatewayd.core.line import Address
from gatewayd.core.model import Device, DeviceLogin
from gatewayd.device.http import HttpDevices
from gatewayd.device.response import Body
from gatewayd.device.rules import HttpRules

reactor: Any = _reactor
log: Any = globalLogPublisher
LOCAL = "127.0.0.1"
SECONDS = 30  # after which a test fails
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Watched:
    """Something that changes, which a test can wait for."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[], object], Deferred[None]]] = []

    def until(self, true: Callable[[], object]) -> Deferred[None]:
        """Wait until something is true."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append((true, waiting))
        self.look()
        return waiting.addTimeout(SECONDS, reactor)

    def look(self) -> None:
        for entry in list(self._waiting):
            if entry in self._waiting and entry[0]():
                self._waiting.remove(entry)
                entry[1].callback(None)


@implementer(IPushProducer)
class Visit(Protocol):
    """A connection to a device, on which it says whatever the test says.

    :ivar received: all that came. :ivar sent: bytes of a flood that the socket took.
    """

    def __init__(self, device: RawDevice) -> None:
        self.device = device
        self.received = b""
        self.open = True
        self.clean = False
        self.sent = 0
        self.flooding = False
        self._left = 0

    def connectionMade(self) -> None:
        self.device.visits.append(self)
        self.device.look()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self.device.answer is not None and data.endswith(self.device.until_end):
            self.send(self.device.answer)
        self.device.look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.open = False
        self.clean = reason.type is type(connectionDone.value)
        self.device.look()

    async def request(self, size: int = 0) -> tuple[list[str], bytes]:
        """Wait for a whole request with a body of so many bytes; return its head and that."""

        def whole() -> bool:
            _, end, body = self.received.partition(b"\r\n\r\n")
            return bool(end) and len(body) >= size

        await self.device.until(whole)
        head, _, body = self.received.partition(b"\r\n\r\n")
        self.received = body[size:]
        return head.decode("latin-1").split("\r\n"), body[:size]

    async def gone(self) -> None:
        """Wait until the gateway has closed the connection."""
        await self.device.until(lambda: not self.open)

    def send(self, data: bytes) -> None:
        wire: Any = self.transport
        wire.write(data)

    def close(self) -> None:
        wire: Any = self.transport
        wire.loseConnection()

    def reset(self) -> None:
        wire: Any = self.transport
        wire.abortConnection()

    def flood(self, size: int) -> None:
        """Send so many bytes, as fast as the other side takes them."""
        wire: Any = self.transport
        self._left = size
        wire.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        wire: Any = self.transport
        self.flooding = True
        while self.flooding and self._left:
            piece = min(65536, self._left)
            self._left -= piece
            self.sent += piece
            wire.write(b"x" * piece)
        if not self._left:
            wire.unregisterProducer()
        self.device.look()

    def pauseProducing(self) -> None:
        self.flooding = False

    def stopProducing(self) -> None:
        self._left = 0
        self.flooding = False


class RawDevice(Factory, Watched):
    """A device whose every byte the test sends.

    :param answer: what every request is answered with, without a look at it; None for nothing.
    """

    noisy = False

    def __init__(
        self, answer: bytes | None = None, tls: Any = None, until_end: bytes = b"\r\n\r\n"
    ) -> None:
        Watched.__init__(self)
        self.answer = answer
        self.until_end = until_end
        self.visits: list[Visit] = []
        served: Any = self if tls is None else TLSMemoryBIOFactory(tls, False, self)
        self.listening = reactor.listenTCP(0, served, interface=LOCAL)
        self.port: int = self.listening.getHost().port
        self.url = f"{'http' if tls is None else 'https'}://{LOCAL}:{self.port}"
        self._met = 0

    def buildProtocol(self, addr: Any) -> Any:
        return Visit(self)

    async def visit(self) -> Visit:
        """Wait for another connection."""
        self._met += 1
        await self.until(lambda: len(self.visits) >= self._met)
        return self.visits[self._met - 1]

    async def deafen(self) -> None:
        """Accept no connections any more."""
        if self.listening.connected:
            await self.listening.stopListening()

    async def stop(self) -> None:
        await self.deafen()
        for each in self.visits:
            if each.open:
                each.reset()
        await self.until(lambda: not any(each.open for each in self.visits))


@implementer(IConsumer)
class Sink(Watched):
    """Takes a body, and says stop when it is told to.

    :ivar most: bytes after which it says stop; None for never.
    """

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.data = bytearray()
        self.most = most
        self.producer: Any = None
        self.paused = 0

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        assert self.producer is None
        self.producer = producer

    def unregisterProducer(self) -> None:
        assert self.producer is not None
        self.producer = None
        self.look()

    def write(self, data: bytes) -> None:
        self.data += data
        if self.most is not None and len(self.data) >= self.most:
            self.paused += 1
            self.producer.pauseProducing()
        self.look()


class TimeOf:
    """A reactor with real sockets, and a clock that the test moves."""

    def __init__(self, clock: Clock) -> None:
        self.callLater = clock.callLater
        self.seconds = clock.seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class Asker:
    """An adapter and all that it needs; in the end nothing may be left.

    :ivar logins: by the uid of the device. :ivar names: what host names mean.
    :ivar asked: the names that were looked up. :ivar events: all that was logged.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.logins: dict[int, DeviceLogin] = {}
        self.names: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.resolve: Resolve = lambda host: succeed(self.names.get(host, []))
        self.devices: list[RawDevice] = []
        self.events: list[Any] = []
        self.http = self.adapter()
        log.addObserver(self.events.append)

    def adapter(
        self,
        *networks: str,
        ports: Sequence[tuple[int, int]] | None = None,
        own: Sequence[Address] = (),
        rules: HttpRules | None = None,
    ) -> HttpDevices:
        """Return a new adapter, by default for devices on this machine and in 10.0.0.0/8."""
        addresses = Addresses(
            networks or ("127.0.0.0/8", "10.0.0.0/8"),
            ports,
            self._look_up,
            lambda port: own,
            lambda host: True,
        )
        return HttpDevices(addresses, self._login, TimeOf(self.clock), rules or HttpRules())

    def raw(self, *arguments: Any, **named: Any) -> RawDevice:
        """Return a new device."""
        self.devices.append(RawDevice(*arguments, **named))
        return self.devices[-1]

    def send(
        self,
        url: str | RawDevice,
        method: str = "GET",
        query: str = "/",
        body: bytes | None = None,
        uid: int = 1,
        **more: Any,
    ) -> Deferred[Answer]:
        """Ask the device at a URL."""
        file = None if body is None else io.BytesIO(body)
        request = Request(
            id="1", method=method, query=query, body=file, size=len(body or b""), **more
        )
        where = url if isinstance(url, str) else url.url
        return Deferred.fromCoroutine(self.http.send(device(where, uid), request))

    async def ask(self, url: str | RawDevice, *arguments: Any, **named: Any) -> Answer:
        """Ask, and return the answer with its whole body."""
        answer = await self.send(url, *arguments, **named).addTimeout(SECONDS, reactor)
        return Answer(
            status=answer.status, headers=answer.headers, body=await self.whole(answer.body)
        )

    async def whole(self, body: Any) -> bytes:
        """Take a body."""
        if isinstance(body, bytes):
            return body
        assert isinstance(body, Body)
        sink = Sink()
        size = await body.pass_on(sink).addTimeout(SECONDS, reactor)
        assert sink.producer is None
        assert body.length in (None, size)
        assert size == len(sink.data)
        return bytes(sink.data)

    async def stop(self) -> None:
        """End everything."""
        self.http.close()
        for each in self.devices:
            await each.stop()
        await turns()
        log.removeObserver(self.events.append)
        assert self.clock.getDelayedCalls() == []
        for event in self.events:
            assert event.get("log_level", LogLevel.info) < LogLevel.warn, event
            assert "log_failure" not in event

    def _look_up(self, host: str) -> Deferred[list[str]]:
        self.asked.append(host)
        return self.resolve(host)

    async def _login(self, device: Device) -> DeviceLogin | None:
        return self.logins.get(device.uid)


@pytest_twisted.async_yield_fixture
async def asker() -> AsyncIterator[Asker]:
    """Return who asks devices; in the end nothing may be left."""
    made = Asker()
    yield made
    await made.stop()


def device(url: object, uid: int = 1) -> Device:
    """Return a device whose HTTP server is there."""
    data = json.dumps({"address": {"baseUrl": url}}).encode()
    return Device(uid=uid, id=f"D{uid}", name="D", network=1, type=1, data=data)


async def turns(count: int = 5) -> None:
    """Let the reactor go round."""
    for _ in range(count):
        turned: Deferred[None] = Deferred()
        reactor.callLater(0, turned.callback, None)
        await turned
