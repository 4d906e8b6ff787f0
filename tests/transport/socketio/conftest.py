"""Fixtures of the tests of Socket.IO."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.transport.conftest import failures as failures
from tests.transport.socketio.bench import Bench

MakeBench = Callable[..., Bench]


@pytest.fixture(name="make_bench")
def benches() -> Iterator[MakeBench]:
    """Make benches; in the end nothing may be left of what happened on them."""
    made: list[Bench] = []

    def make(*arguments: Any, **limits: Any) -> Bench:
        made.append(Bench(*arguments, **limits))
        return made[-1]

    yield make
    for bench in made:
        bench.check_clean()


@pytest.fixture(name="bench")
def one_bench(make_bench: MakeBench) -> Bench:
    """A bench with the usual limits."""
    return make_bench()
