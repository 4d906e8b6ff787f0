"""Daemons and programs on Node.js; without Node.js all of it is skipped."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_twisted

from tests.node.packages import Missing, install

if TYPE_CHECKING:
    from tests.node.live_site import LiveSite
    from tests.node.programs import Programs
    from tests.node.site import Site

# The modules with the reactor are imported late: pytest-twisted installs it after this file.


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Skip what is in this directory where its clients cannot be run: one line says why."""
    try:
        install()
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def modules() -> Path:
    """Return the directory with the clients' packages."""
    return install()


@pytest_twisted.async_yield_fixture(scope="module")
async def site(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """Return a running daemon that serves iotkit, for all tests of a module."""
    from tests.node.site import Site

    reactor_name = os.environ.get("GATEWAYD_TEST_REACTOR", "epoll")
    site = Site(tmp_path_factory.mktemp("site"), reactor_name)
    await site.start()
    yield site
    await site.daemon.end()


@pytest_twisted.async_yield_fixture()
async def own_site(modules: Path, tmp_path: Path, twistd_reactor: str) -> AsyncIterator[Site]:
    """Return a daemon that serves iotkit for one test, which is not started."""
    from tests.node.site import Site

    site = Site(tmp_path, twistd_reactor)
    yield site
    await site.daemon.end()


@pytest_twisted.async_yield_fixture(scope="module")
async def live_site(
    modules: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LiveSite]:
    """Return a running daemon that serves ux4iot, for all tests of a module."""
    from tests.node.live_site import LiveSite

    reactor_name = os.environ.get("GATEWAYD_TEST_REACTOR", "epoll")
    site = LiveSite(tmp_path_factory.mktemp("live"), reactor_name)
    await site.start()
    yield site
    await site.end()


@pytest_twisted.async_yield_fixture()
async def own_live_site(
    modules: Path, tmp_path: Path, twistd_reactor: str, request: pytest.FixtureRequest
) -> AsyncIterator[LiveSite]:
    """Return a running daemon that serves ux4iot for one test; a parameter is its path."""
    from tests.node.live_site import LiveSite

    site = LiveSite(tmp_path, twistd_reactor, getattr(request, "param", ""))
    await site.start()
    yield site
    await site.end()


@pytest_twisted.async_yield_fixture()
async def programs(modules: Path, tmp_path: Path) -> AsyncIterator[Programs]:
    """Return what starts programs, which end with the test."""
    from tests.node.programs import Programs

    programs = Programs(modules, tmp_path)
    yield programs
    await programs.end()
