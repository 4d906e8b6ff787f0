"""Requests with an Idempotency-Key: sending one again is safe."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.relaying import (
    ADMIN,
    INVALID,
    SILENT,
    TOO_LARGE,
    Relayed,
    StartRelay,
    check_offline,
    check_problem,
    relay,
    start_relay,
)
from tests.api.scene import until
from tests.core.bench import bounded
from tests.device.devices import OK
from tests.harness import reactor

__all__ = ["relay", "start_relay"]

RUNNING = (None, 409, "Conflict", "The request with this Idempotency-Key is not over yet")
DIFFERENT = (None, 409, "Conflict", "This Idempotency-Key was used for another request")
UNKNOWN = (
    None, 409, "Conflict", "Nobody knows what became of the request with this Idempotency-Key",
)  # fmt: skip
MIB = 1024 * 1024


# Safe repetition


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
@bounded
async def test_repeated(relay: Relayed, method: str) -> None:
    """The same request with the same key gets the same answer; the device is asked once."""
    device, device_id = await relay.web()
    device.status, device.body = 201, bytes(range(256))
    device.headers = [("Content-Type", "a/b"), ("Content-Disposition", "attachment")]
    answers = [
        await relay.ask(device_id, method, "/x?y", b"body", Idempotency_Key="key") for _ in range(3)
    ]
    assert len(device.asked) == 1
    assert device.asked[0].body == (b"" if method == "DELETE" else b"body")
    for answer in answers:
        assert (answer.code, answer.body, answer.length) == (201, device.body, 256)
        assert answer.header("Content-Type") == "a/b"
        assert answer.header("Content-Disposition") == "attachment"
        assert answer.header("Access-Control-Allow-Origin") == "*"
    assert len(await relay.records(device_id)) == 1


@bounded
async def test_safe_methods_need_no_key(relay: Relayed) -> None:
    """What changes nothing is asked again."""
    device, device_id = await relay.web()
    for method in ("GET", "HEAD", "OPTIONS"):
        for _ in range(2):
            await relay.ask(device_id, method, Idempotency_Key="key")
    assert len(device.asked) == 6


@bounded
async def test_other_request(relay: Relayed) -> None:
    """A key belongs to one request of one caller to one device."""
    (device, device_id), (_, other_id) = await relay.web(), await relay.web()
    key: Any = {"Idempotency_Key": "key"}
    assert (await relay.ask(device_id, "POST", "/", b"body", **key)).code == 200
    for method, query, body, more in (
        ("POST", "/", b"Body", {}), ("POST", "/", None, {}), ("POST", "/x", b"body", {}),
        ("PUT", "/", b"body", {}), ("POST", "/", b"body", {"Accept": "a/b"}),
    ):  # fmt: skip
        answer = await relay.ask(device_id, method, query, body, **key, **more)
        check_problem(answer, *DIFFERENT)
    assert len(device.asked) == 1
    assert (await relay.ask(other_id, "POST", "/", b"other", **key)).code == 200
    assert (await relay.ask(device_id, "POST", "/", b"other", token=ADMIN, **key)).code == 200
    assert len(device.asked) == 2
    other_timeout = await relay.ask(
        device_id, "POST", "/", b"body", params="?responseTimeout=9", **key
    )
    assert (other_timeout.code, len(device.asked)) == (200, 2)


@pytest.mark.parametrize("key", ["", " ", "a b", "\u00e9", "x" * 256, "a\tb"])
@bounded
async def test_bad_key(relay: Relayed, key: str) -> None:
    """A key is visible ASCII of at most 255 characters."""
    device, device_id = await relay.web()
    lines = ("Remote-Query: /", f"Idempotency-Key: {key}")
    answer = await relay.exchange(relay.head(device_id, "POST", *lines))
    assert (answer.code, list(answer.json["errors"])) == (400, ["Idempotency-Key"])
    assert device.asked == []


@bounded
async def test_running(relay: Relayed) -> None:
    """While the first is not over, a second is told so; it goes on without its caller."""
    device, device_id = await relay.raw()
    lines = ("Remote-Query: /", "Idempotency-Key: key")
    pipe = await relay.open(relay.head(device_id, "POST", *lines))
    visit = await device.visit()
    await visit.request()
    await pipe.bye()
    answer = await relay.ask(device_id, "POST", Idempotency_Key="key")
    check_problem(answer, *RUNNING)
    assert answer.header("Retry-After") == "1"
    visit.send(OK)
    await relay.records(device_id)
    await _answered(relay, device_id)
    assert len(device.visits) == 1


async def _answered(relayed: Relayed, device_id: str) -> None:
    """Repeat a request until it is over; check its answer."""
    while (answer := await relayed.ask(device_id, "POST", Idempotency_Key="key")).code == 409:
        check_problem(answer, *RUNNING)
    assert (answer.code, answer.body) == (200, b"ok")


@bounded
async def test_failures(relay: Relayed) -> None:
    """What never reached the device may be tried again; a doubtful failure is repeated."""
    device, device_id = await relay.raw()
    port = device.port
    await device.stop()
    key: Any = {"Idempotency_Key": "key"}
    check_offline(await relay.ask(device_id, "POST", **key), device_id)
    device.listening = reactor.listenTCP(port, device, interface="127.0.0.1")
    asked = relay.ask(device_id, "POST", params="?responseTimeout=5", **key)
    visit = await device.visit()
    await visit.request()
    relay.time.advance(5)
    check_problem(await asked, *SILENT)
    check_problem(await relay.ask(device_id, "POST", **key), *SILENT)
    assert len(device.visits) == 1


@bounded
async def test_cut_short(relay: Relayed) -> None:
    """An answer that breaks off is kept as a failure, and told as one."""
    device, device_id = await relay.raw()
    asked = relay.ask(device_id, "POST", Idempotency_Key="key")
    visit = await device.visit()
    await visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody")
    visit.close()
    check_problem(await asked, *INVALID)
    check_problem(await relay.ask(device_id, "POST", Idempotency_Key="key"), *INVALID)
    assert len(device.visits) == 1


@bounded
async def test_sizes(relay: Relayed) -> None:
    """A request with a key, and its answer, are at most 1 MiB."""
    device, device_id = await relay.web()
    answer = await relay.ask(device_id, "POST", "/", bytes(MIB + 1), Idempotency_Key="a")
    check_problem(answer, *TOO_LARGE)
    assert device.asked == []
    device.body = bytes(MIB)
    for _ in range(2):
        answer = await relay.ask(device_id, "POST", "/", bytes(MIB), Idempotency_Key="b")
        assert (answer.code, answer.body) == (200, device.body)
    device.body = bytes(MIB + 1)
    for _ in range(2):
        answer = await relay.ask(device_id, "POST", "/", Idempotency_Key="c")
        check_problem(answer, 1003, 502, "Bad Gateway", "Message too large")
    assert len(device.asked) == 2


@bounded
async def test_attached(relay: Relayed) -> None:
    """An attached device gets the command once."""
    device = await relay.attached()
    for number in range(2):
        asked = relay.ask(device.id, "POST", "/", b"body", Idempotency_Key="key")
        if number == 0:
            await device.answer({"status": 201, "body": "x"})
        answer = await asked
        assert (answer.code, answer.body) == (201, b"x")
    assert (await relay.ask(device.id, "POST", "/", b"y", Idempotency_Key="key")).code == 409


@bounded
async def test_restart(start_relay: StartRelay) -> None:
    """An answer outlives the gateway; what was under way then is in doubt for good."""
    relayed = await start_relay()
    device, device_id = await relayed.raw(OK)
    assert (await relayed.ask(device_id, "POST", "/", Idempotency_Key="key")).body == b"ok"
    device.answer = None
    unfinished = relayed.ask(device_id, "POST", "/", Idempotency_Key="other")
    unfinished.addErrback(lambda _: None)
    await until(lambda: any(each.received.count(b"POST") == 1 for each in device.visits[1:]))
    await relayed.restart()
    device.answer = OK
    assert (await relayed.ask(device_id, "POST", "/", Idempotency_Key="key")).body == b"ok"
    for _ in range(2):
        answer = await relayed.ask(device_id, "POST", "/", Idempotency_Key="other")
        check_problem(answer, *UNKNOWN)
    assert len(device.visits) == 2


@bounded
async def test_expiry(start_relay: StartRelay) -> None:
    """After 24 hours a key is free again."""
    relayed = await start_relay()
    device, device_id = await relayed.web()
    key: Any = {"Idempotency_Key": "key"}
    for hours, count in ((0, 1), (23, 1), (2, 2)):
        relayed.time.advance(hours * 3600)
        assert (await relayed.ask(device_id, "POST", token=ADMIN, **key)).code == 200
        assert len(device.asked) == count
