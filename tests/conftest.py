"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from hypothesis import HealthCheck, settings

from tests.configuration.files import Files
from tests.stores import stores

if TYPE_CHECKING:
    from tests.api.links import Linked, Sockets, Start
    from tests.fake_server import FakeServer

settings.register_profile(
    "gatewayd", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("gatewayd")


def pytest_sessionfinish() -> None:
    """Leave no server of databases behind."""
    stores.end()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the random schedules of several nodes be more than usual, and others."""
    parser.addoption("--seeds", type=int, default=20, help="random schedules of several nodes")
    parser.addoption("--first-seed", type=int, default=0, help="the seed of the first of them")


@pytest.fixture
def twistd_reactor() -> str:
    """Return the reactor that spawned daemons use: the one this run of the suite is for."""
    return os.environ.get("GATEWAYD_TEST_REACTOR", "epoll")


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away a credentials directory that this machine may have."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return an empty configuration directory."""
    return Files(tmp_path)


@pytest.fixture
def clean() -> Iterator[None]:
    """Check that a test leaves no delayed call behind.

    A call that is due waits for nothing and runs in the next turn: with asyncio, it is how a thread
    hands over its result, such as an address that nobody wants any more.
    """
    from twisted.internet import reactor  # not before it is installed

    from tests.fake_server import delayed_calls

    before = delayed_calls()
    yield
    now = reactor.seconds()  # type: ignore[attr-defined]
    left = [each for each in delayed_calls() if each not in before and each.getTime() > now]
    assert left == []


@pytest_twisted.async_yield_fixture
async def server(clean: None) -> AsyncIterator[FakeServer]:
    """Return a server that speaks DeviceHive as the test tells it to."""
    from twisted.internet import reactor

    from tests.fake_server import FakeServer

    fake = FakeServer(reactor)
    yield fake
    await fake.stop()


@pytest_twisted.async_yield_fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Return what starts a gateway with links, and what else is served; with their settings."""
    from tests.api.links import Linked, link_settings

    started: list[Linked] = []

    async def start(*others: str, **links: Any) -> Linked:
        started.append(Linked(link_settings(tmp_path / "gatewayd.db", *others, **links)))
        await started[-1].start()
        return started[-1]

    yield start
    for each in started:
        await each.stop()


@pytest_twisted.async_yield_fixture
async def sockets() -> AsyncIterator[Sockets]:
    """Return devices and clients that end with the test."""
    from tests.api.links import Sockets

    sockets = Sockets()
    yield sockets
    await sockets.close()
