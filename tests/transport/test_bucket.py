"""A limit of bytes per second."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from gatewayd.transport.links.bucket import TokenBucket


@given(
    st.integers(1, 10**9),
    st.lists(st.tuples(st.floats(0, 3), st.floats(0, 1)), max_size=50),
)
def test_never_more_than_allowed(rate: int, steps: list[tuple[float, float]]) -> None:
    """In any time no more passes than one second's worth and what time has added."""
    clock = Clock()
    bucket = TokenBucket(rate, clock)
    passed = 0
    for seconds, share in steps:
        clock.advance(seconds)
        size = int(bucket.room() * share)
        bucket.spend(size)
        passed += size
        assert passed <= rate * (1 + clock.seconds()) + 1


@given(st.integers(1, 10**9))
def test_waiting(rate: int) -> None:
    """After the wait there is room, for more than a byte if the rate is high."""
    clock = Clock()
    bucket = TokenBucket(rate, clock)
    assert bucket.room() == rate
    bucket.spend(rate)
    assert bucket.room() == 0
    clock.advance(bucket.wait() + 1e-6)
    assert bucket.room() >= max(1, int(rate * 0.049))
    clock.advance(100)
    assert bucket.room() == rate
