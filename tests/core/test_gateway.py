"""The domain put together: retention, and what is said of it."""

from __future__ import annotations

from typing import cast

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock as Timers
from twisted.logger import capturedLogs

from gatewayd.core.gateway import Core
from gatewayd.core.interfaces import Observer, Store
from gatewayd.core.model import GroupKind
from gatewayd.core.tokens import TokenAuthority
from gatewayd.errors import Unavailable
from tests.core.bench import KEY, RETENTION, START, Bench, Clock, Threads, bounded


class SweepStore:
    """A store of which only old rows are known."""

    cluster = None

    def __init__(self) -> None:
        self.rows = 0
        self.asked: list[int] = []
        self.error: Exception | None = None
        self.held: list[Deferred[int]] | None = None

    def observe(self, observer: Observer) -> None:
        """Nothing is written here."""

    def sweep(self, before: int, limit: int) -> Deferred[int]:
        self.asked.append(before)
        if self.error is not None:
            return fail(self.error)
        if self.held is not None:
            self.held.append(Deferred())
            return self.held[-1]
        gone = min(self.rows, limit)
        self.rows -= gone
        return succeed(gone)


class Sweeping:
    """A core whose store has nothing but old rows."""

    def __init__(self) -> None:
        self.store = SweepStore()
        self.timers = Timers()
        self.clock = Clock()
        self.core = Core(
            cast("Store", self.store), TokenAuthority(KEY, self.clock), Threads(), self.clock,
            self.timers, RETENTION,
        )  # fmt: skip


@pytest.fixture
def sweeping() -> Sweeping:
    return Sweeping()


def test_sweep_at_start(sweeping: Sweeping) -> None:
    """What is older than the retention goes at the start, piece by piece until nothing is left."""
    sweeping.store.rows = 10_000
    sweeping.core.start()
    assert sweeping.store.rows == 0
    assert set(sweeping.store.asked) == {START - RETENTION}
    assert len(sweeping.store.asked) > 3
    sweeping.core.stop()


def test_sweep_every_minute(sweeping: Sweeping) -> None:
    """It goes on every minute, with the time of day of then, until the core stops."""
    sweeping.core.start()
    sweeping.clock.now += 60_000
    sweeping.timers.advance(59.9)
    assert len(sweeping.store.asked) == 1
    sweeping.timers.advance(0.1)
    assert sweeping.store.asked[1:] == [START + 60_000 - RETENTION]
    sweeping.core.stop()
    sweeping.timers.advance(600)
    assert len(sweeping.store.asked) == 2
    assert sweeping.timers.getDelayedCalls() == []


def test_sweep_fails(sweeping: Sweeping) -> None:
    """A store that cannot sweep now is asked again later; that is logged."""
    sweeping.store.error = Unavailable("the disk is full")
    with capturedLogs() as logged:
        sweeping.core.start()
    assert [entry["error"] for entry in logged] == ["the disk is full"]
    sweeping.store.error = None
    sweeping.store.rows = 1
    sweeping.timers.advance(60)
    assert sweeping.store.rows == 0
    sweeping.core.stop()


def test_sweeps_do_not_overlap(sweeping: Sweeping) -> None:
    """A sweep that takes longer than a minute is not joined by another."""
    sweeping.store.held = []
    sweeping.core.start()
    sweeping.timers.advance(300)
    (held,) = sweeping.store.held
    held.callback(0)
    sweeping.store.held = None
    sweeping.timers.advance(60)
    assert len(sweeping.store.asked) == 2
    sweeping.core.stop()


def test_stop_during_a_sweep(sweeping: Sweeping) -> None:
    """A core that stops begins no further piece; stopping twice or unstarted is no error."""
    sweeping.core.stop()
    sweeping.store.held = []
    sweeping.core.start()
    sweeping.core.stop()
    sweeping.core.stop()
    sweeping.store.held[0].callback(2000)
    assert len(sweeping.store.asked) == 1


def test_groups(sweeping: Sweeping) -> None:
    """Networks and device types are had by their kind."""
    core = sweeping.core
    assert core.groups(GroupKind.NETWORK) is core.networks
    assert core.groups(GroupKind.DEVICE_TYPE) is core.types


@bounded
async def test_retention(bench: Bench, core: Core) -> None:
    """Events go when they are older than the retention, and not before."""
    device = await bench.device()
    old = await bench.note(device)
    bench.clock.now = START + 86_400_000
    young = await bench.note(device)
    bench.clock.now = old.ts + RETENTION
    core.start()
    await bench.settle()
    assert old in await bench.replay(device)
    bench.clock.now += 1
    bench.timers.advance(60)
    await bench.settle()
    assert await bench.replay(device) == [young]


@bounded
async def test_horizon_is_logged(bench: Bench, core: Core) -> None:
    """A replay from before what retention has kept is said to be incomplete, others are not."""
    device = await bench.device()
    old = await bench.note(device)
    bench.clock.now += RETENTION + 1000
    with capturedLogs() as logged:
        await core.timeline.warn_of_horizon(0)
        core.start()
        await bench.settle()
        await core.timeline.warn_of_horizon(old.ts)
    assert logged == []
    with capturedLogs() as logged:
        await core.timeline.warn_of_horizon(old.ts - 1)
    (entry,) = logged
    assert (entry["since"], entry["horizon"]) == (old.ts - 1, old.ts)
