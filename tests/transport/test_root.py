"""The root resource: which API gets which request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from klein import Klein
from twisted.internet.task import Clock
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site

from gatewayd.transport.root import Mount, Root
from gatewayd.transport.websocket import WebSocketResource
from tests.transport.conftest import MakeMemory, Wire, handshake


class Page(Resource):
    """Answers with its name."""

    def __init__(self, name: bytes) -> None:
        super().__init__()
        self.isLeaf = True
        self._name = name

    def render_GET(self, request: Any) -> bytes:
        return self._name


@attrs.define
class FakeMount:
    """A mount that answers the paths it is given, and notes what it was asked."""

    pages: dict[str, IResource] = attrs.Factory(dict)
    sockets: dict[str, WebSocketResource] = attrs.Factory(dict)
    asked: list[Any] = attrs.Factory(list)

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
        self.asked.append((path, list(subprotocols)))
        return self.sockets.get(path)

    def resource(self, path: str) -> IResource | None:
        self.asked.append(path)
        return self.pages.get(path)


def get(data: bytes, *mounts: Mount) -> tuple[int, bytes, bytes]:
    """The status, head and body of the answer to *data*."""
    clock = Clock()
    wire = Wire(clock)
    wire.protocol = Site(Root(mounts), timeout=None, reactor=clock).buildProtocol(wire.getPeer())
    wire.protocol.makeConnection(wire)
    wire.protocol.dataReceived(data)
    head, _, body = wire.value().partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


def plain(path: str, *lines: str) -> bytes:
    """A request without an upgrade."""
    return "\r\n".join([f"GET {path} HTTP/1.1", *(lines or ("Host: x",)), "", ""]).encode()


def test_first_mount_that_answers_wins() -> None:
    """Mounts are asked in their order."""
    first, second = FakeMount({"/a": Page(b"1")}), FakeMount({"/a": Page(b"2"), "/b": Page(b"2")})
    assert get(plain("/a"), first, second)[2] == b"1"
    assert get(plain("/b"), first, second)[2] == b"2"
    assert second.asked == ["/b"]


def test_nobody_answers() -> None:
    """What no mount knows is 404 with a JSON body and its length."""
    for data in (plain("/"), plain("/a/b?c=d"), handshake(path="/ws")):
        code, head, body = get(data, FakeMount())
        assert code == 404
        assert body == b'{"error":404,"message":"HTTP 404 Not Found"}'
        assert b"Content-Length: %d" % len(body) in head
        assert b"Content-Type: application/json" in head


def test_upgrade_header_decides(memory: MakeMemory) -> None:
    """One path serves WebSocket requests and all others."""
    mount = FakeMount({"/ws": Page(b"page")}, {"/ws": memory().resource})
    assert get(plain("/ws"), mount)[2] == b"page"
    assert get(plain("/ws", "Host: x", "Upgrade: h2c"), mount)[2] == b"page"
    assert get(handshake(path="/ws"), mount)[0] == 101
    assert get(handshake(("Upgrade", "x, WebSocket"), path="/ws"), mount)[0] == 101


def test_mounts_see_the_subprotocols(memory: MakeMemory) -> None:
    """All that the client offers, in its order and spelling, from all header lines."""
    mount = FakeMount()
    name = "Sec-WebSocket-Protocol"
    get(handshake((name, "b, A"), (name, "c"), path="/x/y?z=1"), mount)
    assert mount.asked == [("/x/y", ["b", "A", "c"])]


def test_mounts_see_the_raw_path() -> None:
    """The path is not decoded and has no query."""
    mount = FakeMount()
    get(plain("/a%2Fb/%C3%A9//c?d=%20"), mount)
    assert mount.asked == ["/a%2Fb/%C3%A9//c"]


@pytest.mark.parametrize("lines", [("Accept: */*",), ("Host: a", "Host: b")])
def test_host_is_needed_once(lines: tuple[str, ...]) -> None:
    """Without a Host header, or with two, the request is refused before anything else."""
    mount = FakeMount({"/": Page(b"page")})
    code, head, body = get(plain("/", *lines), mount)
    assert code == 400
    assert json.loads(body)["error"] == 400
    assert b"Content-Length" in head
    assert mount.asked == []


def test_old_clients_need_no_host() -> None:
    """HTTP/1.0 knows no Host header."""
    mount = FakeMount({"/": Page(b"page")})
    assert get(b"GET / HTTP/1.0\r\n\r\n", mount)[2] == b"page"


def test_encoded_slashes_reach_the_routes() -> None:
    """A segment that contains an encoded slash stays one segment in Klein's routes."""
    app = Klein()

    @app.route("/device/<device>/end")
    def device(request: Any, device: str) -> bytes:
        return device.encode()

    mount = FakeMount({"/device/a%2Fb%25c%20d/end": app.resource()})
    _, _, body = get(plain("/device/a%2Fb%25c%20d/end"), mount)
    assert b"a%2Fb%25c d" in body


class Http2Channel:
    """What a request of an HTTP/2 connection has as its channel."""

    transport = None


def test_http2_is_sent_to_http1(memory: MakeMemory) -> None:
    """A WebSocket request over HTTP/2 is answered with 426, and not upgraded."""
    answered: list[Any] = []

    class Request:
        channel = Http2Channel()
        method = b"GET"

        def setResponseCode(self, code: int) -> None:
            answered.append(code)

        def setHeader(self, name: bytes, value: bytes) -> None:
            assert name not in (b"Upgrade", b"Connection")

        def write(self, body: bytes) -> None:
            answered.append(json.loads(body)["error"])

        def finish(self) -> None:
            answered.append("finished")

    memory().resource.render(Request())
    assert answered == [426, 426, "finished"]
