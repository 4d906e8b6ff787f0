"""A real core over a real store for each test, with a clock that the test sets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted

from gatewayd.core.access import Principal
from gatewayd.core.gateway import Core
from tests.core.bench import Bench, Recorder


@pytest_twisted.async_yield_fixture(name="bench")
async def set_up(tmp_path: Path) -> AsyncIterator[Bench]:
    """Set up a core whose store has one administrator, one network and one device type."""
    bench = Bench(tmp_path / "gatewayd.db")
    await bench.open()
    yield bench
    await bench.settle()
    await bench.close()


@pytest.fixture
def core(bench: Bench) -> Core:
    """Return the core itself; do not use it across a restart."""
    return bench.core


@pytest.fixture
def admin(bench: Bench) -> Principal:
    """Return a principal that may do everything."""
    return bench.admin


@pytest.fixture
def sink() -> Recorder:
    """Return a sink that keeps what it is given."""
    return Recorder()
