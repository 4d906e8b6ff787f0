"""Whatever becomes of the nodes and their database, the history of what was said is right.

In the manner of Jepsen: clients on three nodes write, read, attach and take over at random while
nodes are killed or stand still, the database crashes and notifications are lost. What the clients
saw is then compared with the log. ``--seeds N`` runs as many schedules; a seed that failed is
printed, and ``--first-seed`` runs it again.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from gatewayd.core.model import Kind
from tests.harness import reactor
from tests.process.actors import Owner, Reader, Sender, settle
from tests.process.daemon import PATIENCE, succeed
from tests.process.history import History, Logged
from tests.process.nodes import LEASE, Nodes

#: Seconds of load, in which the faults are.
LOAD = 4.0
_LOG = """
    SELECT e.position, e.stream, e.seq, e.ts, e.kind, d.id, e.body,
        CASE WHEN e.kind = 2 THEN c.parameters END
    FROM event e JOIN device d ON d.uid = e.stream
    LEFT JOIN command c ON c.stream = e.stream AND c.seq = e.seq
    WHERE d.id LIKE %s ORDER BY e.position
"""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run as many seeds as were asked for."""
    if "seed" in metafunc.fixturenames:
        first = metafunc.config.getoption("--first-seed")
        count = metafunc.config.getoption("--seeds")
        metafunc.parametrize("seed", range(first, first + count))


@pytest_twisted.async_yield_fixture(scope="module")
async def nodes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nodes]:
    """Return three nodes that run."""
    nodes = Nodes(
        tmp_path_factory.mktemp("nodes"), os.environ.get("GATEWAYD_TEST_REACTOR", "epoll")
    )
    try:
        await nodes.start()
        yield nodes
    finally:
        await nodes.end()


class Schedule:
    """One seed: its devices, its clients and its faults."""

    def __init__(self, nodes: Nodes, seed: int) -> None:
        self._nodes = nodes
        self._chance = random.Random(seed)
        self._prefix = f"s{seed}-{nodes.chance.randrange(10**6)}"
        self.devices = [f"{self._prefix}-{number}" for number in range(4)]
        self._senders: list[Sender] = []
        self._owners: list[Owner] = []
        self._readers: list[Reader] = []
        self.faults: list[str] = []

    def _own_chance(self) -> random.Random:
        return random.Random(self._chance.random())

    async def begin(self) -> None:
        """Make the devices, and let the clients loose."""
        nodes, token = self._nodes, self._nodes.token
        admin = await nodes.admin()
        for device in self.devices:
            await succeed(admin, "device/save", deviceId=device, device={"name": device})
        since = (await succeed(admin, "server/info"))["info"]["serverTimestamp"]
        await admin.bye()
        self._readers = [
            Reader(nodes, token, self._own_chance(), f"{kind.name} {number}", kind, device, since)
            for kind in (Kind.NOTIFICATION, Kind.COMMAND_UPDATE)
            for number, device in enumerate(self.devices)
        ]
        self._senders = [
            Sender(nodes, token, self._own_chance(), f"{self._prefix}{number}", self.devices)
            for number in range(3)
        ]
        self._owners = [
            Owner(nodes, token, self._own_chance(), f"{self._prefix}{number}", device)
            for device in self.devices
            for number in range(2)
        ]

    # Faults

    async def disturb(self) -> None:
        """Let some faults happen during the load."""
        chance = self._chance
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "kill": self._kill, "freeze": self._freeze, "database": self._restart_database,
            "silence": self._silence, "sessions": self._end_sessions,
        }  # fmt: skip
        moments = sorted(chance.uniform(0.3, LOAD) for _ in range(chance.randrange(1, 4)))
        under_way: list[Deferred[None]] = []
        now = 0.0
        for moment in moments:
            await deferLater(reactor, moment - now)
            now = moment
            name = chance.choice(list(kinds))
            self.faults.append(f"{name} at {moment:.1f}")
            under_way.append(Deferred.fromCoroutine(kinds[name]()))  # type: ignore[arg-type]
        await deferLater(reactor, LOAD - now)
        for each in under_way:
            await each

    def _some_node(self) -> Any:
        up = [node for node in self._nodes.nodes if node.up]
        # One of them has to go on, or there is no load.
        return self._chance.choice(up) if len(up) > 1 else None

    async def _kill(self) -> None:
        node = self._some_node()
        if node is not None:
            await node.die()
            await deferLater(reactor, self._chance.uniform(0, 1))
            await node.serve()

    async def _freeze(self) -> None:
        node = self._some_node()
        if node is not None:
            node.up = False
            process = node.process
            process.signal(signal.SIGSTOP)
            await deferLater(reactor, self._chance.choice((0.5, 2.0, LEASE + 2.0)))
            process.signal(signal.SIGCONT)
            node.up = True

    async def _restart_database(self) -> None:
        await self._nodes.restart_database()

    async def _silence(self) -> None:
        self._nodes.silence()

    async def _end_sessions(self) -> None:
        self._nodes.end_some_sessions()

    # The end

    async def finish(self) -> History:
        """Let everything come to rest, and return what happened."""
        await _in_time(settle([*self._senders]), "no answer to a sender")
        attached = await self._leave_one_owner()
        await self._commands_are_answered(attached)
        await _in_time(settle([*self._owners]), "no answer to an owner")
        await self._presence_is_right(attached)
        await self._nodes.mend()
        attempted = await self._say_last()
        log = [Logged.of(row) for row in self._nodes.execute(_LOG, f"{self._prefix}-%")]
        actors = [*self._senders, *self._owners]
        acknowledged = [each for actor in actors for each in actor.acknowledged]
        attempted |= {tag for actor in actors for tag in actor.attempted}
        for reader in self._readers:
            seen = reader.seen
            await reader.wait({
                event.tag for event in log
                if event.kind is seen.kind and event.device == seen.device and event.tag
            })  # fmt: skip
        for client in (*actors, *self._readers):
            await client.stop()
        return History(log, acknowledged, attempted, [reader.seen for reader in self._readers])

    async def _leave_one_owner(self) -> dict[str, bool]:
        """Let the second owner of each device leave, and of the last device both."""
        attached = {}
        for number, device in enumerate(self.devices):
            first, second = self._owners[2 * number : 2 * number + 2]
            await second.stop()
            attached[device] = number < len(self.devices) - 1
            if not attached[device]:
                await first.stop()
        return attached

    async def _commands_are_answered(self, attached: dict[str, bool]) -> None:
        """Wait until every command of a device that is there was answered: none is forgotten."""
        there = [device for device in self.devices if attached[device]]
        statement = (
            "SELECT count(*) FROM command c JOIN device d ON d.uid = c.stream "
            "WHERE NOT c.changed AND d.id = ANY(%s)"
        )
        await self._until(
            lambda: self._nodes.execute(statement, there) == [(0,)], "commands are not answered"
        )

    async def _presence_is_right(self, attached: dict[str, bool]) -> None:
        """Wait, for a lease and what is needed to see its end, until all nodes tell the truth."""
        end = reactor.seconds() + LEASE * 2 + 5
        while True:
            wrong = [
                f"{node.name} says that {device} is {'not ' if there else ''}connected"
                for node in self._nodes.nodes
                for device, there in attached.items()
                if await node.connected(device) is not there
            ]
            if not wrong:
                return
            assert reactor.seconds() < end, wrong
            await deferLater(reactor, 0.1)

    async def _say_last(self) -> set[str]:
        """Insert one more notification for each device; return their tags."""
        admin = await self._nodes.admin()
        tags = set()
        for device in self.devices:
            tag = f"last/{device}"
            body = {"notification": "n", "parameters": {"tag": tag}}
            await succeed(admin, "notification/insert", deviceId=device, notification=body)
            tags.add(tag)
        await admin.bye()
        return tags

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        end = reactor.seconds() + PATIENCE
        while not condition():
            assert reactor.seconds() < end, what
            await deferLater(reactor, 0.1)


async def _in_time(work: Any, what: str) -> None:
    """Do something that must not take for ever."""
    done: Deferred[Any] = Deferred.fromCoroutine(work)
    try:
        await done.addTimeout(PATIENCE, reactor)
    except Exception as error:
        raise AssertionError(what) from error


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_history(nodes: Nodes, seed: int) -> None:
    """Nothing is lost, doubled or out of order; who was taken over is silent; presence is true."""
    nodes.chance = random.Random(seed)
    await nodes.mend()
    schedule = Schedule(nodes, seed)
    await schedule.begin()
    await schedule.disturb()
    history = await schedule.finish()
    print(
        f"seed {seed}: {', '.join(schedule.faults)}: {len(history.log)} events, "
        f"{len(history.acknowledged)} acknowledged"
    )
    assert history.anomalies() == []
    assert history.acknowledged
