"""What an HTTP device is asked, and what comes back from it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from gatewayd.core.exchange import Request
from gatewayd.core.model import Device, DeviceLogin
from gatewayd.device.response import Body
from gatewayd.errors import BadAnswer, Invalid, NoAddress, NoAnswer
from tests.device.devices import LOCAL, OK, Asker, RawDevice, Sink, asker, device, reactor

__all__ = ["asker"]

MEGABYTE = 1024 * 1024


class Page(Resource):
    """A page that says how it was asked; below it what a device may have."""

    isLeaf = True  # noqa: N815

    def render(self, request: Any) -> Any:
        path = request.path.decode()
        if path == "/echo":
            return bytes(request.content.read())
        if path == "/gone":
            request.setResponseCode(204)
            return b""
        if path == "/moved":
            request.redirect(b"/echo")
            return b""
        if path == "/late":
            reactor.callLater(0.05, self._late, request)
            return NOT_DONE_YET
        request.setHeader("Content-Type", "text/x-asked")
        request.setHeader("Set-Cookie", "session=1")
        head = [request.method + b" " + request.uri]
        for name, values in sorted(request.requestHeaders.getAllRawHeaders()):
            head += [name + b": " + value for value in values]
        return b"\n".join([*head, b"", request.content.read()])

    def _late(self, request: Any) -> None:
        for _ in range(3):
            request.write(b"late ")
        request.finish()


@pytest_twisted.async_yield_fixture
async def good() -> AsyncIterator[str]:
    """Return the base URL of a device that behaves."""
    site = Site(Page())
    site.displayTracebacks = False
    site.noisy = False
    port = reactor.listenTCP(0, site, interface=LOCAL)
    yield f"http://{LOCAL}:{port.getHost().port}"
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_get(asker: Asker, good: str) -> None:
    """A device is sent the headers that it is to have, its own name, and nothing else."""
    headers = (("Accept", "text/html"), ("Host", "evil"), ("Transfer-Encoding", "chunked"))
    answer = await asker.ask(good, query="/a/b?c=%0d%0a#d", headers=headers)
    assert answer.status == 200
    assert answer.headers == (("Content-Type", "text/x-asked"),)
    assert answer.body == (
        b"GET /a/b?c=%0d%0a\nAccept: text/html\nAccept-Encoding: identity\nHost: "
        + good.removeprefix("http://").encode()
        + b"\n\n"
    )


@pytest.mark.parametrize(
    ("method", "body", "sent"),
    [
        ("POST", b"abc", "Content-Length: 3"),
        ("PUT", b"", "Content-Length: 0"),
        ("PATCH", None, "Content-Length: 0"),
        ("POST", None, "Content-Length: 0"),
        ("OPTIONS", b"abc", "Content-Length: 3"),
        ("OPTIONS", None, ""),
        ("GET", b"abc", ""),
        ("DELETE", b"abc", ""),
        ("HEAD", b"abc", ""),
    ],
)
@pytest_twisted.ensureDeferred
async def test_methods(asker: Asker, method: str, body: bytes | None, sent: str) -> None:
    """A body is sent with its length, where it means something."""
    there = asker.raw()
    asking = asker.send(there, method, "/", body)
    visit = await there.visit()
    size = 3 if sent.endswith("3") else 0
    lines, received = await visit.request(size)
    assert lines[0] == f"{method} / HTTP/1.1"
    assert [line for line in lines if line.startswith("Content-Length")] == ([sent] if sent else [])
    assert received == (body or b"")[:size]
    visit.send(b"HTTP/1.1 204 Done\r\n\r\n")
    assert (await asking).status == 204
    assert visit.received == b""


@pytest_twisted.ensureDeferred
async def test_much_up_and_down(asker: Asker, good: str) -> None:
    """Nothing of a large body is lost or changed on its way there and back."""
    body = Random(1).randbytes(8 * MEGABYTE + 1)
    answer = await asker.ask(good, "POST", "/echo", body)
    assert isinstance(answer.body, bytes)
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest()


@pytest_twisted.ensureDeferred
async def test_head_and_no_content(asker: Asker, good: str) -> None:
    """An answer that has no body is there at once, and the connection is used again."""
    assert (await asker.ask(good, "HEAD", "/")).body == b""
    assert (await asker.ask(good, "GET", "/gone")).status == 204
    assert (await asker.ask(good, "GET", "/late")).body == b"late late late "


@pytest_twisted.ensureDeferred
async def test_no_redirects(asker: Asker, good: str) -> None:
    """What a device answers is passed on, also that it is elsewhere; no cookie is kept."""
    assert (await asker.ask(good, "GET", "/moved")).status == 302
    await asker.ask(good)
    assert b"Cookie" not in (await asker.ask(good)).body  # type: ignore[operator]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200\nContent-Length: 3, 3\n\nabc", b"abc"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nT: x\r\n\r\n", b"a"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", b"ok"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
@pytest_twisted.ensureDeferred
async def test_framing(asker: Asker, answer: bytes, body: bytes) -> None:
    """An answer is read as it is framed, whether it comes at once or byte by byte."""
    assert (await asker.ask(asker.raw(answer))).body == body
    slow = asker.raw()
    asking = Deferred.fromCoroutine(asker.ask(slow))
    visit = await slow.visit()
    await visit.request()
    for each in answer:
        if not visit.open:
            break  # what follows the answer is not waited for
        visit.send(bytes((each,)))
        await slow.until(lambda: True)
        turned: Deferred[None] = Deferred()
        reactor.callLater(0, turned.callback, None)
        await turned
    assert (await asking).body == body


@pytest_twisted.ensureDeferred
async def test_until_closed(asker: Asker) -> None:
    """A body of which nobody says how long it is ends with the connection."""
    there = asker.raw()
    asking = Deferred.fromCoroutine(asker.ask(there))
    visit = await there.visit()
    await visit.request()
    visit.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall ")
    visit.send(b"of it")
    visit.close()
    answer = await asking
    assert (answer.body, answer.headers) == (b"all of it", (("Content-Type", "text/plain"),))


@pytest_twisted.ensureDeferred
async def test_headers_back(asker: Asker) -> None:
    """Some headers are passed back, under their usual names, if they can be sent on."""
    there = asker.raw(
        b"HTTP/1.1 200 OK\r\ncontent-TYPE: text/plain;\r\n charset=x\r\n"
        b"Content-Disposition: \xe4\r\nContent-Encoding: a\x00b\r\nServer: x\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    assert (await asker.ask(there)).headers == (
        ("Content-Type", "text/plain; charset=x"),
        ("Content-Disposition", "\xe4"),
    )


@pytest_twisted.ensureDeferred
async def test_basic(asker: Asker) -> None:
    """A device is told its login, and nobody else is who has taken its place."""
    there = asker.raw(OK)
    asker.logins[1] = DeviceLogin(base_url=there.url, username="gate", password="w\xe4y:1")
    asker.logins[2] = DeviceLogin(base_url=f"{there.url}/x", username="gate", password="secret")
    asker.logins[3] = DeviceLogin(base_url=there.url)
    for uid in (1, 2, 3):
        assert (await asker.ask(there, uid=uid)).body == b"ok"
    told = [each.received.decode() for each in there.visits]
    assert "\r\nAuthorization: Basic Z2F0ZTp3w6R5OjE=\r\n" in told[0]
    assert not any("Authorization" in each for each in told[1:])
    assert len(told) == 3


@pytest_twisted.ensureDeferred
async def test_base_path(asker: Asker) -> None:
    """What is asked for is below the path of the base URL."""
    there = asker.raw(OK)
    await asker.ask(f"{there.url}/api/v2/", query="/x?../..")
    assert there.visits[0].received.startswith(b"GET /api/v2/x?../.. HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("", ""),
        ("x", ""),
        ("//evil/x", ""),
        ("http://evil/x", ""),
        ("#/x", ""),
        ("/a b", ""),
        ("/a\xa0b", ""),
        ("/a\u2028b", ""),
        ("/a\tb", ""),
        ("/a\r\nEvil: x", ""),
        ("/a\x00", ""),
        ("/\ud800", ""),
        ("/" + "x" * 8192, ""),
        ("/" + "\xe4" * 1400, ""),
        ("/..", "/api"),
        ("/a/../../x", "/api"),
        ("/..//", "/api"),
        ("/%2E%2e/x", "/api"),
        ("/..%2fx", "/api"),
        ("/..%5Cx", "/api"),
        ("/..\\x", "/api"),
        ("/..;a/x", "/api"),
        ("/./x", "/api"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_queries_for_nobody(asker: Asker, query: str, path: str) -> None:
    """What is nothing for an HTTP device is refused before anything is looked up."""
    with pytest.raises(Invalid) as caught:
        await asker.send(f"http://there:1{path}", query=query)
    assert caught.value.field == "Remote-Query"
    assert caught.value.rule.startswith("must ")
    assert asker.asked == []


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("CONNECT", ()),
        ("GET / HTTP/1.1\r\nX:", ()),
        ("GET", (("Accept", "a\r\nb"),)),
        ("GET", (("Acc ept", "a"),)),
        ("GET", (("Accept", "\u20ac"),)),
    ],
)
@pytest_twisted.ensureDeferred
async def test_heads_for_nobody(asker: Asker, method: str, headers: Any) -> None:
    """A method or a header that would be something else on the wire is refused."""
    with pytest.raises(Invalid):
        await asker.send("http://there:1", method, headers=headers)
    assert asker.asked == []


@pytest_twisted.ensureDeferred
async def test_no_base_url(asker: Asker) -> None:
    """A device without a base URL, or with one that is none, cannot be asked."""
    request = Request(id="1", method="GET", query="/")
    nowhere = Device(uid=1, id="D", name="D", network=1, type=1, data=b"{}")
    with pytest.raises(NoAddress, match=r"no address\.baseUrl"):
        await asker.http.send(nowhere, request)
    with pytest.raises(NoAddress, match="has a user"):
        await asker.http.send(device("http://u:p@there"), request)


async def stream(asker: Asker, there: RawDevice, size: int | None) -> tuple[Body, Any]:
    """Return the body of an answer that has begun, and who sends it."""
    asking = asker.send(there)
    visit = await there.visit()
    await visit.request()
    length = "" if size is None else f"Content-Length: {size}\r\n"
    visit.send(f"HTTP/1.1 200 OK\r\n{length}\r\n".encode())
    answer = await asking
    assert isinstance(answer.body, Body)
    assert answer.body.length == size
    return answer.body, visit


@pytest_twisted.ensureDeferred
async def test_slow_consumer(asker: Asker) -> None:
    """A device waits while its answer is not taken; only sockets hold some of 100 MB."""
    size = 100 * MEGABYTE
    body, visit = await stream(asker, asker.raw(), size)
    visit.flood(size)
    before = await settled(visit)
    assert before < 16 * MEGABYTE
    sink = Sink(most=MEGABYTE)
    passing = body.pass_on(sink)
    await sink.until(lambda: sink.paused)
    after = await settled(visit)
    assert after < before + 8 * MEGABYTE
    assert len(sink.data) < MEGABYTE + 640 * 1024  # and a piece, as it is read at once
    assert asker.clock.getDelayedCalls() == []
    sink.most = None
    sink.producer.resumeProducing()
    assert await passing == len(sink.data) == size


async def settled(visit: Any) -> int:
    """Return how much of a flood was taken when nothing more is."""
    sent = -1
    while sent != visit.sent:
        sent = visit.sent
        turned: Deferred[None] = Deferred()
        reactor.callLater(0.1, turned.callback, None)
        await turned
    assert not visit.flooding
    return int(sent)


@pytest_twisted.ensureDeferred
async def test_silence(asker: Asker) -> None:
    """A body that stands still for too long is given up, but not while its taker is slow."""
    body, visit = await stream(asker, asker.raw(), 9)
    asker.clock.advance(1000)
    sink = Sink(most=3)
    passing = body.pass_on(sink)
    asker.clock.advance(59)
    visit.send(b"abc")
    await sink.until(lambda: sink.paused)
    asker.clock.advance(1000)
    sink.producer.resumeProducing()
    visit.send(b"def")
    await sink.until(lambda: sink.paused == 2)
    sink.producer.resumeProducing()
    asker.clock.advance(59)
    assert visit.open
    asker.clock.advance(1)
    with pytest.raises(NoAnswer):
        await passing
    await visit.gone()
    assert sink.producer is None


@pytest.mark.parametrize("begun", [False, True])
@pytest_twisted.ensureDeferred
async def test_close(asker: Asker, begun: bool) -> None:
    """Whoever does not want a body closes it, and with it the connection."""
    body, visit = await stream(asker, asker.raw(), None)
    passing = body.pass_on(Sink()) if begun else None
    body.close()
    await visit.gone()
    with pytest.raises(CancelledError):
        await (passing or body.pass_on(Sink()))
    body.close()


@pytest_twisted.ensureDeferred
async def test_taker_gone(asker: Asker) -> None:
    """When the taker of a body is gone, or gives it up, the device is told so."""
    body, visit = await stream(asker, asker.raw(), None)
    sink = Sink()
    passing = body.pass_on(sink)
    visit.send(b"abc")
    await sink.until(lambda: sink.data)
    sink.producer.stopProducing()
    with pytest.raises(CancelledError):
        await passing
    await visit.gone()
    body, visit = await stream(asker, asker.raw(), None)
    passing = body.pass_on(Sink())
    passing.cancel()
    with pytest.raises(CancelledError):
        await passing
    await visit.gone()


@pytest_twisted.ensureDeferred
async def test_cancel(asker: Asker) -> None:
    """A request that nobody waits for any more ends with its connection."""
    there = asker.raw()
    asking = asker.send(there, "POST", body=b"x" * (4 * MEGABYTE))
    visit = await there.visit()
    asking.cancel()
    with pytest.raises(CancelledError):
        await asking
    await visit.gone()


@pytest_twisted.ensureDeferred
async def test_early_answer(asker: Asker) -> None:
    """A device may answer before it has read the request; it is sent no more of it then."""
    there = asker.raw()
    body = io.BytesIO(b"x" * (64 * MEGABYTE))
    request = Request(id="1", method="POST", query="/", body=body, size=64 * MEGABYTE)
    asking = Deferred.fromCoroutine(asker.http.send(device(there.url), request))
    visit = await there.visit()
    await visit.request(1)
    wire: Any = visit.transport
    wire.pauseProducing()
    visit.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!")
    answer = await asking
    assert (answer.status, await asker.whole(answer.body)) == (413, b"no!")
    assert body.tell() < 32 * MEGABYTE
    wire.resumeProducing()
    await visit.gone()


@pytest_twisted.ensureDeferred
async def test_unreadable_body(asker: Asker) -> None:
    """When a body cannot be read to its end, the device must not take it for whole."""
    there = asker.raw()
    request = Request(id="1", method="POST", query="/", body=io.BytesIO(b"abc"), size=4)
    asking = Deferred.fromCoroutine(asker.http.send(device(there.url), request))
    with pytest.raises(NoAnswer):
        await asking
    await (await there.visit()).gone()


@pytest_twisted.ensureDeferred
async def test_body_closed_meanwhile(asker: Asker) -> None:
    """When the body of the request is closed while it is sent, its answer is void."""
    there = asker.raw()
    body = io.BytesIO(b"x" * (64 * MEGABYTE))
    request = Request(id="1", method="POST", query="/", body=body, size=64 * MEGABYTE)
    asking = Deferred.fromCoroutine(asker.http.send(device(there.url), request))
    visit = await there.visit()
    await visit.request(1)
    wire: Any = visit.transport
    wire.pauseProducing()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    answer = await asking
    assert isinstance(answer.body, Body)
    passing = answer.body.pass_on(Sink())
    body.close()
    wire.resumeProducing()
    with pytest.raises(NoAnswer, match="cannot be read"):
        await passing
    await visit.gone()


@pytest_twisted.ensureDeferred
async def test_reset_while_it_is_sent(asker: Asker) -> None:
    """A device that resets the connection in the middle of a request has not answered it."""
    there = asker.raw()
    asking = asker.send(there, "PUT", body=b"x" * (16 * MEGABYTE))
    visit = await there.visit()
    await visit.request(1)
    visit.reset()
    with pytest.raises(BadAnswer):
        await asking
    assert len(there.visits) == 1
