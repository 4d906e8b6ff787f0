"""Throttling of telemetry: what comes too soon is held back, and newer values replace older."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from gatewayd.api.ux4iot.delays import Delay

if TYPE_CHECKING:
    from collections.abc import Mapping

    import msgspec

    from gatewayd.api.ux4iot.feeds import Feed
    from gatewayd.api.ux4iot.groups import Group


class Coalescing:
    """Lets a group have telemetry of its device once per interval.

    What comes after a longer silence is sent at once.

    :param interval: ms; nothing is held back when it is not above 0.
    """

    def __init__(self, interval: float, clock: IReactorTime) -> None:
        self.on = interval > 0
        self._delay = Delay(interval / 1000, clock)

    def passes(
        self, feed: Feed, group: Group, values: Mapping[str, msgspec.Raw], stamp: int
    ) -> bool:
        """Whether the group may have values now; if not, it gets them when the interval is over."""
        if not self.on:
            return True
        if group.held:
            group.waiting.update(values)
            group.stamp = stamp
            return False
        self._hold(feed, group)
        return True

    def stop(self) -> None:
        """Stop the timer."""
        self._delay.stop()

    def _hold(self, feed: Feed, group: Group) -> None:
        group.held = True
        self._delay.call(partial(self._release, feed, group))

    def _release(self, feed: Feed, group: Group) -> None:
        group.held = False
        if feed.flush(group):
            self._hold(feed, group)
