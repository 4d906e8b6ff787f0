"""Several real daemons on one PostgreSQL, in processes of their own."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg2
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater

from tests.api.web import request
from tests.harness import Socket
from tests.process.daemon import PATIENCE, Daemon, free_port, reactor, succeed
from tests.storage.postgres import PostgresServer

KEY = "the key of the backend"
#: Seconds for which a lease holds here; a node that is killed is back after so long.
LEASE = 4
#: A device by which it is seen that a node works.
WARM = "warm"
_CONFIG = """\
[[listen]]
endpoint = "tcp:{port}:interface=127.0.0.1"
serve = ["devicehive", "ux4iot"]
[storage]
url = "@url@"
[node]
name = "@name@"
lease = "@lease@s"
internal = "tcp:@internal@:interface=127.0.0.1"
advertise = "http://127.0.0.1:@internal@"
cluster_key = "what the nodes of the tests know"
[devicehive]
jwt_secret = "{jwt_secret}"
admin_password = "{password}"
[service]
drain_timeout = 0.5
[ux4iot]
shared_access_key = "@key@"
# Sockets alone count: what was sent just before one was hung up may be recorded after its end.
connection_state_on_telemetry = false
"""


class Node(Daemon):
    """One of several daemons.

    :ivar up: whether it serves, as far as the test knows.
    """

    def __init__(
        self, home: Path, twistd_reactor: str, name: str, url: str, lease: int = LEASE
    ) -> None:
        super().__init__(home, twistd_reactor)
        self.name = name
        self.up = False
        template = _CONFIG
        for placeholder, value in (
            ("url", url), ("name", name), ("lease", str(lease)), ("key", KEY),
            ("internal", str(free_port())),
        ):  # fmt: skip
            template = template.replace(f"@{placeholder}@", value)
        self.configure(template)

    async def serve(self) -> None:
        """Start it and wait until it serves, and knows what is in the log."""
        port = self.port
        end = reactor.seconds() + PATIENCE
        while True:
            try:
                await self.start(listeners=2)
            except AssertionError:
                # The database may be away just then; as systemd does, it is started again.
                if self.process.status != 1 or reactor.seconds() > end:
                    raise
                await deferLater(reactor, 0.5)
            else:
                break
        self.port = port  # and not that of the internal listener
        while (await request(self.port, "GET", "/status")).code != 200:
            assert reactor.seconds() < end, self.output
            await deferLater(reactor, 0.05)
        self.up = True

    async def die(self) -> None:
        """End it at once."""
        self.up = False
        await self.kill()

    async def connected(self, device: str) -> bool:
        """Return whether a device is connected, as this node says."""
        answered = await request(
            self.port, "GET", f"/connectionState/{device}", Shared_Access_Key=KEY
        )
        # A device that was never heard of has no state.
        return answered.code == 200 and answered.json["data"] is True


class Nodes:
    """All nodes, their database, and where clients find some node.

    It stands for a load balancer: :attr:`port` is that of any node that is up.

    :ivar leavers: as :attr:`Daemon.leavers`.
    :ivar token: an administrator's.
    """

    def __init__(
        self, home: Path, twistd_reactor: str, names: str = "abc", lease: int = LEASE
    ) -> None:
        self.server = PostgresServer()
        self.leavers: list[Callable[[], Awaitable[None]]] = []
        self.token = ""
        self.chance = random.Random(0)
        self.nodes: list[Node] = []
        self._home = home
        self._reactor = twistd_reactor
        self._names = names
        self._lease = lease

    async def start(self) -> None:
        """Start the database and all nodes, the first one by itself."""
        self.server.create()
        for name in self._names:
            (self._home / name).mkdir()
            node = Node(self._home / name, self._reactor, name, self.server.url, self._lease)
            self.nodes.append(node)
            await node.serve()
        admin = await self.nodes[0].login()
        user = (await succeed(admin, "user/getCurrent"))["current"]
        rights = {"actions": ["*"], "networkIds": ["*"], "deviceTypeIds": ["*"]}
        made = await succeed(admin, "token/create", payload={"userId": user["id"], **rights})
        self.token = made["accessToken"]
        await succeed(admin, "device/save", deviceId=WARM, device={"name": WARM})

    async def end(self) -> None:
        """Leave no process behind."""
        await DeferredList([Deferred.fromCoroutine(_leaving(leave)) for leave in self.leavers])
        for node in self.nodes:
            await node.end()
        self.server.destroy()

    async def mend(self) -> None:
        """Start what is dead, and wait until every node takes messages."""
        for node in self.nodes:
            if node.process.status is not None:
                await node.serve()
            end = reactor.seconds() + PATIENCE
            while not await self._works(node):
                assert reactor.seconds() < end, node.output
                await deferLater(reactor, 0.1)

    async def _works(self, node: Node) -> bool:
        body = {"notification": "n", "parameters": {}}
        try:
            admin = await self.admin(node)
            reply = await admin.ask("notification/insert", deviceId=WARM, notification=body)
            await admin.bye()
        except ConnectionError:  # it cannot know now who asks
            return False
        return bool(reply["status"] == "success")

    @property
    def port(self) -> int:
        """The port of some node; of one that is up, if there is any."""
        up = [node for node in self.nodes if node.up] or self.nodes
        return self.chance.choice(up).port

    async def admin(self, node: Node | None = None) -> Socket:
        """Open a WebSocket of an administrator."""
        if node is None:
            node = next(node for node in self.nodes if node.up)
        return await node.connect(Authorization=f"Bearer {self.token}")

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement as the database's owner, and return its rows."""
        return self.server.execute(statement, *values)

    def silence(self) -> None:
        """End the sessions that listen for notifications, so that some are lost.

        Everything that is asked on another session goes on.
        """
        self._end_sessions("query LIKE '%pg_notification_queue_usage%'")

    def end_some_sessions(self) -> None:
        """End every second session that the nodes have, whatever it does."""
        self._end_sessions("pid % 2 = 0")

    def _end_sessions(self, which: str) -> None:
        # If the database is away just then, they are ended already.
        with suppress(psycopg2.OperationalError):
            self.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE usename = 'gateway' AND {which}"
            )

    async def restart_database(self) -> None:
        """Stop the database as if its machine lost its power, and start it."""
        self.server.stop()
        await self.server.start_meanwhile()
        end = reactor.seconds() + PATIENCE
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg2.OperationalError:
                assert reactor.seconds() < end
                await deferLater(reactor, 0.05)
            else:
                return


async def _leaving(leave: Callable[[], Awaitable[None]]) -> None:
    await leave()
