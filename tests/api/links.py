"""A gateway with links, devices that echo, and clients that open links and use them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.python.failure import Failure

from gatewayd.core.model import Kind
from gatewayd.core.queries import Filter, Replay
from gatewayd.settings import DeviceLink, Listen, Settings
from tests.api.scene import token, until
from tests.api.web import Answered, request
from tests.harness import PATIENCE, Daemon, Socket, make_settings, reactor

PATH = "/api/v1/devicelink"
KEY, IV = "0f" * 32, "a0" * 16
ADMIN = token()


def link_settings(path: Path, **links: Any) -> Settings:
    """Return settings of a gateway whose devices are on loopback."""
    settings = make_settings(path)
    served = Listen(endpoint=settings.listen[0].endpoint, serve=["devicehive", "devicelink"])
    return msgspec.structs.replace(
        settings,
        listen=[served, settings.listen[1]],
        devicelink=DeviceLink(**{"allowed_device_nets": ["127.0.0.0/8"], **links}),
    )


class Linked(Daemon):
    """A gateway with links."""

    async def ask(
        self, method: str, path: str = "", body: object = None, token: str | None = ADMIN
    ) -> Answered:
        """Make a request to the links."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return await request(self.port, method, PATH + path, body, **headers)

    async def opened(self, device_id: str = "D", **body: Any) -> dict[str, Any]:
        """Open a link, over TCP unless told."""
        answer = await self.ask("POST", f"/{device_id}", {"protocol": "tcp", **body})
        assert answer.code == 200, answer.body
        shown: dict[str, Any] = answer.json
        return shown

    async def refused(self, device_id: str = "D", **body: Any) -> tuple[int, str]:
        """Ask for a link in vain; return the status and the code."""
        answer = await self.ask("POST", f"/{device_id}", {"protocol": "tcp", **body})
        assert answer.json.keys() == {"code", "message", "errors"}
        return answer.code, answer.json["code"]

    async def listed(self) -> list[dict[str, Any]]:
        """Return the links that are open."""
        answer = await self.ask("GET")
        assert answer.code == 200, answer.body
        shown: list[dict[str, Any]] = answer.json
        return shown

    async def admin(self) -> Socket:
        """Log the administrator in."""
        return await self.login()

    async def device(self, device_id: str = "D", host: str = "127.0.0.1", **more: Any) -> None:
        """Register a device with an address."""
        body = {"name": device_id, "data": {"address": {"host": host}}, **more}
        answer = await request(
            self.port, "PUT", f"/rest/device/{device_id}", body, Authorization=f"Bearer {ADMIN}"
        )
        assert answer.code == 204, answer.body

    async def records(self, kind: Kind, count: int = 1) -> list[dict[str, Any]]:
        """Return what is recorded of links once there is so much of it."""
        wanted = Replay(filter=Filter(kinds=frozenset({kind})), since=0, now=self.core.wall())
        end = reactor.seconds() + PATIENCE
        while True:
            page = await self.core.store.read(wanted)
            assert reactor.seconds() < end, "it was never recorded"
            if len(page.events) >= count:
                return [json.loads(event.body or b"") for event in page.events]

    async def outcome(self) -> dict[str, Any]:
        """Return what is recorded of the end of the only link."""
        (record,) = await self.records(Kind.LINK_CLOSED)
        return record


#: Starts a gateway with settings of links; it stops with the test.
Start = Callable[..., Awaitable[Linked]]


class Pipe(Protocol):
    """One end of a TCP connection, which keeps what it receives.

    :ivar received: so far. :ivar reason: why it has ended; None while it is open.
    """

    def __init__(self) -> None:
        self.received = b""
        self.reason: BaseException | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008
        self.reason = reason.value

    def write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    async def until(self, length: int) -> bytes:
        """Return what was received once it is so much."""
        await until(lambda: len(self.received) >= length)
        return self.received

    async def gone(self) -> BaseException | None:
        """Wait for the end; return its reason."""
        await until(lambda: self.reason is not None)
        return self.reason

    async def bye(self) -> None:
        """Close, if it is open yet."""
        if self.reason is None:
            transport: Any = self.transport
            transport.abortConnection()
            await self.gone()


class _Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class _UdpEcho(DatagramProtocol):
    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        assert self.transport is not None
        self.transport.write(datagram, addr)


class Datagrams(DatagramProtocol):
    """A UDP socket, which keeps what it receives, and from whom."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.senders: list[Any] = []

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.received.append(datagram)
        self.senders.append(addr)


class Sockets:
    """Devices and clients on loopback, which end with the test."""

    def __init__(self) -> None:
        self._ports: list[Any] = []
        self._pipes: list[Pipe] = []

    def tcp_device(self) -> int:
        """Return a TCP port that echoes."""
        self._ports.append(reactor.listenTCP(0, Factory.forProtocol(_Echo), interface="127.0.0.1"))
        port: int = self._ports[-1].getHost().port
        return port

    def udp_device(self) -> int:
        """Return a UDP port that echoes."""
        self._ports.append(reactor.listenUDP(0, _UdpEcho(), "127.0.0.1", 65536))
        port: int = self._ports[-1].getHost().port
        return port

    def udp_client(self) -> tuple[Datagrams, Any]:
        """Return a UDP socket and its transport."""
        datagrams = Datagrams()
        self._ports.append(reactor.listenUDP(0, datagrams, "127.0.0.1", 65536))
        return datagrams, self._ports[-1]

    async def connect(self, port: int) -> Pipe:
        """Connect to a TCP port."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        pipe = await endpoint.connect(Factory.forProtocol(Pipe)).addTimeout(PATIENCE, reactor)
        assert isinstance(pipe, Pipe)
        self._pipes.append(pipe)
        return pipe

    async def close(self) -> None:
        """End them all."""
        for pipe in self._pipes:
            await pipe.bye()
        for port in self._ports:
            await port.stopListening()
