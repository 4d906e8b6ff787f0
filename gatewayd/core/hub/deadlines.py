"""Deadlines of many things that are put off again and again, with one timer for them all."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Deadlines:
    """Says when deadlines are reached, which may have been put off meanwhile.

    Putting one off costs nothing: it is asked for when it would have been reached.

    :param wall: the time of day in ms. :param clock: for the timer.
    :param reached: called with a key; returns its deadline if that was put off, else None.
    """

    def __init__(
        self,
        wall: Callable[[], int],
        clock: IReactorTime,
        reached: Callable[[int], int | None],
    ) -> None:
        self._wall = wall
        self._clock = clock
        self._reached = reached
        self._running = False
        self._due: list[tuple[int, int]] = []
        self._keys: set[int] = set()
        self._timer: IDelayedCall | None = None
        self._timer_due = 0

    def add(self, key: int, due: int) -> None:
        """Know a deadline, ms since the epoch; of a key that has one the earlier one stays."""
        if key not in self._keys:
            self._put(key, due)
            self._arm()

    def start(self) -> None:
        """Say which are reached by now, and from now on."""
        self._running = True
        self._wake()

    def stop(self) -> None:
        """Stop the timer."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _put(self, key: int, due: int) -> None:
        self._keys.add(key)
        heappush(self._due, (due, key))

    def _wake(self) -> None:
        self._timer = None
        now = self._wall()
        while self._due and self._due[0][0] <= now:
            _, key = heappop(self._due)
            self._keys.discard(key)
            due = self._reached(key)
            if due is not None:
                self._put(key, due)
        self._arm()

    def _arm(self) -> None:
        """Let the timer go off at the earliest deadline."""
        if not self._running or not self._due:
            return
        due = self._due[0][0]
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._clock.callLater(max(0, due - self._wall()) / 1000, self._wake)
