"""A gateway for each test of an API."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import pytest_twisted

if TYPE_CHECKING:
    from tests.harness import Daemon

#: Where files are in memory, on systems that have it. The tests of an API are not about what
#: survives, and each of their writes would wait for the disk.
_MEMORY = "/dev/shm"
#: Bytes that have to be free there: containers often have 64 MiB in all.
_ENOUGH = 512 * 1024 * 1024


@contextmanager
def _directory() -> Iterator[Path]:
    """Make an empty directory for as long as it is needed."""
    fits = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ENOUGH
    with TemporaryDirectory(prefix="gatewayd-", dir=_MEMORY if fits else None) as directory:
        yield Path(directory)


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
