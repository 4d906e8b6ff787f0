"""UDP lines whose client's side is encrypted."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from gatewayd.core.line import Cipher, Encryption, Traffic
from tests.transport.sealed import AUTHENTIC, IV, KEY, Direction, counter_mode, encryption
from tests.transport.udp_scene import LOCAL, Scene, batch, scene

__all__ = ["batch", "scene"]

LONGEST = 65_507


class Sealed:
    """A client that seals what it sends and opens what it gets."""

    def __init__(self, cipher: Cipher) -> None:
        self._up, self._down = Direction(cipher, "c2d"), Direction(cipher, "d2c")
        self._number = 0

    def seal(self, content: bytes) -> bytes:
        self._number += 1
        return self._up.datagram(self._number - 1, content)

    def open(self, datagram: bytes) -> tuple[int, bytes]:
        return self._down.opened(datagram)


async def deliver(scene: Scene, line: Any, sealed: bytes, content: bytes) -> tuple[Any, ...]:
    """Let the client send what the device has to get as *content*."""
    scene.client.send(sealed, (LOCAL, line.port))
    assert await scene.device.got() == [content]
    return scene.device.senders[-1]


@pytest_twisted.ensureDeferred
async def test_counter_mode(scene: Scene) -> None:
    """Each datagram is encrypted from the IV on, on the client's side alone; its size stays."""
    line = scene.open(encryption=encryption(Cipher.CTR))
    texts = [b"hello", b"", b"x" * LONGEST, b"hello"]
    for text in texts:
        place = await deliver(scene, line, counter_mode(text), text)
    for text in texts:
        scene.device.send(text, place)
    assert await scene.client.got(4) == [counter_mode(text) for text in texts]
    size = LONGEST + 10
    assert line.traffic == Traffic(
        bytes_up=size, packets_up=4, bytes_down=size, packets_down=4, clients=1
    )


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("cipher", AUTHENTIC)
async def test_authentic(scene: Scene, cipher: Cipher) -> None:
    """What both seal the other side gets; bytes are counted as they are in the clear."""
    line, client = scene.open(encryption=encryption(cipher)), Sealed(cipher)
    texts = [b"hello", b"", b"x" * (LONGEST - 24), b"hello"]
    for text in texts:
        place = await deliver(scene, line, client.seal(text), text)
    for text in texts:
        scene.device.send(text, place)
    got = await scene.client.got(4)
    assert [client.open(datagram) for datagram in got] == [*enumerate(texts)]
    size = LONGEST - 24 + 10
    assert line.traffic == Traffic(
        bytes_up=size, packets_up=4, bytes_down=size, packets_down=4, clients=1
    )


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("cipher", AUTHENTIC)
async def test_only_who_has_the_key_owns(scene: Scene, cipher: Cipher) -> None:
    """Who sends first does not get the line with what is not authentic."""
    line, client = scene.open(encryption=encryption(cipher), claim=60), Sealed(cipher)
    for forged in (b"", b"hello", b"\0" * 24, Direction(cipher, "d2c").datagram(0, b"hello")):
        scene.stranger.send(forged, (LOCAL, line.port))
    place = await deliver(scene, line, client.seal(b"hello"), b"hello")
    assert scene.watch.told == [scene.client.address]
    scene.device.send(b"answer", place)
    assert client.open(*await scene.client.got()) == (0, b"answer")
    assert scene.stranger.received == []
    assert (line.traffic.dropped, line.traffic.clients) == (4, 1)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("cipher", AUTHENTIC)
async def test_replayed(scene: Scene, cipher: Cipher) -> None:
    """What was sent once is not taken again; what has overtaken it does not matter."""
    line, client = scene.open(encryption=encryption(cipher)), Sealed(cipher)
    first, second, third = (client.seal(text) for text in (b"1", b"2", b"3"))
    for datagram in (second, second, first, second, first, third):
        scene.client.send(datagram, (LOCAL, line.port))
    assert await scene.device.got(3) == [b"2", b"1", b"3"]
    assert (line.traffic.packets_up, line.traffic.dropped) == (3, 3)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("cipher", AUTHENTIC)
async def test_named_client_is_proven_by_its_key(scene: Scene, cipher: Cipher) -> None:
    """A datagram that anybody could have sent in the client's name does not lift its limit."""
    line, client = (
        scene.open(encryption=encryption(cipher), source=scene.client.address, unproven=100),
        Sealed(cipher),
    )
    assert await scene.device.got() == [b""]
    place = scene.device.senders[-1]
    scene.client.send(b"forged", (LOCAL, line.port))
    for text in (b"w" * 49, b"x" * 48, b"y"):  # to which 24 bytes are added, and 28 of headers
        scene.device.send(text, place)
    while line.traffic.dropped < 3:
        await scene.turn()
    await deliver(scene, line, client.seal(b"hello"), b"hello")
    scene.device.send(b"z", place)
    got = await scene.client.got(2)
    assert [client.open(datagram) for datagram in got] == [(0, b"x" * 48), (1, b"z")]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("host", "size"), [(LOCAL, LONGEST - 23), ("::1", 65_527)])
async def test_too_long_when_sealed(scene: Scene, host: str, size: int) -> None:
    """What is too long for a datagram once it is sealed is dropped; the next one passes."""
    scene.device = scene.peer(host)
    line, client = scene.open(encryption=encryption(Cipher.GCM)), Sealed(Cipher.GCM)
    place = await deliver(scene, line, client.seal(b"hello"), b"hello")
    scene.device.send(b"x" * size, place)
    scene.device.send(b"short", place)
    assert client.open(*await scene.client.got())[1] == b"short"
    assert (line.traffic.packets_down, line.traffic.bytes_down, line.traffic.dropped) == (1, 5, 1)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("cipher", Cipher)
async def test_wrong_key(scene: Scene, cipher: Cipher) -> None:
    """A key of the wrong length makes no line, and leaves nothing open."""
    with pytest.raises(ValueError, match="32 bytes"):
        scene.open(encryption=Encryption(cipher, KEY[1:], IV, b""))
