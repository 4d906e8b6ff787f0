"""An API with streamed routes behind a site in memory, and producers for its responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException
from zope.interface import implementer

from gatewayd.errors import NoAnswer
from gatewayd.transport.rest import Answer, JsonApp
from tests.transport.http_bench import Bench, Wire
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
