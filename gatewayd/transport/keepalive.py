"""One timer for the regular visits of many members."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

T = TypeVar("T", bound=Hashable)


class Wheel(Generic[T]):
    """Visits each member once in every *period*, a part of them on each tick of about a second.

    :ivar period: seconds between two visits of a member; 0 or less means that nobody is visited.
    """

    def __init__(self, period: float, visit: Callable[[T], None], reactor: IReactorTime) -> None:
        self.period = period
        self._visit = visit
        self._reactor = reactor
        spokes = max(1, round(period))
        self._tick = period / spokes
        self._spokes: list[set[T]] = [set() for _ in range(spokes)]
        self._place: dict[T, set[T]] = {}
        self._current = 0
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to turn; does nothing if the wheel turns already."""
        if self._call is None and self.period > 0:
            self._call = self._reactor.callLater(self._tick, self._turn)

    def stop(self) -> None:
        """Stand still. The members stay."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def add(self, member: T) -> None:
        """Visit *member* from now on, for the first time in nearly one period."""
        self._place[member] = spoke = self._spokes[self._current]
        spoke.add(member)

    def discard(self, member: T) -> None:
        """Visit *member* no more."""
        spoke = self._place.pop(member, None)
        if spoke is not None:
            spoke.discard(member)

    def _turn(self) -> None:
        self._call = self._reactor.callLater(self._tick, self._turn)
        self._current = (self._current + 1) % len(self._spokes)
        for member in tuple(self._spokes[self._current]):
            self._visit(member)
