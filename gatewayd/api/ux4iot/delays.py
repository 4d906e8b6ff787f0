"""Doing many things somewhat later with one timer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger


class Delay:
    """Calls functions a fixed time after they were given to it, in that order.

    :param seconds: the time.
    """

    log = Logger()

    def __init__(self, seconds: float, clock: IReactorTime) -> None:
        self._seconds = seconds
        self._clock = clock
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._timer: IDelayedCall | None = None

    def call(self, function: Callable[[], None]) -> None:
        """Call a function when its time has come; what it raises is logged."""
        self._waiting.append((self._clock.seconds() + self._seconds, function))
        self._schedule()

    def stop(self) -> None:
        """Forget what was to be called."""
        self._waiting.clear()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _schedule(self) -> None:
        if self._waiting and self._timer is None:
            left = self._waiting[0][0] - self._clock.seconds()
            self._timer = self._clock.callLater(max(left, 0.0), self._call_due)

    def _call_due(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        due = []
        while self._waiting and self._waiting[0][0] <= now:
            due.append(self._waiting.popleft()[1])
        self._schedule()
        for function in due:
            try:
                function()
            except Exception:
                self.log.failure("what was put off failed")
