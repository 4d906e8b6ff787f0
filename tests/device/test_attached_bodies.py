"""Bodies of requests to attached devices and of their answers: inside a command, or beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from io import BytesIO

import pytest

from gatewayd.core.model import Event
from gatewayd.errors import (
    BadAnswer,
    NotFound,
    TooLarge,
)
from tests.core.bench import Bench, bounded
from tests.core.conftest import set_up  # noqa: F401 - the fixture "bench"
from tests.core.responder import attach, fails
from tests.core.test_spool import Consumer
from tests.device.attached_scene import (
    BASE64,
    FORM,
    INLINE,
    UPLOADS,
    Scene,
    ask,
    parameters,
    ticket,
)


@pytest.fixture
def scene(bench: Bench) -> Scene:
    return Scene(bench)


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
    request = ask(b"whole")
    assert request.body is not None
    request.body.seek(3)
    assert (await scene.asked(device, request))["body"] == "whole"


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
        assert (
            str(await fails(scene.send(device, ask(body, query="/" * INLINE)), TooLarge))
            == "request"
        )
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
