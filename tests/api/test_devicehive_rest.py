"""REST as far as WebSocket clients need it: info and tokens, and the form of every answer."""

from __future__ import annotations

import re

import pytest
import pytest_twisted

from tests.api.scene import make_client, ok, payload_of, sign, token
from tests.api.web import Answered, request
from tests.harness import ADMIN, PASSWORD, Daemon, open_socket

PREFIXES = ("", "/dh", "/api", "/auth", "/plugin")
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Allow-Methods": "OPTIONS, GET, POST, PUT, DELETE, HEAD",
    "Access-Control-Allow-Headers": (
        "Origin, Authorization, Accept, Content-Type, Auth-DeviceID, Auth-DeviceKey"
    ),
    "Access-Control-Max-Age": "0",
}
LOGIN = {"login": ADMIN, "password": PASSWORD}
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}")


async def call(
    daemon: Daemon, method: str, path: str, body: object = None, **headers: str
) -> Answered:
    """Make a request and check the form of the answer."""
    answered = await request(daemon.port, method, path, body, **headers)
    check_form(method, answered)
    return answered


def check_form(method: str, answered: Answered) -> None:
    """Check what holds for every answer: CORS, a length, JSON, and no silent error."""
    for name, value in CORS.items():
        assert answered.header(name) == value, (answered, name)
    assert answered.header("Transfer-Encoding") is None
    assert method == "HEAD" or answered.length == len(answered.body)
    if answered.code >= 400 and method != "HEAD":
        assert answered.body
    if answered.body:
        assert answered.header("Content-Type") == "application/json"
        assert isinstance(answered.json, dict)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest_twisted.ensureDeferred
async def test_each_prefix(daemon: Daemon, prefix: str) -> None:
    """Every endpoint is there under every prefix, with its status and body."""
    info = await call(daemon, "GET", f"{prefix}/rest/info")
    assert info.code == 200
    assert info.json.keys() == {"apiVersion", "serverTimestamp", "webSocketServerUrl"}
    assert TIMESTAMP.fullmatch(info.json["serverTimestamp"])
    tokens = await call(daemon, "POST", f"{prefix}/rest/token", LOGIN)
    assert (tokens.code, tokens.json.keys()) == (201, {"accessToken", "refreshToken"})
    refreshed = await call(
        daemon, "POST", f"{prefix}/rest/token/refresh",
        {"refreshToken": tokens.json["refreshToken"]},
    )  # fmt: skip
    assert (refreshed.code, refreshed.json.keys()) == (201, {"accessToken"})
    created = await call(
        daemon, "POST", f"{prefix}/rest/token/create", {"userId": 1},
        Authorization=f"Bearer {refreshed.json['accessToken']}",
    )  # fmt: skip
    assert (created.code, created.json.keys()) == (201, {"accessToken", "refreshToken"})
    assert payload_of(created.json["accessToken"])["payload"]["a"] == [1]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest_twisted.ensureDeferred
async def test_web_socket_url(daemon: Daemon, prefix: str) -> None:
    """The WebSocket's URL is built from Host, X-Forwarded-Proto and prefix, and leads there."""
    path = f"{prefix}/rest/info"
    own = (await call(daemon, "GET", path)).json["webSocketServerUrl"]
    assert own == f"ws://127.0.0.1:{daemon.port}{prefix}/websocket"
    socket = await open_socket(daemon.port, own.removeprefix(f"ws://127.0.0.1:{daemon.port}"))
    rest = (await ok(socket, "server/info"))["info"]["restServerUrl"]
    assert rest == f"http://127.0.0.1:{daemon.port}{prefix}/rest"
    await socket.bye()
    for proto, scheme in (("https", "wss"), ("http", "ws"), ("HTTPS", "wss"), ("wss", "wss"),
                          ("https, http", "wss"), ("gopher", "ws"), ("", "ws")):  # fmt: skip
        told = await call(daemon, "GET", path, Host="gw.example:8443", X_Forwarded_Proto=proto)
        expected = f"{scheme}://gw.example:8443{prefix}/websocket"
        assert told.json["webSocketServerUrl"] == expected, proto
    socket = await open_socket(daemon.port, f"{prefix}/websocket", **{"X-Forwarded-Proto": "https"})
    rest = (await ok(socket, "server/info"))["info"]["restServerUrl"]
    assert rest == f"https://127.0.0.1:{daemon.port}{prefix}/rest"
    await socket.bye()


@pytest.mark.parametrize("path", ["/rest/info", "/api/rest/token", "/rest/nope", "/rest"])
@pytest_twisted.ensureDeferred
async def test_options(daemon: Daemon, path: str) -> None:
    """OPTIONS is answered everywhere, for browsers that ask first."""
    asked = await call(
        daemon, "OPTIONS", path, Origin="https://app.example", Access_Control_Request_Method="POST"
    )
    assert asked.code == 200


@pytest.mark.parametrize("path", ["/rest/token", "/rest/token/refresh", "/rest/token/create"])
@pytest_twisted.ensureDeferred
async def test_malformed_bodies(daemon: Daemon, path: str) -> None:
    """A body that is no JSON object, or has members of wrong types, is a 400."""
    bad: list[bytes] = [
        b"", b"{", b"[]", b"null", b"x", b'{"a":NaN}', b"\xff", b"1",
        b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"login":[],"refreshToken":{},"userId":[]}',
    ]  # fmt: skip
    for body in bad:
        answered = await call(daemon, "POST", path, body, Authorization=f"Bearer {token()}")
        assert answered.code == 400, body
        assert answered.json == {"error": 400, "message": "Invalid request parameters"}, body


@pytest_twisted.ensureDeferred
async def test_bodies_that_are_not_utf8(daemon: Daemon) -> None:
    """A body that is not UTF-8 is no JSON, also where nobody looks at it."""
    for body in (b'{"login":"\xff"}', b'{"other":"\xff"}', b'{"\xff":1}'):
        answered = await call(daemon, "POST", "/rest/token", body)
        assert answered.json == {"error": 400, "message": "Invalid request parameters"}, body


@pytest_twisted.ensureDeferred
async def test_refusals(daemon: Daemon) -> None:
    """What is refused for its contents is told with code and text, as on the WebSocket."""
    admin = await daemon.login()
    user = await make_client(admin, "cli", 1)
    mine = {"Authorization": f"Bearer {token(u=user, a=[])}"}
    for path, body, headers, code, text in (
        ("token", {}, {}, 400, "Invalid or empty authorization request parameters"),
        ("token", {"login": ADMIN, "password": "x"}, {}, 401, "Invalid credentials"),
        ("token", {"login": "x", "password": "x"}, {}, 401, "Invalid credentials"),
        ("token/refresh", {}, {}, 400, "Missing or invalid payload in request"),
        ("token/refresh", {"refreshToken": token()}, {}, 401, "Invalid token type"),
        ("token/refresh", {"refreshToken": token(t=0, e=1)}, {}, 401, "Token has expired"),
        ("token/create", {"userId": 1}, {}, 401, "Unauthorized"),
        ("token/create", {"userId": 1}, mine, 403, "Access is denied"),
        ("token/create", {"userId": 99}, {"Authorization": f"Bearer {token()}"}, 404,
         "User with id = 99 not found"),
    ):  # fmt: skip
        answered = await call(daemon, "POST", f"/rest/{path}", body, **headers)
        assert (answered.code, answered.json) == (code, {"error": code, "message": text}), path


@pytest_twisted.ensureDeferred
async def test_rejected_authorization(daemon: Daemon) -> None:
    """A rejected Authorization header is answered in the form of its own."""
    for value, message in (
        ("Bearer x", "Unauthorized"), (f"Bearer {token(e=1)}", "Token expired"),
        (f"Bearer {token(t=0)}", "Unauthorized"), ("Basic YTpi", "Unauthorized"),
        ("Bearer", "Unauthorized"), (token(), "Unauthorized"),
        (f"Bearer {sign({'payload': {}}, key=b'x')}", "Unauthorized"),
    ):  # fmt: skip
        path = "/auth/rest/token/create"
        answered = await call(daemon, "POST", path, {"userId": 1}, Authorization=value)
        assert answered.code == 401
        told = answered.json
        assert TIMESTAMP.fullmatch(told.pop("timestamp"))
        assert told == {"status": 401, "error": "Unauthorized", "message": message, "path": path}


@pytest_twisted.ensureDeferred
async def test_unknown_paths_and_methods(daemon: Daemon) -> None:
    """Unknown paths are 404, wrong methods 405 with what is allowed."""
    for path in ("/rest/nope", "/api/rest/token/nope", "/rest/info/x",
                 "/rest//info", "/rest/%2e%2e", "/rest/%ff", "/rest/Info"):  # fmt: skip
        answered = await call(daemon, "GET", path)
        assert answered.code in (400, 404), path
        if answered.code == 404:
            assert answered.json == {"error": 404, "message": "HTTP 404 Not Found"}, path
    for method, path, allowed in (
        ("POST", "/rest/info", {"GET", "HEAD"}), ("GET", "/rest/token", {"POST"}),
        ("DELETE", "/dh/rest/token/refresh", {"POST"}), ("PUT", "/rest/token/create", {"POST"}),
    ):  # fmt: skip
        answered = await call(daemon, method, path)
        assert answered.code == 405
        assert answered.json == {"error": 405, "message": "HTTP 405 Method Not Allowed"}
        allow = answered.header("Allow")
        assert allow is not None
        assert set(allow.split(", ")) - {"OPTIONS"} == allowed


@pytest_twisted.ensureDeferred
async def test_head_and_override(daemon: Daemon) -> None:
    """HEAD answers without a body; a POST may stand for another method."""
    head = await call(daemon, "HEAD", "/rest/info")
    assert (head.code, head.body) == (200, b"")
    for method, code in (("PUT", 405), ("DELETE", 405), ("OPTIONS", 200), ("GET", 201),
                         ("", 201), ("nonsense", 201)):  # fmt: skip
        answered = await call(daemon, "POST", "/rest/token", LOGIN, X_HTTP_Method_Override=method)
        assert answered.code == code, method
    answered = await call(daemon, "POST", "/rest/info", b"", X_HTTP_Method_Override="HEAD")
    assert (answered.code, answered.body) == (200, b"")


@pytest_twisted.ensureDeferred
async def test_content_types(daemon: Daemon) -> None:
    """A body is JSON whatever its Content-Type says, or does not."""
    for headers in ({}, {"Content_Type": "application/json; charset=utf-8"},
                    {"Content_Type": "text/plain"}):  # fmt: skip
        assert (await call(daemon, "POST", "/rest/token", LOGIN, **headers)).code == 201
