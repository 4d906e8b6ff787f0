"""The domain, put together: what every API is given."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from gatewayd.core.authentication import Authentication
from gatewayd.core.commands import Commands
from gatewayd.core.configuration import Configuration
from gatewayd.core.devices import Devices
from gatewayd.core.following import Following
from gatewayd.core.groups import Groups
from gatewayd.core.interfaces import Store
from gatewayd.core.membership import Membership, NodeTerms
from gatewayd.core.model import GroupKind
from gatewayd.core.notifications import Notifications
from gatewayd.core.passwords import Passwords, RunInThread
from gatewayd.core.plugins import Plugins
from gatewayd.core.polls import Polls
from gatewayd.core.presence import Presence
from gatewayd.core.registry import Registry
from gatewayd.core.timeline import Timeline
from gatewayd.core.tokens import TokenAuthority
from gatewayd.core.users import Users

_SWEEP_EVERY = 60.0
_SWEEP_ROWS = 2000


class Core:
    """Everything the gateway does, behind no API in particular.

    :param wall: the time of day in ms.
    :param clock: for timers.
    :param retention: ms for which events and commands are kept.
    :param node: what this process is among those that share the store.
    :ivar cluster: what is kept with other nodes; so membership and following. None when nobody
        shares the store.
    """

    log = Logger()

    def __init__(
        self,
        store: Store,
        tokens: TokenAuthority,
        run_in_thread: RunInThread,
        wall: Callable[[], int],
        clock: IReactorTime,
        retention: int,
        node: NodeTerms = NodeTerms(),  # noqa: B008 - it is frozen
    ) -> None:
        self.store = store
        self.wall = wall
        self.registry = Registry(store)
        self.timeline = Timeline(
            store, wall, lambda function: clock.callLater(0, function),
            shared=store.cluster is not None,
        )  # fmt: skip
        self.cluster = store.cluster
        self.presence = Presence(self.timeline, self.cluster)
        self.devices = Devices(store, self.registry, self.timeline)
        self.devices.deleted.append(self.presence.forget)
        self.networks = Groups(GroupKind.NETWORK, store, self.registry, self.devices)
        self.types = Groups(GroupKind.DEVICE_TYPE, store, self.registry, self.devices)
        self.notifications = Notifications(store, self.timeline)
        self.commands = Commands(store, self.timeline, self.registry)
        self.polls = Polls(store, self.timeline, clock)
        self.configuration = Configuration(store)
        self.passwords = Passwords(run_in_thread)
        self.users = Users(store, self.registry, self.passwords)
        self.authentication = Authentication(
            tokens, self.users, self.registry, self.configuration, self.passwords, store, wall
        )
        self.plugins = Plugins(store, self.registry, self.timeline, tokens)
        self.membership: Membership | None = None
        self.following: Following | None = None
        if self.cluster is not None:
            self.following = Following(
                self.cluster, self.registry, self.devices, self.plugins, self.configuration, clock
            )
            self.membership = membership = Membership(
                self.cluster, self.presence, self.plugins, clock, node
            )
            self.registry.contested = lambda: not membership.alone
        #: what else forgets something from time to time
        self.sweeps: list[Callable[[], Coroutine[Deferred[Any], Any, None]]] = []
        self._retention = retention
        self._sweeper = LoopingCall(self._sweep)
        self._sweeper.clock = clock

    def groups(self, kind: GroupKind) -> Groups:
        """Return the networks or the device types."""
        return self.networks if kind is GroupKind.NETWORK else self.types

    @property
    def warden(self) -> bool:
        """Whether this node does what one has to do for all."""
        return self.membership is None or self.membership.warden

    async def join(self) -> None:
        """Be a node among those that share the store, if it can be shared.

        :raises ConfigError: this cannot be one of them. :raises Unavailable:
        """
        if self.membership is not None:
            await self.membership.start()
            await self.presence.start()

    async def leave(self) -> None:
        """Be none any more; nothing is attached by then."""
        if self.following is not None:
            self.following.stop()
        if self.membership is not None:
            await self.timeline.settle()  # without a lease nothing is recorded any more
            await self.membership.stop()

    def start(self) -> None:
        """Begin to drop what is older than the retention."""
        self._sweeper.start(_SWEEP_EVERY, now=True)

    def stop(self) -> None:
        """Stop the timers."""
        if self._sweeper.running:
            self._sweeper.stop()

    def _sweep(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._sweep_all())

    async def _sweep_all(self) -> None:
        """Drop everything that is too old, a piece at a time so that writers are not held up.

        One node does so with what all share.
        """
        try:
            while self.warden:
                if not await self.store.sweep(self.wall() - self._retention, _SWEEP_ROWS):
                    break
                if not self._sweeper.running:
                    return
            for sweep in self.sweeps:
                await sweep()
        except Exception as error:
            self.log.warn("retention could not run: {error}", error=str(error))
