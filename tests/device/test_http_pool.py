"""Which connections to HTTP devices are used again."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults, succeed

from gatewayd.core.model import DeviceLogin
from gatewayd.device.rules import HttpRules
from gatewayd.errors import BadAnswer, NoAnswer
from tests.device.devices import LOCAL, OK, Asker, RawDevice, Visit, asker, turns

__all__ = ["asker"]


def told(visits: list[Visit]) -> list[list[str]]:
    """What was asked on each connection."""
    return [
        [line for line in each.received.decode().split("\r\n") if line.endswith("HTTP/1.1")]
        for each in visits
    ]


@pytest_twisted.ensureDeferred
async def test_again(asker: Asker) -> None:
    """A connection is used again, but only for requests that may be repeated."""
    there = asker.raw(OK)
    for method in ("GET", "HEAD", "OPTIONS", "DELETE", "POST", "GET"):
        there.answer = b"HTTP/1.1 200 OK\r\n\r\n" if method == "HEAD" else OK
        await asker.ask(there, method)
    assert told(there.visits) == [
        [f"{method} / HTTP/1.1" for method in ("GET", "HEAD", "OPTIONS", "DELETE")],
        ["POST / HTTP/1.1", "GET / HTTP/1.1"],
    ]


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest_twisted.ensureDeferred
async def test_stale(asker: Asker, how: str) -> None:
    """When a device closes a kept connection just then, the request is repeated once."""
    there = asker.raw(OK)
    await asker.ask(there)
    there.answer = None
    asking = asker.send(there, "DELETE", "/x")
    (visit,) = there.visits
    await there.until(lambda: b"/x" in visit.received)
    there.answer = OK
    getattr(visit, how)()
    assert (await asking).body == b"ok"
    assert told(there.visits) == [["GET / HTTP/1.1", "DELETE /x HTTP/1.1"], ["DELETE /x HTTP/1.1"]]


@pytest_twisted.ensureDeferred
async def test_repeated_once(asker: Asker) -> None:
    """A device that closes the new connection as well is not asked a third time."""
    there = asker.raw(OK)
    await asker.ask(there)
    there.answer = None
    asking = asker.send(there)
    for each in range(2):
        await there.until(lambda: len(there.visits) > each)  # noqa: B023
        await there.until(lambda: len(told(there.visits)[each]) == 2 - each)  # noqa: B023
        there.visits[each].close()
    with pytest.raises(BadAnswer):
        await asking
    assert len(there.visits) == 2


@pytest_twisted.ensureDeferred
async def test_begun_is_not_repeated(asker: Asker) -> None:
    """A request whose answer has begun is not repeated."""
    there = asker.raw(OK)
    await asker.ask(there)
    there.answer = b"HTTP/1.1 20"
    asking = asker.send(there)
    await turns(20)
    there.visits[0].close()
    with pytest.raises(BadAnswer):
        await asking
    assert len(there.visits) == 1


@pytest_twisted.ensureDeferred
async def test_closed_meanwhile(asker: Asker) -> None:
    """A device may close a connection that is kept; then there is a new one."""
    there = asker.raw(OK)
    await asker.ask(there)
    there.visits[0].close()
    await there.visits[0].gone()
    await turns()
    await asker.ask(there)
    assert told(there.visits) == [["GET / HTTP/1.1"]] * 2


@pytest_twisted.ensureDeferred
async def test_unasked(asker: Asker) -> None:
    """A device that speaks without having been asked loses its connection."""
    there = asker.raw(OK)
    await asker.ask(there)
    there.visits[0].send(OK)
    await there.visits[0].gone()
    await asker.ask(there)
    assert len(there.visits) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: X, Close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\n\r\n",
    ],
)
@pytest_twisted.ensureDeferred
async def test_not_again(asker: Asker, answer: bytes) -> None:
    """Connections that the device ends, or that hold what belongs to no answer, are closed."""
    there = asker.raw(answer)
    assert (await asker.ask(there)).body == b"ok"
    await there.visits[0].gone()
    assert (await asker.ask(there)).body == b"ok"
    assert len(there.visits) == 2


@pytest_twisted.ensureDeferred
async def test_lying_later(asker: Asker) -> None:
    """What comes after an answer that said it was shorter is not the next one's answer."""
    there = asker.raw(OK)
    await asker.ask(there)
    there.visits[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    await turns(20)
    assert (await asker.ask(there)).body == b"ok"
    assert len(there.visits) == 2


@pytest_twisted.ensureDeferred
async def test_lingering(asker: Asker) -> None:
    """A device that does not take the end of its connection is cut off after a while."""
    there = asker.raw()
    asking = asker.send(there)
    visit = await there.visit()
    await visit.request()
    wire: Any = visit.transport
    visit.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    wire.pauseProducing()
    assert (await asking).body == b"ok"
    await turns()
    asker.clock.advance(5)
    wire.resumeProducing()
    await visit.gone()


@pytest_twisted.ensureDeferred
async def test_keys(asker: Asker) -> None:
    """A connection is kept for one device, base URL, address and login."""
    there = asker.raw(OK)
    asker.resolve = lambda host: succeed([LOCAL])
    by_name, below = f"http://there:{there.port}", f"http://there:{there.port}/x"
    await asker.ask(by_name)
    await asker.ask(by_name, uid=2)
    await asker.ask(below)
    await asker.ask(there)
    for password in ("1", "2"):
        asker.logins[1] = DeviceLogin(base_url=by_name, username="u", password=password)
        await asker.ask(by_name)
    asker.logins[1] = DeviceLogin(base_url=by_name, username="u", password="2", ca=b"x")
    await asker.ask(by_name)
    assert len(there.visits) == 7
    del asker.logins[1]
    await asker.ask(by_name)
    assert len(there.visits) == 7


async def together(asker: Asker, there: RawDevice, count: int, **named: Any) -> None:
    """Ask that often at one time."""
    asking = [Deferred.fromCoroutine(asker.ask(there, **named)) for _ in range(count)]
    await gatherResults(asking)


@pytest_twisted.ensureDeferred
async def test_how_many(asker: Asker) -> None:
    """So many connections are kept for a device, and no more."""
    there = asker.raw(OK)
    await together(asker, there, 12)
    await there.until(lambda: sum(each.open for each in there.visits) == 8)
    await together(asker, there, 8)
    assert len(there.visits) == 12


@pytest_twisted.ensureDeferred
async def test_how_long(asker: Asker) -> None:
    """A connection is kept for a while, from its last use."""
    there = asker.raw(OK)
    await asker.ask(there)
    asker.clock.advance(29)
    await asker.ask(there)
    asker.clock.advance(29)
    await asker.ask(there)
    assert len(there.visits) == 1
    asker.clock.advance(30)
    await there.visits[0].gone()


@pytest_twisted.ensureDeferred
async def test_how_long_each(asker: Asker) -> None:
    """Each connection is kept for its own while."""
    first, second = asker.raw(OK), asker.raw(OK)
    await asker.ask(first)
    asker.clock.advance(20)
    await asker.ask(second)
    asker.clock.advance(10)
    await first.visits[0].gone()
    await turns()
    assert second.visits[0].open
    asker.clock.advance(19)
    await turns(20)
    assert second.visits[0].open
    asker.clock.advance(1)
    await second.visits[0].gone()


@pytest_twisted.ensureDeferred
async def test_how_many_in_all(asker: Asker) -> None:
    """When there are too many connections in all, the one that waited longest is closed."""
    asker.http = asker.adapter(rules=HttpRules(kept=2))
    there = asker.raw(OK)
    for uid in (1, 2, 1, 3):
        await asker.ask(there, uid=uid)
    await there.until(lambda: [each.open for each in there.visits] == [True, False, True])
    await asker.ask(there, uid=1)
    assert len(there.visits) == 3


@pytest_twisted.ensureDeferred
async def test_stale_and_then_gone(asker: Asker) -> None:
    """A device that took a request and is gone then may have done what it was asked for."""
    there = asker.raw(OK)
    await asker.ask(there)
    there.answer = None
    asking = asker.send(there, "DELETE")
    (visit,) = there.visits
    await there.until(lambda: b"DELETE" in visit.received)
    await there.deafen()
    visit.close()
    with pytest.raises(NoAnswer):
        await asking


@pytest_twisted.ensureDeferred
async def test_closed(asker: Asker) -> None:
    """What is closed keeps nothing, also not what is given back later."""
    there = asker.raw()
    asking = asker.send(there)
    visit = await there.visit()
    await visit.request()
    asker.http.close()
    visit.send(OK)
    assert (await asking).body == b"ok"
    await visit.gone()
