"""What passes between a caller and an HTTP device, and what comes of devices that misbehave."""

from __future__ import annotations

import json
from hashlib import sha256
from random import Random

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone

from tests.api.relaying import Relayed, Said, relay
from tests.api.scene import until
from tests.core.bench import bounded

__all__ = ["relay"]

BYTES = bytes(range(256))


# Headers


@bounded
async def test_request_headers(relay: Relayed) -> None:
    """A device gets four header fields of its caller, and what the connection needs."""
    device, device_id = await relay.web()
    lines = [
        "Accept: text/html;q=0.5", "accept: application/json,  x/y", "Content-Type: a/b; c=\"d\"",
        "Content-Disposition: attachment; filename=x", "Content-Length: 4", "Remote-Query: /x",
        "Cookie: session=1", "Accept-Encoding: gzip", "Accept-Language: de", "User-Agent: me",
        "X-Forwarded-For: 10.0.0.1", "Forwarded: for=10.0.0.1", "Referer: http://x/",
        "Idempotent: no", "If-None-Match: x", "Range: bytes=0-1", "X-Custom: 1", "TE: trailers",
        "X-HTTP-Method-Override: DELETE", "Proxy-Authorization: Basic eDp5", "Via: 1.1 x",
    ]  # fmt: skip
    answer = await relay.exchange(relay.head(device_id, "POST", *lines) + b"body")
    assert answer.code == 200
    [asked] = device.asked
    assert (asked.method, asked.body) == ("POST", b"body")
    assert {name.lower(): value for name, value in asked.headers} == {
        "host": device.url.removeprefix("http://"),
        "accept": "text/html;q=0.5, application/json,  x/y",
        "content-type": 'a/b; c="d"',
        "content-disposition": "attachment; filename=x",
        "content-length": "4",
        "accept-encoding": "identity",
    }
    assert len(asked.headers) == 6


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD"])
@bounded
async def test_dropped_bodies(relay: Relayed, method: str) -> None:
    """A GET or DELETE has neither a body nor what describes one."""
    device, device_id = await relay.web()
    lines = ("Content-Type: a/b", "Content-Disposition: x", "Content-Length: 4", "Accept: x/y")
    head = relay.head(device_id, method, "Remote-Query: /", *lines)
    assert (await relay.exchange(head + b"body")).code == 200
    [asked] = device.asked
    assert {name.lower() for name, _ in asked.headers} == {"host", "accept", "accept-encoding"}
    assert asked.body == b""


@bounded
async def test_response_headers(relay: Relayed) -> None:
    """A caller gets three header fields of the device, and the gateway's own."""
    device, device_id = await relay.web()
    device.status = 418
    device.headers = [
        ("Content-Type", "a/b"), ("Content-Disposition", "attachment; filename=\"\u00fc\""),
        ("Content-Encoding", "x-own"), ("Content-Language", "de"), ("Set-Cookie", "session=1"),
        ("Location", "http://other.example/"), ("WWW-Authenticate", "Basic"), ("ETag", "x"),
        ("X-Custom", "1"), ("Access-Control-Allow-Origin", "http://other.example"),
        ("X-Request-Id", "mine"), ("Retry-After", "9"), ("Cache-Control", "no-store"),
        ("Server", "Embedded/1.0"), ("Connection", "keep-alive, X-Custom"),
    ]  # fmt: skip
    answer = await relay.exchange(relay.head(device_id, "GET", "Remote-Query: /"))
    assert (answer.code, answer.body) == (418, b"ok")
    headers = {name.lower(): value for name, value in answer.headers}
    assert len(headers) == len(answer.headers)
    assert headers.pop("date")
    assert len(headers.pop("x-request-id")) == 16
    assert headers == {
        "content-type": "a/b", "content-disposition": "attachment; filename=\"\u00fc\"",
        "content-encoding": "x-own", "content-length": "2", "connection": "close",
        "access-control-allow-origin": "*",
        "access-control-expose-headers": "Content-Disposition, Location, Retry-After, X-Request-Id",
    }  # fmt: skip


@bounded
async def test_default_type(relay: Relayed) -> None:
    """An answer without a type is text."""
    device, device_id = await relay.web()
    for method in ("GET", "HEAD", "POST"):
        answer = await relay.ask(device_id, method)
        assert answer.header("Content-Type") == "text/plain; charset=utf-8"
    device.headers = [("Content-Type", "application/json")]
    assert (await relay.ask(device_id)).header("Content-Type") == "application/json"


@pytest.mark.parametrize(
    "status", [200, 201, 204, 301, 304, 400, 401, 403, 404, 405, 500, 503, 599]
)
@bounded
async def test_status(relay: Relayed, status: int) -> None:
    """Any final status is passed on, also that of a redirect or of an error, with its body."""
    device, device_id = await relay.raw()
    asked = relay.ask(device_id)
    visit = await device.visit()
    await visit.request()
    bodiless = status in (204, 304)
    head = f"HTTP/1.1 {status} Any reason\r\nLocation: /x\r\n"
    visit.send(head.encode() + (b"\r\n" if bodiless else b"Content-Length: 4\r\n\r\nbody"))
    answer = await asked
    assert (answer.code, answer.body) == (status, b"" if bodiless else b"body")
    assert answer.header("Content-Type") != "application/problem+json; charset=utf-8"


@bounded
async def test_login_and_base_path(relay: Relayed) -> None:
    """A device gets its own login, never the caller's token, below the path of its base URL."""
    device, device_id = await relay.web(path="/api/")
    found = await relay.device(device_id)
    url = json.loads(found.data or b"")["address"]["baseUrl"]
    answer = await relay.ask(device_id, query="/v1/info")
    assert (answer.code, device.asked[0].target) == (200, "/api/v1/info")
    assert device.asked[0].header("Authorization") is None
    assert relay.program not in repr(device.asked)
    for query in ("/../x", "/a/%2e%2e/x", "/..%2fx"):
        assert (await relay.ask(device_id, query=query)).code == 400
    assert len(device.asked) == 1
    assert url.endswith("/api/")


# Bodies


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH"])
@bounded
async def test_any_byte(relay: Relayed, method: str) -> None:
    """A body is passed on as it is, each way."""
    device, device_id = await relay.web()
    device.body = BYTES
    answer = await relay.ask(device_id, method, "/", BYTES, Content_Type="text/plain")
    assert (answer.body, answer.length, device.asked[0].body) == (BYTES, 256, BYTES)
    device.body = b""
    answer = await relay.ask(device_id, method, "/", b"")
    assert (answer.body, answer.code, device.asked[1].body) == (b"", 200, b"")


@bounded
async def test_large_bodies(relay: Relayed) -> None:
    """5 MB that nobody can compress come through whole, each way."""
    device, device_id = await relay.web()
    body, device.body = (Random(number).randbytes(5_000_000) for number in (1, 2))
    answer = await relay.ask(device_id, "POST", "/", body)
    assert sha256(device.asked[0].body).digest() == sha256(body).digest()
    assert sha256(answer.body).digest() == sha256(device.body).digest()
    assert answer.length == 5_000_000


@bounded
async def test_chunked(relay: Relayed) -> None:
    """Chunks are put together on the way to the device; from it they may come as they like."""
    device, device_id = await relay.raw()
    lines = ("Remote-Query: /", "Transfer-Encoding: chunked")
    asked = relay.exchange(
        relay.head(device_id, "POST", *lines) + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    )
    answered = Deferred.fromCoroutine(asked)
    visit = await device.visit()
    head, body = await visit.request(5)
    assert body == b"abcde"
    assert "Content-Length: 5" in head
    assert not any("chunked" in line for line in head)
    visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for byte in BYTES:
        visit.send(b"1\r\n" + bytes([byte]) + b"\r\n")
    visit.send(b"0\r\nTrailer: x\r\n\r\n")
    answer = await answered
    assert (answer.code, answer.body) == (200, BYTES)
    assert answer.header("Trailer") is None


@bounded
async def test_body_until_close(relay: Relayed) -> None:
    """An old device ends its answer with the connection."""
    device, device_id = await relay.raw()
    asked = relay.ask(device_id)
    visit = await device.visit()
    await visit.request()
    visit.send(b"HTTP/1.0 200 OK\r\n\r\n" + BYTES)
    visit.close()
    assert (await asked).body == BYTES


@bounded
async def test_streams(relay: Relayed) -> None:
    """What a device has sent the caller has, before the device goes on; so with its next answer."""
    device, device_id = await relay.raw()
    head = relay.head(device_id, "GET", "Remote-Query: /")
    pipe = await relay.open(head.replace(b"Connection: close\r\n", b""))
    visit = await device.visit()
    for _ in range(2):
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in (b"one", b"two", b"three"):
            visit.send(b"%x\r\n%b\r\n" % (len(event), event))
            await until(lambda event=event: pipe.received.endswith(event + b"\r\n"))
        visit.send(b"0\r\n\r\n")
        await until(lambda: pipe.received.endswith(b"0\r\n\r\n"))
        assert Said.read(pipe.received).body == b"onetwothree"
        pipe.received = b""
        pipe.write(head.replace(b"Connection: close\r\n", b""))
    await pipe.bye()
    assert len(device.visits) == 1


@bounded
async def test_old_caller(relay: Relayed) -> None:
    """A caller of HTTP/1.0 gets no chunks, and a reset instead of an end that is none."""
    device, device_id = await relay.raw()
    head = relay.head(device_id, "GET", "Remote-Query: /").replace(b"HTTP/1.1", b"HTTP/1.0")
    for end in (b"0\r\n\r\n", b"garbage\r\n"):
        pipe = await relay.open(head)
        visit = await device.visit()
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n")
        await until(lambda pipe=pipe: pipe.received.endswith(b"body"))
        visit.send(end)
        if end.startswith(b"0"):
            visit.close()
        reason = await pipe.gone()
        assert isinstance(reason, ConnectionDone) is end.startswith(b"0")
