"""What all tests share."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "gatewayd", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("gatewayd")


@pytest.fixture
def twistd_reactor() -> str:
    """Return the reactor that spawned daemons use: the one this run of the suite is for."""
    return os.environ.get("GATEWAYD_TEST_REACTOR", "epoll")
