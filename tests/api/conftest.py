"""A gateway for each test of an API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest_twisted

if TYPE_CHECKING:
    from tests.api.links import Linked, Sockets, Start
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


@pytest_twisted.async_yield_fixture()
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Return what starts a gateway with links; the settings of those can be given."""
    from tests.api.links import Linked, link_settings

    started: list[Linked] = []

    async def start(**links: Any) -> Linked:
        started.append(Linked(link_settings(tmp_path / "gatewayd.db", **links)))
        await started[-1].start()
        return started[-1]

    yield start
    for each in started:
        await each.stop()


@pytest_twisted.async_yield_fixture()
async def sockets() -> AsyncIterator[Sockets]:
    """Return devices and clients that end with the test."""
    from tests.api.links import Sockets

    sockets = Sockets()
    yield sockets
    await sockets.close()
