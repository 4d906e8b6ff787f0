"""Who may use a UDP line, and what passes."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import pytest_twisted

from gatewayd.core.line import Address, Rebind, Traffic
from tests.transport.udp_scene import LOCAL, Scene, batch, scene

__all__ = ["batch", "scene"]

LONGEST = 65_507


# What passes


@pytest_twisted.ensureDeferred
async def test_both_ways(scene: Scene) -> None:
    """The first client gets through to the device, and its answers back; all is counted."""
    line = scene.open()
    place = await scene.meet(line, b"hello")
    scene.device.send(b"answer", place)
    scene.device.send(b"more", place)
    assert await scene.client.got(2) == [b"answer", b"more"]
    assert scene.client.senders == [(LOCAL, line.port)] * 2
    assert scene.watch.told == [scene.client.address]
    assert line.traffic == Traffic(
        bytes_up=5, packets_up=1, bytes_down=10, packets_down=2, clients=1
    )


@pytest_twisted.ensureDeferred
async def test_any_size(scene: Scene) -> None:
    """Datagrams pass as they are, from empty to the longest, in their order."""
    line = scene.open()
    texts = [b"", b"x", b"", b"y" * 1200, b"z" * LONGEST, b"", b"a" * 40_000, b"b" * LONGEST]
    for text in texts:
        scene.client.send(text, (LOCAL, line.port))
    assert await scene.device.got(len(texts)) == texts
    for text in texts:
        scene.device.send(text, scene.device.senders[-1])
    assert await scene.client.got(len(texts)) == texts
    assert line.traffic.bytes_up == line.traffic.bytes_down == sum(map(len, texts))


@pytest_twisted.ensureDeferred
async def test_many(scene: Scene) -> None:
    """What comes in one go, more than is moved in one event, arrives in its order."""
    line = scene.open()
    texts = [b"%d" % number * 20 for number in range(500)]
    for text in texts:
        scene.client.send(text, (LOCAL, line.port))
    assert await scene.device.got(500) == texts
    assert line.traffic.packets_up == 500
    assert line.traffic.dropped == 0


@pytest_twisted.ensureDeferred
async def test_lines_take_turns(scene: Scene) -> None:
    """What waits on one line is not all moved before another line has its turn."""
    busy, other = scene.open(), scene.open()
    for _ in range(500):
        scene.client.send(b"busy", (LOCAL, busy.port))
    scene.stranger.send(b"other", (LOCAL, other.port))
    got: list[bytes] = []
    while b"other" not in got:
        got += await scene.device.got()
    assert busy.traffic.packets_up < 500
    await scene.device.got(501 - len(got))


@pytest_twisted.ensureDeferred
async def test_both_ip_versions(scene: Scene) -> None:
    """A client with IPv6 and one with IPv4 can use the same interface, whatever the device has."""
    client = scene.peer("::1")
    line = scene.open("::1")
    client.send(b"six", ("::1", line.port))
    assert await scene.device.got() == [b"six"]
    scene.device.send(b"answer", scene.device.senders[-1])
    assert await client.got() == [b"answer"]
    both = scene.open("::", source=scene.client.address)
    assert await scene.device.got() == [b""]
    place = await scene.meet(both, b"four")
    scene.device.send(b"answer", place)
    assert await scene.client.got() == [b"answer"]
    assert scene.watch.told == [client.address, scene.client.address]


@pytest_twisted.ensureDeferred
async def test_too_long_for_the_device(scene: Scene) -> None:
    """What IPv6 can carry and IPv4 cannot is dropped, and holds nothing else up."""
    client, line = scene.peer("::1"), scene.open("::1")
    for size in (LONGEST + 1, 5):
        client.send(b"x" * size, ("::1", line.port))
    assert await scene.device.got() == [b"xxxxx"]
    assert line.traffic.dropped == 1
    assert line.traffic.bytes_up == 5


# Who may


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("rebind", Rebind)
async def test_first_client_owns(scene: Scene, rebind: Rebind) -> None:
    """While the line lives nobody else is heard, not even from another port of the same host."""
    line = scene.open(rebind=rebind)
    place = await scene.meet(line)
    scene.stranger.send(b"mine now", (LOCAL, line.port))
    await scene.meet(line, b"still here")
    scene.device.send(b"answer", place)
    assert await scene.client.got() == [b"answer"]
    assert scene.stranger.received == []
    assert (line.traffic.packets_up, line.traffic.dropped, line.traffic.clients) == (2, 1, 1)
    assert scene.watch.told == [scene.client.address]


@pytest_twisted.ensureDeferred
async def test_others_in_between(scene: Scene) -> None:
    """When the datagrams of several come at once, the first decides and the others are dropped."""
    line = scene.open()
    for peer, data in ((scene.client, b"1"), (scene.stranger, b"2"), (scene.client, b"3")):
        peer.send(data, (LOCAL, line.port))
    assert await scene.device.got(2) == [b"1", b"3"]
    assert line.traffic.dropped == 1


@pytest_twisted.ensureDeferred
async def test_device_before_client(scene: Scene) -> None:
    """What a device sends while there is no client is dropped."""
    line = scene.open(source=scene.stranger.address)
    assert await scene.device.got() == [b""]
    other = scene.open()
    device_side = scene.hands.readers[-1].side.socket.getsockname()[1]
    scene.device.send(b"too early", (LOCAL, device_side))
    scene.device.send(b"for the stranger", scene.device.senders[0])
    assert await scene.stranger.got() == [b"for the stranger"]
    await scene.meet(other)
    scene.device.send(b"in time", scene.device.senders[-1])
    assert await scene.client.got() == [b"in time"]
    assert (line.traffic.packets_down, other.traffic.packets_down) == (1, 1)
    assert other.traffic.dropped == 1


@pytest_twisted.ensureDeferred
async def test_only_the_device_answers(scene: Scene) -> None:
    """What others send to the side of the device does not reach the client."""
    line = scene.open()
    place = await scene.meet(line)
    scene.stranger.send(b"forged", place)
    scene.device.send(b"true", place)
    assert await scene.client.got() == [b"true"]
    assert line.traffic.packets_down == 1


@pytest_twisted.ensureDeferred
async def test_before_the_device_is_connected(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even what comes while the side of the device is still open to everybody."""
    connect = socket.socket.connect

    def slowly(self: socket.socket, place: Any) -> None:
        self.bind((LOCAL, 0))
        scene.stranger.send(b"forged", self.getsockname())
        connect(self, place)

    monkeypatch.setattr(socket.socket, "connect", slowly)
    line = scene.open(source=scene.client.address)
    monkeypatch.undo()
    await scene.device.got()
    scene.device.send(b"true", scene.device.senders[-1])
    assert await scene.client.got() == [b"true"]
    assert line.traffic.dropped == 1


@pytest_twisted.ensureDeferred
async def test_source(scene: Scene) -> None:
    """Only the named address is heard; the device is greeted, and may send to it at once."""
    line = scene.open(source=scene.client.address)
    assert await scene.device.got() == [b""]
    place = scene.device.senders[-1]
    scene.stranger.send(b"me first", (LOCAL, line.port))
    scene.device.send(b"news", place)
    assert await scene.client.got() == [b"news"]
    assert scene.watch.told == []
    assert line.traffic.clients == 0
    await scene.meet(line)
    assert scene.watch.told == [scene.client.address]
    assert line.traffic == Traffic(
        bytes_up=5, bytes_down=4, packets_up=1, packets_down=1, clients=1, dropped=1
    )


@pytest_twisted.ensureDeferred
async def test_source_of_another_kind(scene: Scene) -> None:
    """A source that the interface cannot reach is refused, and nothing is left open."""
    with pytest.raises(ValueError, match="cannot be reached"):
        scene.open(source=Address("::1", 5))


@pytest_twisted.ensureDeferred
async def test_unproven(scene: Scene) -> None:
    """A named client that has sent nothing gets so many bytes, with their headers, and no more."""
    line = scene.open(source=scene.client.address, unproven=3 * 28 + 250)
    await scene.device.got()
    place = scene.device.senders[-1]
    for text in (b"a" * 100, b"b" * 140, b"c" * 11, b"d" * 10, b""):
        scene.device.send(text, place)
    assert await scene.client.got(3) == [b"a" * 100, b"b" * 140, b"d" * 10]
    await scene.meet(line)
    assert line.traffic.dropped == 2
    scene.device.send(b"e" * 1000, place)
    assert await scene.client.got() == [b"e" * 1000]


@pytest_twisted.ensureDeferred
async def test_unproven_empty(scene: Scene) -> None:
    """Empty datagrams are not free of charge: they, too, would hit somebody."""
    line = scene.open(source=scene.client.address, unproven=280)
    await scene.device.got()
    place = scene.device.senders[-1]
    for _ in range(12):
        scene.device.send(b"", place)
    assert await scene.client.got(10) == [b""] * 10
    await scene.meet(line)
    assert line.traffic.dropped == 2


# Too fast


@pytest_twisted.ensureDeferred
async def test_rate(scene: Scene) -> None:
    """What exceeds the rate is dropped, in each direction by itself, until time has passed."""
    line = scene.open(rate=1000)
    place = await scene.meet(line, b"x" * 600)
    for text in (b"y" * 600, b"too fast"):
        scene.client.send(text, (LOCAL, line.port))
    assert await scene.device.got() == [b"y" * 600]
    for _ in range(4):
        scene.device.send(b"z" * 400, place)
    assert await scene.client.got(3) == [b"z" * 400] * 3
    scene.hands.advance(0.5)
    await scene.meet(line, b"again")
    scene.device.send(b"again", place)
    assert await scene.client.got() == [b"again"]
    assert line.traffic == Traffic(
        bytes_up=1205, packets_up=3, bytes_down=1205, packets_down=4, clients=1, dropped=2
    )


@pytest_twisted.ensureDeferred
async def test_rate_below_a_datagram(scene: Scene) -> None:
    """However low the rate, a long datagram passes, and is paid for afterwards."""
    line = scene.open(rate=100)
    await scene.meet(line, b"x" * 1000)
    scene.hands.advance(8.9)
    scene.client.send(b"too soon", (LOCAL, line.port))
    scene.stranger.send(b"seen after it", (LOCAL, line.port))
    scene.hands.advance(0)
    while line.traffic.dropped < 2:
        await scene.turn()
    scene.hands.advance(0.2)
    await scene.meet(line, b"paid")
