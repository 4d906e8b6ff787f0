"""How much one device and one caller may take, and that large bodies take no memory."""

from __future__ import annotations

from hashlib import sha256
from random import Random
from typing import Any

import pytest

from tests.api.links import Pipe
from tests.api.relaying import (
    TOO_LARGE,
    Relayed,
    Said,
    StartRelay,
    check_problem,
    relay,
    start_relay,
)
from tests.api.scene import token, until
from tests.api.web import Answered
from tests.core.bench import bounded, together
from tests.device.devices import OK, Visit

__all__ = ["relay", "start_relay"]

MIB = 1024 * 1024
QUOTA = (
    5002, 503, "Service Unavailable", "Total number of messages exceeded the allocated quota",
)  # fmt: skip


def check_quota(answer: Answered | Said) -> None:
    """Check that there were too many requests, and that the caller is told when to try again."""
    check_problem(answer, *QUOTA)
    assert int(answer.header("Retry-After") or "") > 0


# Requests at one time


@bounded
async def test_lane(relay: Relayed) -> None:
    """Of 200 requests to one device 8 run and 32 wait; the others are told so at once."""
    device, device_id = await relay.raw()
    _, other_id = await relay.web()
    outcomes: list[Answered] = []

    def keep(answer: Answered) -> Answered:
        outcomes.append(answer)
        return answer

    asked = [relay.ask(device_id).addCallback(keep) for _ in range(200)]
    await until(lambda: len(outcomes) == 160 and len(device.visits) == 8)
    for answer in outcomes:
        check_quota(answer)
    assert (await relay.ask(other_id)).body == b"ok"
    assert len(device.visits) == 8
    device.answer = OK
    for visit in device.visits[:8]:
        await visit.request()
        visit.send(OK)
    answers = await together(asked)
    assert [answer.code for answer in answers].count(200) == 40
    assert len(device.visits) == 8
    assert (await relay.ask(device_id)).code == 200


@bounded
async def test_waiting_too_long(relay: Relayed) -> None:
    """Who waits for its turn longer than for an answer is told that there are too many."""
    device, device_id = await relay.raw()
    asked = [relay.ask(device_id, params="?responseTimeout=60") for _ in range(8)]
    await until(lambda: len(device.visits) == 8)
    waiting = relay.ask(device_id, params="?responseTimeout=6")
    await until(lambda: relay.time.waits(6))
    relay.time.advance(6)
    check_quota(await waiting)
    for visit in device.visits:
        visit.send(OK)
    assert {answer.code for answer in await together(asked)} == {200}
    assert len(device.visits) == 8


@bounded
async def test_rate(start_relay: StartRelay) -> None:
    """A caller may send so many in a second, whatever its token; others have their own rate."""
    relayed = await start_relay(rate=5)
    _, device_id = await relayed.web()
    again = await relayed.token_of("portal")
    answers = [await relayed.ask(device_id, token=each) for each in [relayed.program, again] * 5]
    assert {answer.code for answer in answers} == {200}
    # Ten at once were allowed; while they were asked, some more may have become so.
    for _ in range(100):
        last = await relayed.ask(device_id)
        if last.code != 200:
            break
    check_quota(last)
    assert (await relayed.ask(device_id, token=token())).code == 200
    relayed.time.advance(1)
    assert (await relayed.ask(device_id)).code == 200


# Callers that go


@pytest.mark.parametrize("answered", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody"])
@bounded
async def test_caller_disconnects(relay: Relayed, answered: bytes) -> None:
    """A caller that is gone cancels its request: the device's connection is closed."""
    device, device_id = await relay.raw()
    pipe = await relay.open(relay.head(device_id, "POST", "Remote-Query: /"))
    visit = await device.visit()
    await visit.request()
    if answered:
        visit.send(answered)
        await pipe.until(1)
    await pipe.bye()
    await visit.gone()
    (record,) = await relay.records(device_id)
    assert (record["error"], record["status"]) == ("CancelledError", 200 if answered else None)
    assert record["bytes"] == (4 if answered else 0)


@bounded
async def test_waiting_caller_disconnects(relay: Relayed) -> None:
    """A caller that is gone before its turn asks nothing of the device, and is in nobody's way."""
    device, device_id = await relay.raw()
    asked = [relay.ask(device_id) for _ in range(8)]
    await until(lambda: len(device.visits) == 8)
    head = relay.head(device_id, "GET", "Remote-Query: /gone")
    pipes = [await relay.open(head) for _ in range(32)]
    while (await relay.ask(device_id, params="?responseTimeout=5")).code != 503:
        raise AssertionError("there was room")
    for pipe in pipes:
        await pipe.bye()
    late = relay.ask(device_id, query="/late")
    await relay.ask("nobody")
    assert not late.called
    for visit in device.visits[:8]:
        await visit.request()
        visit.send(OK)
    await until(lambda: any(b"/late" in each.received for each in device.visits))
    for visit in device.visits:
        if b"/late" in visit.received:
            visit.send(OK)
    assert {answer.code for answer in await together([*asked, late])} == {200}
    assert not any(b"/gone" in each.received for each in device.visits)


# Large bodies


async def _flooding(relay: Relayed, size: int) -> tuple[Pipe, Visit]:
    """Begin a download of which the caller reads nothing yet."""
    device, device_id = await relay.raw()
    pipe = await relay.clients.connect(relay.port)
    transport: Any = pipe.transport
    pipe.write(relay.head(device_id, "GET", "Remote-Query: /"))
    visit = await device.visit()
    await visit.request()
    transport.pauseProducing()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    visit.flood(size)
    return pipe, visit


async def _stand_still(relay: Relayed, visit: Visit) -> int:
    """Wait until a device cannot send any more; return how much it could."""
    sent = -1
    while sent != visit.sent or not sent:
        sent = visit.sent
        for _ in range(20):
            await relay.ask("nobody")
    return sent


@bounded
async def test_slow_reader(relay: Relayed) -> None:
    """While the caller does not read, the device cannot send; then everything comes, whole."""
    size = 100 * MIB
    pipe, visit = await _flooding(relay, size)
    # What the kernel keeps for the four sockets on the way is not the gateway's.
    assert await _stand_still(relay, visit) < 24 * MIB
    digest, count = sha256(), 0
    head = b""

    def take(data: bytes) -> None:
        nonlocal head, count
        if not head:
            head, _, data = data.partition(b"\r\n\r\n")
        digest.update(data)
        count += len(data)

    taking: Any = pipe
    taking.dataReceived = take
    taking.transport.resumeProducing()
    await until(lambda: count >= size or pipe.reason is not None)
    assert count == size
    assert digest.digest() == sha256(b"x" * size).digest()
    assert b"Content-Length: %d" % size in head
    assert visit.sent == size


@bounded
async def test_reader_that_never_reads(relay: Relayed) -> None:
    """A caller that reads nothing for too long is dropped, and its device let go."""
    pipe, visit = await _flooding(relay, 100 * MIB)
    await _stand_still(relay, visit)
    relay.time.advance(11)
    await visit.gone()
    await pipe.bye()


@bounded
async def test_large_upload(relay: Relayed) -> None:
    """20 MB come to the device as they were, with their length."""
    device, device_id = await relay.raw(until_end=b"the end")
    body = Random(3).randbytes(20_000_000) + b"the end"
    asked = relay.ask(device_id, "POST", "/", body)
    visit = await device.visit()
    await device.until(lambda: visit.received.endswith(b"the end"))
    head, _, received = visit.received.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(body) in head
    assert sha256(received).digest() == sha256(body).digest()
    visit.send(OK)
    assert (await asked).code == 200


@bounded
async def test_slow_device(relay: Relayed) -> None:
    """A device that reads slowly is sent no more than it takes, and gets all of it in the end."""
    device, device_id = await relay.raw()
    body = Random(4).randbytes(20_000_000)
    asked = relay.ask(device_id, "PUT", "/", body)
    visit = await device.visit()
    transport: Any = visit.transport
    transport.pauseProducing()
    for _ in range(50):
        await relay.ask("nobody")
    assert len(visit.received) < 12 * MIB
    transport.resumeProducing()
    _, received = await visit.request(len(body))
    assert sha256(received).digest() == sha256(body).digest()
    visit.send(OK)
    assert (await asked).code == 200


@pytest.mark.parametrize("kind", ["none", "bad", "expired", "basic", "elsewhere"])
@bounded
async def test_large_upload_of_a_stranger(relay: Relayed, kind: str) -> None:
    """Nobody without a good token makes the gateway keep a large body."""
    device, device_id = await relay.web()
    good = f"Bearer {relay.program}"
    value = {
        "none": None, "bad": "Bearer x.y.z", "expired": f"Bearer {token(e=1)}",
        "basic": "Basic eDp5", "elsewhere": good,
    }[kind]  # fmt: skip
    path = f"/api/v1/devices/{device_id}/" + ("login" if kind == "elsewhere" else "request")
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Remote-Query: /", "Content-Length: 20000000"]
    if value is not None:
        lines.append(f"Authorization: {value}")
    answer = await relay.exchange("\r\n".join([*lines, "", ""]).encode())
    check_problem(answer, *TOO_LARGE)
    lines[3] = "Content-Length: 100"
    answer = await relay.exchange(
        "\r\n".join([*lines, "Connection: close", "", ""]).encode() + b"x" * 100
    )
    assert answer.code == (405 if kind == "elsewhere" else 401)
    assert device.asked == []


@bounded
async def test_body_limits(start_relay: StartRelay) -> None:
    """A body may not be larger than configured, nor all together more than fits on disk."""
    relayed = await start_relay(body=300_000, spool=400_000)
    device, device_id = await relayed.raw()
    answer = await relayed.ask(device_id, "POST", "/", bytes(300_001))
    check_problem(answer, *TOO_LARGE)
    asked = relayed.ask(device_id, "POST", "/", bytes(300_000))
    visit = await device.visit()
    await visit.request(300_000)
    answer = await relayed.ask(device_id, "POST", "/", bytes(200_000))
    detail = "The gateway cannot do this now"
    check_problem(answer, 5000, 503, "Service Unavailable", detail)
    assert answer.header("Retry-After") == "5"
    visit.send(OK)
    assert (await asked).code == 200
    device.answer, device.until_end = OK, bytes(1)
    assert (await relayed.ask(device_id, "POST", "/", bytes(200_000))).code == 200


@bounded
async def test_chunked_upload_has_limits(start_relay: StartRelay) -> None:
    """A body of unknown length is refused once it is too large."""
    relayed = await start_relay(body=100_000)
    device, device_id = await relayed.web()
    lines = ("Remote-Query: /", "Transfer-Encoding: chunked")
    pipe = await relayed.open(relayed.head(device_id, "POST", *lines))
    for _ in range(11):
        pipe.write(b"2710\r\n" + bytes(10_000) + b"\r\n")
    await pipe.gone()
    check_problem(Said.read(pipe.received), *TOO_LARGE)
    assert device.asked == []


@bounded
async def test_upload_that_stands_still(relay: Relayed) -> None:
    """A body that stands still ends; one that goes on slowly does not."""
    device, device_id = await relay.web()
    lines = ("Remote-Query: /", "Content-Length: 100000")
    pipe = await relay.open(relay.head(device_id, "POST", *lines))
    pipe.write(bytes(90_000))
    await relay.ask("nobody")
    relay.time.advance(45)
    await relay.ask("nobody")
    pipe.write(bytes(1))
    await relay.ask("nobody")
    relay.time.advance(30)
    await relay.ask("nobody")
    assert pipe.received == b""
    relay.time.advance(61)
    await pipe.gone()
    title = "Request Timeout"
    check_problem(Said.read(pipe.received), None, 408, title, title)
    assert device.asked == []
