"""A daemon for each test that needs a real one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest_twisted

if TYPE_CHECKING:
    from tests.process.daemon import Daemon


@pytest_twisted.async_yield_fixture()
async def daemon(tmp_path: Path, twistd_reactor: str) -> AsyncIterator[Daemon]:
    """Return a daemon that is configured and not started; it ends with the test."""
    # It imports the reactor, which pytest-twisted installs after it has read this file.
    from tests.process.daemon import Daemon

    daemon = Daemon(tmp_path, twistd_reactor)
    yield daemon
    await daemon.end()


@pytest_twisted.async_yield_fixture()
async def other(tmp_path: Path, twistd_reactor: str) -> AsyncIterator[Daemon]:
    """Return a second daemon, in a directory of its own."""
    from tests.process.daemon import Daemon

    home = tmp_path / "other"
    home.mkdir()
    other = Daemon(home, twistd_reactor)
    yield other
    await other.end()
