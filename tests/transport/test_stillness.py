"""Noticing that nothing happens any more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from gatewayd.transport.links.stillness import Stillness


@given(
    st.lists(st.floats(0.01, 3), max_size=20),
    st.floats(0.1, 20),
)
def test_when_it_is_found(gaps: list[float], seconds: float) -> None:
    """It is found after the last change, not earlier than asked for and not much later."""
    clock = Clock()
    found: list[float] = []
    value, last = 0, 0.0
    stillness = Stillness(seconds, clock)
    stillness.watch("it", lambda: value, lambda: found.append(clock.seconds()))
    for gap in gaps:
        for _ in range(40):
            clock.advance(min(seconds, gap) / 40)
        if found:
            break
        value, last = value + 1, clock.seconds()
    while not found:
        clock.advance(seconds / 40)
    assert seconds * 0.999 <= found[0] - last <= seconds * 1.3
    clock.advance(seconds * 3)
    assert len(found) == 1
    assert clock.getDelayedCalls() == []


def test_several() -> None:
    """Each thing has its own time."""
    clock = Clock()
    found: list[Any] = []
    stillness = Stillness(8, clock)
    stillness.watch("a", lambda: None, lambda: found.append("a"))
    clock.pump([1] * 5)
    stillness.watch("b", lambda: None, lambda: found.append("b"))
    clock.pump([1] * 5)
    assert found == ["a"]
    clock.pump([1] * 5)
    assert found == ["a", "b"]


def test_begun_already() -> None:
    """To watch a thing again does not prolong its time."""
    clock = Clock()
    found: list[Any] = []
    stillness = Stillness(8, clock)
    for _ in range(9):
        stillness.watch("it", lambda: None, lambda: found.append(1))
        clock.advance(1)
    assert found == [1]


def test_left() -> None:
    """What is left is not watched, and no timer stays for long."""
    clock = Clock()
    found: list[Any] = []
    stillness = Stillness(8, clock)
    stillness.watch("it", lambda: None, lambda: found.append(1))
    stillness.leave("it")
    stillness.leave("it")
    clock.advance(1)
    assert clock.getDelayedCalls() == []
    clock.advance(20)
    assert found == []


@pytest.mark.parametrize("other", ["a", "b"])
def test_left_from_within(other: str) -> None:
    """What is found may leave another, or stop it all."""
    clock = Clock()
    found: list[Any] = []
    stillness = Stillness(8, clock)

    def one(name: str) -> None:
        found.append(name)
        if other == "a":
            stillness.stop()
        else:
            stillness.leave("b")

    stillness.watch("a", lambda: None, lambda: one("a"))
    stillness.watch("b", lambda: None, lambda: one("b"))
    clock.pump([1] * 10)
    assert found == ["a"]
    clock.pump([1] * 2)
    assert clock.getDelayedCalls() == []


def test_watched_from_within() -> None:
    """What is found may be watched anew."""
    clock = Clock()
    found: list[Any] = []
    stillness = Stillness(8, clock)

    def again() -> None:
        found.append(clock.seconds())
        stillness.watch("it", lambda: None, again)

    stillness.watch("it", lambda: None, again)
    clock.pump([1] * 30)
    assert len(found) == 3
    stillness.stop()
    assert clock.getDelayedCalls() == []
