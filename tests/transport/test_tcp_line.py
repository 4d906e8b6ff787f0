"""What TCP lines carry."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Coroutine
from contextlib import suppress
from random import Random
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from gatewayd.core.line import Cipher, Ending, Rebind
from gatewayd.transport.links.end import End
from gatewayd.transport.links.pipes import ROOM
from gatewayd.transport.links.poller import Pollable
from tests.transport.sealed import AUTHENTIC, Direction, counter_mode, encryption
from tests.transport.tcp_scene import Peer, Scene, scene, stage

__all__ = ["scene", "stage"]

MEGABYTE = 1024 * 1024


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes without a pattern."""
    return Random(seed).randbytes(size)


async def together(*work: Coroutine[Any, Any, Any]) -> list[Any]:
    """Do several things at the same time."""
    return await gatherResults([Deferred.fromCoroutine(each) for each in work])


async def echo(device: Peer) -> None:
    """Send back what comes, then end."""
    while data := await device.receive(1):
        with suppress(BlockingIOError):
            data += device.socket.recv(65536)
        await device.send(data)
    device.end()


@pytest_twisted.ensureDeferred
async def test_both_ways(scene: Scene) -> None:
    """What one side sends reaches the other one, and is counted."""
    line = scene.open()
    client, device = await scene.pair(line)
    await client.send(b"request")
    assert await device.receive(7) == b"request"
    await device.send(b"the answer")
    assert await client.receive(10) == b"the answer"
    assert (line.traffic.bytes_up, line.traffic.bytes_down) == (7, 10)
    assert await scene.watch.heard(1) == [client.address]
    assert line.traffic.clients == 1


@pytest_twisted.ensureDeferred
async def test_much_both_ways_at_once(scene: Scene) -> None:
    """Nothing is lost, changed or moved about, with little room in the sockets."""
    line = scene.open()
    client, device = await scene.pair(line, room=64 * 1024)
    up, down = noise(8 * MEGABYTE, 1), noise(6 * MEGABYTE + 1, 2)

    async def talk(peer: Peer, data: bytes) -> None:
        await peer.send(data)
        peer.end()

    got = await together(talk(client, up), talk(device, down), device.rest(), client.rest())
    assert hashlib.sha256(got[2]).digest() == hashlib.sha256(up).digest()
    assert hashlib.sha256(got[3]).digest() == hashlib.sha256(down).digest()
    assert (line.traffic.bytes_up, line.traffic.bytes_down) == (len(up), len(down))
    assert await scene.watch.heard(2) == [client.address, "left"]


@pytest_twisted.ensureDeferred
async def test_many_at_once(scene: Scene) -> None:
    """Connections of one line do not get in each other's way."""
    line = scene.open(connections=8)
    pairs = [await scene.pair(line, room=64 * 1024) for _ in range(8)]
    texts = [noise(MEGABYTE, seed) for seed in range(8)]

    async def talk(client: Peer, data: bytes) -> None:
        await client.send(data)
        client.end()

    work: list[Coroutine[Any, Any, Any]] = []
    for (client, device), text in zip(pairs, texts, strict=True):
        work += [talk(client, text), echo(device), client.rest()]
    got = await together(*work)
    assert got[2::3] == texts
    assert line.traffic.bytes_up == line.traffic.bytes_down == 8 * MEGABYTE


@pytest_twisted.ensureDeferred
async def test_small_and_large_by_turns(scene: Scene) -> None:
    """Whether much or little comes at a time makes no difference."""
    client, device = await scene.pair(scene.open())
    random = Random(7)
    for size in [1, 10, 1000, 100_000, *(random.randrange(1, 300_000) for _ in range(20))]:
        data = noise(size, size)
        sending = Deferred.fromCoroutine(client.send(data))
        assert await device.receive(size) == data
        await sending


@pytest_twisted.ensureDeferred
async def test_client_ends_first(scene: Scene) -> None:
    """The device learns of the client's end and can still answer."""
    client, device = await scene.pair(scene.open())
    await client.send(b"all of it")
    client.end()
    assert await device.rest() == b"all of it"
    await device.send(b"got it")
    device.end()
    assert await client.rest() == b"got it"
    assert await scene.watch.heard(2) == [client.address, "left"]
    scene.clock.advance(8)
    assert scene.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_device_ends_first(scene: Scene) -> None:
    """The client learns of the device's end and can still send."""
    client, device = await scene.pair(scene.open())
    await device.send(b"bye")
    device.end()
    assert await client.rest() == b"bye"
    await client.send(b"one more thing")
    client.end()
    assert await device.rest() == b"one more thing"
    assert await scene.watch.heard(2) == [client.address, "left"]


@pytest_twisted.ensureDeferred
async def test_end_behind_what_waits(scene: Scene) -> None:
    """A side that ends with much unread leaves nothing behind."""
    client, device = await scene.pair(scene.open(), room=64 * 1024)
    data = noise(MEGABYTE) * 64
    sent = await scene.offer(client, data)
    client.end()
    assert await device.rest() == data[:sent]
    device.end()
    assert await client.rest() == b""
    assert await scene.watch.heard(2) == [client.address, "left"]


@pytest.mark.parametrize("who", ["client", "device"])
@pytest_twisted.ensureDeferred
async def test_reset(scene: Scene, who: str) -> None:
    """When one side resets its connection, the other one's is reset."""
    client, device = await scene.pair(scene.open())
    await scene.watch.heard(1)
    breaks, suffers = (client, device) if who == "client" else (device, client)
    breaks.reset()
    assert await suffers.is_reset()
    assert await scene.watch.heard(2) == [scene.watch.told[0], "left"]


@pytest.mark.parametrize("who", ["client", "device"])
@pytest_twisted.ensureDeferred
async def test_reset_of_a_side_that_has_ended(scene: Scene, who: str) -> None:
    """A reset counts after the end of its stream, too."""
    client, device = await scene.pair(scene.open())
    breaks, suffers = (client, device) if who == "client" else (device, client)
    breaks.end()
    assert await suffers.rest() == b""
    breaks.reset()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        for _ in range(1000):
            await suffers.send(b"into nowhere")
            await scene.turns(1)
    assert (await scene.watch.heard(2))[1] == "left"


@pytest_twisted.ensureDeferred
async def test_reset_of_a_side_that_is_not_read(stage: Scene) -> None:
    """While the device does not read, the client's reset is noticed all the same."""
    client, device = await stage.pair(stage.open(), room=64 * 1024)
    await stage.offer(client, bytes(64 * MEGABYTE))
    client.reset()
    assert (await stage.watch.heard(2))[1] == "left"
    assert await device.is_reset()


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest_twisted.ensureDeferred
async def test_stalled_reader(scene: Scene, direction: str) -> None:
    """What a side does not read is not taken from the other: nothing is lost, little is held."""
    line = scene.open()
    client, device = await scene.pair(line, room=64 * 1024)
    sender, reader = (client, device) if direction == "up" else (device, client)
    data = noise(MEGABYTE) * 128
    sent = await scene.offer(sender, data)
    taken = line.traffic.bytes_up if direction == "up" else line.traffic.bytes_down
    assert sent < len(data) // 2
    # One chunk is held, the rest is in the kernel's send buffer, which the system limits.
    assert taken <= ROOM + send_limit()
    sender.end()
    assert hashlib.sha256(await reader.rest()).digest() == hashlib.sha256(data[:sent]).digest()


def send_limit() -> int:
    """The most that a send buffer of the system holds, in bytes."""
    try:
        with open("/proc/sys/net/ipv4/tcp_wmem") as file:
            return int(file.read().split()[2])
    except OSError:
        return 16 * MEGABYTE


@pytest_twisted.ensureDeferred
async def test_others_flow_while_one_stalls(scene: Scene) -> None:
    """A side that does not read holds up its own connection alone."""
    stuck = scene.open()
    client, _device = await scene.pair(stuck, room=64 * 1024)
    await scene.offer(client, bytes(64 * MEGABYTE))
    other_client, other_device = await scene.pair(scene.open())
    data = noise(4 * MEGABYTE)
    sending = Deferred.fromCoroutine(other_client.send(data))
    assert await other_device.receive(len(data)) == data
    await sending


@pytest_twisted.ensureDeferred
async def test_sent_before_the_device_answers(scene: Scene) -> None:
    """What a client sends at once, and its end, reach the device."""
    line = scene.open()
    client = await scene.client(line)
    await client.send(b"early")
    client.end()
    device = await scene.accept()
    assert await device.rest() == b"early"
    device.end()
    assert await client.rest() == b""
    assert await scene.watch.heard(2) == [client.address, "left"]


@pytest_twisted.ensureDeferred
async def test_gone_before_the_device_answers(scene: Scene) -> None:
    """A client that connects and resets at once leaves nothing behind."""
    line = scene.open(rebind=Rebind.ANY)
    (await scene.client(line)).reset()
    device = await scene.accept()
    assert await device.is_reset()
    assert (await scene.watch.heard(2))[1] == "left"
    client, device = await scene.pair(line)
    await client.send(b"next")
    assert await device.receive(4) == b"next"


@pytest_twisted.ensureDeferred
async def test_options_of_the_sockets(stage: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides send small messages at once, and find out when a peer has vanished."""
    seen: list[Any] = []
    start = stage.gear.poller.start_reading

    def note(member: Pollable) -> None:
        seen.append(member)
        start(member)

    monkeypatch.setattr(stage.gear.poller, "start_reading", note)
    await stage.pair(stage.open())
    await stage.watch.heard(1)
    ends = [member.socket for member in seen if isinstance(member, End)]
    assert len(ends) == 2
    for end in ends:
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 120


# Encryption.


@pytest_twisted.ensureDeferred
async def test_counter_mode(stage: Scene) -> None:
    """In counter mode each direction is one stream from the IV on, however it is cut."""
    line = stage.open(encryption=encryption(Cipher.CTR))
    client, device = await stage.pair(line, room=64 * 1024)
    up, down = noise(2 * MEGABYTE, 1), noise(2 * MEGABYTE + 3, 2)

    async def talk(peer: Peer, data: bytes) -> None:
        await peer.send(data[:1])
        await peer.send(data[1:70_000])
        await peer.send(data[70_000:])
        peer.end()

    sealed = counter_mode(up)
    got = await together(talk(client, sealed), talk(device, down), device.rest(), client.rest())
    assert got[2] == up
    assert counter_mode(got[3]) == down
    assert (line.traffic.bytes_up, line.traffic.bytes_down) == (len(up), len(down))


@pytest_twisted.ensureDeferred
async def test_counter_mode_of_the_next_client(stage: Scene) -> None:
    """Each connection begins at the IV."""
    line = stage.open(encryption=encryption(Cipher.CTR))
    for text in (b"first", b"second"):
        client, device = await stage.pair(line)
        await client.send(counter_mode(text))
        client.end()
        assert await device.rest() == text
        device.end()
        assert await client.rest() == b""
    assert line.traffic.clients == 2


@pytest.mark.parametrize("cipher", AUTHENTIC)
@pytest_twisted.ensureDeferred
async def test_authenticated(stage: Scene, cipher: Cipher) -> None:
    """Records both ways, with a last one that says that there are no more; payload is counted."""
    line = stage.open(encryption=encryption(cipher))
    client, device = await stage.pair(line)
    up, down = Direction(cipher, "c2d"), Direction(cipher, "d2c")
    sealed = up.record(0, b"hello") + up.record(1, bytes(16 * 1024)) + up.record(2, b"")
    for start in range(0, len(sealed), 1000):
        await client.send(sealed[start : start + 1000])
    client.end()
    assert await device.rest() == b"hello" + bytes(16 * 1024)
    answer = noise(100_000)
    await device.send(answer)
    device.end()
    *records, last = down.records(await client.rest())
    assert b"".join(records) == answer
    assert last == b""
    assert (line.traffic.bytes_up, line.traffic.bytes_down) == (5 + 16 * 1024, len(answer))


@pytest.mark.parametrize("cipher", AUTHENTIC)
@pytest_twisted.ensureDeferred
async def test_changed_on_the_way(stage: Scene, cipher: Cipher) -> None:
    """A record that is not authentic breaks the connection, and nothing of it gets through."""
    line = stage.open(encryption=encryption(cipher))
    client, device = await stage.pair(line)
    up = Direction(cipher, "c2d")
    await client.send(up.record(0, b"good"))
    assert await device.receive(4) == b"good"
    await client.send(up.record(1, b"bad")[:-1] + b"?")
    assert await device.is_reset()
    assert await client.is_reset()
    assert await stage.watch.heard(2) == [stage.watch.told[0], Ending.COMPLETED]
    assert line.traffic.bytes_up == 4


@pytest_twisted.ensureDeferred
async def test_cut_off(stage: Scene) -> None:
    """An end without the last record was somebody else's: the device gets a reset."""
    client, device = await stage.pair(stage.open(encryption=encryption(Cipher.GCM)))
    await client.send(Direction(Cipher.GCM, "c2d").record(0, b"half of it"))
    client.end()
    assert await device.is_reset()


@pytest_twisted.ensureDeferred
async def test_keys_are_good_for_one_connection(stage: Scene) -> None:
    """A second connection would repeat nonces: there is none, and the line ends with the first."""
    line = stage.open(encryption=encryption(Cipher.GCM), connections=5, rebind=Rebind.ANY)
    client, device = await stage.pair(line)
    assert await (await stage.client(line)).is_reset()
    client.reset()
    assert await device.is_reset()
    assert await stage.watch.heard(2) == [stage.watch.told[0], Ending.COMPLETED]
    assert line.traffic.refused == 1
