"""Responses that a handler streams: their beginning, end, failure, and readers that go away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException
from zope.interface import implementer

from gatewayd.errors import BadAnswer, NoAnswer
from gatewayd.transport.rest import Answer, JsonApp
from tests.transport.http_bench import Bench, Served, Wire, logged_failures, serve, statuses
from tests.transport.test_rest import Quoting, Reply, parse

CORS = {"Access-Control-Allow-Origin": "*"}
PIECE = b"x" * 64 * 1024


def table(error: Exception) -> Answer:
    """Translate errors as an API would."""
    match error:
        case NoAnswer():
            return Answer(504, b'{"oops":"device"}')
        case HTTPException():
            return Answer(error.code or 500, b'{"oops":"http"}')
    return Answer(500, b'{"oops":"500"}')


@implementer(IPushProducer)
class Source:
    """A push producer that notes what it is told, and writes while it may."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.stopped: Deferred[None] = Deferred()

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")
        self.stopped.callback(None)


@implementer(IPullProducer)
class Tap:
    """A pull producer without an end; it counts how often it was asked for more after it."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.stopped: Deferred[None] = Deferred()
        self.late = 0

    def resumeProducing(self) -> None:
        self.late += self.stopped.called
        self.request.write(PIECE)

    def stopProducing(self) -> None:
        self.stopped.callback(None)


class Streams:
    """An API with streamed routes."""

    app = JsonApp(table, cors=CORS, preflight_only=True)

    def __init__(self) -> None:
        self.handler: Callable[[Request], Any] | None = None
        self.waiting: Deferred[None] = Deferred()
        self.ended: list[str] = []

    @app.stream_route("/stream/<seg:name>")
    async def stream(self, request: Request, name: str) -> None:
        """Do what a test wants, between a beginning and an end that are noted."""
        self.ended.append(f"begun {name}")
        try:
            assert self.handler is not None
            await self.handler(request)
        except CancelledError:
            self.ended.append("cancelled")
            raise
        except Exception:
            self.ended.append("failed")
            raise
        self.ended.append("done")

    @app.stream_route("/read-only", methods=["GET"])
    async def read_only(self, request: Request) -> None:
        request.write(b"read")

    @app.json_route("/json", methods=["GET"])
    async def json(self, request: Request) -> Any:
        return {}


class Scene:
    """The API behind a site in memory."""

    def __init__(self) -> None:
        self.api = Streams()
        self.bench = Bench(Quoting(self.api.app.resource()))

    def send(self, method: str = "GET", path: str = "/stream/a", *headers: str) -> Wire:
        lines = [f"{method} {path} HTTP/1.1", "Host: gw", *headers, "", ""]
        return self.bench.connect("\r\n".join(lines).encode())

    def ask(self, method: str = "GET", path: str = "/stream/a", *headers: str) -> Reply:
        return parse(self.send(method, path, *headers).value())


@pytest.fixture(name="scene")
def make_scene() -> Scene:
    """Serve on a fake clock."""
    return Scene()


@pytest.fixture(name="failures")
def collect_failures() -> Iterator[list[str]]:
    """Collect every traceback that is logged."""
    with logged_failures() as seen:
        yield seen


def then(scene: Scene, *pieces: bytes, error: Exception | None = None, **headers: str) -> None:
    """Let the handler write, wait, and end or fail."""

    async def handle(request: Request) -> None:
        for name, value in headers.items():
            request.setHeader(name.replace("_", "-"), value)
        for piece in pieces:
            request.write(piece)
        await scene.api.waiting
        if error is not None:
            raise error

    scene.api.handler = handle


# ---- routes


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "REPORT", "OPTIONS"])
def test_any_method(scene: Scene, method: str) -> None:
    """Without methods a route takes every one, and its segments as any other."""
    scene.api.waiting.callback(None)
    then(scene, b"body", Content_Length="4")
    reply = scene.ask(method, "/stream/a%2Fb")
    assert (reply.status, reply.body) == (200, b"body")
    assert scene.api.ended == ["begun a/b", "done"]
    assert reply.headers["Access-Control-Allow-Origin"] == "*"


def test_some_methods(scene: Scene) -> None:
    """With methods all others are 405."""
    assert scene.send("GET", "/read-only").value().endswith(b"4\r\nread\r\n0\r\n\r\n")
    reply = scene.ask("PUT", "/read-only")
    assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD")


ASKED = ("Origin: http://a", "Access-Control-Request-Method: PUT")


@pytest.mark.parametrize("path", ["/stream/a", "/json", "/nowhere"])
def test_only_preflights_are_answered(scene: Scene, path: str) -> None:
    """What a browser asks beforehand is answered without a route, any other OPTIONS is routed."""
    reply = scene.ask("OPTIONS", path, *ASKED)
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["Access-Control-Allow-Origin"] == "*"
    assert scene.api.ended == []


@pytest.mark.parametrize("headers", [ASKED[:1], ASKED[1:], ()])
def test_other_options_are_routed(scene: Scene, headers: tuple[str, ...]) -> None:
    """Either header alone makes no preflight."""
    assert scene.ask("OPTIONS", "/json", *headers).status == 405
    assert scene.ask("OPTIONS", "/nowhere", *headers).status == 404


# ---- ends


def test_pieces_arrive_as_they_are_written(scene: Scene, failures: list[str]) -> None:
    """The head and each piece are sent at once, the end when the handler ends."""
    then(scene, b"one", b"two")
    wire = scene.send()
    assert wire.value().endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n")
    scene.api.waiting.callback(None)
    assert wire.value().endswith(b"two\r\n0\r\n\r\n")
    assert failures == []


def test_connection_is_kept(scene: Scene) -> None:
    """After the end the connection takes the next request."""
    then(scene, b"abc", Content_Length="3")
    wire = scene.send()
    wire.protocol.dataReceived(b"GET /json HTTP/1.1\r\nHost: gw\r\n\r\n")
    assert statuses(wire.value()) == [200]
    scene.api.waiting.callback(None)
    assert statuses(wire.value()) == [200, 200]


def test_handler_that_writes_nothing(scene: Scene) -> None:
    """A handler that only sets the status has an empty answer."""

    async def handle(request: Request) -> None:
        request.setResponseCode(204)

    scene.api.handler = handle
    reply = scene.ask()
    assert (reply.status, reply.body) == (204, b"")


def test_head(scene: Scene, failures: list[str]) -> None:
    """HEAD has the headers that the handler sets, and nothing of what it writes."""
    scene.api.waiting.callback(None)
    then(scene, b"one", b"two", Content_Length="6")
    reply = scene.ask("HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["Content-Length"] == "6"
    assert scene.api.ended == ["begun a", "done"]
    assert failures == []


# ---- errors


def test_error_before_the_head(scene: Scene, failures: list[str]) -> None:
    """Until something is written, an error is answered by the table, without a trace of before."""
    scene.api.waiting.callback(None)
    then(scene, error=NoAnswer(), Content_Length="99", Content_Type="a/b", Content_Disposition="c")
    reply = scene.ask()
    assert (reply.status, reply.json) == (504, {"oops": "device"})
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Content-Length"] == str(len(reply.body))
    assert "Content-Disposition" not in reply.headers
    assert reply.headers["Access-Control-Allow-Origin"] == "*"
    assert failures == []


def test_defect_before_the_head(scene: Scene, failures: list[str]) -> None:
    """What nobody expected is logged once, and is the table's 500."""
    scene.api.waiting.callback(None)
    then(scene, error=RuntimeError("a bug"))
    assert scene.ask().json == {"oops": "500"}
    assert len(failures) == 1


@pytest.mark.parametrize(
    ("error", "logged"), [(BadAnswer(), 0), (CancelledError(), 0), (RuntimeError("a bug"), 1)]
)
@pytest.mark.parametrize("late", [False, True])
def test_error_after_the_head(
    scene: Scene, failures: list[str], error: Exception, logged: int, late: bool
) -> None:
    """A part cannot pass for the whole: the connection is cut off, and only defects are logged."""
    if not late:
        scene.api.waiting.callback(None)
    then(scene, b"part", error=error)
    wire = scene.send()
    if late:
        assert not wire.disconnected
        scene.api.waiting.callback(None)
    assert wire.disconnected
    assert wire.value().endswith(b"4\r\npart\r\n")
    assert len(failures) == logged
    assert scene.bench.clean


# ---- readers that go away


@pytest.mark.parametrize("pieces", [(), (b"part",)])
@pytest.mark.parametrize("reason", [ConnectionDone(), ConnectionLost()])
def test_disconnect_cancels(
    scene: Scene, failures: list[str], pieces: tuple[bytes, ...], reason: Exception
) -> None:
    """A client that leaves ends its handler, before and after the head, and nothing is logged."""
    then(scene, *pieces)
    wire = scene.send()
    wire.end(reason)
    assert scene.api.ended == ["begun a", "cancelled"]
    assert failures == []
    assert scene.bench.clean


@pytest.mark.parametrize(
    ("error", "logged"), [(NoAnswer(), 0), (None, 0), (RuntimeError("a bug"), 1)]
)
def test_end_after_a_disconnect(
    scene: Scene, failures: list[str], error: Exception | None, logged: int
) -> None:
    """A cancelled handler may end as it likes: nobody is answered, only a defect is logged."""

    async def handle(request: Request) -> None:
        try:
            await scene.api.waiting
        except CancelledError:
            request.write(b"to nobody")
            if error is not None:
                raise error from None

    scene.api.handler = handle
    wire = scene.send()
    wire.end(ConnectionLost())
    assert scene.api.ended == ["begun a", "failed" if error else "done"]
    assert wire.value() == b""
    assert len(failures) == logged


def with_source(scene: Scene, source: Any, *, tidy: bool = False) -> None:
    """Let the handler register a push producer and wait; a tidy one then takes it back."""

    async def handle(request: Request) -> None:
        request.write(b"part")
        request.registerProducer(source, True)
        try:
            await scene.api.waiting
        finally:
            if tidy:
                request.unregisterProducer()

    scene.api.handler = handle


@pytest.mark.parametrize("tidy", [False, True])
def test_disconnect_stops_the_producer_once(scene: Scene, failures: list[str], tidy: bool) -> None:
    """A producer is stopped once, or not at all if the cancelled handler has taken it back."""
    source = Source()
    with_source(scene, source, tidy=tidy)
    wire = scene.send()
    wire.protocol.stopProducing()  # as a transport does that is lost
    assert source.told == []
    wire.end(ConnectionLost())
    assert source.told == ([] if tidy else ["stop"])
    assert scene.api.ended == ["begun a", "cancelled"]
    assert failures == []


@pytest_twisted.ensureDeferred
async def test_pull_producer_is_asked_no_more(scene: Scene) -> None:
    """Nobody asks a pull producer to go on when it is stopped."""
    taps: list[Tap] = []

    async def handle(request: Request) -> None:
        taps.append(Tap(request))
        request.registerProducer(taps[0], False)
        await scene.api.waiting

    scene.api.handler = handle
    scene.send().end(ConnectionLost())
    assert taps[0].stopped.called
    for _ in range(3):
        await deferLater(real_reactor, 0)  # type: ignore[arg-type]
    assert taps[0].late == 0


def test_producer_that_comes_too_late(scene: Scene, failures: list[str]) -> None:
    """A producer that is registered when the client is gone is stopped at once."""
    source = Source()

    async def handle(request: Request) -> None:
        try:
            await scene.api.waiting
        except CancelledError:
            request.registerProducer(source, True)
            request.unregisterProducer()

    scene.api.handler = handle
    scene.send().end(ConnectionLost())
    assert source.told == ["stop"]
    assert failures == []


def test_producer_is_paused_with_the_client(scene: Scene) -> None:
    """A producer is told when the client does not read, and a client that never does is cut off."""
    source = Source()
    with_source(scene, source)
    wire = scene.send()
    for _ in range(3):
        wire.protocol.pauseProducing()
        scene.bench.advance(8)
        wire.protocol.resumeProducing()
    assert source.told == ["pause", "resume"] * 3
    wire.protocol.pauseProducing()
    scene.bench.advance(11)
    assert wire.disconnected
    assert source.told[-2:] == ["pause", "stop"]
    assert scene.api.ended == ["begun a", "cancelled"]


def test_producer_waits_for_what_was_sent_before(scene: Scene) -> None:
    """While the client has not read the answer before, a new producer does not begin."""
    source = Source()
    with_source(scene, source)
    wire = scene.bench.connect()
    wire.protocol.pauseProducing()
    wire.protocol.dataReceived(b"GET /stream/a HTTP/1.1\r\nHost: gw\r\n\r\n")
    assert source.told == ["pause"]
    wire.protocol.resumeProducing()
    assert source.told == ["pause", "resume"]


# ---- real sockets


async def serve_streams(streams: Streams, **limits: Any) -> Served:
    """Serve the API on a free port of 127.0.0.1."""
    endpoint = TCP4ServerEndpoint(real_reactor, 0, interface="127.0.0.1")
    return await serve(endpoint, Quoting(streams.app.resource()), **limits)


GET = b"GET /stream/a HTTP/1.1\r\nHost: gw\r\n\r\n"


@pytest.mark.parametrize("reads", [True, False])
@pytest_twisted.ensureDeferred
async def test_real_client_that_leaves(reads: bool, failures: list[str]) -> None:
    """A client that leaves, or does not read, ends an endless response and its producer."""
    scene = Scene()
    taps: list[Tap] = []

    async def handle(request: Request) -> None:
        taps.append(Tap(request))
        request.registerProducer(taps[0], False)
        await scene.api.waiting

    scene.api.handler = handle
    served = await serve_streams(scene.api, stall_seconds=0.1)
    client = await served.connect(GET)
    more = client.dataReceived
    begun: Deferred[None] = Deferred()

    def receive(data: bytes) -> None:
        more(data)
        if len(client.received) > 1_000_000 and not begun.called:
            begun.callback(None)

    client.dataReceived = receive  # type: ignore[method-assign]
    await begun.addTimeout(10, real_reactor)  # type: ignore[arg-type]
    if reads:
        client.transport.abortConnection()
    else:
        client.transport.pauseProducing()
    await taps[0].stopped.addTimeout(10, real_reactor)  # type: ignore[arg-type]
    client.transport.resumeProducing()
    await client.end()
    assert scene.api.ended == ["begun a", "cancelled"]
    assert failures == []
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_real_client_sees_that_it_is_cut_off(failures: list[str]) -> None:
    """An error in the middle resets the connection, and the response is never finished."""
    scene = Scene()
    outcomes: list[object] = []

    async def handle(request: Request) -> None:
        request.notifyFinish().addBoth(outcomes.append)
        request.write(b"part")
        await scene.api.waiting
        raise BadAnswer("cut short")

    scene.api.handler = handle
    served = await serve_streams(scene.api)
    client = await served.connect(GET)
    begun: Deferred[None] = Deferred()
    client.dataReceived = lambda data: begun.callback(None)  # type: ignore[method-assign]
    await begun.addTimeout(10, real_reactor)  # type: ignore[arg-type]
    scene.api.waiting.callback(None)
    assert isinstance(await client.end(), ConnectionLost)
    assert [type(outcome) for outcome in outcomes] == [Failure]
    assert failures == []
    await served.stop()


def test_failed_wait_is_the_handlers_own(scene: Scene) -> None:
    """What a handler waits for may fail before the client leaves; that is an answer."""
    then(scene)
    wire = scene.send()
    scene.api.waiting.errback(Failure(NoAnswer()))
    assert statuses(wire.value()) == [504]
