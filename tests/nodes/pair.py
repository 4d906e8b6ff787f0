"""Two whole gateways in the test process, which are nodes of one database."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from gatewayd.configuration import Node, Secret, Settings, Storage
from gatewayd.core.access import Principal
from gatewayd.core.model import Device, Kind
from gatewayd.core.queries import Filter, Replay
from gatewayd.errors import Unavailable
from tests.harness import ADMIN, PASSWORD, PATIENCE, Daemon, Socket, make_settings, reactor
from tests.storage.postgres import USER, PostgresServer

_NUMBERS = count(1)
#: Seconds in which a change on one node has reached the other, even if it was not notified of it.
SOON = 10.0
_LOOK = 0.02


def settings_of(server: PostgresServer, database: str, name: str, **node: Any) -> Settings:
    """Return the settings of a node. :param node: more of its table."""
    return msgspec.structs.replace(
        make_settings(Path("/nowhere")),
        storage=Storage(url=Secret(server.url_of(database=database))),
        node=Node(**{"name": name, "lease": 3.0, **node}),
    )


async def until(condition: Callable[[], Any], patience: float = SOON) -> Any:
    """Wait until a condition holds, and return what it returns then."""
    deadline = reactor.seconds() + patience
    while not (result := condition()):
        assert reactor.seconds() < deadline, "it never came to that"
        await deferLater(reactor, _LOOK)
    return result


class Pair:
    """Two nodes, ``one`` and ``two``."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.database = f"nodes{next(_NUMBERS)}"
        self.server.execute(
            f"CREATE DATABASE {self.database} OWNER {USER} STRATEGY file_copy", database="postgres"
        )
        self.one, self.two = self.node("one"), self.node("two")
        self.running: list[Daemon] = []

    def node(self, name: str, **node: Any) -> Daemon:
        """Return a node that is not started. :param node: more of its settings."""
        return Daemon(settings_of(self.server, self.database, name, **node))

    async def start(self) -> None:
        """Start both, the first before the second."""
        for daemon in (self.one, self.two):
            await self.run(daemon)
        await until(lambda: not _membership(self.one).alone)

    async def run(self, daemon: Daemon) -> None:
        """Start a node; it is stopped with the test."""
        self.running.append(daemon)
        gateway = daemon.gateway
        gateway.privilegedStartService()
        gateway.startService()
        await gateway.ready.addTimeout(PATIENCE, reactor)

    async def stop(self) -> None:
        """Stop what runs, and drop the database."""
        for daemon in self.running:
            await daemon.stop()
        self.server.execute(f"DROP DATABASE {self.database} WITH (FORCE)", database="postgres")

    async def admin(self, daemon: Daemon) -> Principal:
        """Return the administrator, as a node knows it."""
        return await daemon.core.authentication.by_password(ADMIN, PASSWORD)

    async def login(self, daemon: Daemon) -> Socket:
        """Open a socket of the administrator."""
        return await daemon.login()

    async def device(self, device_id: str = "D") -> Device:
        """Register a device on the first node; both know it then."""
        socket = await self.login(self.one)
        reply = await socket.ask(
            "device/save", deviceId=device_id, device={"name": device_id, "networkId": 1}
        )
        assert reply["status"] == "success", reply
        await socket.bye()
        self.one.sockets.remove(socket)
        device = await self.two.core.registry.device(device_id)
        assert device is not None
        return device

    async def kinds(self, device: Device) -> list[Kind]:
        """Return of what kinds the events of a device are, as the first node reads them."""
        wanted = Filter(kinds=frozenset(Kind), stream=device.uid)
        core = self.one.core
        page = await core.store.read(Replay(filter=wanted, since=0, now=core.wall()))
        return [event.kind for event in page.events]

    def lose(self, daemon: Daemon) -> Callable[[], None]:
        """Let a node lose its way to the leases, as if it were dead; return what opens it again."""
        cluster: Any = daemon.core.cluster
        asked: list[Deferred[Any]] = []

        def ask(*_: object) -> Deferred[Any]:
            asked.append(Deferred())
            return asked[-1]

        cluster.renew = cluster.join = ask

        def back() -> None:
            del cluster.renew, cluster.join
            for answer in asked:
                answer.errback(Unavailable("the way was lost"))

        return back


def _membership(daemon: Daemon) -> Any:
    assert daemon.core.membership is not None
    return daemon.core.membership
