"""What goes wrong on a UDP line, and how it ends."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from gatewayd.core.line import Address, Ending
from tests.transport.udp_scene import LOCAL, Scene, batch, scene

__all__ = ["batch", "scene"]


# Errors


@pytest_twisted.ensureDeferred
async def test_nobody_listens(scene: Scene) -> None:
    """A device that is not there costs packets; when it comes back, the line works."""
    line = scene.open()
    place = await scene.meet(line)
    port = scene.device.address.port
    scene.device.close()
    for number in range(3):
        scene.client.send(b"lost", (LOCAL, line.port))
        while line.traffic.dropped <= number:
            await scene.turn()
    scene.device = scene.peer(port=port)
    await scene.meet(line, b"welcome back")
    scene.device.send(b"answer", place)
    assert await scene.client.got() == [b"answer"]
    assert scene.watch.told == [scene.client.address]


@pytest_twisted.ensureDeferred
async def test_client_gone(scene: Scene) -> None:
    """What a client does not take any more is lost, and the line goes on."""
    line, port = scene.open(), scene.client.address.port
    place = await scene.meet(line)
    scene.client.close()
    scene.device.send(b"lost", place)
    while not line.traffic.packets_down:
        await scene.turn()
    scene.client = scene.peer(port=port)
    await scene.meet(line, b"back")


@pytest_twisted.ensureDeferred
async def test_unreachable(scene: Scene) -> None:
    """A device to which there is no way ends the line, though not while it is opened."""
    line = scene.open(device=Address("255.255.255.255", 9), idle=5, claim=5)
    assert scene.watch.told == []
    scene.hands.advance(0)
    assert scene.watch.told == ["released", Ending.UNREACHABLE]
    scene.peer(port=line.port)


@pytest_twisted.ensureDeferred
async def test_watcher_fails(scene: Scene, failures: list[Failure]) -> None:
    """A watcher that raises is logged, and the line goes on."""

    def fail() -> None:
        raise RuntimeError("watcher")

    line = scene.open()
    scene.watch.then = fail
    await scene.meet(line)
    await scene.meet(line)
    scene.watch.then = lambda: None
    assert [failure.type for failure in failures] == [RuntimeError]
    failures.clear()


# The end


@pytest_twisted.ensureDeferred
async def test_idle(scene: Scene) -> None:
    """Traffic in either direction keeps it; then it ends, to the moment."""
    line = scene.open(idle=60)
    scene.hands.advance(59)
    place = await scene.meet(line)
    scene.hands.advance(59)
    scene.device.send(b"answer", place)
    await scene.client.got()
    scene.hands.advance(59)
    scene.stranger.send(b"let me in", (LOCAL, line.port))
    while not line.traffic.dropped:
        await scene.turn()
    scene.hands.advance(0.9)
    assert scene.watch.told == [scene.client.address]
    scene.hands.advance(0.1)
    assert scene.watch.told[1:] == ["released", Ending.TIMED_OUT]
    assert line.traffic.packets_up == 1
    scene.peer(port=line.port)


@pytest_twisted.ensureDeferred
async def test_idle_from_the_beginning(scene: Scene) -> None:
    """A line that nobody uses ends too."""
    scene.open(idle=60)
    scene.hands.advance(60)
    assert scene.watch.told == ["released", Ending.TIMED_OUT]


@pytest_twisted.ensureDeferred
async def test_claim(scene: Scene) -> None:
    """A line whose client does not come in time ends; if it comes, that is enough."""
    scene.open(claim=30, source=scene.client.address)
    other = scene.open(claim=31)
    assert await scene.device.got() == [b""]
    scene.device.send(b"news", scene.device.senders[-1])
    await scene.client.got()
    await scene.meet(other)
    scene.hands.advance(30)
    assert scene.watch.told == [scene.client.address, "released", Ending.TIMED_OUT]
    scene.hands.advance(1000)
    await scene.meet(other)


@pytest_twisted.ensureDeferred
async def test_no_timeouts(scene: Scene) -> None:
    """Without times in the plan nothing is timed."""
    line = scene.open()
    await scene.meet(line)
    assert scene.hands.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("used", [False, True])
async def test_close(scene: Scene, used: bool) -> None:
    """It can be closed at any time, and again; the port is free and the watcher told nothing."""
    line = scene.open(idle=60, claim=60)
    if used:
        await scene.meet(line)
    told = list(scene.watch.told)
    await line.close()
    await line.close()
    assert scene.watch.told == [*told, "released"]
    scene.peer(port=line.port)


@pytest_twisted.ensureDeferred
async def test_close_with_datagrams(scene: Scene) -> None:
    """What waits when the line is closed is gone, and disturbs nobody."""
    line = scene.open()
    place = await scene.meet(line)
    for _ in range(200):
        scene.client.send(b"x", (LOCAL, line.port))
        scene.device.send(b"x", place)
    await scene.turn()
    await line.close()
    await scene.turn()
    assert line.traffic.packets_up <= 200


@pytest_twisted.ensureDeferred
async def test_closed_by_its_watcher(scene: Scene) -> None:
    """The watcher may close the line when it is told of the client."""
    line = scene.open(idle=60, claim=60)
    scene.watch.then = line.close
    scene.client.send(b"hello", (LOCAL, line.port))
    assert await scene.device.got() == [b"hello"]
    while len(scene.watch.told) < 2:
        await scene.turn()
    assert scene.watch.told == [scene.client.address, "released"]


@pytest_twisted.ensureDeferred
async def test_reactor_stops(scene: Scene) -> None:
    """When the reactor takes the sockets away, the line is over, once."""
    scene.open()
    first, second = scene.hands.readers
    first.connectionLost(Failure(ConnectionLost()))
    second.connectionLost(Failure(ConnectionLost()))
    assert scene.watch.told == ["released", Ending.STOPPED]


@pytest_twisted.ensureDeferred
async def test_no_descriptor_left(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a descriptor for the device's side there is no line, and nothing is left."""
    made = socket.socket

    def refuse(*arguments: Any, **options: Any) -> socket.socket:
        if refused:
            raise OSError(24, "Too many open files")
        refused.append(True)
        return made(*arguments, **options)

    refused: list[bool] = []
    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(OSError, match="Too many"):
        scene.open()
    monkeypatch.undo()
    assert scene.watch.told == []
