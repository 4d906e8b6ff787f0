"""The real daemon, in a process of its own."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.harness import ADMIN, PASSWORD, Socket, open_socket

reactor: Any = _reactor
Found = TypeVar("Found")

#: Seconds that anything may take before the test fails.
PATIENCE = 60.0
JWT_SECRET = "cHJvY2VzcyB0ZXN0cyBzaWduIHRoZWlyIHRva2VucyB3aXRoIHRoaXMga2V5Li4u"
TWISTD = Path(sys.executable).parent / "twistd"

_SERVING = re.compile(r"serving ([\w, ]+) on 127\.0\.0\.1:(\d+)")
_CONFIG = """\
[[listen]]
endpoint = "tcp:{port}:interface=127.0.0.1"
serve = ["devicehive"]
[[listen]]
endpoint = "tcp:{ops_port}:interface=127.0.0.1"
serve = ["ops"]
[storage]
url = "sqlite://{database}"
[devicehive]
jwt_secret = "{jwt_secret}"
admin_password = "{password}"
[service]
drain_timeout = 2
"""


def free_port() -> int:
    """Return a port that nothing listens on, and that no connection gets as its own.

    A daemon that comes back needs its old port: one that the system hands out by itself could
    meanwhile belong to any connection, even to one that tries to reach the daemon.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Process(ProcessProtocol):
    """One run of the daemon.

    :ivar status: the exit status once it has ended; the negative signal if that ended it.
    """

    def __init__(self, command: Sequence[str], cwd: Path, environment: dict[str, str]) -> None:
        self.stdout = ""
        self.stderr = ""
        self.status: int | None = None
        self._waiters: list[Deferred[None]] = []
        reactor.spawnProcess(
            self, command[0], list(command), {**os.environ, **environment}, str(cwd)
        )

    @property
    def output(self) -> str:
        """All it wrote, to show when a test fails."""
        return f"--- stdout\n{self.stdout}--- stderr\n{self.stderr}--- status {self.status}"

    def outReceived(self, data: bytes) -> None:
        self.stdout += data.decode(errors="replace")
        self._wake()

    def errReceived(self, data: bytes) -> None:
        self.stderr += data.decode(errors="replace")
        self._wake()

    def processEnded(self, reason: Failure) -> None:
        ending = reason.value
        self.status = 0
        if isinstance(ending, ProcessTerminated):
            self.status = -ending.signal if ending.signal else ending.exitCode
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(None)

    async def until(self, condition: Callable[[], Found | None], what: str) -> Found:
        """Return what a condition finds, looked at whenever the process writes or ends."""
        deadline = reactor.seconds() + PATIENCE
        while (found := condition()) is None:
            assert self.status is None, f"ended before {what}\n{self.output}"
            waiter: Deferred[None] = Deferred()
            self._waiters.append(waiter)
            try:
                await waiter.addTimeout(max(deadline - reactor.seconds(), 0), reactor)
            except TimedOut:
                raise AssertionError(f"no {what} in time\n{self.output}") from None
        return found

    async def ended(self) -> int:
        """Return the exit status when it has ended and all its output is read."""
        return await self.until(lambda: self.status, "end")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.transport is not None
        assert self.status is None, f"it has ended\n{self.output}"
        self.transport.signalProcess(number)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.transport is not None
        pid: int = self.transport.pid
        return pid


class Daemon:
    """A daemon with a directory, a configuration and ports that outlive its process.

    :ivar processes: its own, of which the last one may run.
    :ivar others: processes that end with it.
    :ivar leavers: called in the end; they make clients leave that would connect again.
    """

    def __init__(self, home: Path, twistd_reactor: str) -> None:
        self.home = home
        self.database = home / "data" / "gatewayd.db"
        self.config = home / "gatewayd.toml"
        self.port = free_port()
        self.ops_port = free_port()
        self.twistd_options = [f"--reactor={twistd_reactor}", "--pidfile="]
        self.arguments = ["--config", str(self.config)]
        self.environment: dict[str, str] = {}
        self.processes: list[Process] = []
        self.others: list[Process] = []
        self.sockets: list[Socket] = []
        self.leavers: list[Callable[[], Awaitable[None]]] = []
        self.configure(_CONFIG)

    def configure(self, template: str) -> None:
        """Write the configuration file."""
        self.config.write_text(
            template.format(
                port=self.port,
                ops_port=self.ops_port,
                database=self.database,
                jwt_secret=JWT_SECRET,
                password=PASSWORD,
            )
        )

    @property
    def process(self) -> Process:
        """Its last process."""
        return self.processes[-1]

    @property
    def output(self) -> str:
        """What all its processes wrote."""
        return "".join(each.output for each in self.processes)

    def spawn(self) -> Process:
        """Start a process; nothing is known about it yet."""
        command = [sys.executable, str(TWISTD), *self.twistd_options, "-n", "gatewayd"]
        process = Process([*command, *self.arguments], self.home, self.environment)
        self.processes.append(process)
        return process

    async def start(self, listeners: int = 2) -> None:
        """Start it and wait until it serves."""
        process = self.spawn()

        def serving() -> list[tuple[str, str]] | None:
            found = _SERVING.findall(process.stdout)
            return found if len(found) == listeners else None

        for apis, port in await process.until(serving, "serving"):
            if apis == "ops":
                self.ops_port = int(port)
            else:
                self.port = int(port)

    async def run(self) -> int:
        """Start it where it is to end by itself; return its exit status."""
        return await self.spawn().ended()

    async def kill(self) -> None:
        """End it at once, as a power failure would."""
        self.process.signal(signal.SIGKILL)
        assert await self.process.ended() == -signal.SIGKILL

    async def terminate(self) -> int:
        """Ask it to stop; return its exit status."""
        self.process.signal(signal.SIGTERM)
        return await self.process.ended()

    async def end(self) -> None:
        """Leave no process and no connection behind."""
        for process in self.processes + self.others:
            if process.status is None:
                process.signal(signal.SIGKILL)
                await process.ended()
        for leave in self.leavers:
            await leave()
        for each in self.sockets:
            await each.bye()

    async def connect(self, path: str = "/websocket", **headers: str) -> Socket:
        """Open a WebSocket that is closed with the daemon."""
        opened = await open_socket(self.port, path, **headers)
        self.sockets.append(opened)
        return opened

    async def login(self, login: str = ADMIN, password: str = PASSWORD) -> Socket:
        """Open a WebSocket and authenticate it."""
        opened = await self.connect()
        tokens = await succeed(opened, "token", login=login, password=password)
        await succeed(opened, "authenticate", token=tokens["accessToken"])
        return opened


async def succeed(asked: Socket, action: str, **fields: Any) -> dict[str, Any]:
    """Return the reply to a request that must succeed."""
    reply = await asked.ask(action, **fields)
    assert reply["status"] == "success", reply
    return reply
