"""What other nodes change in the registry, taken over by this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from gatewayd.core.cluster import Change, ChangeKind, ClusterStore
from gatewayd.core.configuration import Configuration
from gatewayd.core.devices import Devices
from gatewayd.core.model import Device, Plugin
from gatewayd.core.plugins import Plugins
from gatewayd.core.registry import Registry
from gatewayd.errors import Unavailable

#: Takes a change over; of what it returns, the end is waited for. When it raises
#: :class:`Unavailable` it is called again with the same change, and so are all others.
Applier = Callable[[Change], Coroutine[Deferred[Any], Any, None] | Deferred[Any] | None]
_RETRY = 1.0  # seconds


class Following:
    """Applies the changes of other nodes, each when the one before it is applied.

    :param clock: for the timer.
    """

    log = Logger()

    def __init__(
        self,
        cluster: ClusterStore,
        registry: Registry,
        devices: Devices,
        plugins: Plugins,
        configuration: Configuration,
        clock: IReactorTime,
    ) -> None:
        self._registry = registry
        self._devices = devices
        self._plugins = plugins
        self._configuration = configuration
        self._clock = clock
        self._waiting: deque[Change] = deque()
        self._working = False
        self._stopped = False
        self._retry: IDelayedCall | None = None
        self._appliers: dict[ChangeKind, list[Applier]] = {
            ChangeKind.DEVICE: [self._device],
            ChangeKind.DEVICE_GONE: [self._device_gone],
            ChangeKind.USER: [self._user],
            ChangeKind.USER_GONE: [self._user_gone],
            ChangeKind.GROUP_GONE: [lambda _: registry.refollow()],
            ChangeKind.PLUGIN: [self._plugin],
            ChangeKind.PLUGIN_GONE: [self._plugin_gone],
            ChangeKind.SETTING: [self._setting],
            ChangeKind.ALL: [self._everything],
        }
        cluster.follow(self._take)

    def on(self, kind: ChangeKind, applier: Applier) -> None:
        """Call ``applier`` with each change of a kind, and when everything may have changed.

        That is a change of the kind ALL; who asks for several kinds is told of it once.
        """
        for each in (kind, ChangeKind.ALL):
            appliers = self._appliers.setdefault(each, [])
            if applier not in appliers:
                appliers.append(applier)

    def stop(self) -> None:
        """Apply nothing any more."""
        self._stopped = True
        self._waiting.clear()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _take(self, changes: Sequence[Change]) -> None:
        if not self._stopped:
            self._waiting.extend(changes)
            self._work()

    def _work(self) -> None:
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        self._retry = None
        if not self._working:
            self._working = True
            Deferred.fromCoroutine(self._apply_all())

    async def _apply_all(self) -> None:
        """Apply what waits, in order; what cannot be read now is read later, before the rest."""
        try:
            while self._waiting:
                change = self._waiting[0]
                await self._apply(change)
                if self._waiting and self._waiting[0] is change:
                    self._waiting.popleft()
        except Unavailable as error:
            self.log.warn("a change of another node waits: {error}", error=str(error))
            if not self._stopped:
                self._retry = self._clock.callLater(_RETRY, self._work)
        finally:
            self._working = False

    async def _apply(self, change: Change) -> None:
        for applier in tuple(self._appliers.get(change.kind, ())):
            try:
                applied = applier(change)
                if applied is not None:
                    await applied
            except Unavailable:
                raise
            except Exception:
                self.log.failure("a change of another node was not taken over")

    # What the core has at hand

    async def _device(self, change: Change) -> None:
        await self._registry.follow_device(msgspec.json.decode(change.subject, type=str))

    def _device_gone(self, change: Change) -> None:
        self._devices.gone(msgspec.json.decode(change.subject, type=Device))

    async def _user(self, change: Change) -> None:
        await self._registry.follow_user(msgspec.json.decode(change.subject, type=int))

    def _user_gone(self, change: Change) -> None:
        self._registry.drop_user(msgspec.json.decode(change.subject, type=int))

    async def _plugin(self, change: Change) -> None:
        await self._plugins.follow(msgspec.json.decode(change.subject, type=Plugin))

    def _plugin_gone(self, change: Change) -> None:
        self._plugins.gone(msgspec.json.decode(change.subject, type=Plugin))

    def _setting(self, change: Change) -> None:
        self._configuration.changed(msgspec.json.decode(change.subject, type=str))

    async def _everything(self, _: Change) -> None:
        self._configuration.changed()
        self._registry.clear_devices()
        await self._registry.refollow()
        await self._plugins.refollow()
