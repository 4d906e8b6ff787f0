"""A clock for a whole gateway on real sockets that a test can put forward."""

from __future__ import annotations

from typing import Any

from gatewayd.service import wall_ms
from tests.harness import reactor


class Hurried:
    """The reactor, with a clock that a test can put forward.

    :ivar ahead: seconds by which it is ahead of the time of day.
    """

    def __init__(self) -> None:
        self.ahead = 0.0
        self._calls: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def seconds(self) -> float:
        """Return the time."""
        return float(reactor.seconds()) + self.ahead

    def wall(self) -> int:
        """Return the time of day in ms."""
        return wall_ms() + round(self.ahead * 1000)

    def callLater(self, delay: float, function: Any, *args: Any, **named: Any) -> Any:
        """Call a function later.

        The store's own time is not put forward: its database would have none to answer.
        """
        if getattr(function, "__module__", "").startswith("gatewayd.storage."):
            return reactor.callLater(delay, function, *args, **named)
        self._calls = [call for call in self._calls if call.active()]
        self._calls.append(reactor.callLater(delay, function, *args, **named))
        return self._calls[-1]

    def advance(self, seconds: float) -> None:
        """Let seconds pass at once."""
        self.ahead += seconds
        for call in self._calls:
            if call.active():
                call.reset(max(0.0, call.getTime() - reactor.seconds() - seconds))

    def waits(self, seconds: float) -> bool:
        """Whether something is to happen in about so many seconds."""
        active = [call.getTime() - reactor.seconds() for call in self._calls if call.active()]
        return any(seconds - 0.5 < left <= seconds for left in active)
