"""Live sessions to work on, over a real store."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.grants import Grant, Right, StoredSession
from gatewayd.core.live_sessions import LiveSession, LiveSessions, SessionRules
from tests.core.bench import Bench

LIFETIME = 600
ALL = Grant(device="Dev", right=Right.TELEMETRY)
HEAT = Grant(device="Dev", right=Right.TELEMETRY, selector="heat")
RAIN = Grant(device="Dev", right=Right.TELEMETRY, selector="rain")
STATE = Grant(device="Dev", right=Right.STATE)
CALL = Grant(device="Dev", right=Right.METHOD, selector="reboot")


def spelt(grant: Grant, device: str) -> Grant:
    """Return the same in another spelling of the device."""
    return Grant(device=device, right=grant.right, selector=grant.selector)


def told(session: LiveSession) -> list[Any]:
    """Follow a session; what its follower is told is appended to the list."""
    calls: list[Any] = []

    class Follower:
        def subscribed(self, grant: Grant) -> None:
            calls.append(("+", grant))

        def unsubscribed(self, grant: Grant) -> None:
            calls.append(("-", grant))

        def ended(self) -> None:
            calls.append("ended")

    session.follower = Follower()
    return calls


class Sessions:
    """Live sessions over the bench's store, which can be started again."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.gate = bench.gate

    async def start(self, **rules: Any) -> LiveSessions:
        """Start them with these rules."""
        self.rules = SessionRules(**rules)
        return await self._open()

    async def _open(self) -> LiveSessions:
        bench = self.bench
        self.now = LiveSessions(bench.store, bench.clock, bench.timers, self.rules)
        await self.now.start()
        return self.now

    async def restart(self, seconds: float = 0.0) -> LiveSessions:
        """Stop, and start after some seconds."""
        self.now.stop()
        await self.bench.reopen()
        self.gate = self.bench.gate
        self.pass_(seconds + 0.001)
        return await self._open()

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.bench.clock.now += round(seconds * 1000)
        self.bench.timers.advance(seconds)

    async def stored(self) -> dict[str, StoredSession]:
        """Return what is in the store, by id."""
        await self.bench.settle()
        return {each.id: each for each in await self.bench.store.live_sessions()}


async def failure(error: type[Exception], attempt: Any) -> Any:
    """Return the error that an attempt fails with."""
    with pytest.raises(error) as caught:
        await attempt
    return caught.value


def begun(work: Any) -> Deferred[Any]:
    """Begin some work and do not wait for it."""
    return Deferred.fromCoroutine(work)
