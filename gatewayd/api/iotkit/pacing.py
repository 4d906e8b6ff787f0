"""What is not to happen too often: answers to who fails, and lines in the log."""

from __future__ import annotations

from collections.abc import Hashable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from gatewayd.core.cache import Cache
from gatewayd.errors import TooMany


class Pacing:
    """Lets one after another pass for each key, never faster than one per interval.

    :param interval: seconds. :param longest: seconds that anybody waits.
    :param most: how many may wait at a time. :param keys: how many keys are remembered.
    """

    def __init__(
        self,
        clock: IReactorTime,
        interval: float = 1.0,
        longest: float = 60.0,
        most: int = 1000,
        keys: int = 10_000,
    ) -> None:
        self._clock = clock
        self._interval = interval
        self._longest = longest
        self._most = most
        #: from when on the next of a key may pass
        self._free: Cache[Hashable, float] = Cache(keys)
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return self._waiting

    def turn(self, *keys: Hashable) -> Deferred[None]:
        """Fire when it is the turn of who asks, in all the keys; cancel it when nobody waits.

        :raises TooMany: too many wait, or it would take too long.
        """
        now = self._clock.seconds()
        due = max(now, *(self._free.get(key) or now for key in keys))
        if due > now and (self._waiting >= self._most or due - now > self._longest):
            return fail(TooMany("gateway"))
        for key in keys:
            self._free.put(key, due + self._interval)
        if due <= now:
            return succeed(None)
        self._waiting += 1
        turn: Deferred[None] = deferLater(self._clock, due - now, lambda: None)
        return turn.addBoth(self._passed)

    def _passed(self, result: None) -> None:
        self._waiting -= 1
        return result


class Complaints:
    """Warnings that others could provoke at will: a line a minute, with how many it stands for."""

    log = Logger()

    def __init__(self, clock: IReactorTime, pause: float = 60.0) -> None:
        self._clock = clock
        self._pause = pause
        self._next: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warn(self, text: str, **fields: object) -> None:
        """Write a warning unless the same was written just now.

        :param text: a format of the project's own: there are few of them.
        """
        now = self._clock.seconds()
        if now < self._next.get(text, now):
            self._left_out[text] = self._left_out.get(text, 0) + 1
            return
        self._next[text] = now + self._pause
        more = self._left_out.pop(text, 0)
        self.log.warn(f"{text} ({more} more before)" if more else text, **fields)
