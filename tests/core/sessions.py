"""Live sessions to work on, over a real store and over one that fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from gatewayd.core.grants import Grant, Right, SessionChange, StoredSession
from gatewayd.core.interfaces import Store
from gatewayd.core.live_sessions import LiveSession, LiveSessions, SessionRules
from gatewayd.errors import Unavailable
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


class Disk:
    """Keeps sessions: writes in the order of asking, when the test lets it, or refuses at once."""

    def __init__(self) -> None:
        self.sessions: dict[str, StoredSession] = {}
        self.waiting: list[tuple[Callable[[], None], Deferred[None]]] = []
        self.refusing = False

    def secret(self, name: str) -> Deferred[bytes]:
        return succeed(name.encode() * 4)

    def live_sessions(self) -> Deferred[list[StoredSession]]:
        return succeed(list(self.sessions.values()))

    def change_session(self, change: SessionChange) -> Deferred[None]:
        return self._ask(partial(self._change, change))

    def drop_sessions(self, ids: Sequence[str]) -> Deferred[None]:
        return self._ask(partial(self._drop, list(ids)))

    def _ask(self, write: Callable[[], None]) -> Deferred[None]:
        if self.refusing:
            return fail(Unavailable())
        self.waiting.append((write, Deferred()))
        return self.waiting[-1][1]

    def commit(self, fails: bool = False) -> None:
        """Do what was asked first, or fail to."""
        write, done = self.waiting.pop(0)
        if fails:
            done.errback(Unavailable())
        else:
            write()
            done.callback(None)

    def _change(self, change: SessionChange) -> None:
        old = self.sessions.get(change.id, StoredSession(id=change.id))
        self.sessions[change.id] = StoredSession(
            id=change.id,
            by_grant=change.by_grant,
            met=change.met,
            grants=(old.grants - change.revoked) | change.granted,
            subscriptions=(old.subscriptions - change.unsubscribed) | change.subscribed,
        )

    def _drop(self, ids: list[str]) -> None:
        for each in ids:
            self.sessions.pop(each, None)


class Slow:
    """One session, whose changes the test lets the store take one after the other."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.failures: list[Any] = []
        self.done = 0
        self.sessions = LiveSessions(cast("Store", self.disk), lambda: 0, Clock(), SessionRules())
        Deferred.fromCoroutine(self.sessions.start())
        self.session = self.sessions.create("h")

    def begin(self, *work: Any) -> None:
        for each in work:
            Deferred.fromCoroutine(each).addCallbacks(self._count, self.failures.append)

    def _count(self, _: None) -> None:
        self.done += 1

    def all_done(self, *work: Any) -> None:
        self.begin(*work)
        while self.disk.waiting:
            self.disk.commit()

    def check(self, grants: set[Grant], subscriptions: set[Grant]) -> None:
        """Check that the session and the store have that, and stop."""
        stored = self.disk.sessions[self.session.id]
        assert stored.grants == self.session.grants == grants
        assert stored.subscriptions == self.session.subscriptions == subscriptions
        assert {each.type for each in self.failures} <= {Unavailable}
        self.sessions.stop()
