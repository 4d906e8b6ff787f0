"""This node among those that share the store: its lease, who else is there, and what is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from gatewayd.core.cluster import LEASE, ClusterStore, Node
from gatewayd.core.plugins import Plugins
from gatewayd.core.presence import Presence
from gatewayd.errors import ConfigError, GatewayError, NotFound, Superseded, Unavailable

#: Parts of a lease: from the beginning of one renewal to that of the next; and from when the last
#: renewal that succeeded was sent until nothing may rest on it any more.
_RENEW = 0.3
_FENCE = 0.8
_STRANDED = 500


@attrs.frozen(kw_only=True)
class NodeTerms:
    """What the operator has decided of a node.

    :ivar advertise: the base URL at which the others reach it; "" for none.
    :ivar fingerprint: of what all nodes have to have in common.
    :ivar lease: seconds for which it is taken for alive.
    """

    advertise: str = ""
    fingerprint: bytes = b""
    lease: float = LEASE / 1000


class Membership:
    """Keeps the lease of this node, and knows the others by theirs.

    Without a lease it lets all sockets of devices go, and joins anew until it succeeds. The living
    node with the lowest name is the warden: it puts in order what dead nodes have left behind.

    :param clock: for timers; it goes on while the process stands still.
    :ivar lost: called when the lease is lost.
    :ivar failed: called with why this node cannot join any more: somebody has taken its name.
    """

    log = Logger()

    def __init__(
        self,
        cluster: ClusterStore,
        presence: Presence,
        plugins: Plugins,
        clock: IReactorTime,
        terms: NodeTerms,
    ) -> None:
        self.lost: list[Callable[[], None]] = [presence.fence]
        self.failed: Callable[[ConfigError], None] = lambda error: None
        self._cluster = cluster
        self._presence = presence
        self._plugins = plugins
        self._clock = clock
        self._terms = terms
        self._fence = _FENCE * terms.lease
        #: the living, by name
        self._nodes: dict[str, Node] = {}
        self._own: Node | None = None
        #: when the last renewal that succeeded was sent
        self._sent = 0.0
        self._stopped = False
        self._next: IDelayedCall | None = None
        self._watch: IDelayedCall | None = None
        self._renewing: Deferred[None] | None = None
        self._tidying: Deferred[None] | None = None
        #: whether a node may have died with plugins
        self._orphans = False
        #: whether the others do not know which plugins are connected here
        self._unknown = False
        presence.holds = self.holds

    @property
    def name(self) -> str:
        """This node's name."""
        return self._cluster.name

    @property
    def nodes(self) -> list[Node]:
        """The nodes that are alive, by name; this one is among them while it has a lease."""
        return [self._nodes[name] for name in sorted(self._nodes)]

    def others(self) -> list[Node]:
        """Return the other nodes that are alive."""
        return [node for node in self.nodes if node.name != self.name]

    @property
    def alone(self) -> bool:
        """Whether no other node is alive."""
        return not self._nodes.keys() - {self.name}

    @property
    def warden(self) -> bool:
        """Whether this node does what one node has to do for all."""
        return self.holds() and min(self._nodes, default="") == self.name

    def peer(self, name: str) -> Node | None:
        """Return a living node by its name."""
        return self._nodes.get(name)

    def url(self, name: str) -> str | None:
        """Return where a living node listens for the others; None: nowhere, or there is none."""
        node = self._nodes.get(name)
        return None if node is None else node.advertise or None

    def holds(self) -> bool:
        """Whether this node has a lease. One whose time is over is lost before this returns."""
        if self._own is not None and self._clock.seconds() - self._sent >= self._fence:
            self._lose("it could not be renewed in time")
        return self._own is not None

    # Life

    async def start(self) -> None:
        """Take a lease, and look who else is there.

        :raises ConfigError: this node cannot be one of them. :raises Unavailable:
        """
        try:
            await self._join()
        except Superseded:
            raise Unavailable("the lease was over before it was known") from None
        self._schedule(self._sent)

    async def stop(self) -> None:
        """Give the lease back, when it is recorded that nothing is attached here any more."""
        self._stopped = True
        if self._renewing is not None:
            await self._renewing
        for call in (self._next, self._watch):
            if call is not None and call.active():
                call.cancel()
        if self._tidying is not None:
            await self._tidying
        if self._own is not None:
            await self._presence.settle()
            self._own = None
            try:
                await self._cluster.leave()
            except GatewayError as error:
                self.log.warn("the lease is not given back: {error}", error=str(error))

    def _schedule(self, began: float) -> None:
        """Begin the next renewal in time."""
        if not self._stopped:
            delay = max(0.0, began + _RENEW * self._terms.lease - self._clock.seconds())
            self._next = self._clock.callLater(delay, self._begin)

    def _begin(self) -> None:
        began = self._clock.seconds()
        work = self._renew() if self.holds() else self._rejoin()
        self._renewing = Deferred.fromCoroutine(work)
        self._renewing.addErrback(lambda failure: self.log.failure("a renewal failed", failure))
        self._renewing.addBoth(lambda _: self._schedule(began))

    # The lease

    async def _join(self) -> None:
        own = await self._cluster.join(self._terms.advertise, self._terms.fingerprint)
        # How long ago it was taken nobody knows: that may have been waited for.
        sent = self._clock.seconds()
        nodes = await self._cluster.renew()
        self._own = own
        self._renewed(sent)
        if not self.holds():
            raise Unavailable("the lease was over before it was known")
        self._presence.join(own.incarnation)
        self.log.info(
            "node {name} has joined", name=own.name, incarnation=own.incarnation
        )  # fmt: skip
        self._meet(nodes)

    async def _rejoin(self) -> None:
        self._unknown = True
        try:
            await self._join()
        except ConfigError as error:
            self.log.critical("this node cannot join again: {error}", error=str(error))
            self._stopped = True
            self.failed(error)
        except (Superseded, Unavailable) as error:
            self.log.warn("this node cannot join now: {error}", error=str(error))

    async def _renew(self) -> None:
        sent = self._clock.seconds()
        try:
            nodes = await self._cluster.renew()
        except Superseded:
            self.holds()
            if self._own is not None:
                self._lose("it is over")
        except Unavailable as error:
            if self.holds():
                self.log.warn("the lease is not renewed: {error}", error=str(error))
        else:
            if self.holds():
                self._renewed(sent)
                if self.holds():
                    self._meet(nodes)

    def _renewed(self, sent: float) -> None:
        self._sent = sent
        if self._watch is not None and self._watch.active():
            self._watch.cancel()
        delay = max(0.0, sent + self._fence - self._clock.seconds())
        self._watch = self._clock.callLater(delay, self.holds)

    def _lose(self, why: str) -> None:
        self.log.error("this node has lost its lease: {why}", why=why)
        self._own = None
        self._nodes.pop(self.name, None)
        for callback in self.lost:
            try:
                callback()
            except Exception:
                self.log.failure("the loss of the lease was not taken over")

    # The others

    def _meet(self, nodes: list[Node]) -> None:
        """Know how all nodes are."""
        before, self._nodes = self._nodes, {node.name: node for node in nodes if node.alive}
        self._presence.know(nodes)
        for node in before.values():
            # One that is there again already has lost what it had all the same.
            if not _is_among(node, self._nodes):
                self.log.warn("node {name} is gone", name=node.name)
                self._orphans = True
        for node in self.others():
            if not _is_among(node, before):
                self.log.info("node {name} is there", name=node.name)
        if self._tidying is None:
            self._tidying = Deferred.fromCoroutine(self._tidy())
            self._tidying.addBoth(self._tidied)

    # What dead nodes have left

    async def _tidy(self) -> None:
        """Tell what could not be told before; as the warden, put in order what others left."""
        try:
            if self._unknown:
                await self._plugins.rejoin()
                self._unknown = False
            await self._plugins.repeat()
            while self._goes_on() and await self._end_stranded():
                pass
            if self._goes_on() and self._orphans:
                self._orphans = False
                await self._plugins.start()
        except GatewayError as error:
            self._orphans = True  # it may have been that which failed
            self.log.warn("what dead nodes have left waits: {error}", error=str(error))

    def _goes_on(self) -> bool:
        """Whether this node is the one to put things in order, and is not about to leave."""
        return self.warden and not self._stopped

    def _tidied(self, result: Any) -> None:
        self._tidying = None
        if result is not None:
            self.log.failure("what dead nodes have left is not in order", result)

    async def _end_stranded(self) -> bool:
        """Record that some attachments of dead nodes are over; return whether all were."""
        stranded = await self._cluster.stranded(_STRANDED)
        ending = [self._presence.end(each) for each in stranded]
        answers: Any = await DeferredList(ending, consumeErrors=True)
        failures = [result for success, result in answers if not success]
        # Those of a device that was deleted meanwhile went with it, and another node that was the
        # warden until now may have recorded the same.
        for failure in failures:
            if not failure.check(NotFound, Superseded):
                failure.raiseException()
        return bool(stranded) and not failures


def _is_among(node: Node, nodes: Mapping[str, Node]) -> bool:
    """Whether a node is one of some, and the same process as there."""
    there = nodes.get(node.name)
    return there is not None and there.incarnation == node.incarnation
