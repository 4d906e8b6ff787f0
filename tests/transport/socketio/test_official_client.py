"""The official Python client against the server, on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import pytest
import pytest_twisted
from requests import Session
from socketio import Client
from socketio.exceptions import ConnectionError as ConnectionFailed
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from gatewayd.transport.limits import HttpLimits
from gatewayd.transport.root import Root
from gatewayd.transport.site import GatewaySite
from gatewayd.transport.socketio.connection import Connection
from gatewayd.transport.socketio.packets import event_packet
from gatewayd.transport.socketio.rules import EngineRules
from gatewayd.transport.socketio.server import SocketIO
from gatewayd.transport.websocket import WebSocketLimits
from tests.transport.socketio.bench import Notes, numbered

SECONDS = 10
reactor: Any = real_reactor
TRANSPORTS = [["polling"], ["websocket"], ["polling", "websocket"]]


class Awaited(Notes):
    """Notes that can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []
        self.received: list[Any] = []

    def until(self, enough: Callable[[], bool]) -> Deferred[None]:
        """Wait until something is so."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append((enough, waiter))
        self.look()
        return waiter.addTimeout(SECONDS, reactor)

    def look(self) -> None:
        for entry in tuple(self._waiting):
            if entry[0]():
                self._waiting.remove(entry)
                entry[1].callback(None)

    def heard(self, connection: Connection) -> None:
        super().heard(connection)
        self.look()

    def event(self, connection: Connection, payload: bytes) -> None:
        super().event(connection, payload)
        self.look()

    def gone(self, connection: Connection) -> None:
        super().gone(connection)
        self.look()

    def receive(self, what: Any) -> None:
        """Note what the client got; in its threads."""
        reactor.callFromThread(self._receive, what)

    def _receive(self, what: Any) -> None:
        self.received.append(what)
        self.look()


@attrs.define
class Served:
    """Socket.IO on a port, and official clients of it."""

    notes: Awaited
    server: SocketIO
    site: GatewaySite
    port: Any
    clients: list[Client] = attrs.Factory(list)

    async def connect(self, transports: list[str], namespace: str = "/") -> Client:
        """Connect a client."""
        client = Client(reconnection=False, http_session=Session())
        self.clients.append(client)
        client.on("connect_error", self.notes.receive, namespace=namespace)
        client.on("data", self.notes.receive, namespace=namespace)
        client.on("disconnect", self.notes.receive, namespace=namespace)
        url = f"http://127.0.0.1:{self.port.getHost().port}?sessionId=s"
        await deferToThread(
            client.connect, url, transports=transports, namespaces=[namespace], wait_timeout=SECONDS
        )
        return client

    async def stop(self) -> None:
        for client in self.clients:
            await deferToThread(_end, client)
        await self.port.stopListening()
        await self.server.stop(SECONDS)
        await self.site.shutdown(SECONDS)
        assert len(self.server.clients) == 0
        assert len(self.notes.told("gone")) == len(self.notes.arrivals)


def _end(client: Client) -> None:
    """End a client with its threads, and close what it leaves open."""
    client.shutdown()
    client.eio.queue.put(None)  # it may have forgotten its own, and wait for ten seconds
    if client.eio.read_loop_task is not None:
        client.eio.read_loop_task.join(SECONDS)
    client.eio.http.close()
    if client.eio.ws is not None:
        client.eio.ws.shutdown()


@pytest_twisted.async_yield_fixture
async def served(clean: None) -> AsyncIterator[Served]:
    notes = Awaited()
    rules = EngineRules(ping_interval=1.0, ping_timeout=3.0)
    server = SocketIO(notes, WebSocketLimits(), rules, reactor)
    server.start()
    site = GatewaySite(Root([server]), HttpLimits(), reactor)
    made = Served(notes, server, site, reactor.listenTCP(0, site, interface="127.0.0.1"))
    yield made
    await made.stop()


@pytest.mark.parametrize("transports", TRANSPORTS)
@pytest.mark.parametrize("namespace", ["/", "/path"])
@pytest_twisted.ensureDeferred
async def test_events(served: Served, transports: list[str], namespace: str) -> None:
    """Every event arrives, and so do the client's own; its end is noticed.

    It handles each event in a thread of its own, so the order is for other tests.
    """
    notes = served.notes

    def arrived(connection: Connection) -> None:
        connection.accept()
        for number in range(20):  # from the first moment on, across an upgrade
            connection.send(numbered(number, namespace))

    notes.on_arrival = arrived
    client = await served.connect(transports, namespace)
    connection = notes.last
    assert connection.first_transport == transports[0]
    assert connection.query["sessionId"] == "s"
    assert client.transport() == transports[-1]
    for number in range(20, 40):
        connection.send(numbered(number, namespace))
    await notes.until(lambda: len(notes.received) == 40)
    assert sorted(notes.received) == list(range(40))
    await deferToThread(client.emit, "hello", {"a": ["ä", None]}, namespace=namespace)
    await notes.until(lambda: bool(notes.told("event")))
    assert notes.told("event") == [b'["hello",{"a":["\\u00e4",null]}]']
    await deferToThread(client.disconnect)
    await notes.until(lambda: notes.told("gone") == [namespace])


@pytest.mark.parametrize("transports", TRANSPORTS)
@pytest_twisted.ensureDeferred
async def test_pings(served: Served, transports: list[str]) -> None:
    """The client answers pings, and stays."""
    await served.connect(transports)
    await served.notes.until(lambda: len(served.notes.told("heard")) >= 2)
    assert served.notes.last.open


@pytest.mark.parametrize("transports", TRANSPORTS)
@pytest_twisted.ensureDeferred
async def test_put_out(served: Served, transports: list[str]) -> None:
    """The client learns that the server put it out, after the last event."""
    client = await served.connect(transports)
    served.notes.last.send(event_packet("/", "data", b'"last"'))
    served.notes.last.disconnect()
    await served.notes.until(lambda: len(served.notes.received) == 2)
    assert set(served.notes.received) == {"last", client.reason.SERVER_DISCONNECT}


@pytest.mark.parametrize("transports", TRANSPORTS)
@pytest_twisted.ensureDeferred
async def test_refused(served: Served, transports: list[str]) -> None:
    """The client learns why it is refused."""
    served.notes.on_arrival = lambda each: each.refuse(b'{"message":"No such sessionId"}')
    with pytest.raises(ConnectionFailed):
        await served.connect(transports)
    assert served.notes.received == [{"message": "No such sessionId"}]


@pytest.mark.parametrize("transports", TRANSPORTS)
@pytest_twisted.ensureDeferred
async def test_stop(served: Served, transports: list[str]) -> None:
    """A client learns that the server stops."""
    await served.connect(transports)
    # A polling one has to have come for its next packets.
    await served.notes.until(lambda: len(served.notes.told("heard")) >= 1)
    await served.server.stop(SECONDS)
    await served.notes.until(lambda: len(served.notes.received) == 1)
    assert served.notes.told("gone") == ["/"]
