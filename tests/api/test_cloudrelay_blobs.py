"""Bodies that attached devices fetch and bring over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from io import BytesIO, RawIOBase
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString
from twisted.internet.protocol import connectionDone
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from gatewayd.api.cloudrelay.blobs import PATH, Blobs
from gatewayd.core.exchange import Answer, Request
from gatewayd.core.spool import LIFETIME, Spool
from gatewayd.device.attached import AttachedDevices
from gatewayd.errors import Conflict
from gatewayd.transport.body import BodyRoom, BodyRules
from gatewayd.transport.request import GatewayRequest
from gatewayd.transport.root import Root
from gatewayd.transport.websocket import WebSocketResource
from tests.api.web import Answered, request
from tests.core.bench import Bench, bounded
from tests.core.conftest import set_up  # noqa: F401 - the fixture "bench"
from tests.core.responder import attach, left_over, make_invocations
from tests.core.test_spool import Consumer
from tests.storage.store_bench import the_reactor
from tests.transport.http_bench import Client, Served, logged_failures, serve

LARGEST = 1_000_000
ROOM = 10_000_000


class Mount:
    """Serves the spool as the Cloud Relay does."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self.room = BodyRoom(ROOM)

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
        return None

    def resource(self, path: str) -> IResource | None:
        return self.blobs

    def body_rules(self, path: str, request: GatewayRequest) -> BodyRules | None:
        return BodyRules(self.blobs.limit(path), memory=1000, room=self.room)


@attrs.define
class Scene:
    """A spool on a port of 127.0.0.1."""

    bench: Bench
    spool: Spool
    mount: Mount
    served: Served

    @property
    def port(self) -> int:
        port: int = self.served.port.getHost().port
        return port

    async def ask(self, method: str, ticket: str, body: bytes | None = None, **headers: str) -> Any:
        return await request(self.port, method, f"{PATH}/{ticket}", body, **headers)

    def devices(self) -> AttachedDevices:
        return AttachedDevices(
            make_invocations(self.bench), self.spool, place=PATH, inline=131072, upload=LARGEST
        )


@pytest_twisted.async_yield_fixture(name="scene")
async def make_scene(bench: Bench) -> AsyncIterator[Scene]:
    spool = Spool(bench.timers)
    mount = Mount(Blobs(spool))
    endpoint = serverFromString(the_reactor(), "tcp:0:interface=127.0.0.1")
    scene = Scene(bench, spool, mount, await serve(endpoint, Root([mount])))
    yield scene
    await scene.served.stop()


def offered(scene: Scene, body: bytes, type_: str = "a/b; c=d") -> str:
    return scene.spool.offer(BytesIO(body), len(body), type_)


def check_problem(answer: Answered, status: int) -> None:
    assert answer.code == status
    assert (answer.header("Content-Type") or "").startswith("application/problem+json")
    assert answer.header("Cache-Control") == "no-store"
    problem = answer.json
    assert set(problem) == {"type", "title", "status", "detail"}
    assert (problem["type"], problem["status"]) == ("about:blank", status)


# Fetching


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 3_000_000])
@bounded
async def test_fetch(scene: Scene, size: int) -> None:
    """A body is fetched as often as the device wants, as the caller sent it."""
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    ticket = offered(scene, body)
    for _ in range(2):
        answer = await scene.ask("GET", ticket)
        assert (answer.code, answer.length, answer.body) == (200, size, body)
        assert answer.header("Content-Type") == "a/b; c=d"
        assert answer.header("Cache-Control") == "no-store"
    head = await scene.ask("HEAD", ticket)
    assert (head.code, head.header("Content-Length"), head.body) == (200, str(size), b"")
    assert head.header("Content-Type") == "a/b; c=d"


@bounded
async def test_fetch_without_type(scene: Scene) -> None:
    """A body whose caller did not say what it is has no type."""
    answer = await scene.ask("GET", offered(scene, b"x", ""))
    assert (answer.body, answer.header("Content-Type")) == (b"x", None)


@bounded
async def test_no_ticket(scene: Scene) -> None:
    """Without a good ticket there is nothing, and no answer or log tells a ticket."""
    ticket, old = offered(scene, b"x"), offered(scene, b"x")
    scene.spool.withdraw(old)
    upload = scene.spool.accept(10)
    with capturedLogs() as logged:
        for wrong in (old, "", "x", ticket[:-1], f"{ticket}x", f"{ticket}/", f"x/{ticket}", upload):
            for method in ("GET", "HEAD"):
                answer = await scene.ask(method, wrong)
                assert answer.code == 404
                if method == "GET":
                    check_problem(answer, 404)
                    assert ticket.encode() not in answer.body
        elsewhere = await request(scene.port, "GET", f"/api/{ticket}")
        check_problem(elsewhere, 404)
        scene.bench.timers.advance(LIFETIME)
        check_problem(await scene.ask("GET", ticket), 404)
    assert ticket not in repr(logged)


@bounded
async def test_methods(scene: Scene) -> None:
    """Nothing but fetching and bringing can be done."""
    for ticket in (offered(scene, b"x"), scene.spool.accept(10), "x"):
        for method in ("DELETE", "PATCH", "OPTIONS"):
            answer = await scene.ask(method, ticket)
            check_problem(answer, 405)
            assert answer.header("Allow") == "GET, HEAD, POST, PUT"


class Endless(RawIOBase):
    """A large file that takes no room.

    :ivar reached: how far it was read.
    """

    reached = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self.reached = max(self.reached, offset)
        return offset

    def read(self, size: int = -1) -> bytes:
        return bytes(size)


class SlowClient(Client):
    """Reads nothing after the first piece."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.ended.called:
            super().connectionLost(reason)


@bounded
async def test_slow_device(scene: Scene) -> None:
    """A body is read no faster than the device reads it; withdrawn, it is cut off, not finished."""
    size, file = 2**30, Endless()
    ticket = scene.spool.offer(file, size, "a/b")  # type: ignore[arg-type]
    client = await fetch_slowly(scene, ticket)
    small = offered(scene, b"x")
    before = -1
    while before != file.reached:  # until the buffers of the system are full
        before = file.reached
        for _ in range(20):
            await scene.ask("GET", small)
    assert 0 < file.reached < size // 4
    scene.spool.withdraw(ticket)
    client.transport.resumeProducing()
    client.transport.pauseProducing = lambda: None
    await client.end()
    head, _, body = client.received.partition(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % size in head + b"\r\n"
    assert len(body) < size // 4


async def fetch_slowly(scene: Scene, ticket: str) -> Client:
    endpoint = clientFromString(the_reactor(), f"tcp:127.0.0.1:{scene.port}")
    client: Client = await connectProtocol(endpoint, SlowClient())
    client.transport.write(f"GET {PATH}/{ticket} HTTP/1.1\r\nHost: gw\r\n\r\n".encode())
    return client


@bounded
async def test_device_goes_away(scene: Scene) -> None:
    """A device that leaves while it fetches does no harm, and may come back."""
    ticket = scene.spool.offer(Endless(), 2**30, "a/b")  # type: ignore[arg-type]
    with logged_failures() as failures:
        client = await fetch_slowly(scene, ticket)
        blob = scene.spool.fetch(ticket)
        while not client.received:
            await scene.ask("HEAD", ticket)
        client.transport.abortConnection()
        while blob._copies:
            await scene.ask("HEAD", ticket)
    assert failures == []


# Bringing


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("size", [0, 1, 1000, 1001, 300_000])
@bounded
async def test_bring(scene: Scene, method: str, size: int) -> None:
    """A body is brought once, whole, with its type, and its file is let go with it."""
    ticket = scene.spool.accept(300_000)
    body = b"z" * size
    answer = await scene.ask(method, ticket, body, Content_Type="image/png")
    assert (answer.code, answer.body) == (201, b"")
    check_problem(await scene.ask(method, ticket, b"other"), 409)
    check_problem(await scene.ask("GET", ticket), 404)
    blob = scene.spool.claim(ticket)
    assert blob is not None
    assert (blob.length, blob.content_type) == (size, "image/png")
    consumer = Consumer()
    passed = blob.pass_on(consumer)
    assert consumer.pull() == body
    assert await passed == size
    assert scene.mount.room.used == 0
    check_problem(await scene.ask(method, ticket, b"late"), 404)


@bounded
async def test_bring_too_much(scene: Scene) -> None:
    """More than what was allowed is refused; what is allowed may still be brought."""
    ticket = scene.spool.accept(2000)
    answer = await scene.ask("PUT", ticket, b"z" * 2001)
    assert answer.code == 413
    assert (await scene.ask("PUT", ticket, b"z" * 2000)).code == 201
    scene.spool.withdraw(ticket)
    assert scene.mount.room.used == 0


@bounded
async def test_bring_too_much_elsewhere(scene: Scene) -> None:
    """The limit holds, too, where who receives the body does not know it."""
    scene.mount.blobs.limit = lambda path: 10_000  # type: ignore[method-assign]
    ticket = scene.spool.accept(2000)
    check_problem(await scene.ask("PUT", ticket, b"z" * 2001), 413)
    assert scene.spool.claim(ticket) is None
    assert scene.mount.room.used == 0


@bounded
async def test_bring_without_ticket(scene: Scene) -> None:
    """Who has no ticket brings nothing, and takes hardly any room trying."""
    ticket = offered(scene, b"x")
    for wrong in ("", "x", ticket):
        for method in ("PUT", "POST"):
            check_problem(await scene.ask(method, wrong, b"z" * 5000), 404)
        assert (await scene.ask("PUT", wrong, b"z" * 100_000)).code == 413
        assert scene.mount.blobs.limit(f"{PATH}/{wrong}") == 65536
    assert scene.mount.room.used == 0
    accepted = scene.spool.accept(200_000)
    assert scene.mount.blobs.limit(f"{PATH}/{accepted}") == 200_000
    assert scene.mount.blobs.limit(f"/elsewhere/{accepted}") == 65536
    scene.spool.bring(accepted, BytesIO(), 0, "")
    with pytest.raises(Conflict):
        scene.spool.limit(accepted)
    assert scene.mount.blobs.limit(f"{PATH}/{accepted}") == 65536


# Whole exchanges


@bounded
async def test_form_and_upload(scene: Scene) -> None:
    """A device fetches a form, and brings a file as its answer, while its caller waits."""
    bench = scene.bench
    device = await bench.device(data=b'{"relay":{"upload":true}}')
    socket = await attach(bench, device)
    devices = scene.devices()
    form = b"a=1&b=\xff\x00"
    type_ = "application/x-www-form-urlencoded"
    sent = devices.send(
        device,
        Request(
            id="1", method="POST", query="/files", headers=(("Content-Type", type_),),
            body=BytesIO(form), size=len(form), gateway=f"http://127.0.0.1:{scene.port}",
        ),
    )  # fmt: skip
    asked: Deferred[Answer] = Deferred.fromCoroutine(sent)
    await bench.settle()
    (event,) = socket.events
    assert event.command is not None
    got = json.loads(event.command.parameters or b"")
    fetched = await request_url(scene, "GET", got["blobUrl"])
    assert (fetched.body, fetched.header("Content-Type")) == (form, type_)
    brought = await request_url(
        scene, "PUT", got["uploadUrl"], b"\x89PNG" * 50_000, Content_Type="image/png"
    )
    assert brought.code == 201
    socket.answer(event, json.dumps({"status": 404, "blobUrl": got["uploadUrl"]}).encode())
    answer = await asked
    assert (answer.status, answer.headers) == (200, (("Content-Type", "image/png"),))
    for url in (got["blobUrl"], got["uploadUrl"]):
        check_problem(await request_url(scene, "GET", url), 404)
    assert not isinstance(answer.body, bytes)
    consumer = Consumer()
    passed = answer.body.pass_on(consumer)
    assert consumer.pull() == b"\x89PNG" * 50_000
    assert await passed == 200_000
    assert scene.mount.room.used == 0
    assert left_over(bench, device) == []


async def request_url(
    scene: Scene, method: str, url: str, body: bytes | None = None, **headers: str
) -> Answered:
    base = f"http://127.0.0.1:{scene.port}"
    assert url.startswith(f"{base}{PATH}/")
    return await request(scene.port, method, url.removeprefix(base), body, **headers)
