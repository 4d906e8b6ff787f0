"""The lock of an SQLite database: only one process works on it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gatewayd.errors import ConfigError


class FileLock:
    """A file beside the database that is locked while a process has the database open.

    :param path: the database's; its directory is made when it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: int | None = None

    def take(self) -> None:
        """Lock it. :raises ConfigError: another process has done so, or that is not possible."""
        name = f"{self._path}.lock"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"cannot open the database {self._path}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise ConfigError(f"the database {self._path} is in use by another gatewayd") from None
        self._lock = lock

    def release(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
