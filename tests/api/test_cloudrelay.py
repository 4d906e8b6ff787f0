"""The Cloud Relay's route: methods, ids, what a request must have, in which order that counts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.relaying import (
    ADMIN,
    PATH,
    PROBLEM,
    Relayed,
    check_offline,
    check_problem,
    relay,
)
from tests.api.web import request
from tests.core.bench import bounded

__all__ = ["relay"]

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"]
BODILESS = ("GET", "HEAD", "DELETE")
ALL = "a b/c\\d?e#f%25'\"~!$&()*+,;=:@é雪\U0001f600"


# Methods and paths


@pytest.mark.parametrize("method", METHODS)
@bounded
async def test_method(relay: Relayed, method: str) -> None:
    """Any method is relayed as it is; only HEAD has no body in its answer."""
    device, device_id = await relay.web()
    device.status, device.body = 207, b"answer"
    answer = await relay.ask(device_id, method, "/a?b=c", b"body")
    assert answer.code == 207
    assert answer.body == (b"" if method == "HEAD" else b"answer")
    [asked] = device.asked
    assert (asked.method, asked.target) == (method, "/a?b=c")
    assert asked.body == (b"" if method in BODILESS else b"body")
    assert asked.header("Content-Length") == (None if method in BODILESS else "4")
    assert answer.header("Access-Control-Allow-Origin") == "*"


@bounded
async def test_head(relay: Relayed) -> None:
    """The answer to a HEAD does not say that the body would be empty."""
    device, device_id = await relay.web()
    device.body = b"answer"
    answer = await relay.exchange(relay.head(device_id, "HEAD", "Remote-Query: /"))
    assert (answer.code, answer.body) == (200, b"")
    assert answer.header("Content-Length") in (None, "6")
    assert answer.header("Transfer-Encoding") is None
    answer = await relay.exchange(relay.head("nobody", "HEAD", "Remote-Query: /"))
    assert (answer.code, answer.body) == (404, b"")


@bounded
async def test_preflight(relay: Relayed) -> None:
    """A browser may send any method with any header from anywhere, and needs no token to ask."""
    device, device_id = await relay.web()
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "PROPFIND"):
        answer = await relay.ask(
            device_id, "OPTIONS", None, token=None, Origin="https://portal.example",
            Access_Control_Request_Method=method,
            Access_Control_Request_Headers="authorization,remote-query,x-anything",
        )  # fmt: skip
        assert answer.code in (200, 204)
        assert answer.header("Access-Control-Allow-Origin") in ("*", "https://portal.example")
        methods = (answer.header("Access-Control-Allow-Methods") or "").split(", ")
        assert method in methods or "*" in methods
        allowed = (answer.header("Access-Control-Allow-Headers") or "").lower().split(", ")
        # The asterisk does not stand for Authorization (Fetch, 4.9).
        assert "authorization" in allowed
        assert "*" in allowed or {"remote-query", "x-anything"} <= set(allowed)
        assert answer.header("WWW-Authenticate") is None
    assert device.asked == []


@bounded
async def test_options_is_relayed(relay: Relayed) -> None:
    """An OPTIONS that is no preflight needs a token, and is relayed with one."""
    device, device_id = await relay.web()
    device.headers = [("Allow", "GET"), ("Access-Control-Allow-Origin", "https://evil.example")]
    answer = await relay.ask(device_id, "OPTIONS", "/x", Origin="https://portal.example")
    assert (answer.code, device.asked[0].method) == (200, "OPTIONS")
    assert answer.header("Access-Control-Allow-Origin") == "*"
    assert answer.header("Access-Control-Expose-Headers") is not None
    assert "Content-Disposition" in (answer.header("Access-Control-Expose-Headers") or "")
    assert (await relay.ask(device_id, "OPTIONS", "/x", token=None)).code == 401


@bounded
async def test_device_id(relay: Relayed) -> None:
    """A device's id may have any character that is escaped, and any case."""
    device, device_id = await relay.web("x.Y-z_1")
    for written in (device_id, device_id.lower(), device_id.upper()):
        assert (await relay.ask(written)).body == b"ok"
    for unknown in (ALL, "a/b", "..", ".", "%2F", "x" * 300, " ", "request"):
        check_offline(await relay.ask(unknown), unknown)
    assert len(device.asked) == 3


@bounded
async def test_path(relay: Relayed) -> None:
    """There is nothing at other paths, and the id has at least one character."""
    for end in ("/request", "D1/request/more", "", "a/b/request"):
        path = f"{PATH}/{end}"
        answer = await request(relay.port, "GET", path, Remote_Query="/")
        assert answer.code == 404, path
        check_problem(answer, None, 404, "Not Found", "Not Found")
    answer = await request(relay.port, "GET", f"{PATH}/%ff/request", Remote_Query="/")
    check_problem(answer, None, 400, "Bad Request", "Bad Request")


@bounded
async def test_wrong_method(relay: Relayed) -> None:
    """What is no request to a device has its own methods; 405 comes before the token."""
    for method, path, allowed in (
        ("POST", "requests/x", "GET, HEAD"), ("GET", "login", "DELETE, PUT"),
        ("DELETE", "requests/x", "GET, HEAD"),
    ):  # fmt: skip
        answer = await request(relay.port, method, f"{PATH}/D1/{path}")
        check_problem(answer, None, 405, "Method Not Allowed", "Method Not Allowed")
        assert answer.header("Allow") == allowed


# Remote-Query


@bounded
async def test_no_query(relay: Relayed) -> None:
    """Without a Remote-Query, the answer is that of ASP.NET, which names it."""
    device, device_id = await relay.web()
    for query in (None, ""):
        answer = await relay.ask(device_id, query=query)
        problem = answer.json
        assert problem.pop("traceId").startswith("00-")
        assert problem == {
            "type": "https://tools.ietf.org/html/rfc7231#section-6.5.1",
            "title": "One or more validation errors occurred.",
            "status": 400,
            "errors": {"Remote-Query": ["The Remote-Query field is required."]},
        }
        assert (answer.code, answer.header("Content-Type")) == (400, PROBLEM)
        assert answer.header("Access-Control-Allow-Origin") == "*"
    assert device.asked == []


@pytest.mark.parametrize(
    ("query", "target"),
    [
        ("/", "/"),
        ("/a/./b//c?x=1&y=%41#z", "/a/./b//c?x=1&y=%41"),
        ("/%0d%0aX:%20y", "/%0d%0aX:%20y"),
        ("/a?u=http://other.example/&v=//x", "/a?u=http://other.example/&v=//x"),
        ("/caf\u00e9/\u96ea", "/caf%C3%A9/%E9%9B%AA"),
        ('/{a}|^`"<>\\', None),
    ],
)
@bounded
async def test_query(relay: Relayed, query: str, target: str | None) -> None:
    """A device gets the Remote-Query as it was written, escapes included."""
    device, device_id = await relay.web()
    line = f"Remote-Query: {query}".encode().decode("latin-1")
    answer = await relay.exchange(relay.head(device_id, "GET", line))
    assert answer.code == 200
    assert device.asked[0].target == target or target is None


@pytest.mark.parametrize(
    "query", ["x", "http://127.0.0.1:1/", "//other.example/", "/a b", "/\u00a0", "/\u200b", "*"]
)
@bounded
async def test_bad_query(relay: Relayed, query: str) -> None:
    """What is no path, or has what cannot be seen, is refused before the device is asked."""
    device, device_id = await relay.web()
    line = f"Remote-Query: {query}".encode().decode("latin-1")
    answer = await relay.exchange(relay.head(device_id, "GET", line))
    assert (answer.code, list(answer.json["errors"])) == (400, ["Remote-Query"])
    assert device.asked == []


@bounded
async def test_query_twice(relay: Relayed) -> None:
    """Two Remote-Queries are none: nobody knows which is meant."""
    device, device_id = await relay.web()
    lines = ("Remote-Query: /a", "Remote-Query: /b")
    answer = await relay.exchange(relay.head(device_id, "GET", *lines))
    assert (answer.code, list(answer.json["errors"])) == (400, ["Remote-Query"])
    answer = await relay.exchange(relay.head(device_id, "GET", "rEMOTE-qUERY:   /c  "))
    assert answer.code == 200
    long = await relay.ask(device_id, query="/" + "x" * 8191)
    assert (long.code, len(device.asked[-1].target)) == (200, 8192)
    assert (await relay.ask(device_id, query="/" + "x" * 8192)).code == 400
    assert [each.target[:2] for each in device.asked] == ["/c", "/x"]


@given(query=st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1))
@settings(max_examples=50)
@bounded
async def test_any_query(relay: Relayed, query: str) -> None:
    """Whatever is asked for, the device gets one request of the one target, or none at all."""
    if not hasattr(relay, "fuzzed"):
        relay.fuzzed = await relay.web()  # type: ignore[attr-defined]
    device, device_id = relay.fuzzed  # type: ignore[attr-defined]
    before = len(device.asked)
    answer = await relay.exchange(relay.head(device_id, "GET", f"Remote-Query: {query}"))
    wanted = query.strip(" ")
    good = wanted.startswith("/") and not wanted.startswith("//") and " " not in wanted
    assert answer.code == (200 if good else 400)
    assert [each.target for each in device.asked[before:]] == (
        [wanted.partition("#")[0]] if good else []
    )


# Timeouts and the environment


@pytest.mark.parametrize("name", ["responseTimeout", "RESPONSETIMEOUT", "connectTimeout"])
@pytest.mark.parametrize(
    "value", ["", "x", "5.0", "1e1", "0x10", "\u0663", "2147483648", "99999999999", "5&{0}=6"]
)
@bounded
async def test_bad_timeout(relay: Relayed, name: str, value: str) -> None:
    """A timeout that is no integer is refused, before the device is looked for."""
    params = f"?{name}={value.format(name)}".encode().decode("latin-1")
    params = params.replace("\u00d9\u00a3", "%D9%A3")
    answer = await relay.ask("nobody", params=params)
    check_problem(answer, 100, 400, "Bad Request", "Invalid request")


@pytest.mark.parametrize(
    ("params", "seconds"),
    [
        ("", 30.0),
        ("?responseTimeout=7", 7.0),
        ("?RESPONSEtimeOut=%207%20", 7.0),
        ("?other=x&responsetimeout=+7", 7.0),
        ("?responseTimeout=-2147483648", 5.0),
        ("?responseTimeout=0", 5.0),
        ("?responseTimeout=301", 300.0),
        ("?responseTimeout=2147483647", 300.0),
        ("?response_timeout=x", 30.0),
    ],
)
@bounded
async def test_response_timeout(relay: Relayed, params: str, seconds: float) -> None:
    """A device is waited for as long as the caller says, within bounds; then it is 504."""
    device, device_id = await relay.raw()
    asked = relay.ask(device_id, params=params)
    visit = await device.visit()
    await visit.request()
    assert relay.time.waits(seconds)
    relay.time.advance(seconds)
    check_problem(await asked, 1001, 504, "Gateway Timeout", "Operation error or timeout")
    await visit.gone()


@bounded
async def test_environment(relay: Relayed) -> None:
    """There is one environment; any other is unknown, whatever the device."""
    _, device_id = await relay.web()
    for good in ("", "default"):
        assert (await relay.ask(device_id, params=f"?environmentId={good}")).code == 200
    for name in ("environmentId", "ENVIRONMENTID"):
        for wanted in (device_id, "nobody"):
            answer = await relay.ask(wanted, params=f"?{name}=hub%2F2")
            detail = "Reference 'hub/2' does not exist"
            check_problem(answer, 3000, 404, "Not Found", detail)


# Order


@bounded
async def test_order(relay: Relayed) -> None:
    """A request with everything wrong is told first what the original tells first."""
    wrong = {"params": "?responseTimeout=x"}
    links = await relay.token_of("links")
    assert (await relay.ask("nobody", query=None, token=None, **wrong)).code == 401  # type: ignore[arg-type]
    assert (await relay.ask("nobody", query=None, token="bad", **wrong)).code == 401  # type: ignore[arg-type]
    assert (await relay.ask("nobody", query=None, token=links, **wrong)).code == 403  # type: ignore[arg-type]
    answer = await relay.ask("nobody", query=None, token=ADMIN, **wrong)  # type: ignore[arg-type]
    assert (answer.code, "errors" in answer.json) == (400, True)
    answer = await relay.ask("nobody", params="?responseTimeout=x&environmentId=y")
    check_problem(answer, 100, 400, "Bad Request", "Invalid request")
    answer = await relay.ask("nobody", params="?environmentId=y")
    check_problem(answer, 3000, 404, "Not Found", "Reference 'y' does not exist")
    check_offline(await relay.ask("nobody"), "nobody")


@bounded
async def test_request_id_of_an_error(relay: Relayed) -> None:
    """An error has the name, too: what went wrong is looked up by it."""
    device_id = await relay.register("http://127.0.0.1:1")
    answer = await relay.ask(device_id)
    check_offline(answer, device_id)
    (record,) = await relay.records(device_id)
    assert record["requestId"] == answer.header("X-Request-Id")
    assert (record["status"], record["error"], record["bytes"]) == (None, "Offline", 0)


@bounded
async def test_request_id(relay: Relayed) -> None:
    """Each answer has a name of its own, by which the record in the timeline is found."""
    _, device_id = await relay.web()
    answers = [await relay.ask(device_id, "POST", "/a?secret=1#f", b"four") for _ in range(2)]
    numbers = [answer.header("X-Request-Id") for answer in answers]
    records = await relay.records(device_id, 2)
    assert len(set(numbers)) == 2
    assert [record.pop("requestId") for record in records] == numbers
    for record in records:
        assert isinstance(record.pop("ms"), int)
        assert record == {
            "method": "POST", "path": "/a", "principal": "service portal", "status": 200,
            "bytes": 2, "error": None, "adapter": "http",
        }  # fmt: skip
