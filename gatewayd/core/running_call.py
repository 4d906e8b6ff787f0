"""A relayed request that goes on by itself, and who waits for its answer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.core.exchange import Answer
from gatewayd.errors import GatewayError, NoAnswer


class RunningCall:
    """A call that is under way, whoever waits for it.

    :ivar size: bytes of the body that it holds.
    """

    log = Logger()

    def __init__(self, work: Coroutine[Deferred[Any], Any, Answer], size: int) -> None:
        self.size = size
        self._followers: list[Deferred[Answer]] = []
        self._work = Deferred.fromCoroutine(work)

    def follow(self) -> Deferred[Answer]:
        """Fire with the answer; cancelling leaves the call alone."""
        follower: Deferred[Answer] = Deferred(self._followers.remove)
        self._followers.append(follower)
        return follower

    def when_over(self, function: Callable[[], object]) -> None:
        """Call a function at the end, and then tell the followers."""
        self._work.addBoth(self._over, function)

    def _over(self, result: Answer | Failure, function: Callable[[], object]) -> None:
        function()
        if isinstance(result, Failure):
            if result.check(CancelledError):
                result = Failure(NoAnswer())
            elif not result.check(GatewayError):
                self.log.failure("a relayed request failed", failure=result)
        while self._followers:
            self._followers.pop(0).callback(result)  # type: ignore[arg-type]

    def give_up(self) -> None:
        """Stop; what the device has done meanwhile nobody knows."""
        self._work.cancel()
