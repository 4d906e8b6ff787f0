"""The nodes of a cluster whose store the test moves by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec
from twisted.internet.defer import Deferred, fail, succeed

from gatewayd.core.attachment import COUNTED, Body
from gatewayd.core.cluster import (
    Change,
    ChangeKind,
    ChangeObserver,
    ClusterStore,
    Node,
    StoredAttachment,
)
from gatewayd.core.gateway import Core
from gatewayd.core.interfaces import Store
from gatewayd.core.model import Device, Entry, Event, Kind, Plugin
from gatewayd.errors import Superseded
from tests.core.bench import RETENTION, START, Bench, Gate


class FakeCluster:
    """What the nodes keep together, in memory.

    :ivar nodes: all of them, as a renewal finds them. :ivar error: why nothing can be asked now.
    :ivar held: the questions that are not answered, while there is a list.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Node] = []
        self.error: Exception | None = None
        self.held: list[Deferred[None]] | None = None
        self.asked: list[str] = []
        self.known: list[StoredAttachment] = []
        self.left_behind: list[StoredAttachment] = []
        self.orphans: list[Plugin] = []
        self._incarnation = 0
        self._changes = 0
        self._observers: list[ChangeObserver] = []

    def _answer(self, question: str, result: Any) -> Deferred[Any]:
        self.asked.append(question)
        if self.error is not None:
            return fail(self.error)
        if self.held is None:
            return succeed(result)
        answer: Deferred[Any] = Deferred()
        self.held.append(answer)
        return answer.addCallback(lambda _: result)

    def now(self) -> int:
        return START

    def join(self, advertise: str, fingerprint: bytes) -> Deferred[Node]:
        self._incarnation += 1
        own = Node(name=self.name, incarnation=self._incarnation, advertise=advertise)
        self.meet(own)
        return self._answer("join", own)

    def renew(self) -> Deferred[list[Node]]:
        if not any(node.name == self.name and node.alive for node in self.nodes):
            return fail(Superseded(self.name))
        return self._answer("renew", list(self.nodes))

    def leave(self) -> Deferred[None]:
        return self._answer("leave", None)

    def attachments(self) -> Deferred[list[StoredAttachment]]:
        return self._answer("attachments", self.known)

    def stranded(self, limit: int) -> Deferred[list[StoredAttachment]]:
        batch, self.left_behind = self.left_behind[:limit], self.left_behind[limit:]
        return self._answer("stranded", batch)

    def announce(self, kind: ChangeKind, subject: bytes) -> Deferred[None]:
        return self._answer("announce", None)

    def follow(self, observer: ChangeObserver) -> None:
        self._observers.append(observer)

    def plugin_joined(self, plugin_id: int) -> Deferred[None]:
        return self._answer(f"joined {plugin_id}", None)

    def plugin_left(self, plugin_id: int) -> Deferred[bool]:
        return self._answer(f"left {plugin_id}", True)

    def orphaned_plugins(self) -> Deferred[list[Plugin]]:
        return self._answer("orphans", self.orphans)

    # The test

    def hold(self) -> list[Deferred[None]]:
        """Answer nothing from now on; return the questions, which the test answers."""
        self.held = []
        return self.held

    def meet(self, node: Node) -> None:
        """Let a node be as it is given."""
        self.nodes = [each for each in self.nodes if each.name != node.name] + [node]

    def change(self, *changes: tuple[ChangeKind, object]) -> None:
        """Tell of changes that another node has made."""
        told: list[Change] = []
        for kind, subject in changes:
            self._changes += 1
            body = msgspec.json.encode(subject)
            told.append(Change(number=self._changes, kind=kind, subject=body))
        for observer in self._observers:
            observer(told)


class Shared(Gate):
    """A store that other nodes share, as far as the cluster says."""

    def __init__(self, store: Store, cluster: FakeCluster) -> None:
        super().__init__(store)
        self.cluster = cast("ClusterStore", cluster)


class NodeBench:
    """A core that is a node, over the store of a bench."""

    def __init__(
        self,
        bench: Bench,
        name: str = "one",
        cluster: type[FakeCluster] = FakeCluster,
        gate: type[Shared] = Shared,
    ) -> None:
        self.bench = bench
        self.cluster = cluster(name)
        self.gate = gate(bench.gate.store, self.cluster)
        self.core = Core(
            cast("Store", self.gate), bench.tokens, bench.threads, bench.clock, bench.timers,
            RETENTION,
        )  # fmt: skip
        assert self.core.membership is not None
        assert self.core.following is not None
        self.membership = self.core.membership
        self.following = self.core.following

    async def close(self) -> None:
        """Leave; nothing is left behind."""
        self.cluster.error = self.cluster.held = None
        await self.core.leave()

    async def advance(self, seconds: float) -> None:
        """Let time go by, a bit at a time, and what begins then come to its end."""
        for _ in range(round(seconds * 8)):
            self.bench.timers.advance(0.125)  # of which there are sums without a rounding error
        await self.bench.settle()

    async def record(
        self, kind: Kind, device: Device, number: int, *, node: str = "two", exclusive: bool = False
    ) -> Event:
        """Record a coming or going on some node."""
        body = msgspec.json.encode(Body("p", node, number, exclusive))
        entry = Entry(device=device, kind=kind, name="p", body=body, exclusive=exclusive)
        event = await self.gate.append(entry)
        await self.bench.settle()
        assert isinstance(event, Event)
        return event


def number(incarnation: int, count: int = 1) -> int:
    """Return the number of an attachment."""
    return (incarnation << COUNTED) + count


def stored(device: Device, number: int, node: str = "two") -> StoredAttachment:
    """Return an attachment as the store has it."""
    return StoredAttachment(
        node=node, number=number, device=device, protocol="p", epoch=None, since=START
    )


def names(nodes: Sequence[Node]) -> list[str]:
    return [node.name for node in nodes]
