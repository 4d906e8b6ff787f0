"""Noticing that nothing happens any more."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime

_LOOKS = 8
_UNSEEN = object()


class Stillness:
    """Watches things for a time in which they do not change, all with one timer.

    It looks from time to time, so what moves bytes need not tell it of every one, and to watch
    something for a moment costs next to nothing. In return the end comes later than asked for, by
    up to a quarter; it never comes earlier.

    :param seconds: how long nothing must change.
    """

    def __init__(self, seconds: float, clock: IReactorTime) -> None:
        self._seconds = seconds
        self._clock = clock
        self._watched: dict[Hashable, _Watched] = {}
        self._call: IDelayedCall | None = None

    def watch(
        self, thing: Hashable, look: Callable[[], object], found: Callable[[], object]
    ) -> None:
        """Begin to watch something; does nothing if that has begun.

        :param look: returns what is compared with what it returned before.
        :param found: is called once, when nothing has changed for that long.
        """
        if thing not in self._watched:
            self._watched[thing] = _Watched(look, found, self._clock.seconds())
            if self._call is None:
                self._again()

    def leave(self, thing: Hashable) -> None:
        """Watch it no longer."""
        self._watched.pop(thing, None)

    def stop(self) -> None:
        """Watch nothing any more."""
        self._watched.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _again(self) -> None:
        self._call = self._clock.callLater(self._seconds / _LOOKS, self._compare)

    def _compare(self) -> None:
        self._call = None
        now = self._clock.seconds()
        # Summed eighths may fall short of the whole by a rounding error.
        limit = now - self._seconds * 0.999999
        for thing, watched in tuple(self._watched.items()):
            if watched.unchanged_since(now) <= limit and thing in self._watched:
                del self._watched[thing]
                watched.found()
        if self._watched and self._call is None:
            self._again()


@attrs.define(eq=False)
class _Watched:
    look: Callable[[], object]
    found: Callable[[], object]
    since: float
    seen: object = _UNSEEN

    def unchanged_since(self, now: float) -> float:
        seen = self.look()
        if seen != self.seen:
            self.seen, self.since = seen, now
        return self.since
