"""ux4iot's REST: other origins, paths, prefixes, sizes, and bodies of any kind."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.grants import Grant, Right
from tests.api.scene import no_failures
from tests.api.ux4iot import KEYS, StartUx, Ux, start_ux, ux
from tests.api.ux4iot_description import check_described
from tests.api.ux4iot_table import NO_SESSION, READ_GRANT, call, of
from tests.api.web import Answered, request

__all__ = ["start_ux", "ux"]

LARGEST = 128 * 1024
TEXT = "text/plain; charset=utf-8"


# CORS


@pytest.mark.parametrize(
    "line",
    ["/grants", "/session", "/subscriptions", "/lastValue/lamp/a/b", "/directMethod", "/sessions/x",
     "/deviceTwinDesiredProperties", "/status/nothing"],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_preflight(ux: Ux, line: str) -> None:
    """A browser hears that it may send what it asks for, with any method, and remembers it."""
    answered = await ux.ask(
        f"OPTIONS {line}", Origin="https://app.example", Access_Control_Request_Method="PATCH",
        Access_Control_Request_Headers="content-type, sessionid,shared-access-key,X-Own",
    )  # fmt: skip
    assert (answered.code, answered.body) == (204, b"")
    assert answered.header("Access-Control-Allow-Origin") == "*"
    methods = (answered.header("Access-Control-Allow-Methods") or "").split(", ")
    assert {"GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"} <= {*methods}
    allowed = answered.header("Access-Control-Allow-Headers")
    assert allowed == "content-type, sessionid, shared-access-key, X-Own"
    assert answered.header("Access-Control-Max-Age") == "7200"
    assert answered.header("Access-Control-Allow-Credentials") is None


@pytest_twisted.ensureDeferred
async def test_preflight_of_nonsense(ux: Ux) -> None:
    """Only names of headers come back; without any, no header names them."""
    asked = "a b, ok, <x>, caf\u00e9, x:y, ,"
    answered = await ux.ask("OPTIONS /grants", Access_Control_Request_Headers=asked)
    assert answered.header("Access-Control-Allow-Headers") == "ok"
    for nothing in ({}, {"Access_Control_Request_Headers": "<x>"}):
        answered = await ux.ask("OPTIONS /grants", **nothing)
        assert answered.code == 204
        assert answered.header("Access-Control-Allow-Headers") is None


@pytest_twisted.ensureDeferred
async def test_every_answer_to_any_origin(ux: Ux) -> None:
    """Browsers get every answer, errors among them, and may read the hub's error."""
    answers = [
        await ux.ask(line, body, key)
        for line, body, key in [
            ("GET /version", None, None), ("GET /sessions", None, None), ("PUT /grants", {}, None),
            ("PUT /grants", b"{", "good"), ("POST /directMethod", call("silent"), "good"),
            ("GET /lastValue/lamp/t/", None, "good"), ("DELETE /sessions/x", None, "good"),
            ("GET /status/x", None, None),
        ]
    ]  # fmt: skip
    assert [each.code for each in answers] == [200, 405, 401, 400, 404, 404, 204, 404]
    for each in answers:
        assert each.header("Access-Control-Allow-Origin") == "*"
        assert "iothub-errorcode" in (each.header("Access-Control-Expose-Headers") or "")
    assert answers[1].header("Allow") == "DELETE"
    assert answers[1].header("Content-Type") == TEXT


# What the HTTP layer refuses


async def largest(ux: Ux, line: str, size: int) -> Answered:
    """Send a body of so many bytes."""
    return await ux.ask(line, b'"' + b"x" * (size - 2) + b'"', "good")


@pytest_twisted.ensureDeferred
async def test_too_large(ux: Ux) -> None:
    """Bodies have at most 128 KiB; around the payload of a method there is room for the rest."""
    for line, size in (
        ("PUT /grants", LARGEST), ("PUT /subscriptions", LARGEST), ("POST /session", LARGEST),
        ("POST /directMethod", LARGEST + 4096),
    ):  # fmt: skip
        assert (await largest(ux, line, size)).code in (200, 400)
        refused = await largest(ux, line, size + 1)
        assert (refused.code, refused.body) == (413, b"Request Entity Too Large")
        assert refused.header("Content-Type") == TEXT
        assert refused.header("Access-Control-Allow-Origin") == "*"


@pytest_twisted.ensureDeferred
async def test_types_do_not_matter(ux: Ux) -> None:
    """Bodies are JSON in UTF-8, whatever their type says."""
    session = await ux.session()
    for type_ in ("application/x-www-form-urlencoded", "text/plain; charset=latin-1", "x", ""):
        answered = await ux.ask(
            "PUT /grants", of("telemetry", session=session), "good", Content_Type=type_
        )
        assert answered.code == 204
    answered = await ux.ask("POST /session", Content_Type="application/x-www-form-urlencoded")
    assert answered.code == 200


@pytest.mark.parametrize(
    "line",
    ["PUT /grants", "PUT /subscription", "DELETE /subscription", "PUT /subscriptions",
     "DELETE /subscriptions", "POST /directMethod", "PATCH /deviceTwinDesiredProperties"],
)  # fmt: skip
@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'"\xff"', b"[" * 60_000, b'{"a":"\\ud800"}'])
@pytest_twisted.ensureDeferred
async def test_no_json(ux: Ux, line: str, body: bytes) -> None:
    """A body that is no JSON is refused with a text that says so."""
    answered = await ux.ask(line, body, "good")
    assert answered.code == 400
    assert answered.body.startswith(b"the body is no JSON: ")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (of("telemetry", session=1), "sessionId must be a string"),  # type: ignore[arg-type]
        (of("telemetry", session="x" * 1025), "sessionId must be a string of at most 1024"),
        ({"type": "telemetry", "deviceId": "lamp"}, "sessionId must be a string"),
        ({"type": "telemetry", "sessionId": "<session>"}, "deviceId must be a string"),
        (of("telemetry", ""), "deviceId is nothing that a device"),
        (of("telemetry", "a/b"), "deviceId is nothing that a device"),
        (of("telemetry", "x" * 129), "deviceId is nothing that a device"),
        (of("telemetry", telemetryKey=1), "telemetryKey must be a string"),
        (of("telemetry", telemetryKey="x" * 1025), "telemetryKey must be a string of at most 1024"),
        (of("directMethod", directMethodName=["x"]), "directMethodName must be a string"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_wrong_types(ux: Ux, body: Any, why: str) -> None:
    """What is wrong with a member is said."""
    for line in ("PUT /grants", "PUT /subscription"):
        if line == "PUT /subscription" and body["type"] == "directMethod":
            continue
        answered = await ux.ask(line, body, "good")
        assert (answered.code, answered.body.decode()[: len(why)]) == (400, why)


# Paths


@pytest.mark.parametrize(
    ("path", "key"),
    [("a/b", "a/b"), ("a%2Fb", "a/b"), ("a//b", "a//b"), ("100%25", "100%"), ("100%2525", "100%25"),
     ("%C3%A9", "\u00e9"), ("a%20b", "a b"), ("a+b", "a+b"), ("%7B%7D", "{}"), ("a;b=c", "a;b=c"),
     (".hidden", ".hidden"), ("%3F", "?"), ("$x", "$x"), ("x" * 300, "x" * 300)],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_keys_in_paths(ux: Ux, path: str, key: str) -> None:
    """A key is all that is left of the path, decoded once."""
    session = await ux.session(of("telemetry", telemetryKey=key))
    answered = await ux.ask(f"GET /lastValue/lamp/{path}", session=session)
    assert answered.code == (200 if key == "a/b" else 404), answered
    other = await ux.session(of("telemetry", telemetryKey=f"{key}x"))
    answered = await ux.ask(f"GET /lastValue/lamp/{path}", session=other)
    assert (answered.code, answered.body.decode()) == (403, READ_GRANT)


@pytest_twisted.ensureDeferred
async def test_device_ids_in_paths(ux: Ux) -> None:
    """Every id that IoT Hub allows can be asked for; one that is none is nobody's."""
    device = "a-.%_*?!(),:=@$'+#Z9"
    session = await ux.session(of("telemetry", device), of("connectionState", device))
    path = quote(device, safe="")
    answered = await ux.ask(f"GET /lastValue/{path}", session=session)
    assert (answered.code, answered.json["deviceId"]) == (200, device)
    assert (await ux.ask(f"GET /connectionState/{path}", session=session)).code == 404
    for none in ("%00", "a%2Fb", "%C3%A9", "x" * 5000, "%20"):
        assert (await ux.ask(f"GET /deviceTwin/{none}", key="good")).code == 404
        assert (await ux.ask(f"GET /lastValue/{none}/t", key="good")).code == 404
    assert (await ux.ask("GET /lastValue/%FF", key="good")).code == 400


@pytest_twisted.ensureDeferred
async def test_slash_at_the_end(ux: Ux) -> None:
    """An empty key is none: everything is meant."""
    answered = await ux.ask("GET /lastValue/lamp/", key="good")
    assert (answered.code, answered.json["timestamp"]) == (200, "")
    assert (await ux.ask("DELETE /lastValue/lamp/t", key="good")).code == 405


# Prefixes


@pytest_twisted.ensureDeferred
async def test_prefix(start_ux: StartUx) -> None:
    """Below a prefix everything is there, and nothing at the root but new sessions."""
    ux = await start_ux(path="/two/parts")
    begun = (await ux.ask("POST /session")).json["sessionId"]
    answered = await ux.ask("PUT /two/parts/grants", of("telemetry", session=begun), "good")
    assert answered.code == 204
    found = await ux.ask("GET /two/parts/lastValue/lamp/a/b", session=begun)
    assert found.json["data"] == {"a/b": 1}
    assert (await ux.ask("POST /two/parts/session")).code == 200
    assert (await ux.ask("GET /two/parts/status")).body == b"OK"
    for line in ("GET /version", "PUT /grants", "GET /lastValue/lamp", "GET /two/version",
                 "GET /two/partsversion"):  # fmt: skip
        answered = await ux.ask(line, key="good")
        assert (answered.code, answered.header("Access-Control-Allow-Origin")) == (404, None)
    unknown = await ux.ask("GET /two/parts/nothing")
    assert (unknown.code, unknown.body) == (404, b"Not Found")
    preflight = await ux.ask("OPTIONS /session")
    assert preflight.code == 204
    for line in ("PUT /two/parts/grants", "POST /session"):
        refused = await ux.ask(line, b"x" * (LARGEST + 1))
        assert (refused.code, refused.header("Content-Type")) == (413, TEXT)


@pytest_twisted.ensureDeferred
async def test_others_on_the_listener(ux: Ux) -> None:
    """What is not ux4iot's is left to the other APIs of the listener."""
    assert (await ux.ask("GET /api/rest/info")).code == 200
    refused = await ux.ask("POST /api/rest/token", b"x" * 2_000_000)
    assert refused.header("Content-Type") == "application/json"


# Any body

WORD = st.text(st.characters(codec="utf-8"), max_size=8)
KNOWN = st.sampled_from(
    ["lamp", "silent", "foreign", "nobody", "<session>", "telemetry", "deviceTwin", "directMethod",
     "desiredProperties", "subscribeToTelemetry", "invokeDirectMethod", "on", "", "$version", 5, 0,
     301, -1, 2**63, 1e300]
)  # fmt: skip
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORD | KNOWN
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORD, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
MEMBER = st.sampled_from(
    ["sessionId", "deviceId", "type", "grantType", "grantRequestType", "telemetryKey", "details",
     "directMethodName", "methodParams", "desiredPropertyPatch", "subscriptionRequests"]
)  # fmt: skip
PARAMS = st.dictionaries(
    st.sampled_from(
        ["methodName", "payload", "responseTimeoutInSeconds", "connectTimeoutInSeconds"]
    ),
    VALUE, max_size=4,
)  # fmt: skip
USUAL = st.fixed_dictionaries(
    {},
    optional={
        "sessionId": st.just("<session>"), "deviceId": st.sampled_from(["silent", "foreign", "x"]),
        "type": KNOWN, "grantType": KNOWN, "methodParams": PARAMS,
        "desiredPropertyPatch": st.dictionaries(WORD, VALUE, max_size=3),
    },
)  # fmt: skip
OBJECT = st.builds(dict.__or__, st.dictionaries(MEMBER, VALUE, max_size=4), USUAL)
BODY = (
    OBJECT | VALUE | st.lists(OBJECT | VALUE, max_size=3)
    | st.fixed_dictionaries({"subscriptionRequests": st.lists(OBJECT, max_size=3)})
).map(lambda body: json.dumps(body).encode()) | st.binary(max_size=20)  # fmt: skip
LINE = st.sampled_from(
    ["PUT /grants", "DELETE /grants", "PUT /subscription", "DELETE /subscription",
     "PUT /subscriptions", "DELETE /subscriptions", "POST /directMethod",
     "PATCH /deviceTwinDesiredProperties"]
)  # fmt: skip


@pytest_twisted.ensureDeferred
@settings(max_examples=300, deadline=None)
@given(line=LINE, body=BODY, key=st.sampled_from(["good", "wrong", None]), named=st.booleans())
async def test_any_body(ux: Ux, line: str, body: bytes, key: str | None, named: bool) -> None:
    """Every answer is one that is described, no request is a defect, and nothing is logged."""
    if line == "DELETE /grants" and not body:
        return
    session = await ux.session()
    for right in Right:
        await ux.sessions.grant(ux.live(session), Grant(device="silent", right=right))
    body = body.replace(b"<session>", session.encode())
    with no_failures():
        answered = await ux.ask(line, body, key, session if named else None)
    assert answered.code < 500, answered
    method, _, path = line.partition(" ")
    check_described(method, path, answered)


@pytest_twisted.ensureDeferred
@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(["lastValue", "deviceTwin", "connectionState", "sessions", "logLevel"]),
    path=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    method=st.sampled_from(["GET", "DELETE", "PUT"]),
    head=st.binary(max_size=8).map(lambda each: each.translate(None, b"\r\n\0")),
)
async def test_any_path(ux: Ux, name: str, path: str, method: str, head: bytes) -> None:
    """Every path and every header is answered without a defect."""
    port = ux._listening.getHost().port
    with no_failures():
        for session in (None, head.decode("latin-1")):
            headers = {"Shared_Access_Key": KEYS["good"]} if session is None else {}
            if session is not None:
                headers["sessionId"] = session
            answered = await request(
                port, method, f"/{name}/{quote(path, safe='/')}", None, **headers
            )
            assert answered.code < 500


@pytest_twisted.ensureDeferred
async def test_headers_that_are_no_text(ux: Ux) -> None:
    """A session id or key that is not even ASCII is just wrong."""
    answered = await ux.ask("GET /lastValue/lamp", session="\u00ff\u00fe")
    assert (answered.code, answered.body.decode()) == (404, NO_SESSION)
    answered = await ux.ask("GET /lastValue/lamp", Shared_Access_Key="\u00ff")
    assert answered.code == 403
