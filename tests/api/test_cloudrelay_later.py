"""Requests with Prefer: respond-async, whose answers are fetched later."""

from __future__ import annotations

from typing import Any

from gatewayd.core.devices import DeviceChange
from tests.api.relaying import (
    ADMIN,
    BLOCKED,
    PATH,
    SILENT,
    TOO_LARGE,
    Relayed,
    StartRelay,
    check_offline,
    check_problem,
    relay,
    start_relay,
)
from tests.api.web import Answered, request
from tests.core.bench import bounded
from tests.device.devices import OK

__all__ = ["relay", "start_relay"]

DIFFERENT = (None, 409, "Conflict", "This Idempotency-Key was used for another request")


def check_pending(answer: Answered) -> None:
    """Check that there is no answer yet."""
    assert (answer.code, answer.json) == (202, {"status": "pending"})
    assert answer.header("Content-Type") == "application/json"
    assert answer.header("Retry-After") == "1"


async def look(relayed: Relayed, place: str | None, token: str = "") -> Answered:
    """Ask what became of a request."""
    assert place is not None
    return await request(
        relayed.port, "GET", place, Authorization=f"Bearer {token or relayed.program}"
    )


async def left(relayed: Relayed, device_id: str, method: str = "POST", **more: str) -> str:
    """Send a request whose answer comes later; return where."""
    headers = {"Prefer": "respond-async", **more}
    answer = await relayed.ask(device_id, method, "/later", b"body", token=ADMIN, **headers)
    check_pending(answer)
    assert answer.header("Preference-Applied") == "respond-async"
    place = answer.header("Location") or ""
    assert place.startswith(f"{PATH}/{device_id}/requests/")
    return place


@bounded
async def test_in_time(relay: Relayed) -> None:
    """With a wait, an answer that comes in time is the answer."""
    device, device_id = await relay.web()
    prefer = "respond-async, wait=10"
    answer = await relay.ask(device_id, "POST", "/", b"body", Prefer=prefer)
    assert (answer.code, answer.body, answer.header("Location")) == (200, b"ok", None)
    attached = await relay.attached()
    asked = relay.ask(attached.id, "GET", "/x", Prefer=prefer)
    assert (await attached.answer({"status": 207, "body": "y"}))["path"] == "/x"
    answer = await asked
    assert (answer.code, answer.body) == (207, b"y")
    assert len(device.asked) == 1


@bounded
async def test_later(relay: Relayed) -> None:
    """Without one in time, 202 says where it will be; there it is for who asked."""
    device, device_id = await relay.raw()
    place = await left(relay, device_id)
    visit = await device.visit()
    head, body = await visit.request(4)
    assert (head[0], body) == ("POST /later HTTP/1.1", b"body")
    check_pending(await look(relay, place, ADMIN))
    for wrong in (f"{place}x", f"{PATH}/{device_id}/requests/x"):
        number = wrong.rpartition("/")[2]
        detail = f"Reference '{number}' does not exist"
        check_problem(await look(relay, wrong, ADMIN), None, 404, "Not Found", detail)
    assert (await look(relay, place)).code == 404
    _, other_id = await relay.web()
    assert (await look(relay, place.replace(device_id, other_id), ADMIN)).code == 404
    assert (await request(relay.port, "GET", place)).code == 401
    visit.send(b"HTTP/1.1 418 Teapot\r\nContent-Type: a/b\r\nContent-Length: 2\r\n\r\nok")
    await relay.records(device_id)
    while (answer := await look(relay, place, ADMIN)).code == 202:
        check_pending(answer)
    for _ in range(2):
        answer = await look(relay, place, ADMIN)
        assert (answer.code, answer.body, answer.header("Content-Type")) == (418, b"ok", "a/b")
    check_problem(
        await request(relay.port, "POST", place), None, 405, "Method Not Allowed",
        "Method Not Allowed",
    )  # fmt: skip


@bounded
async def test_wait_is_over(relay: Relayed) -> None:
    """The wait ends when it is over, and is no longer than a minute."""
    device, device_id = await relay.raw()
    for wait, seconds in (("7", 7), ("100000", 60)):
        asked = relay.ask(
            device_id, "POST", params="?responseTimeout=300", Prefer=f"wait={wait}, respond-async"
        )
        visit = await device.visit()
        await visit.request()
        assert relay.time.waits(seconds)
        relay.time.advance(seconds)
        check_pending(await asked)
        visit.send(OK)


@bounded
async def test_failure_later(relay: Relayed) -> None:
    """A failure is where the answer would be."""
    device_id = await relay.register("http://127.0.0.1:1")
    place = await left(relay, device_id)
    while (answer := await look(relay, place, ADMIN)).code == 202:
        check_pending(answer)
    check_offline(answer, device_id)


@bounded
async def test_left_for_a_device(start_relay: StartRelay) -> None:
    """A device that is away finds the request when it comes, also after restarts."""
    relayed = await start_relay()
    device_id = await relayed.register()
    place = await left(relayed, device_id)
    check_pending(await look(relayed, place, ADMIN))
    await relayed.restart()
    check_pending(await look(relayed, place, ADMIN))
    device = await relayed.attach(device_id)
    told = await device.answer({"status": 201, "body": {"a": 1}})
    assert (told["method"], told["path"], told["body"]) == ("POST", "/later", "body")
    answer = await look(relayed, place, ADMIN)
    assert (answer.code, answer.body) == (201, b'{"a":1}')
    await relayed.restart()
    answer = await look(relayed, place, ADMIN)
    assert (answer.code, answer.body) == (201, b'{"a":1}')
    (record,) = await relayed.records(device_id)
    assert (record["adapter"], record["status"], record["path"]) == ("attached", None, "/later")


@bounded
async def test_patience(start_relay: StartRelay) -> None:
    """A request is left for an hour; who comes later finds nothing, and so does its caller."""
    relayed = await start_relay()
    device_id = await relayed.register()
    place = await left(relayed, device_id)
    relayed.time.advance(3590)
    check_pending(await look(relayed, place, ADMIN))
    relayed.time.advance(11)
    check_problem(await look(relayed, place, ADMIN), *SILENT)
    device = await relayed.attach(device_id)
    asked = relayed.ask(device_id, query="/now", token=ADMIN)
    assert (await device.answer({}))["path"] == "/now"
    assert (await asked).code == 200


@bounded
async def test_interrupted(start_relay: StartRelay) -> None:
    """What a restart has interrupted at an HTTP device has no answer, and is not asked again."""
    relayed = await start_relay()
    device, device_id = await relayed.raw()
    place = await left(relayed, device_id)
    visit = await device.visit()
    await visit.request(4)
    await relayed.restart()
    check_problem(await look(relayed, place, ADMIN), *SILENT)
    assert len(device.visits) == 1


@bounded
async def test_left_once(relay: Relayed) -> None:
    """With a key, a request is left once, and its place is always the same."""
    device_id = await relay.register()
    key: Any = {"Idempotency_Key": "key"}
    places = {await left(relay, device_id, **key) for _ in range(3)}
    assert len(places) == 1
    answer = await relay.ask(
        device_id, "POST", "/other", token=ADMIN, Prefer="respond-async", **key
    )
    check_problem(answer, *DIFFERENT)
    device = await relay.attach(device_id)
    await device.answer({"body": "x"})
    assert (await look(relay, places.pop(), ADMIN)).body == b"x"
    answer = await relay.ask(device_id, "POST", "/later", b"body", token=ADMIN, **key)
    assert answer.body == b"x"


@bounded
async def test_left_for_nobody(relay: Relayed) -> None:
    """What a blocked device is left nobody gets; a large body is not left at all."""
    device_id = await relay.register()
    answer = await relay.ask(device_id, "POST", "/", bytes(16_385), Prefer="respond-async")
    check_problem(answer, *TOO_LARGE)
    form = "application/x-www-form-urlencoded"
    answer = await relay.ask(
        device_id, "POST", "/", b"a=b", Prefer="respond-async", Content_Type=form
    )
    check_problem(answer, *TOO_LARGE)
    place = await left(relay, device_id)
    await relay.core.devices.save(await relay.root(), device_id, DeviceChange(blocked=True))
    for answer in (
        await look(relay, place, ADMIN),
        await relay.ask(device_id, "POST", Prefer="respond-async"),
    ):
        check_problem(answer, *BLOCKED)
    await relay.core.devices.delete(await relay.root(), device_id)
    check_offline(await look(relay, place, ADMIN), device_id)


@bounded
async def test_forgotten(start_relay: StartRelay) -> None:
    """An answer is there for 24 hours."""
    relayed = await start_relay()
    device = await relayed.attached()
    place = await left(relayed, device.id)
    await device.answer({"body": "x"})
    assert (await look(relayed, place, ADMIN)).body == b"x"
    relayed.time.advance(26 * 3600)
    assert (await look(relayed, place, ADMIN)).code == 404
