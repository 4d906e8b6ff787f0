"""``python -m benchmarks echo --port N``: the WebSocket classes of production as an echo."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from typing import Any

from twisted.application.reactors import installReactor
from twisted.web.resource import IResource

from gatewayd.transport.frames import binary_frame
from gatewayd.transport.root import Root
from gatewayd.transport.websocket import (
    WebSocketFactory,
    WebSocketLimits,
    WebSocketResource,
    WebSocketSession,
)

LONGEST = 16 * 2**20


class Echo(WebSocketSession):
    """Sends every message back, and reads no faster than the client does."""

    def text_received(self, payload: bytes) -> None:
        self.send_text(payload)
        if not self.writable:
            self._wait()

    def binary_received(self, payload: bytes) -> None:
        self.send_frame(binary_frame(payload))
        if not self.writable:
            self._wait()

    def _wait(self) -> None:
        self.pause_reading()
        self.when_writable().addCallback(lambda _: self.resume_reading())


class EchoMount:
    """Upgrades every path."""

    def __init__(self, factory: WebSocketFactory) -> None:
        self._resource = WebSocketResource(factory)

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource:
        return self._resource

    def resource(self, path: str) -> IResource | None:
        return None


def run(argv: list[str]) -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks echo")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--reactor", default="epoll", help="a name that twistd --reactor knows")
    options = parser.parse_args(argv)
    reactor: Any = installReactor(options.reactor)
    # Twisted's Site takes the reactor at its import, so the import has to wait for it.
    from twisted.web.server import Site

    limits = WebSocketLimits(message=LONGEST, send_window=2 * LONGEST)
    factory = WebSocketFactory(Echo, limits, reactor)
    factory.start()
    site = Site(Root([EchoMount(factory)]), reactor=reactor)
    reactor.listenTCP(options.port, site, backlog=1024, interface="127.0.0.1")
    reactor.callWhenRunning(print, "ready", flush=True)
    gc.freeze()
    reactor.run()
