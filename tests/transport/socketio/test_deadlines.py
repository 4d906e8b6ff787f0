"""Many deadlines by one timer."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from gatewayd.transport.socketio.deadlines import Deadlines

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["set", "discard", "wait"]),
        st.integers(0, 3),
        st.floats(0.01, 8, allow_nan=False),
    )
)


@given(st.floats(0, 2e9), STEPS)
def test_deadlines(start: float, steps: list[tuple[str, int, float]]) -> None:
    """A member is called once, when its latest deadline has passed and within a second."""
    clock = Clock()
    clock.advance(start)
    missed: list[tuple[int, float]] = []
    deadlines: Deadlines[int] = Deadlines(
        lambda member: missed.append((member, clock.seconds())), clock
    )
    due: dict[int, float] = {}
    for step, member, seconds in steps:
        if step == "set":
            deadlines.set(member, seconds)
            due[member] = clock.seconds() + seconds
        elif step == "discard":
            deadlines.discard(member)
            due.pop(member, None)
        else:
            clock.pump([0.125] * math.ceil(seconds / 0.125))
            for who, when in missed:
                assert 0 <= when - due.pop(who) < 1.2
            missed.clear()
            assert all(clock.seconds() < each + 1.2 for each in due.values())
        assert len(clock.getDelayedCalls()) == (1 if due else 0)


def test_set_again_by_the_missed() -> None:
    """Who is called may have a new deadline at once, and end that of another."""
    clock = Clock()
    missed: list[str] = []

    def miss(member: str) -> None:
        missed.append(member)
        deadlines.discard("b" if member == "a" else "a")
        deadlines.set(member, 2)

    deadlines: Deadlines[str] = Deadlines(miss, clock)
    deadlines.set("a", 1)
    deadlines.set("b", 1)
    clock.pump([1] * 5)
    assert len(set(missed)) == 1
    assert len(missed) == 3
