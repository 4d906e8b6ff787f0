"""Every endpoint of REST: what it answers, whom it refuses, and that it is described so."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from gatewayd.api.devicehive.endpoints import ENDPOINTS, Endpoint
from tests.api.rest_cases import CASES
from tests.api.rest_description import bare, check_described, check_form, operations
from tests.api.rest_table import (
    DENIED,
    TIMESTAMP,
    UNAUTHORIZED,
    Case,
    World,
    denied,
    endpoint_of,
    fits,
)
from tests.api.scene import token
from tests.api.test_devicehive_rest import PREFIXES

#: The permission of each endpoint by its number in a token (devicehive.yaml, rest.endpoints and
#: jwt.actions); None for public ones. The description of the API is an extension.
PERMISSIONS: dict[str, int | None] = {
    "GET /": None, "GET /info": None, "GET /info/cache": None, "GET /info/config/cluster": None,
    "GET /openapi.json": None,
    "POST /token": None, "POST /token/refresh": None, "POST /token/create": 15,
    "POST /token/plugin/create": 16, "GET /token/plugin/authenticate": None,
    "GET /configuration/{}": 13, "PUT /configuration/{}": 13, "DELETE /configuration/{}": 13,
    "GET /device": 3, "GET /device/count": 3,
    "GET /device/{}": 3, "PUT /device/{}": 6, "DELETE /device/{}": 6,
    "GET /device/{}/command": 5, "POST /device/{}/command": 7,
    "GET /device/{}/command/{}": 5, "PUT /device/{}/command/{}": 8,
    "GET /device/{}/command/{}/poll": 5, "GET /device/{}/command/poll": 5,
    "GET /device/command/poll": 5,
    "GET /device/{}/notification": 4, "POST /device/{}/notification": 9,
    "GET /device/{}/notification/{}": 4, "GET /device/{}/notification/poll": 4,
    "GET /device/notification/poll": 4,
    "GET /network": 2, "GET /network/count": 2, "POST /network": 14,
    "GET /network/{}": 2, "PUT /network/{}": 14, "DELETE /network/{}": 14,
    "GET /devicetype": 17, "GET /devicetype/count": 17, "POST /devicetype": 18,
    "GET /devicetype/{}": 17, "PUT /devicetype/{}": 18, "DELETE /devicetype/{}": 18,
    "GET /user": 12, "GET /user/count": 12, "POST /user": 12,
    "GET /user/current": 10, "PUT /user/current": 11,
    "GET /user/{}": 12, "PUT /user/{}": 12, "DELETE /user/{}": 12,
    "GET /user/{}/network/{}": 2, "PUT /user/{}/network/{}": 14, "DELETE /user/{}/network/{}": 14,
    "GET /user/{}/devicetype": 18, "PUT /user/{}/devicetype/all": 18,
    "DELETE /user/{}/devicetype/all": 18, "GET /user/{}/devicetype/{}": 17,
    "PUT /user/{}/devicetype/{}": 18, "DELETE /user/{}/devicetype/{}": 18,
    "GET /plugin": 16, "GET /plugin/count": 16, "POST /plugin": 16, "PUT /plugin": 16,
    "DELETE /plugin": 16,
}  # fmt: skip
CASES_OF = {
    endpoint: [case for case in CASES if case.endpoint == endpoint] for endpoint in ENDPOINTS
}
#: They make what their path names when it is not there.
MAKING = {"PUT /device/{}", "PUT /configuration/{}"}


def name_of(endpoint: Endpoint) -> str:
    """Return how the tables here call an endpoint."""
    return f"{endpoint.method} {bare(endpoint.path)}"


def nowhere(endpoint: Endpoint) -> str:
    """Return a request to an endpoint that nothing is right about."""
    path = re.sub(r"\{\w+\}", "%20%22", endpoint.path)
    return f"{endpoint.method} {path}?waitTimeout=x&take=-1&force=?&timestamp=x"


each_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=name_of)
each_protected = pytest.mark.parametrize(
    "endpoint", [each for each in ENDPOINTS if PERMISSIONS[name_of(each)] is not None], ids=name_of
)


@pytest_twisted.async_yield_fixture(scope="module", name="world")
async def make_world(module_path: Path) -> AsyncIterator[World]:
    """Return a furnished gateway that all cases share."""
    from tests.harness import Daemon, make_settings

    daemon = Daemon(make_settings(module_path / "gatewayd.db"))
    await daemon.start()
    world = World(daemon)
    await world.furnish()
    yield world
    await daemon.stop()


async def check(world: World, case: Case, more: str = "") -> None:
    """Make the request of a case and check the answer.

    :param more: parameters that must not change it.
    """
    line = case.line + (("&" if "?" in case.line else "?") + more if more else "")
    answered = await world.ask(line, case.body, case.who)
    endpoint = case.endpoint
    assert answered.code == case.status, (line, answered)
    check_form(answered, endpoint.method, endpoint.content_type)
    if not more:
        check_described(endpoint.method, endpoint.path, answered)
    wanted: Any = case.answer
    if isinstance(wanted, str):
        wanted = denied(case.status, wanted)
    if wanted is None:
        assert not answered.body
    elif answered.header("Content-Type") == "application/json":
        assert fits(world.fill(wanted), answered.json), (line, world.fill(wanted), answered.json)
    else:
        assert fits(wanted, answered.body.decode())


async def play(world: World, case: Case) -> None:
    """Make what a case needs, check it, and what is seen afterwards.

    Where nothing changes it is checked again with parameters that no endpoint knows.
    """
    world.another()
    for step in case.given:
        await world.do(step)
    await check(world, case)
    if case.status == 200 and case.endpoint.method == "GET":
        await check(world, case, "unknown=&filter%5B%5D=%C3%A9&unknown=2&page=-1&payload=%7B")
    for after in case.then:
        await check(world, after)


@each_endpoint
@pytest_twisted.ensureDeferred
async def test_cases(world: World, endpoint: Endpoint) -> None:
    """Each request of the table gets its answer, in the form that is described."""
    wrong = []
    for case in CASES_OF[endpoint]:
        try:
            await play(world, case)
        except AssertionError as error:
            wrong.append(f"{case}: {error}")
    assert not wrong, "\n\n".join(wrong)


# Who may


@each_endpoint
@pytest_twisted.ensureDeferred
async def test_rejected_authorization(world: World, endpoint: Endpoint) -> None:
    """A header that is no good is rejected first, by public endpoints too, in its own form."""
    for value, message in (("Bearer x", UNAUTHORIZED), (f"Bearer {token(e=1)}", "Token expired")):
        line = nowhere(endpoint)
        answered = await world.ask(line, b"{", None, Authorization=value)
        assert answered.code == 401, answered
        check_form(answered, endpoint.method)
        check_described(endpoint.method, endpoint.path, answered)
        path = "/rest" + line.partition(" ")[2].partition("?")[0]
        assert fits(
            {"timestamp": TIMESTAMP, "status": 401, "error": "Unauthorized", "message": message,
             "path": path},
            answered.json,
        ), answered.body  # fmt: skip


@each_protected
@pytest_twisted.ensureDeferred
async def test_permission(world: World, endpoint: Endpoint) -> None:
    """Without a token, and with one for everything else, nothing of a request is looked at."""
    number = PERMISSIONS[name_of(endpoint)]
    rest = sorted(set(range(2, 19)) - {number})
    for headers, status, text in (
        ({}, 401, UNAUTHORIZED),
        ({"Authorization": f"Bearer {token(a=rest)}"}, 403, DENIED),
        ({"Authorization": f"Bearer {token(a=[1])}"}, 403, DENIED),
        ({"Authorization": f"Bearer {token(a=None)}"}, 403, DENIED),
    ):
        answered = await world.ask(nowhere(endpoint), b"{", None, **headers)
        assert (answered.code, answered.json) == (status, denied(status, text))
        check_form(answered, endpoint.method)
        check_described(endpoint.method, endpoint.path, answered)


@each_protected
@pytest_twisted.ensureDeferred
async def test_permission_alone(world: World, endpoint: Endpoint) -> None:
    """The one permission is enough to be heard."""
    bearer = f"Bearer {token(a=[PERMISSIONS[name_of(endpoint)]])}"
    answered = await world.ask(nowhere(endpoint), b"[]", None, Authorization=bearer)
    assert answered.code in (200, 400, 404), answered
    check_form(answered, endpoint.method)


# Paths and methods


@pytest.mark.parametrize("path", sorted({each.path for each in ENDPOINTS}))
@pytest_twisted.ensureDeferred
async def test_wrong_methods(world: World, path: str) -> None:
    """Another method than those of a path is a 405 that says which there are.

    A word like /device/count is no id: what there is for /device/{deviceId} does not count.
    """
    there = {each.method for each in ENDPOINTS if each.path == path}
    path = re.sub(r"\{\w+\}", "1", path)
    odd = {"TRACE", "BREW"} if path == "/device" else set()
    for method in ({"GET", "PUT", "POST", "DELETE", "PATCH"} | odd) - there:
        answered = await world.ask(f"{method} {path}")
        assert answered.json == denied(405, "HTTP 405 Method Not Allowed"), (method, path)
        assert answered.code == 405
        check_form(answered, method)
        allowed = set((answered.header("Allow") or "").split(", "))
        assert allowed - {"OPTIONS"} == there | ({"HEAD"} if "GET" in there else set())


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/Device", "/device/lamp/commands", "/device/lamp/command/5/wait",
     "/device//command", "/device/command/poll/x", "/network/1/device", "/user/1/network",
     "/user/1/devicetype/1/2", "/configuration", "/configuration/a/b", "/info/x",
     "/token/other/create"],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_unknown_paths(world: World, path: str) -> None:
    """What is no path is a 404 whatever the method."""
    for method in ("GET", "PUT", "POST", "DELETE"):
        answered = await world.ask(f"{method} {path}")
        assert (answered.code, answered.json) == (404, denied(404, "HTTP 404 Not Found"))
        check_form(answered, method)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest_twisted.ensureDeferred
async def test_prefixes(world: World, prefix: str) -> None:
    """The endpoints are there under every prefix, and a trailing slash does not matter."""
    world.another()
    for line, status, body in (
        ("PUT /device/p-<n>", 204, {"name": "P"}),
        ("GET /device/p-<n>", 200, None),
        ("POST /device/p-<n>/command", 201, {"command": "c"}),
        ("GET /device/p-<n>/command/poll?waitTimeout=0", 200, None),
        ("GET /network/<home>/", 200, None),
        ("GET /user/current", 200, None),
        ("GET /user/999999/devicetype", 404, None),
        ("DELETE /device/p-<n>", 204, None),
        ("GET /", 200, None),
        ("GET /openapi.json", 200, None),
    ):
        answered = await world.ask(line, body, prefix=prefix)
        assert answered.code == status, (line, answered)


# The tables are whole


def test_every_endpoint_has_a_permission() -> None:
    """The contract's table of permissions has all endpoints and no others."""
    assert PERMISSIONS.keys() == {name_of(each) for each in ENDPOINTS}


def test_the_description_is_whole() -> None:
    """The description has exactly the methods and paths that are served."""
    assert operations().keys() == {(each.method, bare(each.path)) for each in ENDPOINTS}


@each_endpoint
def test_every_endpoint_has_cases(endpoint: Endpoint) -> None:
    """There is a case of success; where it makes sense one of not found and one of bad input."""
    statuses = {case.status for case in CASES_OF[endpoint]}
    assert statuses & {200, 201, 204}
    if "{" in endpoint.path and name_of(endpoint) not in MAKING:
        assert 404 in statuses
    if endpoint.body is not None or endpoint.operation.endswith(("/list", "/poll")):
        assert 400 in statuses
    if re.match(r"/(device|network|devicetype)/\{", endpoint.path):
        assert 403 in statuses


def test_cases_find_their_endpoints() -> None:
    """Paths with fixed segments are told from those where they would be ids."""
    for line, path in (
        ("GET /device/count?x=/", "/device/count"), ("GET /device/lamp", "/device/{deviceId}"),
        ("GET /device/command/poll", "/device/command/poll"),
        ("GET /device/a/command/poll", "/device/{deviceId}/command/poll"),
        ("PUT /user/1/devicetype/all", "/user/{userId}/devicetype/all"),
    ):  # fmt: skip
        found = endpoint_of(*line.split(" "))
        assert found is not None
        assert found.path == path
