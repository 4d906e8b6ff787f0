"""HTTP devices that are not there, or do what no device should."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, succeed

from gatewayd.core.line import Address
from gatewayd.core.model import DeviceLogin
from gatewayd.device.response import Body
from gatewayd.errors import BadAnswer, Denied, NoAnswer, Offline
from tests.device.devices import LOCAL, Asker, RawDevice, Sink, asker, turns

__all__ = ["asker"]

MEGABYTE = 1024 * 1024


async def failed(asking: Deferred[Any], kind: type[Exception]) -> str:
    """Wait until a request fails; return why."""
    with pytest.raises(kind) as caught:
        await asking
    assert caught.type is kind or issubclass(caught.type, kind)
    return str(caught.value)


async def answered(asker: Asker, answer: bytes, method: str = "GET") -> str:
    """Answer a request with what is no answer; return why it is none."""
    there = asker.raw()
    asking = asker.send(there, method)
    visit = await there.visit()
    await visit.request()
    visit.send(answer)
    why = await failed(asking, BadAnswer)
    await visit.gone()
    return why


@pytest_twisted.ensureDeferred
async def test_refused(asker: Asker) -> None:
    """Where nobody listens, the device is offline, and that is clear at once."""
    there = RawDevice()
    await there.stop()
    for method in ("GET", "POST"):
        await failed(asker.send(there, method, body=b"abc"), Offline)


@pytest_twisted.ensureDeferred
async def test_unknown(asker: Asker) -> None:
    """A device whose name nobody knows is offline."""
    assert await failed(asker.send("http://nobody"), Offline) == "its host name is unknown"


@pytest_twisted.ensureDeferred
async def test_no_zone(asker: Asker) -> None:
    """An address in a zone that this machine does not have is nobody's."""
    asker.names["zone"] = ["fe80::1%nowhere"]
    asker.http = asker.adapter("fe80::/10")
    await failed(asker.send("http://zone"), Offline)


@pytest_twisted.ensureDeferred
async def test_no_name_in_time(asker: Asker) -> None:
    """A name server that says nothing makes no request wait for longer than a connection may."""
    looking: Deferred[list[str]] = Deferred()
    asker.resolve = lambda host: looking
    asking = asker.send("http://slow")
    asker.clock.advance(3.9)
    assert not asking.called
    asker.clock.advance(0.1)
    await failed(asking, Offline)


@pytest.fixture
def full() -> Iterator[int]:
    """Return a port where nobody accepts connections, and no more can wait for that."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind((LOCAL, 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


@pytest.mark.parametrize(("respond", "patience"), [(30.0, 4.0), (2.0, 2.0)])
@pytest_twisted.ensureDeferred
async def test_no_connection_in_time(
    asker: Asker, full: int, respond: float, patience: float
) -> None:
    """A device that cannot be connected to in time is offline; looking up its name counts, too."""
    found: Deferred[list[str]] = Deferred()
    asker.resolve = lambda host: found
    asking = asker.send(f"http://slow:{full}", respond=respond)
    asker.clock.advance(1)
    found.callback([LOCAL])
    await turns()
    asker.clock.advance(patience - 1.1)
    await turns()
    assert not asking.called
    asker.clock.advance(0.2)
    await failed(asking, Offline)


@pytest_twisted.ensureDeferred
async def test_silent(asker: Asker) -> None:
    """A device that does not answer in time is left; also one that only begins to."""
    there = asker.raw()
    for begun in (b"", b"HTTP/1.1 200 OK\r\nX"):
        asking = asker.send(there, respond=7.0)
        visit = await there.visit()
        await visit.request()
        visit.send(begun)
        await turns()
        asker.clock.advance(6.9)
        assert not asking.called
        asker.clock.advance(0.1)
        assert await failed(asking, NoAnswer) == "it did not answer in 7 s"
        await visit.gone()


@pytest_twisted.ensureDeferred
async def test_trickle(asker: Asker) -> None:
    """Interim answers and single bytes do not make the time longer."""
    there = asker.raw()
    asking = asker.send(there, respond=5.0)
    visit = await there.visit()
    await visit.request()
    for each in b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX: " + b"x" * 50:
        if asking.called:
            break
        visit.send(bytes((each,)))
        await turns(2)
        asker.clock.advance(0.1)
    await failed(asking, NoAnswer)
    await visit.gone()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"\x00\xff\x1b[31m garbage\r\n\r\n", "status line"),
        (b"SSH-2.0-dropbear\r\n\r\n", "status line"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "status line"),
        (b"HTTP/1.1 999 Oh\r\n\r\n", "status line"),
        (b"HTTP/1.1 -200 Oh\r\n\r\n", "status line"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", "another protocol"),
        (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", "header that is none"),
        (b"HTTP/1.1 200 OK\r\n: x\r\n\r\n", "header that is none"),
        (b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n", "header that is none"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 201 + b"\r\n", "too many headers"),
        (b"HTTP/1.1 102 x\r\n\r\n" * 10_000, "too large"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", "length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n", "length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "transfer encoding"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "no size"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc", "does not end"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_garbage(asker: Asker, answer: bytes, why: str) -> None:
    """What is no answer is none, and the connection is closed; nothing of it gets into a text."""
    text = await answered(asker, answer, "POST")
    assert why in text
    assert text.isascii()
    assert text.isprintable()


@pytest_twisted.ensureDeferred
async def test_huge_head(asker: Asker) -> None:
    """A head without an end is cut off long before it is 10 MB."""
    there = asker.raw()
    asking = asker.send(there)
    visit = await there.visit()
    await visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\nX: ")
    visit.flood(10 * MEGABYTE)
    assert "too large" in await failed(asking, BadAnswer)
    await visit.gone()
    assert visit.sent < 8 * MEGABYTE


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 O"])
@pytest.mark.parametrize("reset", [False, True])
@pytest_twisted.ensureDeferred
async def test_closed_before(asker: Asker, method: str, begun: bytes, reset: bool) -> None:
    """A device that closes a new connection before it has answered is not asked again."""
    there = asker.raw()
    asking = asker.send(there, method)
    visit = await there.visit()
    await visit.request()
    visit.send(begun)
    await turns()
    (visit.reset if reset else visit.close)()
    assert "closed" in await failed(asking, BadAnswer)
    assert len(there.visits) == 1


@pytest.mark.parametrize(
    ("head", "body", "reset"),
    [
        (b"Content-Length: 9\r\n", b"abc", False),
        (b"Content-Length: 9\r\n", b"", False),
        (b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n", False),
        (b"Transfer-Encoding: chunked\r\n", b"9\r\nabc", False),
        (b"", b"abc", True),
    ],
)
@pytest_twisted.ensureDeferred
async def test_cut_short(asker: Asker, head: bytes, body: bytes, reset: bool) -> None:
    """A body that ends too early is never taken for whole."""
    there = asker.raw()
    asking = asker.send(there)
    visit = await there.visit()
    await visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body)
    answer = await asking
    assert isinstance(answer.body, Body)
    sink = Sink()
    passing = answer.body.pass_on(sink)
    await turns()
    (visit.reset if reset else visit.close)()
    assert await failed(passing, BadAnswer) == "its answer was cut short"
    assert bytes(sink.data) == (b"" if body == b"" else b"abc")
    assert sink.producer is None


@pytest_twisted.ensureDeferred
async def test_malformed_later(asker: Asker) -> None:
    """A chunk that is malformed in the middle of a body cuts it short there."""
    there = asker.raw()
    asking = asker.send(there)
    visit = await there.visit()
    await visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    answer = await asking
    sink = Sink()
    assert isinstance(answer.body, Body)
    passing = answer.body.pass_on(sink)
    visit.send(b"zz\r\n")
    await failed(passing, BadAnswer)
    assert sink.data == b"abc"
    await visit.gone()


@pytest_twisted.ensureDeferred
async def test_lost_before_it_is_taken(asker: Asker) -> None:
    """A body that was lost while nobody took it says so when somebody does."""
    there = asker.raw()
    asking = asker.send(there)
    visit = await there.visit()
    await visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    answer = await asking
    visit.reset()
    await turns(20)
    assert isinstance(answer.body, Body)
    await failed(answer.body.pass_on(Sink()), BadAnswer)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://0.0.0.0",
        "http://[::ffff:127.0.0.1]",
        "http://[::1]",
        "http://[::]",
        "http://192.0.2.1",
        "http://224.0.0.1",
        "http://metadata",
        "https://[::ffff:169.254.169.254]",
        "http://2130706433",
    ],
)
@pytest_twisted.ensureDeferred
async def test_denied(asker: Asker, url: str) -> None:
    """No base URL leads to where no device may be."""
    asker.names = {"metadata": ["169.254.169.254"], "2130706433": ["127.0.0.1"]}
    everywhere = ("::/0",) if url.endswith("192.0.2.1") else ("0.0.0.0/0", "::/0")
    asker.http = asker.adapter(*everywhere)
    with pytest.raises(Denied) as caught:
        await asker.send(url)
    assert caught.value.reason == "destination"


@pytest_twisted.ensureDeferred
async def test_own_listener(asker: Asker) -> None:
    """The gateway never asks itself, nor a port that is not allowed."""
    there = asker.raw()
    asker.http = asker.adapter(
        "127.0.0.0/8", ports=[(there.port, there.port)], own=[Address("0.0.0.0", there.port)]
    )
    with pytest.raises(Denied, match="destination"):
        await asker.send(there)
    with pytest.raises(Denied, match="destination"):
        await asker.send(f"http://{LOCAL}:1")
    assert there.visits == []


@pytest_twisted.ensureDeferred
async def test_name_that_flips(asker: Asker) -> None:
    """A name is looked up once for a request; what it means now is judged each time."""
    there = asker.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    answers = [[LOCAL], ["169.254.169.254"], ["127.0.0.2"]]
    asker.resolve = lambda host: succeed(answers.pop(0))
    url = f"http://flips:{there.port}"
    assert (await asker.ask(url)).status == 200
    assert f"Host: flips:{there.port}\r\n".encode() in there.visits[0].received
    assert len(answers) == 2
    with pytest.raises(Denied):
        await asker.ask(url)
    # The connection that is kept leads to where the name led before.
    await failed(Deferred.fromCoroutine(asker.ask(url)), Offline)
    assert (len(there.visits), answers) == (1, [])


class Broken(dict[int, DeviceLogin]):
    """Logins that cannot be read."""

    def get(self, *_: Any) -> Any:
        raise LookupError


@pytest_twisted.ensureDeferred
async def test_logins_that_fail(asker: Asker) -> None:
    """What is wrong with the store is not the device's."""
    asker.logins = Broken()
    with pytest.raises(LookupError):
        await asker.send("http://there")
    assert asker.asked == []
