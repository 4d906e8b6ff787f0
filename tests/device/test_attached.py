"""Requests to attached devices: what they get, and how the exchange ends."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from gatewayd.core.devices import DeviceChange
from gatewayd.core.exchange import Adapter, Answer, Queue, Request
from gatewayd.core.model import Device, Event
from gatewayd.core.spool import Spool
from gatewayd.device.attached import AttachedDevices
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
from tests.core.responder import attach, left_over, make_invocations
from tests.core.test_spool import Consumer

INLINE = 131072
UPLOAD = 1_000_000
FORM = "application/x-www-form-urlencoded"
BASE64 = b'{"relay":{"bodyEncoding":"base64"}}'
UPLOADS = b'{"relay":{"upload":true}}'


class Scene:
    """An adapter over a real core."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.spool = Spool(bench.timers)
        self.adapter = AttachedDevices(
            make_invocations(bench), self.spool, place="/blobs", inline=INLINE, upload=UPLOAD
        )

    def send(self, device: Device, request: Request) -> Deferred[Answer]:
        return Deferred.fromCoroutine(self.adapter.send(device, request))

    async def asked(self, device: Device, request: Request) -> Any:
        """Send a request and return what the device got."""
        got: list[Any] = []

        def answering(event: Event) -> bytes:
            got.append(parameters(event))
            return b"{}"

        socket = await attach(self.bench, device, answering)
        await self.send(device, request)
        socket.detach()
        (only,) = got
        assert self.is_over(device)
        return only

    def is_over(self, *devices: Device) -> bool:
        """Whether no exchange has left anything behind."""
        return not self.spool._tickets and not left_over(self.bench, *devices)


@pytest.fixture
def scene(bench: Bench) -> Scene:
    return Scene(bench)


def ask(body: bytes | None = None, type_: str | None = None, **fields: Any) -> Request:
    """Return a request."""
    values = {
        "id": "1", "method": "GET" if body is None else "POST", "query": "/x",
        "gateway": "http://gw:8080", "body": None if body is None else BytesIO(body),
        "headers": () if type_ is None else (("Content-Type", type_),), **fields,
    }  # fmt: skip
    return Request(size=len(body or b""), **values)


def parameters(event: Event) -> Any:
    assert event.command is not None
    return json.loads(event.command.parameters or b"")


def ticket(url: str) -> str:
    """Return the ticket in a URL of the gateway."""
    place, _, found = url.rpartition("/")
    assert place == "http://gw:8080/blobs"
    return found


async def fails(asked: Deferred[Any], kind: type[GatewayError]) -> str:
    with pytest.raises(GatewayError) as caught:
        await asked
    assert type(caught.value) is kind
    return str(caught.value)


# The exchange


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


async def block(bench: Bench) -> None:
    await bench.core.devices.save(bench.admin, "D", DeviceChange(blocked=True))


ENDS: list[tuple[str, Callable[[Bench], Any], type[GatewayError]]] = [
    ("silent", lambda bench: bench.timers.advance(30), NoAnswer),
    ("blocked", block, Denied),
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
    await block(bench)
    assert await fails(scene.send(device, ask(b"x" * 20_000)), Denied) == "blocked"
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
            assert await fails(sent, TooLarge) == "answer"
        socket.detach()


# Bodies of requests


@bounded
async def test_size(bench: Bench, scene: Scene) -> None:
    """A body of up to 16384 bytes is inside the command; a larger one is fetched."""
    device = await bench.device()
    got = await scene.asked(device, ask(b"\x01" * 16384, "text/plain"))
    assert got["body"] == "\x01" * 16384
    assert "blobUrl" not in got
    got = await scene.asked(device, ask(b"x" * 16385, "text/plain"))
    assert ticket(got["blobUrl"])
    assert got["headers"] == {"Content-Type": "text/plain", "Content-Length": 16385}
    assert "body" not in got
    assert "uploadUrl" not in got


@pytest.mark.parametrize("type_", [FORM, "multipart/form-data; boundary=b"])
@bounded
async def test_form(bench: Bench, scene: Scene, type_: str) -> None:
    """A form is fetched however small it is, with its type, as long as the exchange lasts."""
    device = await bench.device()
    socket = await attach(bench, device)
    sent = scene.send(device, ask(b"a=1\xff", type_))
    await bench.settle()
    got = parameters(socket.events[0])
    assert "body" not in got
    for _ in range(2):
        blob = scene.spool.fetch(ticket(got["blobUrl"]))
        consumer = Consumer()
        blob.copy_to(consumer)
        assert (consumer.pull(), blob.content_type) == (b"a=1\xff", type_)
    socket.answer(socket.events[0], b"{}")
    await sent
    with pytest.raises(NotFound):
        scene.spool.fetch(ticket(got["blobUrl"]))


@bounded
async def test_base64(bench: Bench, scene: Scene) -> None:
    """A device that declares base64 gets and gives bytes as they are, forms too."""
    device = await bench.device(data=BASE64)
    everything = bytes(range(256)) * 80
    for type_ in ("application/octet-stream", FORM):
        got = await scene.asked(device, ask(everything, type_))
        assert got["bodyEncoding"] == "base64"
        assert base64.b64decode(got["body"]) == everything
    body = base64.b64encode(everything).decode()
    result = json.dumps({"body": body, "bodyEncoding": "base64"}).encode()
    await attach(bench, device, lambda event: result)
    assert (await scene.send(device, ask())).body == everything


@bounded
async def test_base64_size(bench: Bench, scene: Scene) -> None:
    """What is too large for the command in base64 is fetched as it is."""
    device = await bench.device(data=BASE64)
    got = await scene.asked(device, ask(b"x" * 98_000))
    assert len(got["body"]) > 130_000
    for size in (99_000, INLINE, INLINE + 1, 1_000_000):
        got = await scene.asked(device, ask(b"x" * size))
        assert ticket(got["blobUrl"])
        assert "body" not in got
        assert "bodyEncoding" not in got


@bounded
async def test_text_is_lost(bench: Bench, scene: Scene) -> None:
    """A device that declares nothing gets a small body as text, as in the original."""
    device = await bench.device(data=b'{"relay":{"bodyEncoding":"hex"}}')
    got = await scene.asked(device, ask(b"a\xffb"))
    assert got["body"] == "a�b"


@pytest.mark.parametrize(
    "data",
    [b"[]", b'"x"', b'{"relay":1}', b'{"relay":null}', b'{"relay":{"upload":"yes"}}', b"null"],
)
@bounded
async def test_declares_nonsense(bench: Bench, scene: Scene, data: bytes) -> None:
    """A device whose data cannot be understood has declared nothing."""
    device = await bench.device(data=data)
    got = await scene.asked(device, ask(b"x"))
    assert got["body"] == "x"
    assert "uploadUrl" not in got


@bounded
async def test_large_request(bench: Bench, scene: Scene) -> None:
    """What does not fit into a command even without its body is refused; nobody is asked."""
    device = await bench.device(data=UPLOADS)
    socket = await attach(bench, device)
    for body in (None, b"x", b"x" * 20_000):
        assert await fails(scene.send(device, ask(body, query="/" * INLINE)), TooLarge) == "request"
    await bench.settle()
    assert socket.events == []
    assert scene.is_over(device)


# Bodies of answers


@bounded
async def test_upload(bench: Bench, scene: Scene) -> None:
    """What a device has brought is its answer: with 200, its own type, and closed at the end."""
    device = await bench.device(data=UPLOADS)
    socket = await attach(bench, device)
    sent = scene.send(device, ask())
    await bench.settle()
    url = parameters(socket.events[0])["uploadUrl"]
    file = BytesIO(b"z" * 200_000)
    scene.spool.bring(ticket(url), file, 200_000, "image/png")
    result = {"status": 206, "headers": {"content-disposition": "inline"}, "blobUrl": url}
    socket.answer(socket.events[0], json.dumps(result).encode())
    answer = await sent
    assert answer.status == 200
    assert answer.headers == (("Content-Type", "image/png"), ("Content-Disposition", "inline"))
    assert not isinstance(answer.body, bytes)
    assert answer.body.length == 200_000
    assert scene.is_over(device)
    consumer = Consumer()
    passed = answer.body.pass_on(consumer)
    assert consumer.pull() == b"z" * 200_000
    assert await passed == 200_000
    assert file.closed


@bounded
async def test_upload_without_type(bench: Bench, scene: Scene) -> None:
    """Without a type of its own, what was brought has that of the answer; it may be let go."""
    device = await bench.device(data=UPLOADS)
    socket = await attach(bench, device)
    sent = scene.send(device, ask())
    await bench.settle()
    url = parameters(socket.events[0])["uploadUrl"]
    file = BytesIO(b"z")
    scene.spool.bring(ticket(url), file, 1, "")
    result = {"headers": {"Content-Type": "a/b"}, "blobUrl": url}
    socket.answer(socket.events[0], json.dumps(result).encode())
    answer = await sent
    assert answer.headers == (("Content-Type", "a/b"),)
    assert not isinstance(answer.body, bytes)
    answer.body.close()
    assert file.closed


@bounded
async def test_no_upload(bench: Bench, scene: Scene) -> None:
    """A device that was offered to bring a body need not, but then must not say that it has."""
    device = await bench.device(data=UPLOADS)
    await attach(bench, device, lambda event: b'{"body":"x"}')
    assert (await scene.send(device, ask())).body == b"x"
    other = await bench.device("E", data=UPLOADS)

    def claim(change: Callable[[str], str]) -> Callable[[Event], bytes]:
        def answering(event: Event) -> bytes:
            return json.dumps({"blobUrl": change(parameters(event)["uploadUrl"])}).encode()

        return answering

    changes: list[Callable[[str], str]] = [
        lambda url: url, lambda url: url + "x", lambda url: "", lambda url: url.upper(),
        lambda url: "é",
    ]  # fmt: skip
    for change in changes:
        socket = await attach(bench, other, claim(change))
        await fails(scene.send(other, ask()), BadAnswer)
        socket.detach()
    assert scene.is_over(device, other)


@bounded
async def test_others_upload(bench: Bench, scene: Scene) -> None:
    """What was brought for one request is not the answer to another one."""
    device = await bench.device(data=UPLOADS)
    socket = await attach(bench, device)
    first, second = scene.send(device, ask()), scene.send(device, ask())
    await bench.settle()
    url = parameters(socket.events[0])["uploadUrl"]
    scene.spool.bring(ticket(url), BytesIO(b"z"), 1, "")
    result = json.dumps({"blobUrl": url}).encode()
    socket.answer(socket.events[1], result)
    await fails(second, BadAnswer)
    socket.answer(socket.events[0], result)
    answer = await first
    assert not isinstance(answer.body, bytes)
    answer.body.close()


# Requests that are left for a device


def answered(scene: Scene, device: Device, number: int, wait: float = 0) -> Deferred[Answer | None]:
    return Deferred.fromCoroutine(scene.adapter.answer(device, number, wait))


@bounded
async def test_queue(bench: Bench, scene: Scene) -> None:
    """A request waits for a device that is away; its answer is found by its number."""
    device = await bench.device(data=UPLOADS)
    number = await scene.adapter.submit(device, ask(b"hi", "text/plain"), 60)
    assert await answered(scene, device, number) is None
    waiting = answered(scene, device, number, 5)
    socket = await attach(bench, device, lambda event: b'{"status":202,"body":"done"}')
    for answer in (await waiting, await answered(scene, device, number)):
        assert answer is not None
        assert (answer.status, answer.body) == (202, b"done")
    got = parameters(socket.events[0])
    assert got["body"] == "hi"
    assert "uploadUrl" not in got
    assert scene.is_over(device)


@bounded
async def test_queue_refuses(bench: Bench, scene: Scene) -> None:
    """What does not travel inside a command cannot wait; so for a device that is blocked."""
    device = await bench.device()
    for request in (
        ask(b"x" * 16385), ask(b"a=1", FORM), ask(query="/" * INLINE), ask(b"x", query="/" * INLINE)
    ):  # fmt: skip
        with pytest.raises(TooLarge) as caught:
            await scene.adapter.submit(device, request, 60)
        assert caught.value.what == "request"
    await block(bench)
    with pytest.raises(Denied):
        await scene.adapter.submit(device, ask(), 60)


@bounded
async def test_queue_bad_answers(bench: Bench, scene: Scene) -> None:
    """What is no answer to any other request is none here; nor is what never comes."""
    device = await bench.device()
    results = {
        b"[]": BadAnswer, b'{"blobUrl":"http://gw:8080/blobs/x"}': BadAnswer,
        json.dumps("x" * INLINE).encode(): TooLarge,
    }  # fmt: skip
    for result, kind in results.items():
        number = await scene.adapter.submit(device, ask(), 60)
        socket = await attach(bench, device, lambda event, result=result: result)  # type: ignore[misc]
        await bench.settle()
        socket.detach()
        await fails(answered(scene, device, number), kind)
    number = await scene.adapter.submit(device, ask(), 60)
    bench.clock.now += 60_100
    await fails(answered(scene, device, number), NoAnswer)
