"""Long polls over REST, many of them: what they cost, and how they end."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.api.polling import BEARER, ask, followers, new_device, poll_path, send, serve
from tests.api.rest_table import AT_ONCE
from tests.api.scene import no_failures, until
from tests.api.web import Answered, request
from tests.harness import PATIENCE, Daemon, make_settings, reactor


@pytest_twisted.async_yield_fixture(scope="module", name="daemon")
async def make_daemon(module_path: Path) -> AsyncIterator[Daemon]:
    """Return the gateway that all tests share."""
    async for daemon in serve(module_path):
        yield daemon


class _Poller(Protocol):
    """A connection that asks once and waits."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self.received = b""
        self.ended: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self._transport.write(self._head)

    @property
    def _transport(self) -> Any:
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(None)

    def leave(self, abruptly: bool) -> None:
        """Go away without an answer."""
        if abruptly:
            self._transport.abortConnection()
        else:
            self._transport.loseConnection()


async def open_polls(daemon: Daemon, paths: Sequence[str]) -> list[_Poller]:
    """Open a connection for each poll."""
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", daemon.port)

    def connect(path: str) -> Deferred[Any]:
        head = f"GET /rest{path} HTTP/1.1\r\nHost: gw\r\nAuthorization: {BEARER}\r\n\r\n"
        factory: Any = Factory.forProtocol(_Poller)  # type: ignore[arg-type]
        factory.buildProtocol = lambda _: _Poller(head.encode())
        return endpoint.connect(factory)

    found: list[_Poller] = []
    for first in range(0, len(paths), AT_ONCE):
        opened = [connect(path) for path in paths[first : first + AT_ONCE]]
        found += await gatherResults(opened, consumeErrors=True).addTimeout(PATIENCE, reactor)
    return found


def connections(daemon: Daemon) -> int:
    """Return how many HTTP connections there are."""
    return daemon.gateway.sites[0].connections


@pytest_twisted.ensureDeferred
async def test_two_hundred_at_once(daemon: Daemon) -> None:
    """Two hundred polls that wait take no thread, and leave nothing when their clients do."""
    device = await new_device(daemon)
    sent = await send(daemon, "command", device, "c")
    await until(lambda: connections(daemon) == 0)
    threads, timers = threading.active_count(), len(reactor.getDelayedCalls())
    paths = [
        poll_path("notification", device), poll_path("command", device, waitTimeout=60),
        poll_path("notification"), f"/device/{device}/command/{sent['id']}/poll",
    ] * 50  # fmt: skip
    pollers = await open_polls(daemon, paths)
    await until(lambda: len(daemon.core.polls._waiting) == 200)
    assert followers(daemon) == connections(daemon) == 200
    # They hold nobody up.
    assert len(await ask(daemon, "GET", f"/device/{device}/command")) == 1
    assert threading.active_count() == threads
    with no_failures():
        for number, poller in enumerate(pollers[:150]):
            poller.leave(abruptly=number % 8 < 4)
        await until(lambda: connections(daemon) == followers(daemon) == 50)
        # The same messages end those that are left; what comes afterwards is nobody's.
        for name in ("news", "later"):
            await send(daemon, "notification", device, name)
            await send(daemon, "command", device, name)
        await ask(daemon, "PUT", f"/device/{device}/command/{sent['id']}", {}, 204)
        await until(lambda: all(poller.received for poller in pollers[150:]))
        assert followers(daemon) == len(daemon.core.polls._waiting) == 0
        for poller in pollers[150:]:
            poller.leave(abruptly=False)
        await until(lambda: connections(daemon) == 0)
    assert len(reactor.getDelayedCalls()) <= timers
    assert not any(poller.received for poller in pollers[:150])
    assert all(poller.received.startswith(b"HTTP/1.1 200 ") for poller in pollers[150:])
    bodies = {poller.received.partition(b"\r\n\r\n")[2] for poller in pollers[150:]}
    assert len(bodies) == 3
    assert b"later" not in b"".join(bodies)


@pytest_twisted.ensureDeferred
async def test_the_daemon_stops(tmp_path: Path) -> None:
    """Polls that wait when the gateway stops are answered at once."""
    daemon = Daemon(make_settings(tmp_path / "gatewayd.db"))
    await daemon.start()
    device = await new_device(daemon)
    sent = await send(daemon, "command", device, "c")
    path = f"/device/{device}/command/{sent['id']}/poll"
    answers: list[Deferred[Answered]] = [
        Deferred.fromCoroutine(request(daemon.port, "GET", f"/rest{each}", Authorization=BEARER))
        for each in (poll_path("notification"), poll_path("command", device), path)
    ]
    await until(lambda: len(daemon.core.polls._waiting) == 3)
    began = reactor.seconds()
    await daemon.stop()
    assert reactor.seconds() - began < daemon.gateway.settings.service.drain_timeout
    found = [await each for each in answers]
    assert [(each.code, each.body) for each in found] == [(200, b"[]"), (200, b"[]"), (204, b"")]
