"""A limit of bytes per second."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

#: Seconds' worth that is waited for: a little at a time would cost an event for a few bytes.
_WORTHWHILE = 0.05


class TokenBucket:
    """Fills with time and is emptied by what passes; it holds one second's worth.

    :param rate: bytes per second.
    """

    def __init__(self, rate: int, clock: IReactorTime) -> None:
        self._rate = rate
        self._clock = clock
        self._level = float(rate)
        self._filled = clock.seconds()

    def room(self) -> int:
        """Return how many bytes may pass now."""
        now = self._clock.seconds()
        self._level = min(self._rate, self._level + (now - self._filled) * self._rate)
        self._filled = now
        return max(0, int(self._level))

    def spend(self, size: int) -> None:
        """Let *size* bytes pass."""
        self._level -= size

    def wait(self) -> float:
        """Return in how many seconds it is worth to ask for room again."""
        return max(0.0, max(1.0, self._rate * _WORTHWHILE) - self._level) / self._rate
