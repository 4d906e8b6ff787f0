"""So many at a time for each device, and a queue for those that have to wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from contextlib import AbstractAsyncContextManager

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from gatewayd.errors import TooMany


@attrs.define
class _Lane:
    """What one key has under way.

    :ivar waiting: those that wait, in order; each fires when it has its place.
    :ivar passing: whether places are being passed on to them.
    """

    busy: int = 0
    waiting: deque[Deferred[None]] = attrs.field(factory=deque)
    passing: bool = False


class Lanes:
    """Places for work, so many for each key; keys do not hold each other up.

    :param width: places of one key. :param queue: of those that wait for one.
    """

    def __init__(self, width: int, queue: int, clock: IReactorTime) -> None:
        self._width = width
        self._queue = queue
        self._clock = clock
        self._lanes: dict[Hashable, _Lane] = {}

    def hold(self, key: Hashable, patience: float) -> AbstractAsyncContextManager[None]:
        """Hold a place while the block runs.

        :param patience: seconds to wait for one.
        :raises TooMany: ``"device"``: there are too many that wait, or none came free in time.
        """
        return _Place(self, key, patience)

    async def take(self, key: Hashable, patience: float) -> None:
        """Begin to hold a place, until :meth:`leave`; see :meth:`hold`."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane()
        if lane.busy < self._width and not lane.waiting:
            lane.busy += 1
        else:
            await self._wait(lane, patience)

    async def _wait(self, lane: _Lane, patience: float) -> None:
        if len(lane.waiting) >= self._queue:
            raise TooMany("device")
        place: Deferred[None] = Deferred(lambda place: lane.waiting.remove(place))
        lane.waiting.append(place)
        impatient = self._clock.callLater(patience, self._give_up, lane, place)
        try:
            await place
        finally:
            if impatient.active():
                impatient.cancel()

    @staticmethod
    def _give_up(lane: _Lane, place: Deferred[None]) -> None:
        lane.waiting.remove(place)
        place.errback(TooMany("device"))

    def leave(self, key: Hashable) -> None:
        """Hold a place no more: it is passed on to who waits longest.

        Who is over at once comes back here while its place is passed on: its own is left to the
        loop, so that a long queue of such is no deep recursion.
        """
        lane = self._lanes[key]
        lane.busy -= 1
        if lane.passing:
            return
        lane.passing = True
        while lane.waiting and lane.busy < self._width:
            lane.busy += 1
            lane.waiting.popleft().callback(None)
        lane.passing = False
        if not lane.busy:
            del self._lanes[key]


class _Place(AbstractAsyncContextManager[None]):
    """A place for a block; ``asynccontextmanager`` would cost as much as all the rest of it."""

    __slots__ = ("_key", "_lanes", "_patience")

    def __init__(self, lanes: Lanes, key: Hashable, patience: float) -> None:
        self._lanes = lanes
        self._key = key
        self._patience = patience

    async def __aenter__(self) -> None:
        await self._lanes.take(self._key, self._patience)

    async def __aexit__(self, *_: object) -> None:
        self._lanes.leave(self._key)
