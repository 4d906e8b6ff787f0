"""The servers whose fan-out is compared: daemons that serve ux4iot, and Node's socket.io."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path

import attrs

from benchmarks.daemon import KIB, PASSWORD, PATIENCE, Daemon, Socket
from benchmarks.live_client import DEVICE, Audience, LiveSocket

#: Of the table.
GATEWAYD, UNSTORED, NODE = "gatewayd", "gatewayd, not stored", "socket.io"

_KEY = "a key that only this benchmark knows"
_PEERS = Path(__file__).with_name("peers")
_UNSTORED_TWISTD = "from benchmarks.messages import run_unstored; run_unstored()"
#: So many sessions may be begun at once from one address; any of 127.0.0.0/8 is this machine's.
_BURST = 200
_SERVING = re.compile(r"serving ux4iot on 127\.0\.0\.1:(\d+)")
_CONFIG = f"""\
[[listen]]
endpoint = "tcp:0:interface=127.0.0.1"
serve = ["devicehive"]

[[listen]]
endpoint = "tcp:0:interface=127.0.0.1"
serve = ["ux4iot"]

[storage]
url = "sqlite:benchmark.db"

[devicehive]
jwt_secret = "a secret that only this benchmark knows"
jwt_secret_encoding = "utf-8"
admin_password = "{PASSWORD}"

[ux4iot]
shared_access_key = "{_KEY}"
"""


@attrs.define
class Server:
    """A server that is measured, and who listens to it.

    :ivar name: for the tables. :ivar pid: its process. :ivar port: of Socket.IO.
    :ivar memory: bytes for each session; None: not measured yet.
    """

    name: str
    pid: int
    port: int
    audience: Audience
    memory: float | None = None

    def grow(self, sessions: int, rest: Callable[[], None]) -> None:
        """Let so many sessions listen; learn what memory those take that have to be added.

        :param rest: called now and then, to answer pings.
        """
        before, added = self.rss(), sessions - len(self.audience)
        for number, session in enumerate(self.sessions(added, sessions)):
            self.audience.add(LiveSocket(self.port, session))
            if number % 100 == 0:
                rest()
        # Some of what is done for clients is done a little later, and not all at once.
        self.audience.idle(1.0)
        self.memory = (self.rss() - before) / added

    def sessions(self, count: int, last: int) -> Iterator[str]:
        """Begin sessions, and go through their ids. :param last: how many there are then."""
        return repeat("", count)

    def rss(self) -> int:
        """Return its resident memory in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split(None, 1)[0]) * KIB


class LiveServer(Server):
    """A daemon."""

    def sessions(self, count: int, last: int) -> Iterator[str]:
        """Begin sessions, each with a grant and a subscription."""
        for first in range(last - count, last, _BURST):
            yield from self._begin(min(_BURST, last - first), f"127.0.0.{2 + first // _BURST}")

    def _begin(self, count: int, address: str) -> Iterator[str]:
        """Begin sessions from one address."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=PATIENCE, source_address=(address, 0)
        )

        def ask(method: str, path: str, body: object = None) -> bytes:
            content = None if body is None else json.dumps(body)
            headers = {"Shared-Access-Key": _KEY, "Content-Type": "application/json"}
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status not in (200, 204):
                raise RuntimeError(f"{method} {path}: {answer.status} {text.decode()}")
            return text

        for _ in range(count):
            session = json.loads(ask("POST", "/session"))["sessionId"]
            wanted = {"sessionId": session, "deviceId": DEVICE, "type": "telemetry"}
            ask("PUT", "/grants", {**wanted, "telemetryKey": None})
            ask("PUT", "/subscription", {**wanted, "telemetryKey": None})
            yield session
        connection.close()


class LiveDaemon(Daemon):
    """A daemon that serves ux4iot.

    :param stored: whether its store keeps what devices say, or forgets it at once.
    """

    def __init__(self, reactor: str | None = None, stored: bool = True) -> None:
        super().__init__(reactor, () if stored else [sys.executable, "-c", _UNSTORED_TWISTD])
        self._name = GATEWAYD if stored else UNSTORED
        (self.folder / "gatewayd.toml").write_text(_CONFIG)

    def __enter__(self) -> LiveDaemon:
        self.start()
        return self

    def serve(self) -> Server:
        """Register the device."""
        token = self.token()
        with Socket(self.port, token) as first:
            first.ask({"action": "device/save", "deviceId": DEVICE, "device": {"name": DEVICE}})
        found = _SERVING.search((self.folder / "log").read_text())
        assert found is not None
        return LiveServer(self._name, self.pid, int(found[1]), Audience(self.port, token))


def node() -> list[str] | None:
    """Return the command that runs Node with socket.io, None if it is not installed."""
    found = shutil.which("node")
    if found is None or not (_PEERS / "node_modules" / "socket.io").exists():
        return None
    return [found, str(_PEERS / "socketio.js")]


@contextmanager
def socket_io(command: Sequence[str]) -> Iterator[Server]:
    """Run Node while the block runs."""
    environment = {**os.environ, "NODE_ENV": "production"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("Node does not start")
        yield Server(NODE, process.pid, int(line), Audience(int(line)))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
