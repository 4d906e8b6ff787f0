"""Too many mistakes in too short a time."""

from __future__ import annotations

from collections.abc import Hashable

from twisted.internet.interfaces import IReactorTime

from gatewayd.core.cache import Cache


class Throttle:
    """Counts the mistakes of each key in a time that begins with its first one.

    :param most: mistakes that are forgiven.
    :param per: seconds after which they are forgotten.
    :param size: of how many keys they are remembered.
    """

    def __init__(
        self, clock: IReactorTime, most: int = 10, per: float = 60.0, size: int = 10_000
    ) -> None:
        self._clock = clock
        self._most = most
        self._per = per
        self._mistakes: Cache[Hashable, tuple[float, int]] = Cache(size)

    def wait(self, key: Hashable) -> float:
        """Return for how many seconds nothing is taken from a key any more; 0 when it may try."""
        until, count = self._of(key)
        return until - self._clock.seconds() if count > self._most else 0.0

    def count(self, key: Hashable) -> None:
        """Count a mistake."""
        until, count = self._of(key)
        self._mistakes.put(key, (until, count + 1))

    def _of(self, key: Hashable) -> tuple[float, int]:
        now = self._clock.seconds()
        until, count = self._mistakes.get(key) or (now, 0)
        return (until, count) if until > now else (now + self._per, 0)
