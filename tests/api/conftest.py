"""A gateway for each test of an API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest_twisted

if TYPE_CHECKING:
    from tests.harness import Daemon


@pytest_twisted.async_yield_fixture()
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """Return a running gateway with an empty store."""
    # The harness imports the reactor, which pytest-twisted installs after it has read this file.
    from tests.harness import Daemon, make_settings

    daemon = Daemon(make_settings(tmp_path / "gatewayd.db"))
    await daemon.start()
    yield daemon
    await daemon.stop()
