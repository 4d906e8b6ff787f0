"""A gateway for each test of an API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_twisted

from tests.harness import Daemon, make_settings


@pytest_twisted.async_yield_fixture()
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """Return a running gateway with an empty store."""
    daemon = Daemon(make_settings(tmp_path / "gatewayd.db"))
    await daemon.start()
    yield daemon
    await daemon.stop()
