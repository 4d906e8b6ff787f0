"""Devices that requests are relayed to: an HTTP server, and one that is attached by a socket.

Each runs in a process of its own and does as little as it can: what limits a figure is to be the
relay. The HTTP server is a poll loop that looks for a path and sends what is prepared; the kernel
copies the large body, which is a file that takes no room on disk.
"""

from __future__ import annotations

import json
import os
import select
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.daemon import KIB, PATIENCE, Socket, client_frame
from benchmarks.load import listen

#: What is answered to a small request: about what an ECLYPSE controller says of itself.
INFO = json.dumps(
    {
        "device": {"href": "/api/rest/v1/info/device", "name": "ECY-S1000-CD4058"},
        "model": "ECY-S1000", "hostId": "CD4058", "macAddress": "00:11:22:33:44:55",
        "softwareVersion": "1.17.21150.1", "uptimeSeconds": 1_234_567, "timezone": "UTC",
        "network": {"dhcp": True, "address": "10.0.0.17", "gateway": "10.0.0.1"},
        "services": ["bacnet", "modbus", "mqtt", "rest", "vpn"], "pad": "x" * 50,
    }
).encode()  # fmt: skip
#: The paths, and how many bytes come from the second and how many seconds late the third is.
SMALL_PATH, LARGE_PATH, SLOW_PATH = "/info", "/large", "/slow"
LARGE = 100_000_000
SLOW_SECONDS = 1.5

_fork = get_context("fork")
_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_SMALL_ANSWER = (_HEAD % len(INFO)).encode() + INFO
_LARGE_HEAD = (_HEAD % LARGE).encode()


class _Conversation:
    """A connection to the HTTP server."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.held = b""
        self.left = 0  # bytes of the large body
        self.last = False

    def request(self) -> bytes | None:
        """Return the next request, None while it is not whole. :raises ConnectionError:"""
        data = self.connection.recv(64 * KIB)
        if not data:
            raise ConnectionResetError
        self.held += data
        if not self.held.endswith(b"\r\n\r\n"):
            return None
        request, self.held = self.held, b""
        self.last = b"HTTP/1.0\r\n" in request or b"\r\nConnection: close\r\n" in request
        return request

    def send(self, data: bytes) -> None:
        """Send something small."""
        self.connection.send(data)
        if self.last and not self.left:
            raise ConnectionResetError

    def pour(self, file: int) -> None:
        """Send as much of the large body as there is room for."""
        while self.left:
            self.left -= os.sendfile(self.connection.fileno(), file, LARGE - self.left, self.left)
        if self.last:
            raise ConnectionResetError


class _Server:
    """The loop of the HTTP server."""

    def __init__(self, listener: socket.socket, file: int) -> None:
        self._listener = listener
        self._file = file
        self._poll = select.epoll()
        self._poll.register(listener, select.EPOLLIN)
        self._open: dict[int, _Conversation] = {}
        self._late: deque[tuple[float, int, _Conversation]] = deque()

    def serve(self, parent: int) -> None:
        """Serve until the parent is gone."""
        while os.getppid() == parent:
            wait = max(0.0, self._late[0][0] - time.monotonic()) if self._late else 1.0
            for number, events in self._poll.poll(min(wait, 1.0)):
                if number == self._listener.fileno():
                    self._accept()
                elif events & select.EPOLLOUT:
                    self._try(number, self._pour)
                else:
                    self._try(number, self._answer)
            while self._late and self._late[0][0] <= time.monotonic():
                _, number, late = self._late.popleft()
                if self._open.get(number) is late:
                    self._try(number, lambda number: self._open[number].send(_SMALL_ANSWER))

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open[connection.fileno()] = _Conversation(connection)
        self._poll.register(connection.fileno(), select.EPOLLIN)

    def _try(self, number: int, step: Callable[[int], None]) -> None:
        try:
            step(number)
        except BlockingIOError:
            pass
        except ConnectionError:
            self._poll.unregister(number)
            self._open.pop(number).connection.close()

    def _answer(self, number: int) -> None:
        conversation = self._open[number]
        request = conversation.request()
        if request is None:
            return
        if request.startswith(b"GET /info "):
            conversation.send(_SMALL_ANSWER)
        elif request.startswith(b"GET /slow "):
            self._late.append((time.monotonic() + SLOW_SECONDS, number, conversation))
        else:
            conversation.left = LARGE
            conversation.send(_LARGE_HEAD)
            self._poll.modify(number, select.EPOLLOUT)

    def _pour(self, number: int) -> None:
        self._open[number].pour(self._file)
        self._poll.modify(number, select.EPOLLIN)


class HttpDevice:
    """The HTTP server; a context manager that ends its process. :ivar port: where it listens."""

    def __init__(self) -> None:
        self._listener = listen()
        self.port: int = self._listener.getsockname()[1]
        self._process = _fork.Process(target=self._serve, args=(os.getpid(),), daemon=True)

    def __enter__(self) -> HttpDevice:
        self._process.start()
        self._listener.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    @property
    def pid(self) -> int:
        """Its process."""
        pid = self._process.pid
        assert pid is not None
        return pid

    def _serve(self, parent: int) -> None:
        with tempfile.TemporaryFile() as file:
            file.truncate(LARGE)
            _Server(self._listener, file.fileno()).serve(parent)


class AttachedDevice:
    """A device on a WebSocket that answers every command; a context manager, as above."""

    def __init__(self, port: int, token: str, device: str) -> None:
        self._where = port, token, device
        self._ready, theirs = _fork.Pipe()
        arguments = (os.getpid(), theirs)
        self._process = _fork.Process(target=self._serve, args=arguments, daemon=True)

    def __enter__(self) -> AttachedDevice:
        self._process.start()
        if not self._ready.poll(PATIENCE):
            raise TimeoutError("the device does not attach itself")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    @property
    def pid(self) -> int:
        """Its process."""
        pid = self._process.pid
        assert pid is not None
        return pid

    def _serve(self, parent: int, ready: Connection) -> None:
        port, token, device = self._where
        with Socket(port, token) as own:
            own.ask({"action": "command/subscribe", "deviceId": device})
            ready.send(None)
            while os.getppid() == parent and not own.gone:
                if own.readable(1.0):
                    own.send(b"".join(_updated(json.loads(text)) for text in own.take()))


def _updated(message: dict[str, Any]) -> bytes:
    """Return the frame that answers a command; none for what is no command."""
    if message.get("action") != "command/insert":
        return b""
    result = {
        "status": 200, "headers": {"Content-Type": "application/json"}, "body": INFO.decode(),
    }  # fmt: skip
    command = message["command"]
    return client_frame(
        {
            "action": "command/update", "deviceId": command["deviceId"],
            "commandId": command["id"], "command": {"status": "OK", "result": result},
        }
    )  # fmt: skip
