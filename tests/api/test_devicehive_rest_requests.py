"""Requests to REST: who is asking, with which method, and the same one twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from gatewayd.api.devicehive.endpoints import ENDPOINTS, Endpoint
from tests.api.rest_client import GOOD, ask, line_of, names, refuses, send, serve
from tests.api.rest_table import TIMESTAMP, denied, fits, together
from tests.api.scene import sign, token
from tests.api.test_devicehive_tokens import FORGED
from tests.harness import Daemon


@pytest_twisted.async_yield_fixture(scope="module", name="daemon")
async def make_daemon(module_path: Path) -> AsyncIterator[Daemon]:
    """Return the gateway that all tests share."""
    async for daemon in serve(module_path):
        yield daemon


# Authorization

PATHS = ["/info", "/device", "/device/dev/command/poll?waitTimeout=x", "/openapi.json", "/plugin"]
HEADERS = {
    "empty": "", "scheme alone": "Bearer", "blank token": "Bearer  ", "no scheme": GOOD,
    "other scheme": f"Token {GOOD}", "basic": "Basic ZGhhZG1pbjpkaGFkbWluXyM5MTE=",
    "no blank": f"Bearer{GOOD}", "equals": f"Bearer={GOOD}", "quoted": f'Bearer "{GOOD}"',
    "two tokens": f"Bearer {GOOD} {GOOD}", "more": f"Bearer {GOOD}, Basic x",
    "comma": f"Bearer {GOOD},", "not ASCII": "Bearer t\u00f6k\u00e9n",
    "long": "Bearer " + "x" * 9999,
    "signature of another key": f"Bearer {sign({'payload': {}}, key=b'x')}",
    "locked user": f"Bearer {token(u=999)}",
    **{name: f"Bearer {jwt}" for name, jwt in FORGED.items() if len(jwt) < 10_000},
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest_twisted.ensureDeferred
async def test_rejected(daemon: Daemon, path: str) -> None:
    """A header that is no good is rejected everywhere in a form of its own, and tells nothing."""
    form = {"timestamp": TIMESTAMP, "status": 401, "error": "Unauthorized",
            "message": "Unauthorized", "path": f"/rest{path.partition('?')[0]}"}  # fmt: skip
    for case, header in HEADERS.items():
        answered = await send(daemon, f"GET {path}", None, header)
        assert answered.code == 401, case
        assert fits(form, answered.json), (case, answered.body)


@pytest_twisted.ensureDeferred
async def test_accepted(daemon: Daemon) -> None:
    """The scheme has no case, and blanks around a token do not count."""
    for value in (f"bearer {GOOD}", f"BEARER {GOOD}", f"Bearer   {GOOD} "):
        assert (await send(daemon, "GET /device/dev", None, value)).code == 200
    expired = await send(daemon, "GET /info", None, f"Bearer {token(e=1)}")
    assert expired.json["message"] == "Token expired"


@pytest_twisted.ensureDeferred
async def test_missing(daemon: Daemon) -> None:
    """Without the header public endpoints answer, and the others say who may ask."""
    for path, status in (("/info", 200), ("/", 200), ("/openapi.json", 200), ("/device", 401),
                         ("/user/current", 401), ("/plugin", 401), ("/nowhere", 404)):  # fmt: skip
        answered = await send(daemon, f"GET {path}", None, None)
        assert answered.code == status
        if status == 401:
            assert answered.json == denied(401, "Unauthorized")


@pytest_twisted.ensureDeferred
async def test_rights_go_with_the_user(daemon: Daemon) -> None:
    """A token is worth nothing any more once its user is locked or gone."""
    body = {"login": "soon-gone", "password": "soon-gone", "role": 0}
    user = (await ask(daemon, "POST /user", body, 201))["id"]
    bearer = f"Bearer {token(u=user)}"
    assert (await send(daemon, "GET /device", None, bearer)).code == 200
    await ask(daemon, f"PUT /user/{user}", {"status": 1}, 204)
    assert (await send(daemon, "GET /device", None, bearer)).json["message"] == "Unauthorized"
    await ask(daemon, f"PUT /user/{user}", {"status": 0}, 204)
    assert (await send(daemon, "GET /device", None, bearer)).code == 200
    await ask(daemon, f"DELETE /user/{user}", None, 204)
    assert (await send(daemon, "GET /device", None, bearer)).json["status"] == 401


# Methods


@pytest.mark.parametrize(
    "endpoint", [each for each in ENDPOINTS if each.method == "GET"], ids=line_of
)
@pytest_twisted.ensureDeferred
async def test_head(daemon: Daemon, endpoint: Endpoint) -> None:
    """HEAD has the status and type of GET, for errors too, and no body."""
    path = line_of(endpoint).partition(" ")[2] + "?waitTimeout=0"
    for bearer in (f"Bearer {GOOD}", "Bearer x"):
        get = await send(daemon, f"GET {path}", None, bearer)
        head = await send(daemon, f"HEAD {path}", None, bearer)
        assert (head.code, head.body) == (get.code, b"")
        assert head.header("Content-Type") == get.header("Content-Type")


@pytest_twisted.ensureDeferred
async def test_preflight(daemon: Daemon) -> None:
    """A browser may ask first, everywhere and whatever it says of itself."""
    for path in [*PATHS, "/device/dev/command", "/user/current", "/nowhere", "/device/%ff"]:
        for bearer in (None, f"Bearer {GOOD}", "Bearer x"):
            asked = await send(
                daemon, f"OPTIONS {path}", None, bearer, Origin="https://app.example",
                Access_Control_Request_Method="PUT",
                Access_Control_Request_Headers="authorization,content-type",
            )  # fmt: skip
            assert (asked.code, asked.body) == (200, b"")


@pytest_twisted.ensureDeferred
async def test_override(daemon: Daemon) -> None:
    """A POST that stands for PUT or DELETE does what they do, with the same rights."""
    line = "POST /device/overridden"
    body = {"name": "Overridden"}
    await ask(daemon, line, body, 204, X_HTTP_Method_Override="PUT")
    assert (await ask(daemon, "GET /device/overridden"))["name"] == "Overridden"
    put = "PUT /configuration/colour", {"value": "blue"}
    kept = await ask(daemon, "POST /configuration/colour", put[1], X_HTTP_Method_Override="put")
    assert kept["entityVersion"] + 1 == (await ask(daemon, *put))["entityVersion"]
    for value in ("GET", "PATCH", "POST", "", "nonsense", "PUT, DELETE"):
        text = "HTTP 405 Method Not Allowed"
        await refuses(daemon, line, body, 405, text, X_HTTP_Method_Override=value)
    for bearer, status in ((f"Bearer {token(a=[3])}", 403), ("Bearer x", 401)):
        answered = await send(daemon, line, None, bearer, X_HTTP_Method_Override="DELETE")
        assert answered.code == status
    # The method of anything but a POST is what it is.
    assert await ask(daemon, "GET /device/overridden", X_HTTP_Method_Override="DELETE")
    await ask(daemon, line, None, 204, X_HTTP_Method_Override=" Delete ")
    await ask(daemon, "GET /device/overridden", None, 404)


# The same request twice


@pytest.mark.parametrize("kind", ["command", "notification"])
@pytest_twisted.ensureDeferred
async def test_idempotency_key(daemon: Daemon, kind: str) -> None:
    """Requests with one key are one message with one answer; without a key each is its own."""
    line = f"POST /device/dev/{kind}"

    async def insert(key: str | None, name: str = "once", line: str = line) -> Any:
        headers = {} if key is None else {"Idempotency_Key": key}
        return await ask(daemon, line, {kind: name}, 201, **headers)

    before = (await names(daemon, kind)).count("once")
    first = await insert(f"{kind} 1")
    assert await insert(f"{kind} 1") == first
    assert await insert(f"{kind} 1", "something else") == first
    second, *again = await together(insert(f"{kind} 2") for _ in range(5))
    assert again == [second] * 4
    assert second["id"] != first["id"]
    longest = await insert(f"{kind} 3".ljust(128, "x"))
    without = [await insert(None), await insert(None), await insert("")]
    ids = {told["id"] for told in (first, second, longest, *without)}
    assert len(ids) == 6
    assert (await names(daemon, kind)).count("once") == before + 6
    # A key is one's own, for one device.
    elsewhere = await insert(f"{kind} 1", line=f"POST /device/other/{kind}")
    kept = await ask(daemon, f"GET /device/other/{kind}/{elsewhere['id']}")
    assert kept["deviceId"] == "other"
    await ask(daemon, f"PUT /device/other/{kind}s", None, 404)
    body = {kind: "long key"}
    text = "idempotencyKey should not be more than 128 symbols."
    await refuses(daemon, line, body, 400, text, Idempotency_Key="x" * 129)
    assert "long key" not in await names(daemon, kind)
    await ask(daemon, "DELETE /device/other", None, 204)
    await ask(daemon, "PUT /device/other", {"name": "other"}, 204)
