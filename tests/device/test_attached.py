"""Requests to attached devices: what they get, and how the exchange ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from gatewayd.core.exchange import Adapter, Answer, Queue
from gatewayd.core.model import Event
from gatewayd.errors import (
    BadAnswer,
    Denied,
    GatewayError,
    NoAnswer,
    NotFound,
    Offline,
    TooLarge,
    Unavailable,
)
from tests.core.bench import Bench, bounded, together
from tests.core.conftest import set_up  # noqa: F401 - the fixture "bench"
from tests.core.responder import attach, block, fails
from tests.device.attached_scene import INLINE, UPLOAD, UPLOADS, Scene, ask, parameters, ticket


@pytest.fixture
def scene(bench: Bench) -> Scene:
    return Scene(bench)


@bounded
async def test_exchange(bench: Bench, scene: Scene) -> None:
    """A request is a command RestApi, its update the answer."""
    device = await bench.device()
    result = {"headers": {"Status": 404, "content-type": "application/json"}, "body": {"no": 1}}
    socket = await attach(bench, device, lambda event: json.dumps(result).encode())
    request = ask(b"hi", "text/plain", method="PUT", query="/a?b#c", respond=7.0)
    answer = await scene.send(device, request)
    assert answer == Answer(
        status=404, headers=(("Content-Type", "application/json"),), body=b'{"no":1}'
    )
    (event,) = socket.events
    assert event.name == "RestApi"
    assert event.command is not None
    assert event.command.lifetime == 7
    assert event.command.parameters == (
        b'{"path":"/a?b#c","method":"PUT",'
        b'"headers":{"Content-Type":"text/plain","Content-Length":2},"body":"hi"}'
    )
    assert scene.is_over(device)


@bounded
async def test_is_an_adapter(scene: Scene) -> None:
    """It is both ways to an attached device, under one name."""
    adapter: Adapter = scene.adapter
    queue: Queue = scene.adapter
    assert adapter.name == queue.name == "attached"


@bounded
async def test_text_result(bench: Bench, scene: Scene) -> None:
    """A device may answer with its JSON in a JSON string."""
    device = await bench.device()
    await attach(bench, device, lambda event: json.dumps('{"status":201,"body":[1, 2]}').encode())
    answer = await scene.send(device, ask())
    assert (answer.status, answer.body) == (201, b"[1,2]")


@bounded
async def test_in_parallel(bench: Bench, scene: Scene) -> None:
    """Many requests to two devices at once each have their own answer."""
    devices = [await bench.device(name) for name in "AB"]
    for device in devices:

        def answering(event: Event) -> bytes:
            return json.dumps({"body": event.device + parameters(event)["path"]}).encode()

        await attach(bench, device, answering)
    sent = [scene.send(devices[n % 2], ask(query=f"/{n}")) for n in range(200)]
    expected = [f"{'AB'[n % 2]}/{n}".encode() for n in range(200)]
    assert [answer.body for answer in await together(sent)] == expected
    assert scene.is_over(*devices)


@bounded
async def test_connects(bench: Bench, scene: Scene) -> None:
    """A device that is not attached is offline, unless it comes in the time to connect."""
    device = await bench.device()
    await fails(scene.send(device, ask()), Offline)
    sent = scene.send(device, ask(connect=5.0))
    await attach(bench, device, lambda event: b'{"body":"here"}')
    assert (await sent).body == b"here"
    assert scene.is_over(device)


ENDS: list[tuple[str, Callable[[Bench], Any], type[GatewayError]]] = [
    ("silent", lambda bench: bench.timers.advance(30), NoAnswer),
    ("blocked", lambda bench: block(bench, True), NoAnswer),
    ("deleted", lambda bench: bench.core.devices.delete(bench.admin, "D"), NotFound),
]


@pytest.mark.parametrize(("happen", "kind"), [end[1:] for end in ENDS], ids=[e[0] for e in ENDS])
@bounded
async def test_ends(
    bench: Bench, scene: Scene, happen: Callable[[Bench], Any], kind: type[GatewayError]
) -> None:
    """However an exchange ends, the body can be fetched no longer, nor another one be brought."""
    device = await bench.device(data=UPLOADS)
    socket = await attach(bench, device)
    request = ask(b"x" * 20_000)
    sent = scene.send(device, request)
    await bench.settle()
    got = parameters(socket.events[0])
    assert scene.spool.fetch(ticket(got["blobUrl"])).length == 20_000
    assert scene.spool.limit(ticket(got["uploadUrl"])) == UPLOAD
    brought = BytesIO(b"y")
    scene.spool.bring(ticket(got["uploadUrl"]), brought, 1, "")
    happened = happen(bench)
    if happened is not None:
        await happened
    await fails(sent, kind)
    assert not scene.spool._tickets
    assert brought.closed
    assert request.body is not None
    assert not request.body.closed
    assert not bench.timers.getDelayedCalls()


@bounded
async def test_cancel(bench: Bench, scene: Scene) -> None:
    """Who gives up leaves nothing behind; what the device says later does no harm."""
    device = await bench.device(data=UPLOADS)
    socket = await attach(bench, device)
    sent = scene.send(device, ask(b"x" * 20_000))
    await bench.settle()
    sent.cancel()
    with pytest.raises(CancelledError):
        await sent
    assert scene.is_over(device)
    socket.answer(socket.events[0], b"{}")
    await bench.settle()
    assert scene.is_over(device)


@bounded
async def test_not_recorded(bench: Bench, scene: Scene) -> None:
    """A device that is blocked, or a log that takes nothing, ends an exchange before it begins."""
    device = await bench.device(data=UPLOADS)
    await attach(bench, device)
    bench.gate.fail("append", Unavailable("full"))
    await fails(scene.send(device, ask(b"x" * 20_000)), Unavailable)
    bench.gate.fail("append", None)
    await block(bench, True)
    assert str(await fails(scene.send(device, ask(b"x" * 20_000)), Denied)) == "blocked"
    assert scene.is_over(device)


@pytest.mark.parametrize("result", [b"null", b'"no"', b'{"status":1}', b'{"blobUrl":"http://x/"}'])
@bounded
async def test_bad_answer(bench: Bench, scene: Scene, result: bytes) -> None:
    """An answer that is none, or whose body is anywhere else, is a bad one."""
    device = await bench.device()
    await attach(bench, device, lambda event: result)
    await fails(scene.send(device, ask()), BadAnswer)
    assert scene.is_over(device)


@bounded
async def test_large_answer(bench: Bench, scene: Scene) -> None:
    """An answer may have as many bytes as fit into a command, whole; more is too large."""
    device = await bench.device()
    frame = len(json.dumps({"body": ""}))
    for size, fits in ((INLINE - frame, True), (INLINE - frame + 1, False)):
        result = json.dumps({"body": "x" * size}).encode()
        socket = await attach(bench, device, lambda event, result=result: result)  # type: ignore[misc]
        sent = scene.send(device, ask())
        if fits:
            assert (await sent).body == b"x" * size
        else:
            assert str(await fails(sent, TooLarge)) == "answer"
        socket.detach()
