"""The times and rates of TCP lines, on a clock that the tests move."""

from __future__ import annotations

import socket

import pytest
import pytest_twisted

from gatewayd.core.line import Ending, Rebind
from gatewayd.transport.links.tcp_line import TcpLine
from tests.transport.tcp_scene import LOCAL, Peer, Scene, address, scene, stage

__all__ = ["scene", "stage"]

MEGABYTE = 1024 * 1024


async def pass_time(scene: Scene, seconds: float) -> None:
    """Let the clock go on in small steps, and the sockets between them."""
    for _ in range(20):
        scene.clock.advance(seconds / 20)
        await scene.turns(1)


async def closed(scene: Scene, line: TcpLine) -> None:
    """Check that nobody listens any more."""
    with pytest.raises(ConnectionRefusedError):
        await (await scene.client(line)).rest()


@pytest_twisted.ensureDeferred
async def test_never_claimed(stage: Scene) -> None:
    """A line that nobody claims ends."""
    line = stage.open(claim=30)
    await pass_time(stage, 29.9)
    assert stage.watch.told == []
    await pass_time(stage, 0.2)
    assert stage.watch.told == [Ending.TIMED_OUT]
    await closed(stage, line)


@pytest_twisted.ensureDeferred
async def test_claimed_again(stage: Scene) -> None:
    """With a client there is no hurry; after it, as long as at first."""
    line = stage.open(claim=30)
    await pass_time(stage, 20)
    client, _device = await stage.pair(line)
    await stage.watch.heard(1)
    await pass_time(stage, 1000)
    client.reset()
    await stage.watch.heard(2)
    await pass_time(stage, 29.9)
    assert stage.watch.told[1:] == ["left"]
    await pass_time(stage, 0.2)
    assert stage.watch.told[1:] == ["left", Ending.TIMED_OUT]


@pytest_twisted.ensureDeferred
async def test_claimed_by_who_is_refused(stage: Scene) -> None:
    """A client that is not let in does not keep the line open."""
    line = stage.open(claim=30, rebind=Rebind.HOST)
    client, _device = await stage.pair(line)
    client.reset()
    await stage.watch.heard(2)
    await pass_time(stage, 20)
    assert await (await stage.client(line, ("127.0.0.2", 0))).is_reset()
    await pass_time(stage, 10.1)
    assert stage.watch.told[2:] == [Ending.TIMED_OUT]


@pytest_twisted.ensureDeferred
async def test_idle(scene: Scene) -> None:
    """Without traffic either way the line ends, and both sides are reset; traffic delays that."""
    client, device = await scene.pair(scene.open(idle=8, claim=1000))
    await scene.watch.heard(1)
    for sender, receiver in ((client, device), (device, client)) * 3:
        await pass_time(scene, 7)
        await sender.send(b"x")
        assert await receiver.receive(1) == b"x"
    assert scene.watch.told[1:] == []
    await pass_time(scene, 10.1)
    assert scene.watch.told[1:] == [Ending.TIMED_OUT]
    assert await client.is_reset()
    assert await device.is_reset()


@pytest_twisted.ensureDeferred
async def test_idle_needs_a_client(stage: Scene) -> None:
    """How long a line may wait for a client is another setting."""
    line = stage.open(idle=8)
    await pass_time(stage, 100)
    client, _device = await stage.pair(line)
    client.reset()
    await stage.watch.heard(2)
    await pass_time(stage, 100)
    assert stage.watch.told[1:] == ["left"]


@pytest_twisted.ensureDeferred
async def test_slow_is_not_idle(stage: Scene) -> None:
    """What leaves the kernel is traffic, although nothing new is taken meanwhile."""
    line = stage.open(idle=8)
    client, device = await stage.pair(line, room=256 * 1024)
    await client.send(bytes(2 * MEGABYTE))
    await stage.turns()
    assert line.traffic.bytes_up == 2 * MEGABYTE
    for _ in range(8):
        await pass_time(stage, 6)
        assert len(await device.receive(256 * 1024)) == 256 * 1024
    assert len(stage.watch.told) == 1


@pytest.mark.parametrize("who", ["client", "device"])
@pytest_twisted.ensureDeferred
async def test_linger(scene: Scene, who: str) -> None:
    """When one side has ended, the other one may be silent only for a while."""
    line = scene.open(linger=8)
    client, device = await scene.pair(line)
    first, second = (client, device) if who == "client" else (device, client)
    first.end()
    assert await second.rest() == b""
    for _ in range(3):
        await pass_time(scene, 7)
        await second.send(b"x")
        assert await first.receive(1) == b"x"
    assert len(scene.watch.told) == 1
    await pass_time(scene, 10.1)
    assert scene.watch.told[1:] == ["left"]
    assert await first.is_reset()


@pytest_twisted.ensureDeferred
async def test_linger_of_what_is_not_taken(stage: Scene) -> None:
    """A client that has ended is not kept for a device that does not read what it sent."""
    line = stage.open(linger=8)
    client, device = await stage.pair(line, room=256 * 1024)
    await stage.offer(client, bytes(64 * MEGABYTE))
    await pass_time(stage, 20)
    client.end()
    await stage.turns()
    for _ in range(3):
        await pass_time(stage, 7)
        assert await device.receive(256 * 1024)
    assert len(stage.watch.told) == 1
    await pass_time(stage, 10.1)
    assert stage.watch.told[1:] == ["left"]
    assert await client.is_reset()


class Blackhole:
    """A device that does not answer: its queue of connections is full."""

    def __init__(self) -> None:
        self.listening = socket.create_server((LOCAL, 0), backlog=0)
        self._fillers = [socket.socket() for _ in range(4)]
        for filler in self._fillers:
            filler.setblocking(False)
            filler.connect_ex(self.listening.getsockname())

    def close(self) -> None:
        for each in (self.listening, *self._fillers):
            each.close()


async def into_blackhole(scene: Scene, rebind: Rebind) -> tuple[TcpLine, Peer]:
    """Return a line to a device that does not answer, and its client."""
    hole = Blackhole()
    scene.closing.append(hole.close)
    line = scene.open(device=address(hole.listening), connect=10, claim=5, rebind=rebind)
    client = await scene.client(line)
    await scene.turns()
    return line, client


@pytest_twisted.ensureDeferred
async def test_device_does_not_answer(scene: Scene) -> None:
    """The client is reset after the time to connect, and the line waits for another one."""
    line, client = await into_blackhole(scene, Rebind.HOST)
    await pass_time(scene, 9.9)
    assert scene.watch.told == []
    client.offer(b"x")
    await pass_time(scene, 2.7)
    assert await client.is_reset()
    assert scene.watch.told == []
    await pass_time(scene, 5)
    assert scene.watch.told == [Ending.TIMED_OUT]
    assert line.traffic.clients == 0


@pytest_twisted.ensureDeferred
async def test_device_does_not_answer_the_only_client(scene: Scene) -> None:
    """A line for one client ends then."""
    _line, client = await into_blackhole(scene, Rebind.NEVER)
    await pass_time(scene, 12.6)
    assert scene.watch.told == [Ending.UNREACHABLE]
    assert await client.is_reset()


@pytest_twisted.ensureDeferred
async def test_device_answers_the_first_of_two(scene: Scene) -> None:
    """Who waits for the device keeps the line open when the other has left, but not for ever."""
    busy = socket.create_server((LOCAL, 0), backlog=0)  # has room for one
    scene.closing.append(busy.close)
    line = scene.open(device=address(busy), connect=10, connections=2, rebind=Rebind.NEVER)
    first, second = await scene.client(line), await scene.client(line)
    await scene.watch.heard(1)
    first.reset()
    assert (await scene.watch.heard(2))[1] == "left"
    await pass_time(scene, 12.6)
    assert scene.watch.told[2:] == [Ending.COMPLETED]
    assert await second.is_reset()


@pytest_twisted.ensureDeferred
async def test_closed_while_dialling(scene: Scene) -> None:
    """Closing does not wait for the device."""
    line, client = await into_blackhole(scene, Rebind.NEVER)
    line.close()
    assert await client.is_reset()
    assert scene.watch.told == []
    assert scene.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_rate(scene: Scene) -> None:
    """In each direction no more passes than allowed, and all of it in the end."""
    line = scene.open(rate=100_000)
    client, device = await scene.pair(line)
    data = bytes(range(256)) * 2000
    await client.send(data)
    await device.send(data)
    await scene.turns(50)
    assert line.traffic.bytes_up == line.traffic.bytes_down == 100_000
    await pass_time(scene, 1)
    assert 180_000 <= line.traffic.bytes_up <= 200_000
    assert 180_000 <= line.traffic.bytes_down <= 200_000
    await pass_time(scene, 4)
    client.end()
    device.end()
    await pass_time(scene, 0.5)
    assert await device.rest() == await client.rest() == data
    assert line.traffic.bytes_up == line.traffic.bytes_down == len(data)


@pytest_twisted.ensureDeferred
async def test_rate_of_several_connections(scene: Scene) -> None:
    """The rate is that of the line, not of each connection."""
    line = scene.open(rate=100_000, connections=3)
    for _ in range(3):
        client, _device = await scene.pair(line)
        await client.send(bytes(150_000))
    await scene.turns(50)
    assert line.traffic.bytes_up == 100_000
    await pass_time(scene, 2)
    assert 280_000 <= line.traffic.bytes_up <= 300_000
    line.close()
    assert scene.clock.getDelayedCalls() == []
