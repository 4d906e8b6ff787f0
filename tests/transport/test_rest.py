"""JSON routes: encoding, error table, CORS, method override, ids with slashes, cancellation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs
import msgspec
import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException

from gatewayd.errors import Unavailable
from gatewayd.transport.rest import Answer, BadBody, JsonApp, plain_errors, read_json
from tests.transport.http_bench import Bench, Wire, logged_failures, serve, statuses

CORS = {"Access-Control-Allow-Origin": "*", "Access-Control-Max-Age": "0"}


class Refused(Exception):
    """An exception that the API's table knows."""


def table(error: Exception) -> Answer:
    """Translate errors as an API would, in a form that nobody else uses."""
    match error:
        case Refused():
            return Answer(403, b'{"oops":"refused"}', {"X-Why": "rule"})
        case BadBody():
            return Answer(400, msgspec.json.encode({"oops": str(error)}))
        case Unavailable():
            return Answer(500, b'{"oops":"store"}')
        case HTTPException():
            return Answer(error.code or 500, b'{"oops":"%d"}' % (error.code or 500))
        case LookupError():
            raise RuntimeError("a bug in the table")
    return Answer(500, b'{"oops":"500"}')


class Things:
    """An API that is bound to an instance."""

    app = JsonApp(table, cors=CORS, method_override=True)

    def __init__(self) -> None:
        self.waiting: Deferred[None] = Deferred()
        self.cancelled: Deferred[None] = Deferred()
        self.changed = False

    @app.json_route("/things/<seg:name>", methods=["GET"])
    async def get(self, request: Request, name: str) -> Any:
        return {"name": name}

    @app.json_route("/things/<seg:name>", methods=["PUT", "DELETE"], status=204)
    async def put(self, request: Request, name: str) -> None:
        return None

    @app.json_route("/things", methods=["POST"], status=201)
    async def post(self, request: Request) -> Any:
        return read_json(request)

    @app.json_route("/raise/<seg:what>", methods=["GET"])
    async def fail(self, request: Request, what: str) -> Any:
        errors = {
            "refused": Refused(), "bug": RuntimeError("secret"), "store": Unavailable(),
            "table": LookupError(),
        }  # fmt: skip
        if what in errors:
            raise errors[what]
        return object()

    @app.json_route("/answer", methods=["GET"])
    async def answer(self, request: Request) -> Answer:
        return Answer(202, b"<x/>", {"Content-Type": "text/xml"})

    @app.json_route("/bytes", methods=["GET"])
    async def encoded(self, request: Request) -> bytes:
        return b"[1]"

    @app.json_route("/change", methods=["PUT"], status=204)
    async def change(self, request: Request) -> None:
        try:
            await self.waiting
        except CancelledError:
            self.cancelled.callback(None)
        self.changed = True

    @app.json_route("/wait", methods=["GET"], cancellable=True)
    async def wait(self, request: Request) -> None:
        try:
            await self.waiting
        except CancelledError:
            self.cancelled.callback(None)
            raise


@attrs.define
class Reply:
    """One parsed response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def parse(data: bytes) -> Reply:
    """Parse one response that has a Content-Length or no body."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    assert first.startswith("HTTP/1.1 ")
    headers = dict(line.split(": ", 1) for line in lines)
    assert "Transfer-Encoding" not in headers
    return Reply(int(first[9:12]), headers, body)


class Quoting(Resource):
    """Quote the segments again, as the daemon's root does."""

    def __init__(self, inner: IResource) -> None:
        super().__init__()
        self.isLeaf = True
        self.inner = inner

    def render(self, request: Request) -> Any:
        request.postpath = [
            segment.replace(b"%", b"%25").replace(b"/", b"%2F")
            for segment in request.postpath or ()
        ]
        return self.inner.render(request)


class Api:
    """A bound API behind a site in memory."""

    def __init__(self) -> None:
        self.things = Things()
        self.bench = Bench(Quoting(self.things.app.resource()))

    def send(self, target: str, *headers: str, method: str = "GET", body: bytes = b"") -> Wire:
        lines = [f"{method} {target} HTTP/1.1", "Host: gw", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return self.bench.connect("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def ask(self, target: str, *headers: str, method: str = "GET", body: bytes = b"") -> Reply:
        return parse(self.send(target, *headers, method=method, body=body).value())


@pytest.fixture(name="api")
def make_api() -> Api:
    """Serve the API on a fake clock."""
    return Api()


@pytest.fixture(name="failures")
def collect_failures() -> Iterator[list[str]]:
    """Collect every traceback that is logged."""
    with logged_failures() as seen:
        yield seen


# ---- answers


def test_result_is_encoded(api: Api) -> None:
    """A handler's result becomes JSON of known length, never chunked."""
    reply = api.ask("/things/a")
    assert (reply.status, reply.json) == (200, {"name": "a"})
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Content-Length"] == str(len(reply.body))


def test_encoded_result_and_complete_answer(api: Api) -> None:
    """Bytes are sent as they are, and an answer brings its own status and content type."""
    assert api.ask("/bytes").body == b"[1]"
    reply = api.ask("/answer")
    assert (reply.status, reply.body) == (202, b"<x/>")
    assert reply.headers["Content-Type"] == "text/xml"


def test_no_content(api: Api) -> None:
    """A 204 has neither body nor length nor type."""
    reply = api.ask("/things/a", method="PUT")
    assert (reply.status, reply.body) == (204, b"")
    assert not {"Content-Length", "Content-Type"} & set(reply.headers)


def test_head(api: Api, failures: list[str]) -> None:
    """HEAD has the headers of GET without its body, for errors as well."""
    reply, full = api.ask("/things/a", method="HEAD"), api.ask("/things/a")
    assert reply.body == b""
    assert reply.headers["Content-Length"] == full.headers["Content-Length"]
    reply = api.ask("/nowhere", method="HEAD")
    assert (reply.status, reply.body) == (404, b"")
    assert reply.headers["Content-Length"] == "14"
    assert failures == []


def test_http_1_0_client(api: Api) -> None:
    """A client without chunked encoding gets a plain body and then the end."""
    wire = api.bench.connect(b"GET /bytes HTTP/1.0\r\n\r\n")
    assert wire.value().endswith(b"Content-Length: 3\r\n\r\n[1]")
    assert wire.disconnecting


# ---- errors


def test_known_error(api: Api, failures: list[str]) -> None:
    """An exception that the table knows is answered as the table says, and not logged."""
    reply = api.ask("/raise/refused")
    assert (reply.status, reply.json) == (403, {"oops": "refused"})
    assert reply.headers["X-Why"] == "rule"
    assert api.ask("/raise/store").json == {"oops": "store"}
    assert failures == []


@pytest.mark.parametrize(("what", "text"), [("bug", "secret"), ("object", "object")])
def test_unknown_error(api: Api, failures: list[str], what: str, text: str) -> None:
    """What nobody expected is logged once and answered with the table's 500."""
    reply = api.ask(f"/raise/{what}")
    assert (reply.status, reply.json) == (500, {"oops": "500"})
    assert len(failures) == 1
    assert text in failures[0]


def test_failing_table(api: Api, failures: list[str]) -> None:
    """A bug in the table itself still ends in an answer."""
    reply = api.ask("/raise/table")
    assert (reply.status, reply.json) == (500, {"error": 500, "message": "Internal Server Error"})
    assert len(failures) == 2


def test_unknown_path_and_wrong_method(api: Api, failures: list[str]) -> None:
    """404 and 405 have the API's own form, and 405 says what is allowed."""
    for path in ("/", "/nowhere", "/things//a", "/things/a/b", "/things/a//"):
        reply = api.ask(path)
        assert (reply.status, reply.json) == (404, {"oops": "404"})
        assert reply.headers["Content-Type"] == "application/json"
    reply = api.ask("/things/a", method="POST", body=b"{}")
    assert (reply.status, reply.json) == (405, {"oops": "405"})
    assert reply.headers["Allow"] == "DELETE, GET, HEAD, PUT"
    assert failures == []


@pytest.mark.parametrize(
    ("target", "host"), [("/things/%FF", "gw"), ("/things/a", "a..b"), ("/things/a", "a" * 70)]
)
def test_undecodable_path_or_host(api: Api, failures: list[str], target: str, host: str) -> None:
    """A path that is not UTF-8 or a host that is no name is the client's error, not ours."""
    data = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("ascii")
    reply = parse(api.bench.connect(data).value())
    assert (reply.status, reply.json) == (400, {"oops": "400"})
    assert failures == []


def test_plain_errors() -> None:
    """An API without a table has the error form of the HTTP layer."""
    app = JsonApp()

    @app.json_route("/body", methods=["POST"])
    async def body(request: Request) -> Any:
        return read_json(request)

    bench = Bench(Quoting(app.resource()))
    reply = parse(bench.connect(b"GET /x HTTP/1.1\r\nHost: gw\r\n\r\n").value())
    assert (reply.status, reply.json) == (404, {"error": 404, "message": "Not Found"})
    reply = parse(bench.connect(b"POST /body HTTP/1.1\r\nHost: gw\r\n\r\n").value())
    assert (reply.status, reply.json) == (400, {"error": 400, "message": "not JSON"})
    assert plain_errors(RuntimeError("secret")).status == 500


def test_same_request_again(api: Api) -> None:
    """What was found for a request is not taken for another method, host or id."""
    for _ in range(2):
        assert api.ask("/things/a").json == {"name": "a"}
        assert api.ask("/things/b").json == {"name": "b"}
        assert api.ask("/things/a", method="DELETE").status == 204
        assert api.ask("/things/a", method="PATCH").status == 405
        assert api.ask("/things/c/d").status == 404
        refused = api.bench.connect(b"GET /things/a HTTP/1.1\r\nHost: a..b\r\n\r\n")
        assert parse(refused.value()).status == 400


def test_long_path(api: Api) -> None:
    """An id may be as long as the line is."""
    for _ in range(2):
        assert api.ask("/things/" + "a" * 2000).json == {"name": "a" * 2000}


def test_trailing_slash(api: Api) -> None:
    """A trailing slash is tolerated, and never answered with a redirect."""
    assert api.ask("/things/a/").json == {"name": "a"}


# ---- bodies


@pytest.mark.parametrize(
    "content_type", [None, "application/json", "text/plain", 'a/b; x=y; Charset="UTF-8"']
)
def test_read_json(api: Api, content_type: str | None) -> None:
    """Any content type will do, and none as well."""
    headers = [f"Content-Type: {content_type}"] if content_type else []
    reply = api.ask("/things", *headers, method="POST", body=b'{"a":"\xc3\xa9"}')
    assert (reply.status, reply.json) == (201, {"a": "\u00e9"})


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{} x", "not JSON"),
        (b"NaN", "not JSON"),
        (b"9" * 10_000, "not JSON"),
        (b'"\\ud800"', "not JSON"),
        (b'"\xff"', "not UTF-8"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    ],
)
def test_bad_body(api: Api, failures: list[str], body: bytes, why: str) -> None:
    """A body that is not JSON is refused in the API's form, whatever is wrong with it."""
    reply = api.ask("/things", method="POST", body=body)
    assert (reply.status, reply.json) == (400, {"oops": why})
    assert failures == []


def test_unsupported_charset(api: Api) -> None:
    """JSON in another charset than UTF-8 is refused instead of misread."""
    reply = api.ask("/things", "Content-Type: a/b; charset=latin-1", method="POST", body=b"{}")
    assert (reply.status, reply.json) == (400, {"oops": "unsupported charset"})


@given(body=st.binary(min_size=1, max_size=40))
def test_any_body(body: bytes) -> None:
    """Any bytes are either JSON or the client's error."""
    with logged_failures() as failures:
        assert Api().ask("/things", method="POST", body=body).status in (201, 400)
    assert failures == []


# ---- paths


@pytest.mark.parametrize(
    ("segment", "name"),
    [
        ("a%2Fb%25c%20d", "a/b%c d"),
        ("%252F", "%2F"),
        ("%C3%A9+x", "\u00e9+x"),
        ("a;b=c,d", "a;b=c,d"),
        ("..", ".."),
    ],
)
def test_any_character_in_an_id(api: Api, segment: str, name: str) -> None:
    """A segment is decoded exactly once, an encoded slash included."""
    assert api.ask(f"/things/{segment}").json == {"name": name}


# ---- CORS and method override


def test_cors_on_every_response(api: Api, failures: list[str]) -> None:
    """A browser may read every answer, errors as well."""
    for path in ("/things/a", "/nowhere", "/raise/bug", "/raise/refused", "/things/%FF"):
        reply = api.ask(path)
        assert CORS.items() <= reply.headers.items()
    assert len(failures) == 1


@pytest.mark.parametrize("path", ["/things/a", "/nowhere", "/things/%FF"])
def test_preflight(api: Api, path: str) -> None:
    """OPTIONS is answered for every path with an empty 200."""
    reply = api.ask(path, method="OPTIONS")
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["Content-Length"] == "0"
    assert CORS.items() <= reply.headers.items()


def test_own_preflight() -> None:
    """An API may answer the preflight with 204, which has no length."""
    app = JsonApp(table, cors=CORS, preflight=Answer(204, headers={"X-A": "b"}))
    bench = Bench(Quoting(app.resource()))
    reply = parse(bench.connect(b"OPTIONS /x HTTP/1.1\r\nHost: gw\r\n\r\n").value())
    assert (reply.status, reply.headers["X-A"]) == (204, "b")
    assert "Content-Length" not in reply.headers


def test_preflight_of_a_request() -> None:
    """What answers a preflight may depend on what is asked."""

    def preflight(request: Request) -> Answer:
        return Answer(204, headers={"X-A": request.getHeader("X-B") or ""})

    bench = Bench(Quoting(JsonApp(table, cors=CORS, preflight=preflight).resource()))
    reply = parse(bench.connect(b"OPTIONS /x HTTP/1.1\r\nHost: gw\r\nX-B: c\r\n\r\n").value())
    assert (reply.status, reply.headers["X-A"]) == (204, "c")
    assert CORS.items() <= reply.headers.items()


@pytest.mark.parametrize(
    ("override", "status"), [("PUT", 204), ("delete", 204), ("OPTIONS", 200), ("PATCH", 405)]
)
def test_method_override(api: Api, override: str, status: int) -> None:
    """A POST may stand for another method, for clients that know only GET and POST."""
    reply = api.ask("/things/a", f"X-HTTP-Method-Override: {override}", method="POST")
    assert reply.status == status


def test_override_with_head(api: Api) -> None:
    """A POST that stands for HEAD is still framed as the answer to a POST."""
    reply = api.ask("/things/a", "X-HTTP-Method-Override: HEAD", method="POST")
    assert (reply.status, reply.body, reply.headers["Content-Length"]) == (200, b"", "0")


def test_override_only_of_post(api: Api) -> None:
    """The header means nothing on another method."""
    assert api.ask("/things/a", "X-HTTP-Method-Override: DELETE").status == 200


# ---- disconnect


@pytest.mark.parametrize("reason", [ConnectionDone(), ConnectionLost()])
def test_disconnect_cancels_the_handler(api: Api, failures: list[str], reason: Exception) -> None:
    """A client that leaves ends its handler, and nothing is logged."""
    wire = api.send("/wait")
    assert not api.things.cancelled.called
    wire.end(reason)
    assert api.things.cancelled.called
    assert failures == []
    assert api.bench.clean


@pytest.mark.parametrize("bug", [False, True])
def test_disconnect_leaves_a_change_alone(api: Api, failures: list[str], bug: bool) -> None:
    """What changes something runs to its end though the client has left."""
    wire = api.send("/change", method="PUT")
    wire.end(ConnectionLost())
    assert not api.things.cancelled.called
    if bug:
        api.things.waiting.errback(RuntimeError("only the log hears of it"))
    else:
        api.things.waiting.callback(None)
    assert api.things.changed is not bug
    assert len(failures) == bug
    assert api.bench.clean


@pytest_twisted.ensureDeferred
async def test_real_client(failures: list[str]) -> None:
    """On real sockets two pipelined requests are answered and a disconnect cancels the third."""
    things = Things()
    endpoint = TCP4ServerEndpoint(real_reactor, 0, interface="127.0.0.1")
    served = await serve(endpoint, Quoting(things.app.resource()))
    get = b"GET %s HTTP/1.1\r\nHost: gw\r\nConnection: %s\r\n\r\n"
    client = await served.connect(get % (b"/bytes", b"x") + get % (b"/nowhere", b"close"))
    await client.end()
    assert statuses(client.received) == [200, 404]
    client = await served.connect(get % (b"/wait", b"x"))
    client.transport.loseConnection()
    await things.cancelled.addTimeout(10, real_reactor)  # type: ignore[arg-type]
    await client.end()
    assert failures == []
    await served.stop()
