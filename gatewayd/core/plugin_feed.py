"""What one connection of a plugin receives."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from gatewayd.core.access import Principal
from gatewayd.core.model import MESSAGES, Device, Plugin, PluginStatus
from gatewayd.core.queries import Filter
from gatewayd.core.registry import Registry
from gatewayd.core.timeline import Sink, Subscription, Timeline


class PluginFeed:
    """Delivers, while a plugin is active, what passes its filter and its owner may see.

    A device that the filter names need not exist yet, and may be registered again.

    :ivar plugin: the plugin as it is now.
    :ivar closed: whether it has ended.
    """

    log = Logger()

    def __init__(
        self,
        plugin: Plugin,
        owner: Principal,
        sink: Sink,
        timeline: Timeline,
        registry: Registry,
        ended: Callable[[PluginFeed], None],
    ) -> None:
        self.plugin = plugin
        self.closed = False
        self._owner = owner
        self._sink = sink
        self._timeline = timeline
        self._registry = registry
        self._ended = ended
        self._active = False
        self._part: Subscription | None = None

    async def follow(self, plugin: Plugin, since: int | None = None) -> None:
        """Take over a change of the plugin: deliver while it is active, and no longer.

        :param since: ms; before it delivers, deliver what the log has after that.
        """
        self.plugin = plugin
        if plugin.status is not PluginStatus.ACTIVE:
            self._end()
        elif not self._active:
            try:
                await self._begin(since)
            except Exception:
                self.log.failure("the feed of a plugin failed")
                self.close()
                self._sink.broken()

    def saved(self, device: Device) -> None:
        """Know that a device was registered or changed: the filter may have waited for it."""
        if self._active and self._names(device):
            self._deliver(device.uid, None)

    def close(self) -> None:
        """Deliver nothing any more; a second call does nothing."""
        if not self.closed:
            self.closed = True
            self._end()
            self._ended(self)

    def _names(self, device: Device) -> bool:
        named = self.plugin.filter.device
        return named is not None and named.upper() == device.id.upper()

    def _end(self) -> None:
        self._active = False
        if self._part is not None:
            self._part.close()
            self._part = None

    async def _begin(self, since: int | None) -> None:
        device_id = self.plugin.filter.device
        device = None if device_id is None else await self._registry.device(device_id)
        if self.closed:
            return
        self._active = True
        if device is not None:
            self._deliver(device.uid, since)
        elif device_id is None:
            self._deliver(None, since)

    def _deliver(self, stream: int | None, since: int | None) -> None:
        """Deliver the events of one device or of all, unless that is what happens already."""
        if self._part is not None and not self._part.closed:
            return
        wanted = self.plugin.filter
        passing = Filter(
            kinds=MESSAGES if wanted.kinds is None else wanted.kinds, stream=stream,
            networks=wanted.networks, types=wanted.types, names=wanted.names,
        )  # fmt: skip
        self._part = self._timeline.subscribe(passing, self._owner, self._sink)
        if since is None:
            self._part.go_live()
        else:
            Deferred.fromCoroutine(self._part.catch_up(since))
