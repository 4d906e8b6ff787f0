"""What passes between a caller and an HTTP device, and what comes of devices that misbehave."""

from __future__ import annotations

import json
from hashlib import sha256
from http.client import HTTPException
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.devices import DeviceChange
from tests.api.relaying import Relayed, Said, check_offline, check_problem, relay
from tests.core.bench import bounded
from tests.device.devices import OK
from tests.harness import reactor

__all__ = ["relay"]

INVALID = (1002, 502, "Bad Gateway", "Invalid result")
SILENT = (1001, 504, "Gateway Timeout", "Operation error or timeout")
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


# Devices that misbehave


@bounded
async def test_refusing(relay: Relayed) -> None:
    """A device whose port is closed is not there; when it is back, it answers again."""
    device, device_id = await relay.raw(OK)
    assert (await relay.ask(device_id)).body == b"ok"
    port = device.port
    await device.stop()
    began = reactor.seconds()
    for method in ("GET", "POST"):
        check_offline(await relay.ask(device_id, method), device_id)
    assert reactor.seconds() - began < 5
    device.listening = reactor.listenTCP(port, device, interface="127.0.0.1")
    for method in ("GET", "POST", "GET"):
        assert (await relay.ask(device_id, method)).body == b"ok"
    records = await relay.records(device_id, 6)
    assert [record["error"] for record in records] == [None, "Offline", "Offline", None, None, None]


@bounded
async def test_unknown_name(relay: Relayed) -> None:
    """A device whose name means nothing is not there."""
    device_id = await relay.register("http://no-such-host.invalid/")
    check_offline(await relay.ask(device_id), device_id)


@bounded
async def test_stale(relay: Relayed) -> None:
    """A connection that the device closed meanwhile costs a caller nothing."""
    device, device_id = await relay.raw(OK)
    for method in ("GET", "POST", "PUT", "GET"):
        assert (await relay.ask(device_id, method)).body == b"ok"
        for visit in device.visits:
            if visit.open:
                visit.close()


@bounded
async def test_closes_at_once(relay: Relayed) -> None:
    """A device that closes without a word answers nothing; it is asked once."""
    device, device_id = await relay.raw()
    for number, end in enumerate(("close", "reset")):
        asked = relay.ask(device_id, "POST", "/", b"body")
        visit = await device.visit()
        await visit.request(4)
        getattr(visit, end)()
        check_problem(await asked, *INVALID)
        assert len(device.visits) == number + 1


def garbage() -> dict[str, bytes]:
    """Return answers that are none."""
    many = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 1000) for number in range(10_000))
    return {
        "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "zeros": bytes(100_000),
        "no status": b"HTTP/1.1 OK\r\n\r\n",
        "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
        "switches": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "10 MB of headers": b"HTTP/1.1 200 OK\r\n" + many + b"\r\n",
        "10 MB of one header": b"HTTP/1.1 200 OK\r\nX: " + bytes(10_000_000).replace(b"\0", b"x"),
        "10 MB of status": b"HTTP/1.1 200 " + b"x" * 10_000_000,
        "bad header": b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "no length": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    }


@pytest.mark.parametrize("kind", list(garbage()))
@bounded
async def test_garbage(relay: Relayed, kind: str) -> None:
    """What is no HTTP is no answer."""
    device, device_id = await relay.raw()
    asked = relay.ask(device_id)
    visit = await device.visit()
    await visit.request()
    visit.send(garbage()[kind])
    check_problem(await asked, *INVALID)
    await visit.gone()


def broken() -> dict[str, bytes]:
    """Return answers that end too early."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n"
    return {
        "length": head + b"Content-Length: 100000\r\n\r\n" + b"x" * 70_000,
        "one byte": head + b"Content-Length: 5\r\n\r\nbody",
        "no byte": head + b"Content-Length: 5\r\n\r\n",
        "chunks": head + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
        "in a chunk": head + b"Transfer-Encoding: chunked\r\n\r\n8\r\nbody",
        "bad chunk": head + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\nxyz\r\n",
        "a chunk of no end": head + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbodyXX4\r\n",
    }


@pytest.mark.parametrize("kind", list(broken()))
@pytest.mark.parametrize("end", ["close", "reset"])
@bounded
async def test_cut_short(relay: Relayed, kind: str, end: str) -> None:
    """An answer that breaks off is an error or a broken connection, never complete."""
    device, device_id = await relay.raw()
    pipe = await relay.open(relay.head(device_id, "GET", "Remote-Query: /"))
    visit = await device.visit()
    await visit.request()
    visit.send(broken()[kind])
    getattr(visit, end)()
    await pipe.gone()
    check_broken(pipe.received)
    (record,) = await relay.records(device_id)
    assert record["error"] == "BadAnswer" or end == "reset"


def check_broken(received: bytes) -> None:
    """Check that no client could take what it received for a complete answer of the device."""
    try:
        answer = Said.read(received)
    except HTTPException:
        return
    check_problem(answer, *INVALID)


@bounded
async def test_body_falls_silent(relay: Relayed) -> None:
    """An answer that stands still for too long is broken off."""
    device, device_id = await relay.raw()
    pipe = await relay.open(relay.head(device_id, "GET", "Remote-Query: /"))
    visit = await device.visit()
    await visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbody")
    await pipe.until(5)
    assert relay.time.waits(60)
    relay.time.advance(60)
    await pipe.gone()
    await visit.gone()
    with pytest.raises(HTTPException):
        Said.read(pipe.received)
    assert (await relay.records(device_id))[0]["error"] == "NoAnswer"


@bounded
async def test_more_than_it_said(relay: Relayed) -> None:
    """What a device sends beyond its answer reaches nobody, the next caller least of all."""
    device, device_id = await relay.raw()
    for number in range(3):
        asked = relay.ask(device_id)
        visit = await device.visit()
        await visit.request()
        evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number + evil)
        assert (await asked).body == b"%d" % number
        await visit.gone()


@bounded
async def test_two_meanings(relay: Relayed) -> None:
    """An answer with a length and chunks is read as chunks, and its connection not used again."""
    device, device_id = await relay.raw()
    asked = relay.ask(device_id)
    visit = await device.visit()
    await visit.request()
    both = b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
    visit.send(b"HTTP/1.1 200 OK\r\n" + both)
    answer: Any = await asked
    assert (answer.body, answer.length) in ((b"body", 4), (b"body", "unknown"))
    await visit.gone()


@bounded
async def test_interim_answers(relay: Relayed) -> None:
    """Interim answers are not for the caller."""
    device, device_id = await relay.raw()
    asked = relay.ask(device_id, "POST", "/", b"body")
    visit = await device.visit()
    await visit.request(4)
    visit.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK)
    answer = await asked
    assert (answer.code, answer.body, answer.header("Link")) == (200, b"ok", None)


@bounded
async def test_early_answer(relay: Relayed) -> None:
    """A device may answer before it has read the whole request."""
    device, device_id = await relay.raw()
    asked = relay.ask(device_id, "POST", "/", b"x" * 900_000)
    visit = await device.visit()
    await device.until(lambda: b"\r\n\r\n" in visit.received)
    visit.send(b"HTTP/1.1 413 Too much\r\nContent-Length: 2\r\n\r\nno")
    answer = await asked
    assert (answer.code, answer.body) == (413, b"no")


@bounded
async def test_moved(relay: Relayed) -> None:
    """A device that moves to another address is asked there, and nowhere else."""
    (first, device_id), (second, _) = await relay.web(), await relay.web()
    await relay.ask(device_id)
    data = json.dumps({"address": {"baseUrl": second.url}}).encode()
    await relay.core.devices.save(await relay.root(), device_id, DeviceChange(data=data))
    await relay.ask(device_id)
    assert (len(first.asked), len(second.asked)) == (1, 1)
