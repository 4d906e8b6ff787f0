"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.config_files import Files

settings.register_profile(
    "gatewayd", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("gatewayd")


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
