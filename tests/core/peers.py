"""Two nodes over one store, each with a hub and with live sessions of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred

from gatewayd.core.cluster import ChangeKind, ClusterStore, Node
from gatewayd.core.grants import SessionChange
from gatewayd.core.hub.hub import Hub, HubRules
from gatewayd.core.live_sessions import SessionRules
from gatewayd.core.model import Device, Event
from gatewayd.core.shadow import ConnectionState, LastValue
from gatewayd.core.shared_sessions import SharedSessions
from tests.core.bench import Bench
from tests.core.clustering import FakeCluster, NodeBench, Shared
from tests.core.hubbing import Watching, plain

_TOGETHER = 10  # seconds that go by before what has begun comes to its end


class Linked(FakeCluster):
    """A node that tells the others something, unless it is cut off.

    :ivar others: who hears of it. :ivar deaf: whether nobody does.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.others: list[FakeCluster] = []
        self.deaf = False

    def announce(self, kind: ChangeKind, subject: bytes) -> Deferred[None]:
        answer = super().announce(kind, subject)
        return answer.addCallback(lambda _: self.tell(kind, json.loads(subject)))

    def tell(self, kind: ChangeKind, subject: object) -> None:
        """Tell the others of a change."""
        for other in () if self.deaf else self.others:
            other.change((kind, subject))


class Telling(Shared):
    """A store that tells the other nodes what this one changes.

    :ivar kept: of each time that shadows were kept, the devices whose values, and whose states.
    """

    cluster: Any

    def __init__(self, store: Any, cluster: FakeCluster) -> None:
        super().__init__(store, cluster)
        self.kept: list[tuple[set[int], set[int]]] = []

    def _ask(self, name: str, *arguments: Any) -> Deferred[Any]:
        answer: Deferred[Any] = self.__getattr__(name)(*arguments)
        return answer

    def keep_shadows(
        self,
        values: Sequence[LastValue],
        states: Sequence[ConnectionState],
        until: int,
        limit: int,
    ) -> Deferred[None]:
        self.kept.append(({each.stream for each in values}, {each.stream for each in states}))
        return self._ask("keep_shadows", values, states, until, limit)

    def change_session(self, change: SessionChange) -> Deferred[None]:
        done = self._ask("change_session", change)
        return done.addCallback(lambda _: self.cluster.tell(ChangeKind.SESSION, change.id))

    def drop_sessions(self, ids: Sequence[str]) -> Deferred[list[str]]:
        return self._ask("drop_sessions", ids).addCallback(lambda _: self._gone([*ids]))

    def drop_unused_sessions(self, ids: Sequence[str], before: int) -> Deferred[list[str]]:
        return self._ask("drop_unused_sessions", ids, before).addCallback(self._gone)

    def _gone(self, ids: list[str]) -> list[str]:
        if ids:
            self.cluster.tell(ChangeKind.SESSIONS_GONE, ids)
        return ids


class Peer(NodeBench):
    """One of the nodes.

    :ivar watching: watches the device D.
    """

    cluster: Linked
    gate: Telling

    def __init__(self, bench: Bench, name: str) -> None:
        super().__init__(bench, name, Linked, Telling)
        self.make_hub()
        self.make_sessions()

    def make_hub(self) -> None:
        """Make a hub that is not started."""
        self.hub = Hub(self.core, HubRules(), self.bench.timers)
        self.watching = Watching()
        self.hub.watch("D", self.watching)

    async def open_hub(self) -> None:
        """Start the hub."""
        await self.hub.start()
        await self.hub.settled()
        await self.bench.settle()

    def make_sessions(self, **rules: Any) -> None:
        """Make sessions that are not started."""
        self.sessions = SharedSessions(
            self.core.store, self.bench.clock, self.bench.timers, SessionRules(**rules),
            cast("ClusterStore", self.cluster), self.membership, self.following,
        )  # fmt: skip

    async def close(self) -> None:
        """Stop everything that runs."""
        self.cluster.error = None
        self.sessions.stop()
        await self.hub.stop()
        await super().close()

    def die(self) -> None:
        """Reach the store no more, and renew no lease."""
        self.gate.fail("keep_shadows", OSError("dead"))
        for other in self.cluster.others:
            other.meet(Node(name=self.cluster.name, incarnation=1, alive=False))

    async def say(self, device: Device, body: dict[str, Any]) -> Event:
        """Let a device say something to this node."""
        text = json.dumps(body).encode()
        event = await self.core.notifications.insert(self.bench.admin, device, "data", text)
        await self.bench.settle()
        return event

    async def values(self, device: Device) -> dict[str, Any]:
        """Return what a device said last, as this node has it."""
        return plain(await self.hub.values.of(device))

    async def connected(self, device: Device) -> bool | None:
        """Return whether a device is connected, as this node has it."""
        state = await self.hub.states.of(device)
        return None if state is None else state.connected


class Peers:
    """Both, ``one`` and ``two``; the first is the warden."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.one, self.two = Peer(bench, "one"), Peer(bench, "two")

    async def join(self) -> None:
        """Let each know of the other."""
        for each, other in ((self.one, self.two), (self.two, self.one)):
            each.cluster.others = [other.cluster]
            each.cluster.meet(Node(name=other.cluster.name, incarnation=1))
            await each.core.join()

    async def open_hubs(self) -> None:
        """Start the hubs."""
        await self.one.open_hub()
        await self.two.open_hub()

    async def open_sessions(self, **rules: Any) -> tuple[SharedSessions, SharedSessions]:
        """Start the sessions of both nodes with these rules."""
        for each in (self.one, self.two):
            each.make_sessions(**rules)
            await each.sessions.start()
        return self.one.sessions, self.two.sessions

    async def close(self) -> None:
        """Stop both."""
        for each in (self.one, self.two):
            await each.close()

    async def wait(self, seconds: int) -> None:
        """Let time pass, in steps that no lease is too short for, and what comes of it."""
        for second in range(seconds):
            self.bench.clock.now += 1000
            self.bench.timers.advance(1.0)
            if second % _TOGETHER == 0:
                await self.bench.settle()
        await self.bench.settle()

    async def stored_values(self, device: Device) -> dict[str, Any]:
        """Return what the store has of what a device said last."""
        found = await self.bench.store.last_values(device.uid)
        return plain({value.key: value for value in found})
