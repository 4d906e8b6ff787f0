"""A gateway for each test of an API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import pytest_twisted

from tests.stores import in_memory, stores

if TYPE_CHECKING:
    from tests.harness import Daemon


@contextmanager
def _directory() -> Iterator[Path]:
    """Make an empty directory for as long as it is needed."""
    with TemporaryDirectory(prefix="gatewayd-", dir=in_memory()) as directory:
        yield Path(directory)
        stores.drop(Path(directory))


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Return an empty directory of a test."""
    with _directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def module_path() -> Iterator[Path]:
    """Return an empty directory of all tests of a module."""
    with _directory() as directory:
        yield directory


@pytest_twisted.async_yield_fixture()
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """Return a running gateway with an empty store."""
    # The harness imports the reactor, which pytest-twisted installs after it has read this file.
    from tests.harness import Daemon, make_settings

    daemon = Daemon(make_settings(tmp_path / "gatewayd.db"))
    await daemon.start()
    yield daemon
    await daemon.stop()
