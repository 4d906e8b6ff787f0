"""Who may use a TCP line."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from gatewayd.core.line import Address, Ending, Rebind
from gatewayd.transport.links.tcp_line import TcpLine
from tests.transport.tcp_scene import LOCAL, Peer, Scene, free_port, scene, stage

__all__ = ["scene", "stage"]

OTHER = "127.0.0.2"


async def works(scene: Scene, client: Peer) -> Peer:
    """Check that a client is connected through; return the device's side."""
    device = await scene.accept()
    await client.send(b"ping")
    assert await device.receive(4) == b"ping"
    await device.send(b"pong")
    assert await client.receive(4) == b"pong"
    return device


async def come_and_go(scene: Scene, line: TcpLine, source: tuple[str, int] | None = None) -> None:
    """Let a client use the line and leave."""
    told = len(scene.watch.told)
    client = await scene.client(line, source)
    device = await works(scene, client)
    client.end()
    device.end()
    assert await client.rest() == await device.rest() == b""
    await scene.watch.heard(told + 2)


@pytest.mark.parametrize("host", [LOCAL, OTHER])
@pytest_twisted.ensureDeferred
async def test_second_client(stage: Scene, host: str) -> None:
    """While the owner is connected others are reset, and it notices nothing."""
    line = stage.open(rebind=Rebind.ANY)
    owner = await stage.client(line)
    device = await works(stage, owner)
    for _ in range(3):
        assert await (await stage.client(line, (host, 0))).is_reset()
    await owner.send(b"still here")
    assert await device.receive(10) == b"still here"
    assert line.traffic.refused == 3
    assert line.traffic.clients == 1
    assert stage.watch.told == [owner.address]


@pytest_twisted.ensureDeferred
async def test_second_client_while_the_device_is_dialled(stage: Scene) -> None:
    """Who came first has the line from then on."""
    line = stage.open()
    first, second = await stage.client(line), await stage.client(line)
    assert await second.is_reset()
    await works(stage, first)
    assert line.traffic.refused == 1


@pytest_twisted.ensureDeferred
async def test_rebind_to_the_same_host(stage: Scene) -> None:
    """When the owner has gone, clients of its host may come, and no others."""
    line = stage.open(rebind=Rebind.HOST)
    await come_and_go(stage, line, (OTHER, 0))
    assert await (await stage.client(line)).is_reset()
    await come_and_go(stage, line, (OTHER, 0))
    assert line.traffic.clients == 2
    assert line.traffic.refused == 1
    assert stage.watch.told[1::2] == ["left", "left"]


@pytest_twisted.ensureDeferred
async def test_rebind_to_anybody(stage: Scene) -> None:
    """When the owner has gone, any client may come, and is the owner then."""
    line = stage.open(rebind=Rebind.ANY)
    await come_and_go(stage, line, (OTHER, 0))
    await come_and_go(stage, line)
    assert line.traffic.clients == 2
    assert line.traffic.refused == 0


@pytest_twisted.ensureDeferred
async def test_never_rebind(stage: Scene) -> None:
    """When the owner has gone, the line has done its work and ends."""
    line = stage.open(rebind=Rebind.NEVER)
    await come_and_go(stage, line)
    assert [type(told) for told in stage.watch.told] == [Address, Ending]
    assert stage.watch.told[1] is Ending.COMPLETED
    await closed(stage, line)


async def closed(scene: Scene, line: TcpLine) -> None:
    """Check that nobody listens any more."""
    with pytest.raises(ConnectionRefusedError):
        await (await scene.client(line)).rest()


@pytest_twisted.ensureDeferred
async def test_source(stage: Scene) -> None:
    """With a source, that very host and port is let in, and nobody else, whenever."""
    port = free_port()
    line = stage.open(source=Address(OTHER, port), rebind=Rebind.ANY)
    for stranger in ((OTHER, 0), (LOCAL, port), (LOCAL, 0)):
        assert await (await stage.client(line, stranger)).is_reset()
    client = await stage.client(line, (OTHER, port))
    await works(stage, client)
    client.reset()
    await stage.watch.heard(2)
    assert await (await stage.client(line)).is_reset()
    await works(stage, await stage.client(line, (OTHER, port)))
    assert line.traffic.refused == 4
    assert line.traffic.clients == 2


@pytest.mark.parametrize("host", ["::ffff:127.0.0.2", "::FFFF:7f00:2"])
@pytest_twisted.ensureDeferred
async def test_source_in_another_form(stage: Scene, host: str) -> None:
    """An IPv4 address is the same when it is written as an IPv6 address."""
    port = free_port()
    line = stage.open(source=Address(host, port))
    await works(stage, await stage.client(line, (OTHER, port)))


@pytest_twisted.ensureDeferred
async def test_client_on_both_protocols(stage: Scene) -> None:
    """A line that listens for IPv4 and IPv6 names IPv4 clients as such."""
    line = stage.open(host="::", source=None)
    client = await stage.client(line)
    await works(stage, client)
    assert stage.watch.told == [client.address]


def test_source_is_an_address(stage: Scene) -> None:
    """A name is no source: whoever plans a line has looked it up."""
    with pytest.raises(ValueError, match="no IP address"):
        stage.open(source=Address("client.example", 1))


@pytest_twisted.ensureDeferred
async def test_several_connections_of_the_owner(stage: Scene) -> None:
    """The owner's host may have as many connections as planned; others none."""
    line = stage.open(connections=3, rebind=Rebind.HOST)
    clients = [await stage.client(line) for _ in range(2)]
    assert await (await stage.client(line, (OTHER, 0))).is_reset()
    clients.append(await stage.client(line))
    for client in clients:
        await works(stage, client)
    came = [client.address for client in clients]
    assert await (await stage.client(line)).is_reset()
    assert await (await stage.client(line, (OTHER, 0))).is_reset()
    clients[0].reset()
    clients[1].reset()
    await stage.turns()
    assert stage.watch.told == came
    await works(stage, await stage.client(line))
    assert line.traffic.clients == 4
    assert line.traffic.refused == 3


@pytest_twisted.ensureDeferred
async def test_end_of_several_connections(stage: Scene) -> None:
    """The client has left when its last connection has ended."""
    line = stage.open(connections=2, rebind=Rebind.NEVER)
    clients = [await stage.client(line) for _ in range(2)]
    for client in clients:
        await works(stage, client)
    clients[0].reset()
    await stage.turns()
    assert len(stage.watch.told) == 2
    clients[1].reset()
    assert (await stage.watch.heard(3))[2] is Ending.COMPLETED


# Devices that cannot be reached.


def nobody() -> Address:
    """Where no device listens."""
    return Address(LOCAL, free_port())


@pytest_twisted.ensureDeferred
async def test_device_refuses(scene: Scene) -> None:
    """The client is reset; the line waits for the next one, of any host since nobody owns it."""
    line = scene.open(device=nobody(), rebind=Rebind.HOST)
    assert await (await scene.client(line, (OTHER, 0))).is_reset()
    assert await (await scene.client(line)).is_reset()
    assert line.traffic.refused == line.traffic.clients == 0
    assert scene.watch.told == []
    scene.clock.advance(2)
    assert scene.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_device_refuses_the_only_client(stage: Scene) -> None:
    """A line for one client ends when the device refuses it."""
    line = stage.open(device=nobody(), rebind=Rebind.NEVER)
    assert await (await stage.client(line)).is_reset()
    assert await stage.watch.heard(1) == [Ending.REFUSED]
    await closed(stage, line)


@pytest_twisted.ensureDeferred
async def test_device_refuses_one_of_several(stage: Scene) -> None:
    """Who is connected already stays so."""
    line = stage.open(connections=2, rebind=Rebind.NEVER)
    client = await stage.client(line)
    device = await works(stage, client)
    stage.device.close()
    assert await (await stage.client(line)).is_reset()
    await client.send(b"more")
    assert await device.receive(4) == b"more"
    client.reset()
    assert (await stage.watch.heard(2))[1] is Ending.COMPLETED


@pytest.mark.parametrize("host", ["255.255.255.255", "::1%nowhere", "fe80::1%nowhere"])
@pytest_twisted.ensureDeferred
async def test_device_that_cannot_be_dialled(stage: Scene, host: str) -> None:
    """What fails at once ends the same way."""
    line = stage.open(device=Address(host, 7), rebind=Rebind.NEVER)
    client: Any = await stage.client(line)
    assert await client.is_reset()
    assert await stage.watch.heard(1) == [Ending.UNREACHABLE]
