"""The time that all nodes share: the clock of the database."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

# ms for which what was heard counts: so long two clocks hardly drift apart.
_RECENT = 20_000


class SharedClock:
    """Tells the time of the database's clock, as well as what was heard of it allows.

    An answer arrives after its time was read, so the local clock and the greatest difference that
    an answer showed are never ahead of the database's clock.

    :param wall: the time of day in ms, for as long as nothing was heard.
    :param monotonic: seconds since anything, which nobody sets.
    """

    def __init__(self, wall: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._wall = wall
        self._monotonic = monotonic
        #: When something was heard (local ms), and the difference; falling differences.
        self._heard: deque[tuple[float, float]] = deque()
        self._last = 0

    def now(self) -> int:
        """Return the time in ms since the epoch: never later than it is, and never going back."""
        now = int(self._local() + self._heard[0][1]) if self._heard else self._wall()
        self._last = max(self._last, now)
        return self._last

    def heard(self, time: int) -> None:
        """Know what the database's clock showed, in ms, when it gave the answer that is here."""
        local = self._local()
        difference = time - local
        while self._heard and self._heard[-1][1] <= difference:
            self._heard.pop()
        self._heard.append((local, difference))
        while self._heard[0][0] < local - _RECENT:
            self._heard.popleft()

    def _local(self) -> float:
        return self._monotonic() * 1000
