"""A gateway with links, devices that echo, and clients that open links and use them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.python.failure import Failure

from gatewayd.configuration import DeviceLink, Listen, Settings
from gatewayd.core.access import ALL_ACTIONS, Principal
from gatewayd.core.devices import DeviceChange
from gatewayd.core.model import Device, GroupKind, Kind, Status, User
from gatewayd.core.queries import Filter, Replay
from gatewayd.core.users import UserChange
from gatewayd.dev import Echo
from tests.api.scene import token, until
from tests.api.web import Answered, request
from tests.harness import PATIENCE, Daemon, make_settings, reactor

PATH = "/api/v1/devicelink"
KEY, IV = "0f" * 32, "a0" * 16
ADMIN = token()


def link_settings(path: Path, *others: str, **links: Any) -> Settings:
    """Return settings of a gateway whose devices are on loopback.

    :param others: what is served beside links.
    """
    settings = make_settings(path)
    served = Listen(endpoint=settings.listen[0].endpoint, serve=["devicelink", *others])
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
        """Make a request to the links; where there are two nodes, one of them opens all."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        port = self.port if method == "POST" else self.far.port
        return await request(port, method, PATH + path, body, **headers)

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

    async def root(self) -> Principal:
        """Return an administrator."""
        return Principal(ALL_ACTIONS, user=await self.core.users.by_id(1))

    async def device(self, device_id: str = "D", host: str = "127.0.0.1", **change: Any) -> Device:
        """Register a device with an address."""
        data = json.dumps({"address": {"host": host}}).encode()
        wanted = DeviceChange(**{"name": device_id, "data": data, **change})
        return await self.core.devices.save(await self.root(), device_id, wanted)

    async def client(self, name: str = "D") -> tuple[User, Device]:
        """Create a client and a device in a network of its own, all of the same name."""
        core, root = self.core, await self.root()
        network = await core.networks.insert(root, name, None)
        change = UserChange(login=f"client-{name}", password="client_#911", role=1)
        user = await core.users.insert(root, change)
        await core.users.assign(root, GroupKind.NETWORK, user.id, network.id, True)
        return user, await self.device(name, network=network.id)

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


async def revoke(linked: Linked, change: str, user: User, device: Device) -> None:
    """Take from a user what a link to a device needs."""
    core, root = linked.core, await linked.root()
    match change:
        case "user locked":
            await core.users.update(root, user.id, UserChange(status=int(Status.LOCKED)))
        case "user deleted":
            await core.users.delete(root, user.id)
        case "network taken":
            await core.users.assign(root, GroupKind.NETWORK, user.id, device.network, False)
        case "device blocked":
            await core.devices.save(root, device.id, DeviceChange(blocked=True))
        case "device moved":
            await core.devices.save(root, device.id, DeviceChange(network=1))
        case "device deleted":
            await core.devices.delete(root, device.id)
        case _:
            await core.networks.delete(root, device.network, True)


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
        self._ports.append(reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1"))
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

    async def is_reset(self, port: int) -> bool:
        """Whether a connection to a TCP port is cut, at once or a moment later."""
        try:
            pipe = await self.connect(port)
        except ConnectError:
            return True
        return isinstance(await pipe.gone(), ConnectionLost)

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
