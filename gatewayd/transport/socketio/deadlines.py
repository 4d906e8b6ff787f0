"""One timer for the deadlines of many members."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

T = TypeVar("T", bound=Hashable)


class Deadlines(Generic[T]):
    """Calls for each member once its time has passed, at most a second later.

    The timer is there as long as there are members.

    :param missed: called with the member, which has no deadline any more.
    """

    def __init__(self, missed: Callable[[T], None], reactor: IReactorTime) -> None:
        self._missed = missed
        self._reactor = reactor
        self._seconds: dict[T, int] = {}
        self._members: dict[int, set[T]] = {}
        self._call: IDelayedCall | None = None

    def set(self, member: T, seconds: float) -> None:
        """Give *member* its deadline so many seconds from now, in the place of any other."""
        self._remove(member)
        now = self._reactor.seconds()
        second = math.ceil(now + seconds)
        self._seconds[member] = second
        self._members.setdefault(second, set()).add(member)
        if self._call is None:
            self._await_second(now)

    def discard(self, member: T) -> None:
        """Take back the deadline of *member*, if it has one."""
        self._remove(member)
        if not self._seconds and self._call is not None:
            self._call.cancel()
            self._call = None

    def _remove(self, member: T) -> None:
        second = self._seconds.pop(member, None)
        if second is not None:
            members = self._members[second]
            members.discard(member)
            if not members:
                del self._members[second]

    def _await_second(self, now: float) -> None:
        self._call = self._reactor.callLater(math.floor(now) + 1 - now, self._tick)

    def _tick(self) -> None:
        now = self._reactor.seconds()
        self._await_second(now)
        for second in sorted(each for each in self._members if each <= now):
            for member in tuple(self._members.get(second, ())):
                if self._seconds.get(member) == second:
                    self.discard(member)
                    self._missed(member)
