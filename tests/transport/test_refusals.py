"""What the HTTP layer refuses, in the form of the API that was asked."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from twisted.web.resource import IResource

from gatewayd.transport.body import BodyRoom, BodyRules
from gatewayd.transport.request import GatewayRequest
from gatewayd.transport.rest import Answer
from gatewayd.transport.root import Root
from gatewayd.transport.websocket import WebSocketResource
from tests.transport.http_bench import Bench, Wire, assert_error, statuses
from tests.transport.http_bench import Root as Pages

PROBLEM = "application/problem+json"
LINE = b"POST /own/thing?key=secret HTTP/1.1\r\n"
HEAD = LINE + b"Host: gw\r\n"


class Own:
    """A mount that answers everything below ``/own`` in its own form, also what is no request."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
        return None

    def resource(self, path: str) -> IResource | None:
        return Pages()

    def body_rules(self, path: str, request: GatewayRequest) -> BodyRules | None:
        return BodyRules(1000, 20.0, 10, BodyRoom(100)) if path.startswith("/own/") else None

    def refusal(self, path: str, code: int) -> Answer | None:
        self.asked.append((path, code))
        if not path.startswith("/own/"):
            return None
        headers = {"Content-Type": PROBLEM, "Access-Control-Allow-Origin": "*"}
        return Answer(code, b'{"status":%d}' % code, headers)


@pytest.fixture(name="own")
def make_own() -> Own:
    return Own()


@pytest.fixture(name="bench")
def make_bench(own: Own) -> Bench:
    """Serve the mount on a fake clock."""
    return Bench(Root([own]), body=100)


def assert_own(wire: Wire, code: int) -> dict[str, str]:
    """Check that one answer in the mount's form ends the connection; return its headers."""
    head, _, body = wire.value().partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first.startswith(f"HTTP/1.1 {code} ")
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(headers) == len(lines)
    assert json.loads(body) == {"status": code}
    assert headers["Content-Length"] == str(len(body))
    assert headers["Content-Type"] == PROBLEM
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Connection"] == "close"
    assert wire.half_closed
    return headers


REFUSED = {
    "folded header": (HEAD + b"A: b\r\n c\r\n", 400),
    "no host": (LINE + b"\r\n", 400),
    "two lengths": (HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n", 400),
    "bad chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    "length": (HEAD + b"Content-Length: 1001\r\n\r\n", 413),
    "endless length": (HEAD + b"Content-Length: " + b"9" * 50 + b"\r\n\r\n", 413),
    "many headers": (HEAD + b"A: b\r\n" * 100, 431),
    "long header": (HEAD + b"A: " + b"b" * 20_000, 431),
    "no room": (HEAD + b"Content-Length: 101\r\n\r\n", 503),
}


@pytest.mark.parametrize("name", REFUSED)
def test_own_form(bench: Bench, own: Own, name: str) -> None:
    """As soon as the request line is known, its mount says what the refusal looks like."""
    data, code = REFUSED[name]
    headers = assert_own(bench.connect(data), code)
    assert own.asked == [("/own/thing", code)]
    assert ("Retry-After" in headers) is (code == 503)


@pytest.mark.parametrize("data", [HEAD, HEAD + b"Content-Length: 100\r\n\r\nabc"])
def test_own_form_of_a_deadline(bench: Bench, data: bytes) -> None:
    """Also when the rest of the request does not come."""
    wire = bench.connect(data)
    bench.advance(21)
    assert_own(wire, 408)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", 408),
        (b"POST /own/thi", 408),
        (b"POST /own/" + b"x" * 20_000, 431),
        (b"POST /own/thing\r\n", 400),
        (b"POST /own/\x80 HTTP/1.1\r\nHost: gw\r\n\r\n", 400),
    ],
)
def test_unknown_request_line(bench: Bench, own: Own, data: bytes, code: int) -> None:
    """Without a valid request line nobody can be asked."""
    wire = bench.connect(data)
    bench.advance(11)
    assert_error(wire.value(), code)
    assert own.asked == []


def test_path_of_nobody(bench: Bench, own: Own) -> None:
    """A path that no mount claims has the layer's own form."""
    wire = bench.connect(HEAD.replace(b"/own/", b"/other/") + b"Content-Length: 101\r\n\r\n")
    assert_error(wire.value(), 413)
    assert own.asked == [("/other/thing", 413)]


def test_path_of_the_request_before(bench: Bench, own: Own) -> None:
    """What comes after a request is not answered in that one's form."""
    wire = bench.connect(LINE.replace(b"thing", b"echo") + b"Host: gw\r\n\r\n")
    assert statuses(wire.value()) == [200]
    wire.clear()
    wire.protocol.dataReceived(b"nonsense\r\n")
    assert_error(wire.value(), 400)
    assert own.asked == []


def test_first_mount_that_refuses_wins() -> None:
    """Mounts are asked in their order, and those that have no form of their own are not."""

    class Plain:
        def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
            return None

        def resource(self, path: str) -> IResource | None:
            return None

    class Other(Own):
        def refusal(self, path: str, code: int) -> Answer | None:
            return Answer(code, b"other")

    answer = Root([Plain(), Own(), Other()]).refusal("/own/x", 400)
    assert answer is not None
    assert answer.body == b'{"status":400}'
    answer = Root([Plain(), Own(), Other()]).refusal("/x", 400)
    assert answer is not None
    assert answer.body == b"other"
    assert Root([Plain(), Own()]).refusal("/x", 400) is None
