"""The live channel on a listener, with the official Python client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import socketio
from requests import Session
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import deferToThread

from gatewayd.core.grants import Grant, Right
from gatewayd.core.live_sessions import LiveSession
from gatewayd.transport.root import Root
from gatewayd.transport.site import GatewaySite, HttpLimits
from tests.api.scene import until
from tests.api.ux4iot_live import NO_SESSION, Scene, key, right
from tests.core.bench import bounded
from tests.harness import PATIENCE, reactor

ALL = (key("D"), *(right("D", each) for each in (Right.STATE, Right.TWIN, Right.MESSAGES)))
#: What a client is told when it is put out, and when its connection is cut.
PUT_OUT, CUT = "server disconnect", "transport close"


class Client:
    """A client in one namespace, which never connects again by itself."""

    def __init__(self, url: str, namespace: str = "/") -> None:
        self._url = url
        self._namespace = namespace
        self._data: DeferredQueue[Any] = DeferredQueue()
        self._ends: DeferredQueue[str] = DeferredQueue()
        self._refusals: DeferredQueue[Any] = DeferredQueue()
        self._closing: list[Deferred[None]] = []
        self._client = socketio.Client(
            reconnection=False, handle_sigint=False, http_session=Session()
        )
        for event, queue in (
            ("data", self._data), ("disconnect", self._ends), ("connect_error", self._refusals)
        ):  # fmt: skip
            self._client.on(event, self._told(queue), namespace=namespace)

    @staticmethod
    def _told(queue: DeferredQueue[Any]) -> Any:
        return lambda what: reactor.callFromThread(queue.put, what)

    async def connect(self, *transports: str) -> None:
        """Connect. :raises socketio.exceptions.ConnectionError: it was turned away."""
        await deferToThread(
            self._client.connect, self._url, transports=list(transports),
            namespaces=[self._namespace], wait_timeout=PATIENCE,
        )  # fmt: skip

    @property
    def transport(self) -> str:
        """How it is connected."""
        transport: str = self._client.transport()
        return transport

    async def told(self) -> Any:
        """Return what it is told next."""
        return await self._data.get().addTimeout(PATIENCE, reactor)

    async def all_told(self, count: int) -> list[Any]:
        """Return what it is told next, by time; it takes each in a thread of its own."""
        told = [await self.told() for _ in range(count)]
        return sorted(told, key=lambda each: (each["timestamp"], list(each)[1]))

    async def end(self) -> str:
        """Return why it ended."""
        return await self._ends.get().addTimeout(PATIENCE, reactor)

    async def is_turned_away(self, *transports: str) -> None:
        """Check that it is turned away, and with what reason."""
        with pytest.raises(socketio.exceptions.ConnectionError):
            await self.connect(*transports)
        assert await self._refusals.get().addTimeout(PATIENCE, reactor) == NO_SESSION

    async def emit(self) -> None:
        """Say something, and wait until that is sent: a polling one would forget it at its end."""
        await deferToThread(self._client.emit, "x", namespace=self._namespace)
        await deferToThread(self._client.eio.queue.join)

    def close(self) -> None:
        """End it; its threads may stay until the next ping."""
        self._closing.append(deferToThread(self._client.shutdown))

    async def clean_up(self) -> None:
        """Wait until it has ended, and close what it leaves open."""
        engine = self._client.eio
        if self._client.connected:
            self.close()
        # Its writing thread would wait half a minute for more.
        engine.queue.put(None)
        for closing in self._closing:
            await closing
        if engine.read_loop_task is not None:
            await deferToThread(engine.read_loop_task.join, PATIENCE)
        engine.http.close()
        if engine.ws is not None:
            engine.ws.shutdown()


class Served(Scene):
    """The live channel on a listener."""

    async def listen(self) -> None:
        """Listen on a port of loopback, the same after a restart."""
        self.live.start()
        self._site = GatewaySite(Root([self.live]), HttpLimits(), reactor)
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        self._listening: Any = await endpoint.listen(self._site)
        self.clients: list[Client] = []

    async def stop_listening(self) -> None:
        """Close the clients and listen no more."""
        await self._listening.stopListening()
        await self.live.stop(0.3)
        for client in self.clients:
            await client.clean_up()
        await self._site.shutdown(0.3)

    def client(self, session_id: str, namespace: str = "/", more: str = "") -> Client:
        """Return a client that is closed with the scene."""
        port = self._listening.getHost().port
        url = f"http://127.0.0.1:{port}{namespace}?sessionId={session_id}{more}"
        self.clients.append(Client(url, namespace))
        return self.clients[-1]

    async def session(self, *grants: Grant, by_grant: bool = False) -> LiveSession:
        """Return a session that was granted these things, and is subscribed to them."""
        session = self.sessions.create(None)
        session.by_grant = by_grant
        for grant in grants:
            await self.sessions.grant(session, grant)
        await self.sessions.subscribe(session, grants)
        return session


@pytest_twisted.async_yield_fixture(name="scene")
async def set_up(tmp_path: Path) -> AsyncIterator[Served]:
    scene = Served(tmp_path / "gatewayd.db", reactor)
    await scene.open()
    await scene.listen()
    yield scene
    await scene.stop_listening()
    await scene.close()


TRANSPORTS = pytest.mark.parametrize(
    "transports", [("polling",), ("websocket",), ("polling", "websocket")], ids="-".join
)


@TRANSPORTS
@bounded
async def test_everything(scene: Served, transports: tuple[str, ...]) -> None:
    """A client is told of telemetry, messages, connection states and twins, by any transport."""
    client = scene.client((await scene.session(*ALL)).id)
    await client.connect(*transports)
    assert client.transport == transports[-1]
    at = await scene.say("D", {"a": 0, "b": {"c": [None, "é"]}, "$x": 1})
    first = {"deviceId": "D", "timestamp": at}
    values = {"a": 0, "b": {"c": [None, "é"]}}
    assert await client.all_told(3) == [
        {**first, "connectionState": True},
        {**first, "message": {**values, "$x": 1}},
        {**first, "telemetry": values},
    ]
    await scene.hub.twins.patch_desired(None, scene.device, b'{"x":{"y":1}}')
    twin = (await client.told())["deviceTwin"]
    assert twin["properties"]["desired"]["x"] == {"y": 1}
    assert twin == (await scene.hub.twins.of(scene.device)).document()


@TRANSPORTS
@bounded
async def test_namespace(scene: Served, transports: tuple[str, ...]) -> None:
    """A client of an endpoint with a path has it as its namespace."""
    client = scene.client((await scene.session(key("D"))).id, "/iot/live")
    await client.connect(*transports)
    await scene.say("D", {"a": 1})
    assert (await client.told())["telemetry"] == {"a": 1}


@TRANSPORTS
@bounded
async def test_older_dialect(scene: Served, transports: tuple[str, ...]) -> None:
    """A client of the older dialect that comes again is told everything again."""
    session = await scene.session(*ALL[:2], by_grant=True)
    await scene.say("D", {"a": 1, "b": 2})
    for _ in range(2):
        client = scene.client(session.id)
        await client.connect(*transports)
        state, *values = await client.all_told(3)
        assert state["connectionState"] == {"connected": True}
        assert {"a": 1} in [each["telemetry"] for each in values]
        assert {"b": 2} in [each["telemetry"] for each in values]
        await client.emit()
        await until(lambda: session.met)
        client.close()
        await until(lambda: session.follower is None)


@TRANSPORTS
@bounded
async def test_turned_away(scene: Served, transports: tuple[str, ...]) -> None:
    """A client of the newer dialect that comes again is turned away; so is who has no session."""
    session = await scene.session(key("D"))
    client = scene.client(session.id)
    await client.connect(*transports)
    await client.emit()
    await until(lambda: session.met)
    client.close()
    await until(lambda: session.follower is None)
    for session_id in (session.id, "", "unknown"):
        await scene.client(session_id).is_turned_away(*transports)


@bounded
async def test_resumes(scene: Served) -> None:
    """Unless it says that it goes on with its subscriptions."""
    session = await scene.session(key("D"))
    await scene.say("D", {"a": 1})
    for _ in range(2):
        client = scene.client(session.id, more="&resume=1")
        await client.connect("websocket")
        assert (await client.told())["telemetry"] == {"a": 1}
        await client.emit()
        await until(lambda: session.met)
        client.close()
        await until(lambda: session.follower is None)


@TRANSPORTS
@bounded
async def test_revoked(scene: Served, transports: tuple[str, ...]) -> None:
    """All clients of a session that is revoked are put out, with the word for it."""
    session = await scene.session(key("D"))
    clients = [scene.client(session.id, namespace) for namespace in ("/", "/x")]
    for client in clients:
        await client.connect(*transports)
    await scene.sessions.revoke(session.id)
    assert [await client.end() for client in clients] == [PUT_OUT, PUT_OUT]


@bounded
async def test_adopted_for_nothing(scene: Served) -> None:
    """One whose session was lost is put out two seconds later."""
    session = scene.sessions.create(None)
    scene.pass_time(3600)
    client = scene.client(session.id)
    await client.connect("polling", "websocket")
    assert await client.end() == PUT_OUT


@bounded
async def test_met_after_two_seconds(scene: Served) -> None:
    """One that says nothing is known to be there two seconds later."""
    session = await scene.session(key("D"))
    await scene.client(session.id).connect("websocket")
    began = reactor.seconds()
    await until(lambda: session.met)
    assert reactor.seconds() - began > 1.5


@bounded
async def test_many_share_one_frame(scene: Served) -> None:
    """Clients by several transports and of several sessions are told the same."""
    clients = [scene.client((await scene.session(key("D", "a"))).id) for _ in range(6)]
    for number, client in enumerate(clients):
        await client.connect(*(("polling",), ("websocket",))[number % 2])
    for number in range(20):
        await scene.say("D", {"a": number, "b": 1})
    for client in clients:
        told = await client.all_told(20)
        assert [each["telemetry"] for each in told] == [{"a": number} for number in range(20)]


@bounded
async def test_restart(scene: Served) -> None:
    """After a restart the session is there, for a client of the older dialect."""
    session = await scene.session(key("D"), by_grant=True)
    client = scene.client(session.id)
    await client.connect("websocket")
    await client.emit()
    await until(lambda: session.met)
    await scene.stop_listening()
    assert await client.end()
    await scene.restart()
    await scene.listen()
    await scene.say("D", {"a": 1})
    client = scene.client(session.id)
    await client.connect("polling", "websocket")
    assert (await client.told())["telemetry"] == {"a": 1}
