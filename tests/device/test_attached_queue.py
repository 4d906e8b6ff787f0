"""Requests that are left for an attached device."""

from __future__ import annotations

import json

import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.exchange import Answer
from gatewayd.core.model import Device
from gatewayd.errors import (
    BadAnswer,
    Denied,
    NoAnswer,
    TooLarge,
)
from tests.core.bench import Bench, bounded
from tests.core.conftest import set_up  # noqa: F401 - the fixture "bench"
from tests.core.responder import attach, block, fails
from tests.device.attached_scene import FORM, INLINE, UPLOADS, Scene, ask, parameters


@pytest.fixture
def scene(bench: Bench) -> Scene:
    return Scene(bench)


def answered(scene: Scene, device: Device, number: int, wait: float = 0) -> Deferred[Answer | None]:
    return Deferred.fromCoroutine(scene.adapter.answer(device, number, wait))


@bounded
async def test_queue(bench: Bench, scene: Scene) -> None:
    """A request waits for a device that is away; its answer is found by its number."""
    device = await bench.device(data=UPLOADS)
    number = await scene.adapter.submit(device, ask(b"hi", "text/plain"), 60, "k")
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
async def test_queue_key(bench: Bench, scene: Scene) -> None:
    """A request that is left again under the same key is left once."""
    device = await bench.device()
    numbers = [await scene.adapter.submit(device, ask(), 60, key) for key in ("k", "k", "l")]
    assert numbers[0] == numbers[1] != numbers[2]
    assert (await attach(bench, device)).seqs == [numbers[0], numbers[2]]


@bounded
async def test_queue_refuses(bench: Bench, scene: Scene) -> None:
    """What does not travel inside a command cannot wait; so for a device that is blocked."""
    device = await bench.device()
    for request in (
        ask(b"x" * 16385), ask(b"a=1", FORM), ask(query="/" * INLINE), ask(b"x", query="/" * INLINE)
    ):  # fmt: skip
        with pytest.raises(TooLarge) as caught:
            await scene.adapter.submit(device, request, 60, "k")
        assert caught.value.what == "request"
    await block(bench, True)
    with pytest.raises(Denied):
        await scene.adapter.submit(device, ask(), 60, "k")


@bounded
async def test_queue_bad_answers(bench: Bench, scene: Scene) -> None:
    """What is no answer to any other request is none here; nor is what never comes."""
    device = await bench.device()
    results = {
        b"[]": BadAnswer, b'{"blobUrl":"http://gw:8080/blobs/x"}': BadAnswer,
        json.dumps("x" * INLINE).encode(): TooLarge,
    }  # fmt: skip
    for result, kind in results.items():
        number = await scene.adapter.submit(device, ask(), 60, kind.__name__ + str(len(result)))
        socket = await attach(bench, device, lambda event, result=result: result)  # type: ignore[misc]
        await bench.settle()
        socket.detach()
        await fails(answered(scene, device, number), kind)
    number = await scene.adapter.submit(device, ask(), 60, "last")
    bench.clock.now += 60_100
    await fails(answered(scene, device, number), NoAnswer)
