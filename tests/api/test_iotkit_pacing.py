"""What does not happen too often."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from gatewayd.api.iotkit.pacing import Complaints, Pacing
from gatewayd.errors import TooMany


@pytest.fixture
def clock() -> Clock:
    return Clock()


def passed(turns: list[Deferred[None]]) -> int:
    return sum(turn.called for turn in turns)


def too_many(turn: Deferred[None]) -> bool:
    """Whether there is no room for a turn."""
    told: list[bool] = []
    turn.addErrback(lambda failure: told.append(failure.check(TooMany) is not None))
    return told == [True]


def test_one_per_second(clock: Clock) -> None:
    """The first of a key passes at once, every next one a second after the one before."""
    pacing = Pacing(clock)
    turns = [pacing.turn("a") for _ in range(4)]
    assert passed(turns) == 1
    assert pacing.waiting == 3
    for seconds, count in ((0.9, 1), (0.2, 2), (1.0, 3), (1.0, 4)):
        clock.advance(seconds)
        assert passed(turns) == count
    clock.advance(1.0)
    assert pacing.turn("a").called
    assert pacing.waiting == 0
    assert not clock.getDelayedCalls()


def test_several_keys(clock: Clock) -> None:
    """Who has several keys waits for all of them; others do not wait for those."""
    pacing = Pacing(clock)
    assert pacing.turn("a").called
    assert pacing.turn("b").called
    both = pacing.turn("a", "b")
    next_b = pacing.turn("b")
    assert pacing.turn("c").called
    clock.advance(1.0)
    assert both.called
    assert not next_b.called
    clock.advance(1.0)
    assert next_b.called


def test_bounds(clock: Clock) -> None:
    """Nobody waits too long, not too many wait, and not too many keys are remembered."""
    pacing = Pacing(clock, longest=3.0, most=4, keys=5)
    turns = [pacing.turn("a") for _ in range(4)]
    assert too_many(pacing.turn("a"))
    turns += [pacing.turn("b"), pacing.turn("b")]
    assert pacing.waiting == 4
    assert too_many(pacing.turn("b"))
    assert pacing.turn("c").called
    for number in range(100):
        pacing.turn(number)
    assert len(pacing._free) == 5
    clock.advance(5.0)
    assert passed(turns) == 6
    assert pacing.waiting == 0


def test_giving_up(clock: Clock) -> None:
    """Who gives up leaves no timer, and keeps its place: coming again saves no time."""
    pacing = Pacing(clock)
    pacing.turn("a")
    turn = pacing.turn("a").addErrback(lambda failure: failure.trap(CancelledError))
    turn.cancel()
    assert pacing.waiting == 0
    assert not clock.getDelayedCalls()
    later = pacing.turn("a")
    clock.advance(1.5)
    assert not later.called
    clock.advance(0.5)
    assert later.called


@implementer(ILogObserver)
class _Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        self.lines.append(formatEvent(event))


@pytest.fixture
def lines() -> Iterator[list[str]]:
    observer = _Lines()
    globalLogPublisher.addObserver(observer)
    yield observer.lines
    globalLogPublisher.removeObserver(observer)


def test_complaints(clock: Clock, lines: list[str]) -> None:
    """The same warning is written once a minute, and says how often it was left out."""
    complaints = Complaints(clock)
    for who in "abc":
        complaints.warn("bad {who}", who=who)
    complaints.warn("worse {who}", who="d")
    clock.advance(60.0)
    complaints.warn("bad {who}", who="e")
    clock.advance(60.0)
    complaints.warn("bad {who}", who="f")
    assert lines == ["bad a", "worse d", "bad e (2 more before)", "bad f"]
