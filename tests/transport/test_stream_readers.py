"""Streamed responses whose readers go away, or do not read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.server import Request

from gatewayd.errors import BadAnswer, NoAnswer
from tests.transport.http_bench import Served, logged_failures, serve
from tests.transport.stream_scene import Scene, Source, Streams, Tap, then
from tests.transport.test_rest import Quoting


@pytest.fixture(name="scene")
def make_scene() -> Scene:
    """Serve on a fake clock."""
    return Scene()


@pytest.fixture(name="failures")
def collect_failures() -> Iterator[list[str]]:
    """Collect every traceback that is logged."""
    with logged_failures() as seen:
        yield seen


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
