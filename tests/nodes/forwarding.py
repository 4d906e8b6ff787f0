"""Nodes that reach what the other has: of bodies alone, and whole gateways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from socket import socket
from typing import Any

import msgspec
import pytest_twisted
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString

from gatewayd.api.cloudrelay.blobs import PATH as BLOBS
from gatewayd.api.cloudrelay.blobs import Blobs, BlobsAlone
from gatewayd.configuration import CloudRelay, Secret, Settings
from gatewayd.configuration import Node as NodeSettings
from gatewayd.core.cluster import Node
from gatewayd.core.membership import Membership
from gatewayd.core.peers import Elsewhere, credential
from gatewayd.core.spool import Spool
from gatewayd.device.peers import PeerClient, PeerTerms
from gatewayd.transport.body import BodyRoom, BodyRules
from gatewayd.transport.internal import CLIENT, PREFIX, REALM, Internal
from gatewayd.transport.root import Root
from tests.api.hurried import Hurried
from tests.api.links import ADMIN, Linked, link_settings
from tests.api.relay_devices import Attached
from tests.api.relaying import PATH as RELAY
from tests.api.scene import ok, subscribe
from tests.api.web import Answered, request
from tests.harness import reactor
from tests.nodes.pair import Pair, settings_of, until
from tests.storage.postgres import PostgresServer
from tests.transport.http_bench import Served, serve

KEY = "what the nodes have in common"
LARGEST = 30_000_000
#: Seconds in which a node has renewed its lease, and has it yet.
_RENEWAL = 4.0


class Known:
    """The other nodes, as a test says."""

    def __init__(self, own: str, nodes: dict[str, Node]) -> None:
        self._own = own
        self._nodes = nodes

    def url(self, name: str) -> str | None:
        """See :class:`gatewayd.core.peers.Peers`."""
        return next((each.advertise for each in self.others() if each.name == name), None)

    def others(self) -> list[Node]:
        """See :class:`gatewayd.core.peers.Peers`."""
        return [each for each in self._nodes.values() if each.alive and each.name != self._own]


def known(name: str, url: str, alive: bool = True) -> Node:
    """Return a node as the others know it."""
    return Node(name=name, incarnation=1, advertise=url, alive=alive)


def terms(key: str = KEY, ca: bytes | None = None) -> PeerTerms:
    """Return how the nodes speak to each other."""
    return PeerTerms(prefix=PREFIX, credential=credential(key), client=CLIENT, realm=REALM, ca=ca)


def local(host: str) -> Deferred[list[str]]:
    """Return the address of any name."""
    return succeed(["127.0.0.1"])


class Bodies:
    """A node that keeps bodies, with a listener for devices and one for the other nodes.

    :param nodes: that know each other.
    """

    def __init__(self, name: str, nodes: dict[str, Node], key: str = KEY) -> None:
        self.name = name
        self.nodes = nodes
        self.peers = Known(name, nodes)
        self.client = PeerClient(self.peers, terms(key), local, reactor)
        self.elsewhere = Elsewhere(name, key, self.peers, self.client)
        self.spool = Spool(reactor, self.elsewhere.ticket)
        self._key = key
        self._served: list[Served] = []

    async def start(self, internal: str = "tcp:0:interface=127.0.0.1") -> None:
        """Listen, and be known to the others."""
        bodies = BodyRules(LARGEST, memory=1000, room=BodyRoom(3 * LARGEST))
        alone = BlobsAlone(Blobs(self.spool), bodies)
        inner = Internal([alone], credential(self._key), reactor)
        outer = Root([BlobsAlone(Blobs(self.spool, self.elsewhere, LARGEST), bodies)])
        for root, place in ((inner, internal), (outer, "tcp:0:interface=127.0.0.1")):
            self._served.append(await serve(serverFromString(reactor, place), root))
        scheme = "https" if internal.startswith("ssl:") else "http"
        self.nodes[self.name] = known(self.name, f"{scheme}://127.0.0.1:{self.internal_port}")

    async def stop(self) -> None:
        """Close everything."""
        self.client.close()
        for served in self._served:
            await served.stop()

    @property
    def internal_port(self) -> int:
        """Where the other nodes come."""
        port: int = self._served[0].port.getHost().port
        return port

    @property
    def port(self) -> int:
        """Where devices come."""
        port: int = self._served[1].port.getHost().port
        return port

    async def ask(
        self, method: str, ticket: str, body: bytes | None = None, **headers: str
    ) -> Answered:
        """Make a device's request."""
        return await request(self.port, method, f"{BLOBS}/{ticket}", body, **headers)


@pytest_twisted.async_yield_fixture
async def bodies(clean: None) -> AsyncIterator[tuple[Bodies, Bodies]]:
    """Return two nodes that keep bodies."""
    nodes: dict[str, Node] = {}
    both = Bodies("a", nodes), Bodies("b", nodes)
    for each in both:
        await each.start()
    yield both
    for each in both:
        await each.stop()


def free_port() -> int:
    """Return a port on which nobody listens."""
    with closing(socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Peer(Linked):
    """A gateway that is a node. :ivar time: its clock."""

    def __init__(self, settings: Settings) -> None:
        self.time = Hurried()
        super().__init__(settings, self.time)

    @property
    def membership(self) -> Membership:
        """What it knows of the other nodes."""
        assert self.core.membership is not None
        return self.core.membership

    async def mute(self) -> None:
        """Be no more to be reached by the other nodes, but alive."""
        await maybeDeferred(self.gateway.ports[-1].stopListening)
        await self.gateway.sites[-1].shutdown(0)

    async def attached(self, device_id: str) -> Attached:
        """Return a device that is attached here, and can bring bodies."""
        await self.device(device_id, data=b'{"relay": {"upload": true}}')
        socket = await self.connect("/api/websocket")
        await ok(socket, "authenticate", token=ADMIN)
        await subscribe(socket, "command", deviceId=device_id)
        return Attached(device_id, socket)

    def relay(self, device_id: str, method: str, body: bytes | None = None) -> Deferred[Answered]:
        """Have a request relayed."""
        headers = {"Authorization": f"Bearer {ADMIN}", "Remote_Query": "/", "Content_Type": "a/b"}
        path = f"{RELAY}/{device_id}/request"
        return Deferred.fromCoroutine(request(self.port, method, path, body, **headers))


class Reaching(Pair):
    """Two nodes of one database that reach each other.

    :param advertise: where the second says that it is.
    """

    def __init__(self, server: PostgresServer, advertise: str | None = None) -> None:
        self._advertise = {"two": advertise}
        super().__init__(server)

    async def start(self) -> None:
        """Start both, and let them know each other at once."""
        one, two = self.both
        for peer in (one, two):
            await self.run(peer)
        one.time.advance(_RENEWAL)
        await until(lambda: not one.membership.alone)

    def node(self, name: str, **node: Any) -> Peer:
        """Return a node that is not started; it serves links and relayed requests."""
        settings = settings_of(self.server, self.database, name)
        listens = link_settings(Path("/nowhere"), "devicehive", "cloudrelay")
        port = free_port()
        reached = NodeSettings(
            name=name, internal=f"tcp:{port}:interface=127.0.0.1",
            advertise=self._advertise.get(name) or f"http://127.0.0.1:{port}",
            cluster_key=Secret(KEY), **node,
        )  # fmt: skip
        relay = CloudRelay(allowed_device_nets=["127.0.0.0/8"], body=LARGEST)
        return Peer(
            msgspec.structs.replace(
                settings, listen=listens.listen, devicelink=listens.devicelink, cloudrelay=relay,
                node=reached,
            )
        )  # fmt: skip

    @property
    def both(self) -> tuple[Peer, Peer]:
        """The nodes."""
        assert isinstance(self.one, Peer)
        assert isinstance(self.two, Peer)
        return self.one, self.two

    async def end(self, peer: Peer) -> None:
        """Stop a node, and let the other know."""
        self.running.remove(peer)
        await peer.stop()
        (other,) = [each for each in self.both if each is not peer]
        other.time.advance(_RENEWAL)
        await until(lambda: other.membership.alone)


@pytest_twisted.async_yield_fixture
async def peers(nodes_server: PostgresServer) -> AsyncIterator[Reaching]:
    """Return two nodes that run, and stop with the test."""
    pair = Reaching(nodes_server)
    await pair.start()
    yield pair
    await pair.stop()
