"""So many at a time for each device, and a queue for those that have to wait."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from gatewayd.core.lanes import Lanes
from gatewayd.errors import TooMany
from tests.core.relaying import begin, is_waiting, under_way


class Floor:
    """Who holds a place, and who waits for one."""

    def __init__(self, width: int = 2, queue: int = 3) -> None:
        self.clock = Clock()
        self.lanes = Lanes(width, queue, self.clock)
        self.inside: list[str] = []
        self._leave: dict[str, Deferred[None]] = {}

    def enter(self, name: str, key: str = "a", patience: float = 10) -> Deferred[None]:
        """Let somebody come in, or wait for that."""
        return begin(self._stay(name, key, patience))

    async def _stay(self, name: str, key: str, patience: float) -> None:
        async with self.lanes.hold(key, patience):
            self.inside.append(name)
            self._leave[name] = Deferred()
            try:
                await self._leave[name]
            finally:
                self.inside.remove(name)

    def leave(self, name: str, error: Exception | None = None) -> None:
        """Let somebody go."""
        if error is None:
            self._leave.pop(name).callback(None)
        else:
            self._leave.pop(name).errback(error)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left of anybody."""
        return not under_way(self.lanes) and not self.clock.getDelayedCalls()


def refused(attempt: Deferred[None]) -> str:
    """Return what there are too many for."""
    errors: list[Any] = []
    attempt.addErrback(lambda failure: errors.append(failure.value))
    (error,) = errors
    assert isinstance(error, TooMany)
    return error.what


def test_width_and_queue() -> None:
    """So many are inside, so many wait, and one more is refused."""
    floor = Floor()
    entered = [floor.enter(name) for name in "abcde"]
    assert floor.inside == ["a", "b"]
    assert refused(floor.enter("f")) == "device"
    assert all(map(is_waiting, entered))


def test_no_queue() -> None:
    """Without a queue nobody waits."""
    floor = Floor(1, 0)
    floor.enter("a")
    assert refused(floor.enter("b")) == "device"
    floor.leave("a")
    assert floor.is_empty


def test_order() -> None:
    """A place goes to who waits longest, never to who comes just then."""
    floor = Floor()
    for name in "abcde":
        floor.enter(name)
    for name, inside in (("b", "ac"), ("a", "cd"), ("c", "de"), ("e", "d"), ("d", "")):
        floor.leave(name)
        assert floor.inside == list(inside)
    assert floor.is_empty


def test_no_overtaking() -> None:
    """Who comes in answer to a place that came free does not pass those that wait."""
    floor = Floor(1, 3)
    floor.enter("a").addCallback(lambda _: floor.enter("late"))
    floor.enter("b")
    floor.enter("c")
    floor.leave("a")
    assert floor.inside == ["b"]
    for name in ("b", "c", "late"):
        assert floor.inside == [name]
        floor.leave(name)
    assert floor.is_empty


def test_no_overtaking_of_short_visits() -> None:
    """Nor does who comes in answer to a visit that was over as soon as it began."""
    lanes = Lanes(1, 9, Clock())
    passed: list[str] = []
    free: Deferred[None] = Deferred()

    async def stay(name: str, until: Deferred[None] | None = None) -> None:
        async with lanes.hold("a", 10):
            if until is not None:
                await until
            passed.append(name)

    begin(stay("a", free))
    begin(stay("b")).addCallback(lambda _: begin(stay("late")))
    begin(stay("c"))
    free.callback(None)
    assert passed == ["a", "b", "c", "late"]
    assert not under_way(lanes)


def test_keys() -> None:
    """One key does not hold another one up."""
    floor = Floor()
    for n in range(5):
        floor.enter(f"a{n}", "a")
    floor.enter("b0", "b")
    assert floor.inside == ["a0", "a1", "b0"]
    assert refused(floor.enter("a5", "a")) == "device"
    floor.leave("b0")
    assert list(under_way(floor.lanes)) == ["a"]


def test_patience() -> None:
    """Who has waited long enough is refused, and the others wait on in their order."""
    floor = Floor(1, 3)
    floor.enter("a")
    hasty, patient = floor.enter("b", patience=5), floor.enter("c", patience=9)
    floor.clock.advance(4.9)
    assert is_waiting(hasty)
    floor.clock.advance(0.2)
    assert refused(hasty) == "device"
    assert is_waiting(patient)
    floor.leave("a")
    assert floor.inside == ["c"]
    floor.clock.advance(60)
    assert floor.inside == ["c"]
    floor.leave("c")
    assert floor.is_empty


def test_cancelled_while_it_waits() -> None:
    """Who gives up leaves nothing behind, and its turn is the next one's."""
    floor = Floor(1, 3)
    floor.enter("a")
    gone, next_ = floor.enter("b"), floor.enter("c")
    gone.cancel()
    gone.addErrback(lambda failure: failure.trap(CancelledError))
    floor.enter("d")
    floor.enter("e")
    assert refused(floor.enter("f")) == "device"
    floor.leave("a")
    assert floor.inside == ["c"]
    assert is_waiting(next_)
    for name in "cde":
        floor.leave(name)
    assert floor.is_empty


def test_cancelled_inside() -> None:
    """Who is cancelled, or fails, gives its place back."""
    floor = Floor(1, 3)
    gone = floor.enter("a")
    floor.enter("b").addErrback(lambda failure: failure.trap(ValueError))
    floor.enter("c")
    gone.cancel()
    gone.addErrback(lambda failure: failure.trap(CancelledError))
    assert floor.inside == ["b"]
    floor.leave("b", ValueError())
    assert floor.inside == ["c"]
    floor.leave("c")
    assert floor.is_empty


@pytest.mark.parametrize("width", [1, 8])
def test_a_long_queue_of_short_visits(width: int) -> None:
    """Thousands whose work is over at once pass without a deep recursion, in order."""
    lanes = Lanes(width, 1500, Clock())
    passed: list[int] = []
    free: Deferred[None] = Deferred()

    async def stay(n: int) -> None:
        async with lanes.hold("a", 10):
            if n < width:
                await free
            passed.append(n)

    entered = [begin(stay(n)) for n in range(1500)]
    free.callback(None)
    assert not any(map(is_waiting, entered))
    assert [n for n in passed if n >= width] == list(range(width, 1500))
    assert not under_way(lanes)
