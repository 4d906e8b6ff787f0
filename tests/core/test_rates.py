"""How often somebody may do something."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from gatewayd.core.rates import Rates
from gatewayd.errors import TooMany

#: Times of day, as reactors have them: sums of them are not exact.
TODAY = 1_763_800_000.123


def some(rates: Rates, key: str = "a", most: int = 10_000) -> int:
    """Take until it is refused; return how many were taken."""
    for taken in range(most):
        try:
            rates.take(key)
        except TooMany:
            return taken
    return most


def at(seconds: float) -> Clock:
    """Return a clock that is set."""
    clock = Clock()
    clock.rightNow = seconds
    return clock


@pytest.mark.parametrize("now", [0.0, TODAY])
@pytest.mark.parametrize(("rate", "burst"), [(200, 400), (1, 1), (3, 7), (1000, 2000), (0.1, 2)])
def test_burst(now: float, rate: float, burst: int) -> None:
    """At once the whole burst may be taken, and no more."""
    assert some(Rates(rate, burst, at(now), "principal")) == burst


@pytest.mark.parametrize("now", [0.0, TODAY])
def test_rate(now: float) -> None:
    """After a burst as much may be taken as the rate gives, however the time passes."""
    clock = at(now)
    rates = Rates(200, 400, clock, "principal")
    some(rates)
    clock.advance(0.5)
    assert some(rates) in (99, 100, 101)
    taken = 0
    for _ in range(1000):
        clock.advance(0.01)
        taken += some(rates)
    assert 1995 <= taken <= 2005


def test_saved_up() -> None:
    """What is not used is saved up for one burst, not for two."""
    clock = at(TODAY)
    rates = Rates(10, 20, clock, "principal")
    assert some(rates) == 20
    clock.advance(1000)
    assert some(rates) == 20


def test_refused() -> None:
    """What is refused says which quota is used up, and costs nothing."""
    clock = at(TODAY)
    rates = Rates(1, 2, clock, "principal")
    some(rates)
    for _ in range(1000):
        with pytest.raises(TooMany) as caught:
            rates.take("a")
    assert caught.value.what == "principal"
    clock.advance(1)
    assert some(rates) == 1


def test_keys() -> None:
    """One key does not use up the rate of another."""
    rates = Rates(1, 3, at(TODAY), "principal")
    assert some(rates, "a") == 3
    assert some(rates, "b") == 3
    assert some(rates, "a") == 0


def test_memory() -> None:
    """Keys that matter no more are forgotten, those that do are not."""
    clock = at(TODAY)
    rates = Rates(10, 20, clock, "principal")
    for n in range(50_000):
        rates.take(n)
        if n % 1000 == 0:
            clock.advance(1)
    some(rates, "busy")
    for n in range(20_000):
        rates.take(n)
    assert some(rates, "busy") == 0
    clock.advance(60)
    for n in range(40_000):
        rates.take(n)
        clock.advance(0.01)
    assert len(rates._due) < 10_100
