"""Responses that a handler streams: their routes, beginning, end and failure."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.web.server import Request

from gatewayd.errors import BadAnswer, NoAnswer
from tests.transport.http_bench import logged_failures, statuses
from tests.transport.stream_scene import Scene, then


@pytest.fixture(name="scene")
def make_scene() -> Scene:
    """Serve on a fake clock."""
    return Scene()


@pytest.fixture(name="failures")
def collect_failures() -> Iterator[list[str]]:
    """Collect every traceback that is logged."""
    with logged_failures() as seen:
        yield seen


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


def test_failed_wait_is_the_handlers_own(scene: Scene) -> None:
    """What a handler waits for may fail before the client leaves; that is an answer."""
    then(scene)
    wire = scene.send()
    scene.api.waiting.errback(Failure(NoAnswer()))
    assert statuses(wire.value()) == [504]
