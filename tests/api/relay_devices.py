"""Devices behind the relay: one with a web server, and one attached by a WebSocket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.api.scene import ok
from tests.api.web import Answered
from tests.harness import Socket, reactor


@attrs.frozen
class Asked:
    """What a device was asked.

    :ivar headers: the names as they came, in order.
    """

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return a header field's value."""
        return {key.lower(): value for key, value in self.headers}.get(name.lower())


class WebDevice(Resource):
    """A device with a web server.

    :ivar status: of its answers, with their ``headers`` and ``body``.
    :ivar asked: everything that it was asked.
    """

    isLeaf = True  # noqa: N815

    def __init__(self) -> None:
        super().__init__()
        self.status = 200
        self.headers: list[tuple[str, str]] = []
        self.body = b"ok"
        self.asked: list[Asked] = []
        site = Site(self)
        site.noisy = False
        self.listening = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self.listening.getHost().port}"

    def render(self, request: Any) -> bytes:
        """Answer."""
        headers = [
            (name.decode(), value.decode("latin-1"))
            for name, values in request.requestHeaders.getAllRawHeaders()
            for value in values
        ]
        self.asked.append(
            Asked(
                request.method.decode(), request.uri.decode("latin-1"), headers,
                request.content.read(),
            )
        )  # fmt: skip
        request.defaultContentType = None
        request.setResponseCode(self.status)
        for name, value in self.headers:
            request.responseHeaders.addRawHeader(name.encode(), value.encode("latin-1"))
        return self.body


class Attached:
    """A device attached by a WebSocket."""

    def __init__(self, device_id: str, socket: Socket) -> None:
        self.id = device_id
        self.socket = socket

    async def command(self) -> dict[str, Any]:
        """Return the next command."""
        command: dict[str, Any] = (await self.socket.push())["command"]
        return command

    async def answer(self, result: object, command: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer a command, the next one unless told; return its parameters."""
        command = command or await self.command()
        await ok(
            self.socket, "command/update", deviceId=self.id, commandId=command["id"],
            command={"status": "done", "result": result},
        )  # fmt: skip
        parameters: dict[str, Any] = command["parameters"]
        return parameters


async def both(
    asked: Deferred[Answered], device: Attached, result: object
) -> tuple[Answered, dict[str, Any]]:
    """Let a device answer; return what the caller got, and what the device was told."""
    told = await device.answer(result)
    return await asked, told


@contextmanager
def unreachable() -> Iterator[str]:
    """Give the URL of a device that neither takes connections nor refuses them."""
    with ExitStack() as sockets:
        full = sockets.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # more than its queue takes
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield f"http://127.0.0.1:{full.getsockname()[1]}"
