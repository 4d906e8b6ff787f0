"""What TCP lines leave behind, and how they bear what goes wrong."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import pytest_twisted
from twisted.python.failure import Failure

from gatewayd.core.line import Ending, Rebind, Wire
from gatewayd.errors import NoFreePort
from gatewayd.transport.links.ports import PortPool
from gatewayd.transport.links.tcp_line import TcpLine
from tests.transport.tcp_scene import (
    LOCAL,
    Peer,
    Scene,
    descriptors,
    few_descriptors,
    free_port,
    scene,
    stage,
)

__all__ = ["scene", "stage"]

MEGABYTE = 1024 * 1024


async def closed(scene: Scene, line: TcpLine) -> None:
    """Check that nobody listens any more."""
    with pytest.raises(ConnectionRefusedError):
        await (await scene.client(line)).rest()


@pytest_twisted.ensureDeferred
async def test_close(scene: Scene) -> None:
    """Closing resets both sides and frees all at once; the watcher is told nothing any more."""
    line = scene.open(claim=30, idle=30)
    client, device = await scene.pair(line)
    await scene.watch.heard(1)
    assert line.close().called
    assert line.close().called
    assert scene.clock.getDelayedCalls() == []
    assert await client.is_reset()
    assert await device.is_reset()
    await closed(scene, line)
    assert len(scene.watch.told) == 1


@pytest_twisted.ensureDeferred
async def test_close_without_a_client(stage: Scene) -> None:
    """A line that waits is closed like any other; who has just connected is reset."""
    line = stage.open(claim=30)
    waiting = socket.socket()
    waiting.connect((LOCAL, line.port))
    line.close()
    with waiting, pytest.raises(ConnectionResetError):
        waiting.recv(1)
    await closed(stage, line)
    assert stage.watch.told == []


@pytest_twisted.ensureDeferred
async def test_close_with_much_on_its_way(scene: Scene) -> None:
    """What is held for sides that do not read is dropped."""
    line = scene.open()
    client, device = await scene.pair(line, room=64 * 1024)
    await scene.offer(client, bytes(64 * MEGABYTE))
    await scene.offer(device, bytes(64 * MEGABYTE))
    line.close()
    assert await client.is_reset()
    assert await device.is_reset()


@pytest_twisted.ensureDeferred
async def test_close_with_one_side_ended(scene: Scene) -> None:
    """A line that lingers is closed like any other."""
    line = scene.open()
    client, device = await scene.pair(line)
    client.end()
    assert await device.rest() == b""
    line.close()
    assert scene.clock.getDelayedCalls() == []
    assert await client.is_reset()


@pytest.mark.parametrize("when", ["came", "left"])
@pytest_twisted.ensureDeferred
async def test_closed_by_who_watches(scene: Scene, when: str) -> None:
    """The line may be closed from within what it tells."""
    line = scene.open(connections=2, claim=30, rebind=Rebind.ANY)

    def close() -> None:
        if (scene.watch.told[-1] == "left") == (when == "left"):
            line.close()

    scene.watch.then = close
    client, device = await scene.pair(line)
    if when == "left":
        await scene.watch.heard(1)
        client.reset()
    else:
        assert await client.is_reset()
    assert await device.is_reset()
    await scene.turns()
    await closed(scene, line)
    assert len(scene.watch.told) == (2 if when == "left" else 1)


@pytest_twisted.ensureDeferred
async def test_watcher_that_fails(stage: Scene, failures: list[Failure]) -> None:
    """What goes wrong outside is logged, and the line goes on."""

    def fail() -> None:
        raise RuntimeError("boom")

    stage.watch.then = fail
    line = stage.open(rebind=Rebind.ANY)
    for _ in range(2):
        client, device = await stage.pair(line)
        await client.send(b"x")
        assert await device.receive(1) == b"x"
        client.reset()
        assert await device.is_reset()
    assert len(failures) >= 3
    assert all(failure.check(RuntimeError) for failure in failures)


@pytest_twisted.ensureDeferred
async def test_port_after_the_end(stage: Scene) -> None:
    """A port rests after its line, then it is good again although connections linger on."""
    number = free_port()
    stage.ports = PortPool(number, number, stage.clock)
    line = stage.open(rebind=Rebind.NEVER)
    client, device = await stage.pair(line)
    device.end()
    assert await client.rest() == b""
    client.end()  # second, so it is our side that has to wait in the kernel
    assert (await stage.watch.heard(2))[1] is Ending.COMPLETED
    with pytest.raises(NoFreePort):
        stage.open()
    stage.clock.advance(30)
    assert stage.open().port == number


def ends() -> list[Callable[[Peer, Peer], object]]:
    """The ways in which a connection can end."""
    return [
        lambda client, device: (client.end(), device.end()),
        lambda client, device: (device.end(), client.reset()),
        lambda client, device: client.reset(),
        lambda client, device: device.reset(),
        lambda client, device: client.close(),
        lambda client, device: None,
    ]


@pytest_twisted.ensureDeferred
async def test_many_lines(scene: Scene) -> None:
    """However connections end, nothing is left, and what arrived is what was sent."""
    random = Random(5)
    for _ in range(8):
        line = scene.open(claim=30, idle=30, rebind=Rebind.ANY)
        up = 0
        for end in random.sample(ends(), 4):
            told = len(scene.watch.told)
            client, device = await scene.pair(line)
            await scene.watch.heard(told + 1)
            data = random.randbytes(random.randrange(200_000))
            await client.send(data)
            assert await device.receive(len(data)) == data
            up += len(data)
            assert line.traffic.bytes_up == up
            end(client, device)
            await scene.turns(3)
            client.close()
            device.close()
            await scene.watch.heard(told + 2)
        line.close()
        assert scene.clock.getDelayedCalls() == []
    scene.gear.close()
    assert descriptors() - scene.before == {scene.device.fileno()}


# Too few descriptors.


@pytest_twisted.ensureDeferred
async def test_none_to_accept(stage: Scene) -> None:
    """Without a descriptor left, accepting pauses, and who waits is served later."""
    line = stage.open()
    warm, _device = await stage.pair(line)
    warm.reset()
    await stage.watch.heard(2)
    stage.clock.advance(100)
    assert stage.clock.getDelayedCalls() == []
    connection = socket.socket()
    client = stage.peer(connection)
    with few_descriptors():
        connection.connect_ex((LOCAL, line.port))
        for _ in range(2):
            await stage.turns()
            paused = stage.clock.getDelayedCalls()
            assert len(paused) == 1
            await stage.turns()
            assert stage.clock.getDelayedCalls() == paused
            stage.clock.advance(0.5)
    stage.clock.advance(0.5)
    device = await stage.accept()
    await client.send(b"at last")
    assert await device.receive(7) == b"at last"


@pytest_twisted.ensureDeferred
async def test_none_to_pause_with(stage: Scene) -> None:
    """A line that pauses can be closed."""
    line = stage.open()
    connection = socket.socket()
    stage.peer(connection)
    with few_descriptors():
        connection.connect_ex((LOCAL, line.port))
        await stage.turns()
        line.close()
    assert stage.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_none_for_the_device(stage: Scene) -> None:
    """A client for which there is no second descriptor is reset, and the line goes on."""
    line = stage.open()
    connection = socket.socket()
    client = stage.peer(connection)
    with few_descriptors(1):
        connection.connect_ex((LOCAL, line.port))
        assert await client.is_reset()
    await stage.pair(line)
    assert len(await stage.watch.heard(1)) == 1


@pytest.mark.parametrize("waits", ["start_reading", "start_writing"])
@pytest_twisted.ensureDeferred
async def test_none_to_watch(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, failures: list[Failure], waits: str
) -> None:
    """When the kernel watches no more sockets for us, the client is reset and the line goes on."""
    line = scene.open(rebind=Rebind.HOST)

    def fail(_member: Any) -> None:
        raise OSError(errno.ENOSPC, "too many")

    with monkeypatch.context() as patch:
        patch.setattr(scene.gear.poller, waits, fail)
        assert await (await scene.client(line)).is_reset()
    assert await (await scene.accept()).is_reset()
    await scene.pair(line)
    assert len(await scene.watch.heard(1)) == line.traffic.clients == 1
    assert failures == []


@pytest_twisted.ensureDeferred
async def test_none_for_pipes(stage: Scene) -> None:
    """What the kernel cannot move for want of pipes is copied; nothing is lost."""
    line = stage.open(connections=2)
    pairs: list[Any] = [await stage.pair(line, room=64 * 1024) for _ in range(2)]
    data = Random(3).randbytes(MEGABYTE) * 32
    with few_descriptors(2):  # enough for the pipe that all share
        for client, _device in pairs:
            await stage.offer(client, data)
        got = []
        for client, device in pairs:
            client.end()
            got.append(await device.rest())
    for (client, _device), received in zip(pairs, got, strict=True):
        assert received == data[: client.sent]


def test_none_for_a_port(stage: Scene) -> None:
    """Without a descriptor there is no line."""
    with few_descriptors(), pytest.raises(NoFreePort):
        stage.open()
    stage.ports.take(Wire.TCP, LOCAL).close()
