"""A real daemon to measure, and a quick way to talk to it: raw WebSocket frames, one poll loop."""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ADMIN = "dhadmin"
PASSWORD = "benchmark-password"
KIB = 1024
MIB = 1024 * KIB
#: Seconds that the daemon has for one answer, a start or a stop.
PATIENCE = 60.0

_READY = re.compile(rb"serving devicehive on 127\.0\.0\.1:(\d+)")
_MASK = b"\x5a\x17\xc3\x88"
_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A
_TICKS = os.sysconf("SC_CLK_TCK")
_CONFIG = """\
[[listen]]
endpoint = "tcp:0:interface=127.0.0.1"
serve = ["devicehive"]

[storage]
url = "sqlite:benchmark.db"

[devicehive]
jwt_secret = "a secret that only this benchmark knows"
jwt_secret_encoding = "utf-8"
admin_password = "%s"
"""


def raise_descriptors() -> int:
    """Allow this process, and those it starts, as many open files as possible; return how many."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that *share* of all values are not above; NaN if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text as a table."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


class Daemon:
    """A daemon in a folder of its own; a context manager that starts it and cleans up.

    :param reactor: a name that ``twistd --reactor`` knows; Twisted's default without.
    :param twistd: what to run instead of the ``twistd`` of this Python, with its first arguments.
    :ivar port: where it serves DeviceHive.
    :ivar start_seconds: how long the last start took, from the spawn to the line of the log.
    """

    def __init__(self, reactor: str | None = None, twistd: Sequence[str] = ()) -> None:
        run = twistd or [str(Path(sys.executable).with_name("twistd"))]
        chosen = [] if reactor is None else [f"--reactor={reactor}"]
        self._command = [
            *run, "-n", "--pidfile=", *chosen, "--logger=gatewayd.log.text", "gatewayd",
            "--config=gatewayd.toml",
        ]  # fmt: skip
        self.folder = Path(tempfile.mkdtemp(prefix="gatewayd-benchmark-"))
        (self.folder / "gatewayd.toml").write_text(_CONFIG % PASSWORD)
        self.port = 0
        self.start_seconds = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Daemon:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it serves."""
        log = self.folder / "log"
        began = time.monotonic()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command, cwd=self.folder, stdout=output, stderr=subprocess.STDOUT
            )
        while (found := _READY.search(log.read_bytes())) is None:
            if self._process.poll() is not None or time.monotonic() - began > PATIENCE:
                raise RuntimeError(f"the daemon does not start: {log.read_text()}")
            time.sleep(0.005)
        self.start_seconds = time.monotonic() - began
        self.port = int(found[1])

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it, by default in good order."""
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def troubles(self) -> list[str]:
        """Return the lines of the log that tell of an error."""
        lines = (self.folder / "log").read_text().splitlines()
        return [line for line in lines if re.match(r"\S+ (warn|error|critical) ", line)]

    def rss(self) -> int:
        """Return its resident memory in bytes."""
        return self._status("VmRSS") * KIB

    def threads(self) -> int:
        """Return how many threads it has."""
        return self._status("Threads")

    def descriptors(self) -> int:
        """Return how many files and sockets it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu(self) -> float:
        """Return the seconds of processor time that it has used, the kernel's included."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition(f"{name}:")[2].split(None, 1)[0])

    def token(self) -> str:
        """Return an access token of the administrator."""
        with Socket(self.port) as anonymous:
            reply = anonymous.ask({"action": "token", "login": ADMIN, "password": PASSWORD})
        token: str = reply["accessToken"]
        return token


class MemoryWatch(threading.Thread):
    """Notes how much memory a daemon has at most while the block runs."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon=True)
        self._watched = daemon
        self._over = threading.Event()
        self.before = self.peak = daemon.rss()

    def run(self) -> None:
        """Look twenty times a second."""
        while not self._over.wait(0.05):
            self.peak = max(self.peak, self._watched.rss())

    def finish(self) -> None:
        """Look no more."""
        self._over.set()
        self.join()


def connect(port: int, receive_buffer: int | None = None) -> socket.socket:
    """Open a TCP connection to the daemon."""
    plain = socket.socket()
    if receive_buffer is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    plain.settimeout(PATIENCE)
    plain.connect(("127.0.0.1", port))
    # Blocking, as a time limit would make Python poll before every call.
    plain.settimeout(None)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return plain


def upgrade_request(token: str | None = None) -> bytes:
    """Return the opening handshake of a WebSocket client."""
    key = base64.b64encode(os.urandom(16)).decode()
    bearer = "" if token is None else f"Authorization: Bearer {token}\r\n"
    return (
        "GET /websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\n{bearer}Sec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {key}\r\n\r\n"
    ).encode()


def client_frame(message: dict[str, Any]) -> bytes:
    """Return a message as a masked text frame."""
    return _masked(_TEXT, json.dumps(message, separators=(",", ":")).encode())


def notification(device: str) -> bytes:
    """Return a frame that inserts a notification of about 200 bytes."""
    parameters = {"temperature": 21.5, "humidity": 48, "state": "x" * 40}
    return client_frame(
        {
            "action": "notification/insert",
            "requestId": 7,
            "deviceId": device,
            "notification": {"notification": "measured", "parameters": parameters},
        }
    )


def _masked(first: int, payload: bytes) -> bytes:
    size = len(payload)
    key = (_MASK * (size // 4 + 1))[:size]
    number = int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")
    if size < 126:
        head = bytes((first, 0x80 | size))
    else:
        head = bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")
    return head + _MASK + number.to_bytes(size, "little")


class Socket:
    """A raw WebSocket: the handshake blocks, then it is read only when there is something.

    :param token: authenticates in the handshake.
    :param receive_buffer: of the kernel; a small one makes the client's slowness felt at once.
    :ivar close_code: of the close frame that was received; 0 if it had none.
    :ivar gone: whether the connection is over.
    """

    def __init__(
        self, port: int, token: str | None = None, receive_buffer: int | None = None
    ) -> None:
        self.gone = False
        self.close_code: int | None = None
        self.pushes: list[bytes] = []
        self._socket = connect(port, receive_buffer)
        self._socket.sendall(upgrade_request(token))
        answer = b""
        while b"\r\n\r\n" not in answer:
            if not self.readable() or not (data := self._socket.recv(65536)):
                raise ConnectionError(f"no answer to the handshake, only {answer!r}")
            answer += data
        head, _, self._rest = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(head.decode("latin-1"))

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor, for a poll."""
        return self._socket.fileno()

    def readable(self, seconds: float = PATIENCE) -> bool:
        """Wait until there is something to read."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def send(self, frames: bytes) -> None:
        """Send frames that are built already."""
        try:
            self._socket.sendall(frames)
        except ConnectionError:
            self.gone = True

    def take(self) -> list[bytes]:
        """Return the messages that have arrived; pings are answered."""
        try:
            data = self._socket.recv(262144, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except ConnectionError:
            data = b""
        if not data:
            self.gone = True
            return []
        return self._split(self._rest + data if self._rest else data)

    def _split(self, data: bytes) -> list[bytes]:
        messages = []
        position, end = 0, len(data)
        while end - position >= 2:
            first, size = data[position], data[position + 1]
            start = position + 2
            if size > 125:
                start += 2 if size == 126 else 8
                size = int.from_bytes(data[position + 2 : start], "big")
            if start > end or start + size > end:
                break
            payload = data[start : start + size]
            position = start + size
            if first == _TEXT:
                messages.append(payload)
            elif first == _PING:
                self.send(_masked(_PONG, payload))
            elif first == _CLOSE:
                self.close_code = int.from_bytes(payload[:2], "big")
        self._rest = data[position:]
        return messages

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its reply; what is pushed meanwhile is kept in ``pushes``."""
        self.send(client_frame(message))
        while not self.gone and self.readable():
            messages = self.take()
            for number, text in enumerate(messages):
                reply: dict[str, Any] = json.loads(text)
                if "status" in reply:
                    self.pushes += messages[number + 1 :]
                    if reply["status"] != "success":
                        raise RuntimeError(f"{message}: {reply}")
                    return reply
                self.pushes.append(text)
        raise ConnectionError(f"no reply to {message}")

    def close(self) -> None:
        """Cut the connection."""
        self._socket.close()


class Crowd:
    """Many sockets in one poll loop; each has a function that takes its messages."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self.members: dict[int, tuple[Socket, Callable[[list[bytes]], object]]] = {}

    def add(self, member: Socket, heard: Callable[[list[bytes]], object]) -> None:
        """Listen to a socket; what it has been told already comes first."""
        self.members[member.fileno()] = member, heard
        self._poll.register(member.fileno(), select.EPOLLIN)
        if member.pushes:
            heard(member.pushes)

    def turn(self, seconds: float) -> None:
        """Wait for something to happen, at most so long, and hand it on."""
        for number, _ in self._poll.poll(max(0.0, seconds)):
            member, heard = self.members[number]
            if messages := member.take():
                heard(messages)
            if member.gone:
                self._poll.unregister(number)
                del self.members[number]

    def run(self, seconds: float) -> None:
        """Take what comes for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.turn(left)

    def close(self) -> None:
        """Cut all connections."""
        for member, _ in self.members.values():
            member.close()
        self.members.clear()
        self._poll.close()
