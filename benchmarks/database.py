"""A PostgreSQL server to measure, which keeps what it acknowledges, and what it costs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from benchmarks.relays import cpu_seconds
from tests.storage.postgres import USER, PostgresServer

# What a small server is given; and what the tests do without is on again.
_SETTINGS = """
fsync = on
full_page_writes = on
synchronous_commit = on
shared_buffers = 256MB
max_wal_size = 4GB
"""


class DurableServer(PostgresServer):
    """A server in a temporary directory on the disk, on loopback; a context manager."""

    def __init__(self) -> None:
        super().__init__(connections=100)
        self._numbers = count(1)

    def __enter__(self) -> DurableServer:
        try:
            self.create()
            with open(self._data / "postgresql.conf", "a") as file:
                file.write(_SETTINGS)
            self._run("pg_ctl", "restart", "-w", "-s", "-l", str(self.directory / "log"))
        except BaseException:
            self.destroy()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make an empty database for as long as the block runs; gives its URL."""
        name = f"benchmark{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} OWNER {USER}", database="postgres")
        # What the last measurement has left to be written must not be this one's work.
        self.execute("CHECKPOINT", database="postgres")
        try:
            yield self.url_of(database=name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)", database="postgres")

    def cpu(self) -> float:
        """Return the seconds of processor time of its processes; of those that are there now."""
        postmaster = int((self._data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text()
        return sum(cpu_seconds(pid) for pid in (postmaster, *map(int, children.split())))

    def version(self) -> str:
        """Return the server's version."""
        version: str = self.execute("SHOW server_version", database="postgres")[0][0]
        return version


def sync_seconds(folder: Path, rounds: int = 200) -> float:
    """Return the median time in which the disk of a folder takes 8 KiB for good."""
    path = folder / "sync"
    times = []
    with open(path, "wb", buffering=0) as file:
        file.write(bytes(8192))
        os.fsync(file.fileno())
        for _ in range(rounds):
            began = time.perf_counter()
            file.seek(0)
            file.write(os.urandom(8192))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    path.unlink()
    return sorted(times)[rounds // 2]
