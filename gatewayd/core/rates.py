"""How often somebody may do something."""

from __future__ import annotations

from collections.abc import Hashable

from twisted.internet.interfaces import IReactorTime

from gatewayd.errors import TooMany

#: So many are remembered at least before those that matter no more are looked for.
_MOST = 10_000


class Rates:
    """A rate per key, with bursts; what is not used of it is saved up for one burst.

    :param rate: per second. :param burst: at once.
    :param what: what :class:`TooMany` names.
    """

    def __init__(self, rate: float, burst: int, clock: IReactorTime, what: str) -> None:
        self._interval = 1 / rate
        # Half of one less than whole: sums of times are not exact.
        self._room = (burst - 0.5) / rate
        self._clock = clock
        self._what = what
        #: when everything that a key has taken would have been due at the even rate
        self._due: dict[Hashable, float] = {}
        self._most = _MOST

    def take(self, key: Hashable) -> None:
        """Take one. :raises TooMany: the rate is used up."""
        now = self._clock.seconds()
        due = max(self._due.get(key, now), now)
        if due - now > self._room:
            raise TooMany(self._what)
        if len(self._due) >= self._most and key not in self._due:
            self._due = {each: time for each, time in self._due.items() if time > now}
            self._most = max(_MOST, 2 * len(self._due))
        self._due[key] = due + self._interval
