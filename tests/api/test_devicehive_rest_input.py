"""Whatever a client sends to REST: an answer in the contract's form, and nothing else happens."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.api.devicehive.endpoints import ENDPOINTS, Endpoint
from tests.api.rest_client import GOOD, ask, line_of, names, refuses, send, serve
from tests.api.rest_description import check_described
from tests.api.rest_table import INVALID, NO_OBJECTS, NOT_AN_OBJECT, UNKNOWN, endpoint_of
from tests.api.scene import no_failures
from tests.api.web import request
from tests.harness import Daemon


@pytest_twisted.async_yield_fixture(scope="module", name="daemon")
async def make_daemon(module_path: Path) -> AsyncIterator[Daemon]:
    """Return the gateway that all tests share."""
    async for daemon in serve(module_path):
        yield daemon


# Bodies

with_body = [each for each in ENDPOINTS if each.body is not None]
NOT_OBJECTS = [
    b"{", b"[]", b"null", b'{"x":"\xff"}', b'{"x":' + b"[" * 64 + b"]" * 64 + b"}",
    b"}", b'"x"', b"1", b"true", b" ", b"{'a':1}", b'{"a"}', b'{"a":1,}',
    b"{}{}", b"{} x", b'{"x":NaN}', b'{"x":01}', b'{"x":"\\x"}', b'{"x":"a\nb"}', b"\xef\xbb\xbf{}",
    b'{"\xff":1}', b'{"x":"\xed\xa0\x80"}', b"\xff\xfe{\x00}\x00", b"a=1&b=2",
    b'{"x":' * 5000 + b"1" + b"}" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("endpoint", with_body, ids=line_of)
@pytest_twisted.ensureDeferred
async def test_not_an_object(daemon: Daemon, endpoint: Endpoint) -> None:
    """A body that is no JSON object, not UTF-8 or too deep is a 400, and changes nothing."""
    # All of them are read in one of two ways, by itself or with the fields of the path.
    whole = endpoint.operation in ("command/insert", "configuration/put")
    for body in NOT_OBJECTS if whole else NOT_OBJECTS[:5]:
        await refuses(daemon, line_of(endpoint), body, 400, INVALID)
    if endpoint.method == "POST":
        await refuses(daemon, line_of(endpoint), b"", 400, INVALID)
        await refuses(daemon, line_of(endpoint), None, 400, INVALID)
    for kind, expected in (("command", []), ("notification", ["$device-add"])):
        assert await names(daemon, kind, "other") == expected


@pytest_twisted.ensureDeferred
async def test_depth(daemon: Daemon) -> None:
    """A body may nest as deep as the limit, brackets in texts not counted."""
    nest: Any = {}
    for _ in range(62):
        nest = {"in": nest}
    body = {"notification": "deep", "parameters": nest, "x": "[" * 1000}
    number = (await ask(daemon, "POST /device/dev/notification", body, 201))["id"]
    kept = await ask(daemon, f"GET /device/dev/notification/{number}")
    assert kept["parameters"] == nest
    body["parameters"] = {"in": nest}
    await refuses(daemon, "POST /device/dev/notification", body, 400, INVALID)


@pytest_twisted.ensureDeferred
async def test_too_large(daemon: Daemon) -> None:
    """A body beyond the limit is a 413, and none of it is kept."""
    before = await names(daemon, "command")
    limit = daemon.gateway.settings.limits.body
    head = b'{"command":"large","parameters":{"x":"'
    for size, status in ((limit, 201), (limit + 1, 413), (2 * limit, 413)):
        body = head + b"x" * (size - len(head) - 3) + b'"}}'
        answered = await request(
            daemon.port, "POST", "/rest/device/dev/command", body, Authorization=f"Bearer {GOOD}"
        )
        assert answered.code == status
        check_described("POST", "/device/{deviceId}/command", answered)
        assert status == 201 or answered.json["error"] == 413
    assert await names(daemon, "command") == sorted([*before, "large"])


STRINGS: list[Any] = [[], {}, ["x"]]
NUMBERS: list[Any] = ["x", "1.0", "\u0661", True, 1.5, [], 10**30]
BOOLEANS: list[Any] = [0, "yes", "", []]
TIMES: list[Any] = [True, "x", "2026-02-30", -1, {}, 10**30, 1e300, "9" * 5000]
_GROUP = {"name": STRINGS, "description": STRINGS}
_USER = {"login": STRINGS, "password": STRINGS, "role": NUMBERS, "status": NUMBERS,
         "introReviewed": BOOLEANS, "allDeviceTypesAvailable": BOOLEANS,
         "data": NO_OBJECTS}  # fmt: skip
#: The fields of each body by the kind of value that they take.
FIELDS: dict[str, dict[str, list[Any]]] = {
    "POST /token": {"login": STRINGS, "password": STRINGS},
    "POST /token/refresh": {"refreshToken": STRINGS},
    "POST /token/create": {"userId": NUMBERS, "expiration": TIMES, "refreshExpiration": TIMES,
                           "networkIds": [{}, [[]], [{}]], "deviceTypeIds": [{}, [[]]]},
    "PUT /configuration/colour": {"value": STRINGS},
    "PUT /device/dev": {"name": STRINGS, "networkId": NUMBERS, "deviceTypeId": NUMBERS,
                        "isBlocked": BOOLEANS, "data": NO_OBJECTS},
    "POST /device/dev/command": {"command": STRINGS, "lifetime": NUMBERS, "timestamp": TIMES,
                                 "status": STRINGS, "parameters": NO_OBJECTS,
                                 "result": NO_OBJECTS},
    "PUT /device/dev/command/5": {"status": STRINGS, "result": NO_OBJECTS},
    "POST /device/dev/notification": {"notification": STRINGS, "timestamp": TIMES,
                                      "parameters": NO_OBJECTS},
    "POST /network": _GROUP, "PUT /network/1": _GROUP,
    "POST /devicetype": _GROUP, "PUT /devicetype/1": _GROUP,
    "POST /user": _USER, "PUT /user/current": _USER, "PUT /user/1": _USER,
}  # fmt: skip
NEEDED: dict[str, dict[str, Any]] = {
    "POST /token": {"login": "dhadmin", "password": "dhadmin_#911"},
    "POST /token/create": {"userId": 1},
    "POST /device/dev/command": {"command": "wrong"},
    "POST /device/dev/notification": {"notification": "wrong"},
    "POST /network": {"name": "wrong"},
    "POST /devicetype": {"name": "wrong"},
    "POST /user": {"login": "wrong", "password": "wrong_#911", "role": 1},
}


@pytest.mark.parametrize("line", FIELDS)
@pytest_twisted.ensureDeferred
async def test_wrong_types(daemon: Daemon, line: str) -> None:
    """A field of a type that it cannot have is a 400, and nothing is kept of the rest."""
    for field, values in FIELDS[line].items():
        for value in values:
            text = NOT_AN_OBJECT if values is NO_OBJECTS else INVALID
            body = {**NEEDED.get(line, {}), field: value}
            await refuses(daemon, line, body, 400, text)
    for kind in ("command", "notification"):
        assert "wrong" not in await names(daemon, kind)
    for noun in ("network", "devicetype"):
        assert await ask(daemon, f"GET /{noun}?name=wrong") == []
    assert await ask(daemon, "GET /user?login=wrong") == []


def test_every_body_has_its_fields() -> None:
    """The table of fields has every endpoint with a body; those of plugins have their own tests."""
    plugins = {line_of(each) for each in with_body if "plugin" in each.path}
    assert FIELDS.keys() == {line_of(each) for each in with_body} - plugins


@pytest_twisted.ensureDeferred
async def test_content_types(daemon: Daemon) -> None:
    """A body is JSON, and never parameters, whatever its Content-Type says."""
    for content_type in (
        "application/x-www-form-urlencoded", "multipart/form-data", "text/plain",
        "multipart/form-data; boundary=x", "application/json; charset=utf-16", "nonsense", "",
    ):  # fmt: skip
        body = {"command": "typed", "parameters": {"x": "&deviceId=other&command=x&take=y"}}
        told = await ask(daemon, "POST /device/dev/command", body, 201, Content_Type=content_type)
        kept = await ask(daemon, f"GET /device/dev/command/{told['id']}")
        assert kept["parameters"] == body["parameters"]


@pytest_twisted.ensureDeferred
async def test_bodies_where_none_belongs(daemon: Daemon) -> None:
    """A body of a request that has none is not looked at."""
    for body in (b"{", b"\xff", b'{"deviceId":"other","take":0}'):
        assert (await ask(daemon, "GET /device/dev", body))["id"] == "dev"
        await refuses(daemon, "DELETE /device/nobody", body, 404,
                      "Device with such deviceId = nobody not found")  # fmt: skip


# Queries

POLLS = [
    "/device/dev/command/poll", "/device/command/poll", "/device/dev/command/5/poll",
    "/device/dev/notification/poll", "/device/notification/poll",
]  # fmt: skip
LISTS = ["/device", "/network", "/devicetype", "/user", "/device/dev/command",
         "/device/dev/notification"]  # fmt: skip
#: The numbers in queries: where they are, whether a negative one is refused, and with what.
QUERY_NUMBERS: list[tuple[str, str, str | None]] = [
    *((path, name, INVALID) for path in LISTS for name in ("take", "skip")),
    *((path, "waitTimeout", "Timeout can't be less than 0 seconds. ") for path in POLLS),
    *((path, "limit", "Limit can't be less than 0.") for path in POLLS if "5" not in path),
    ("/device", "networkId", None), ("/device/count", "networkId", None),
    ("/user", "role", None), ("/user", "status", None),
    ("/user/count", "role", None), ("/user/count", "status", None),
]  # fmt: skip
NOT_NUMBERS = ["x", "1.0", str(2**63), "-", "\u0661", "1e3", "0x1", "+1", " 1", "1 ", "--1", "1,2",
               "true", "null", "NaN", "[]", "\x00", str(-(2**63)), str(10**30),
               "9" * 5000]  # fmt: skip


@pytest.mark.parametrize(("path", "name", "negative"), QUERY_NUMBERS)
@pytest_twisted.ensureDeferred
async def test_numbers(daemon: Daemon, path: str, name: str, negative: str | None) -> None:
    """What is no number makes the path unknown; a negative one is wrong where it means nothing."""
    more = "" if name == "waitTimeout" else "&waitTimeout=0"
    for value in NOT_NUMBERS if path == "/device" else NOT_NUMBERS[:4]:
        await refuses(daemon, f"GET {path}?{name}={quote(value)}{more}", None, 404, UNKNOWN)
    for value in ("-1", str(1 - 2**63)):
        line = f"GET {path}?{name}={value}{more}"
        if negative is None:
            assert await ask(daemon, line) in ([], {"count": 0})
        else:
            await refuses(daemon, line, None, 400, negative)
    if name != "waitTimeout":
        assert await ask(daemon, f"GET {path}?{name}={2**63 - 1}{more}") is not None
    await ask(daemon, f"GET {path}?{name}=00{more}", None, 204 if "/5/" in path else 200)


@pytest_twisted.ensureDeferred
async def test_times(daemon: Daemon) -> None:
    """What is no time is told so; every form of one means the same."""
    body = {"notification": "timed", "timestamp": "2024-02-29T12:30:45.678"}
    await ask(daemon, "POST /device/dev/notification", body, 201)
    polled = "/device/dev/notification/poll?waitTimeout=0&names=timed&timestamp="
    listed = "/device/dev/notification?notification=timed&start="
    for value in ("x", "2026-13-01", "2026-02-30", "22.11.2026", "-1", "1.5", "9" * 5000, "now",
                  "2026-11-22T25:00:00", "2026-11-22T10:00:00 Z", "\u0662\u0660\u0662\u0664",
                  "2024-02-29T12:30:45.678+02:00",  # an unquoted + is a blank
                  "[]", "true"):  # fmt: skip
        for path in (polled, listed, "/device/dev/command?end="):
            value = value if "+" in value else quote(value)
            await refuses(daemon, f"GET {path}{value}", None, 400, "Unparseable timestamp")
    for value in ("2024-02-29T12:30:45.678", "2024-02-29T12:30:45.678Z", "1709209845678",
                  "2024-02-29 12:30:45,6789", "2024-02-29T14:30:45.678+02:00",
                  "2024-02-29T02:30:45.678-10"):  # fmt: skip
        assert await ask(daemon, f"GET {polled}{quote(value)}") == []
        assert len(await ask(daemon, f"GET {listed}{quote(value)}")) == 1
    for value in ("", "2024-02-29T12:30:45.677", "2024-02-29", "0"):
        expected = [] if value == "" else ["timed"]
        polled_names = [m["notification"] for m in await ask(daemon, f"GET {polled}{value}")]
        assert polled_names == expected


@pytest_twisted.ensureDeferred
async def test_odd_queries(daemon: Daemon) -> None:
    """Queries that are not UTF-8 are refused; all other text is only text."""
    for query in ("name=%ff", "%ff=1", "x=%ed%a0%80"):
        await refuses(daemon, f"GET /device?{query}", None, 400, "HTTP 400 Bad Request")
    for query in ("name=%00", "name=%22'--", "namePattern=%5B%5B*%3F%5D%5E-%25", "name=%",
                  "namePattern=" + "%25a" * 500, "networkName=%F0%9F%98%80",
                  "name=%zz"):  # fmt: skip
        assert await ask(daemon, f"GET /device?{query}") == []
    for query in ("", "&&&", "=", "=x&", "name", "?", "name=&namePattern=&networkId=&take="):
        assert len(await ask(daemon, f"GET /device?{query}")) == 2
    await refuses(daemon, "GET /device?sortOrder=%C3%A9", None, 400,
                  "Unparseable sort order : \u00e9")  # fmt: skip
    for value in ("1", "yes", "", "tru"):
        await refuses(daemon, f"DELETE /network/1?force={value}", None, 400, INVALID)
        path = f"/device/dev/command/poll?waitTimeout=0&returnUpdatedCommands={value}"
        await refuses(daemon, f"GET {path}", None, 400, INVALID)
    for value in ("1,x", "1%3B2", "1.0", "[1]", "1%202", "9" * 19):
        for name in ("networkIds", "deviceTypeIds"):
            path = f"/device/notification/poll?waitTimeout=0&{name}={value}"
            await refuses(daemon, f"GET {path}", None, 400, INVALID)


# Ids in paths

ODD_IDS = ["a/b", "a%2Fb", "a%b", "%", "..", ".", "a..b", " ", "a b", "+", "a+b", "a;b=c", "a,b",
           "\u00e9", "\U0001f600", "\x00", "a\x00b", "a\nb", "{deviceId}", "<seg:x>", "'--", '"',
           "x" * 49, "x" * 8000]  # fmt: skip
CHARACTERS = "Device Id can only contain letters, digits and dashes."
LENGTH = "The length of device id should not be more than 48 symbols."


@pytest.mark.parametrize("device_id", ODD_IDS, ids=ascii)
@pytest_twisted.ensureDeferred
async def test_odd_device_ids(daemon: Daemon, device_id: str) -> None:
    """An id is decoded once, stays one segment, and is told as it was meant."""
    segment = quote(device_id, safe="")
    text = f"Device with such deviceId = {device_id} not found"
    for line in (f"GET /device/{segment}", f"DELETE /device/{segment}",
                 f"GET /device/{segment}/command", f"GET /device/{segment}/notification/1",
                 f"GET /device/command/poll?waitTimeout=0&deviceId={segment}"):  # fmt: skip
        await refuses(daemon, line, None, 404, text)
    body = {"command": "c"}
    await refuses(daemon, f"POST /device/{segment}/command", body, 404, text)
    wrong = LENGTH if device_id.startswith("x") else CHARACTERS
    await refuses(daemon, f"PUT /device/{segment}", {"name": "x"}, 400, wrong)


@pytest_twisted.ensureDeferred
async def test_quoted_ids(daemon: Daemon) -> None:
    """Quoting what need not be quoted changes nothing; settings may be called anything."""
    for segment in ("dev", "%64%65%76", "DEV", "d%65v"):
        assert (await ask(daemon, f"GET /device/{segment}"))["id"] == "dev"
    for name in ("a/b", "a%2Fb", "..", " ", "\u00e9", "?", "#", "a\x00b", "+"):
        line = f"/configuration/{quote(name, safe='')}"
        kept = await ask(daemon, f"PUT {line}", {"value": name})
        assert (kept["name"], kept["value"]) == (name, name)
        assert await ask(daemon, f"GET {line}") == kept
        await ask(daemon, f"DELETE {line}", None, 204)


@pytest_twisted.ensureDeferred
async def test_dot_segments(daemon: Daemon) -> None:
    """Dots and double slashes lead nowhere else."""
    for path in ("/../rest/info", "/device/../info", "/device/./dev", "/./info", "//info",
                 "/device//dev", "/%2e%2e/rest/info", "/device/dev/%2e%2e/dev",
                 "/info%2F", "/device%2Fdev", "/info;x", "/info%00", "/info%3Fx"):  # fmt: skip
        await refuses(daemon, f"GET {path}", None, 404, UNKNOWN)
    for path in ("/device/%ff", "/%ff", "/configuration/%c3%28"):
        await refuses(daemon, f"GET {path}", None, 400, "HTTP 400 Bad Request")
    too_long = await request(daemon.port, "GET", "/rest/device/" + "x" * 20_000)
    assert (too_long.code, too_long.json["error"]) == (431, 431)


@pytest.mark.parametrize(
    "path",
    ["/network/{}", "/devicetype/{}", "/user/{}", "/device/dev/command/{}",
     "/device/dev/notification/{}", "/user/1/network/{}", "/user/1/devicetype/{}",
     "/user/{}/devicetype", "/device/dev/command/{}/poll"],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_odd_numbers_in_paths(daemon: Daemon, path: str) -> None:
    """What is no number where one is needed makes the path unknown; one of nothing is not found."""
    for value in NOT_NUMBERS[:-1] if path == "/network/{}" else NOT_NUMBERS[:4]:
        line = f"GET {path.format(quote(value, safe=''))}"
        await refuses(daemon, line, None, 404, UNKNOWN)
    for number in (0, -1, 2**31, 2**63 - 1, 1 - 2**63):
        answered = await send(daemon, f"GET {path.format(number)}")
        if path.endswith("poll"):
            assert answered.code == 204
        else:
            assert answered.code == 404
            assert "not found" in answered.json["message"]


# Anything

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
BODY = st.dictionaries(
    st.sampled_from(sorted({name for fields in FIELDS.values() for name in fields})),
    SCALAR | st.lists(SCALAR, max_size=2) | st.dictionaries(TEXT, SCALAR, max_size=2),
    max_size=5,
).map(lambda body: json.dumps(body).encode()) | st.binary(max_size=20)  # fmt: skip
QUERY = st.dictionaries(
    st.sampled_from(["take", "skip", "sortField", "sortOrder", "name", "namePattern", "networkIds",
                     "names", "timestamp", "limit", "start", "status", "force", "deviceId",
                     "returnUpdatedCommands", "topicName"]),
    st.integers().map(str) | TEXT | st.sampled_from(["1", "name", "asc", "2024-01-01", "true"]),
    max_size=3,
)  # fmt: skip
#: What would take its rights away from the user who asks, or its password.
UNSAFE = {"PUT /user/{userId}", "PUT /user/current", "DELETE /user/{userId}"}
ANY = st.sampled_from([e for e in ENDPOINTS if f"{e.method} {e.path}" not in UNSAFE])


@pytest_twisted.ensureDeferred
@settings(max_examples=100, deadline=None)
@given(endpoint=ANY, segment=TEXT.filter(bool), there=st.booleans(), query=QUERY, body=BODY)
async def test_anything(
    daemon: Daemon, endpoint: Endpoint, segment: str, there: bool, query: dict[str, str],
    body: bytes,
) -> None:  # fmt: skip
    """Every answer is one that is described, no request is a defect, and nothing is logged."""
    method, _, path = line_of(endpoint).partition(" ")
    if not there:
        path = re.sub(r"\{\w+\}", lambda _: quote(segment, safe=""), endpoint.path)
    text = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    with no_failures():
        answered = await send(daemon, f"{method} {path}?waitTimeout=0&{text}", body)
    assert answered.code < 500
    asked = endpoint_of(method, path)
    assert asked is not None
    check_described(method, asked.path, answered)
