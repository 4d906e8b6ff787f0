"""Opening lines on sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted

from gatewayd.core.line import Address, Cipher, Encryption, LinePlan, Wire
from gatewayd.errors import NoFreePort
from gatewayd.transport.links.lines import SocketLines
from gatewayd.transport.links.ports import PortPool
from tests.transport.tcp_scene import LOCAL, Scene, Watch, free_port, stage

__all__ = ["stage"]


class Opened:
    """Lines of a pool with one port of each kind, on the reactor itself."""

    def __init__(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.number = free_port()
        self.watch = Watch(reactor)
        self.lines = SocketLines(PortPool(self.number, self.number, self.reactor, 0), reactor)

    def plan(self, wire: Wire, **settings: Any) -> LinePlan:
        return LinePlan(wire=wire, host=LOCAL, device=Address(LOCAL, free_port()), **settings)


@pytest.fixture(name="opened")
def make_opened() -> Iterator[Opened]:
    made = Opened()
    yield made
    made.lines.close()


@pytest_twisted.ensureDeferred
async def test_tcp(stage: Scene, opened: Opened) -> None:
    """A TCP plan becomes a TCP line, which carries bytes by what the platform offers."""
    line = opened.lines.open(
        LinePlan(wire=Wire.TCP, host=LOCAL, device=stage.device_address), opened.watch
    )
    connection = socket.socket()
    client = stage.peer(connection)
    connection.connect_ex((LOCAL, line.port))
    device = await stage.accept()
    await client.send(b"x" * 100_000)
    assert await device.receive(100_000) == b"x" * 100_000
    assert line.port == opened.number
    assert line.traffic.bytes_up == 100_000
    assert len(await opened.watch.heard(1)) == 1
    await line.close()
    assert await client.is_reset()


@pytest.mark.parametrize("wire", Wire)
def test_port_of_a_line(opened: Opened, wire: Wire) -> None:
    """A line has its port until it is closed."""
    for _ in range(2):
        line = opened.lines.open(opened.plan(wire), opened.watch)
        assert line.port == opened.number
        with pytest.raises(NoFreePort):
            opened.lines.open(opened.plan(wire), opened.watch)
        assert line.close().called
    assert opened.watch.told == []


@pytest.mark.parametrize("wire", Wire)
def test_plan_that_cannot_be_carried_out(opened: Opened, wire: Wire) -> None:
    """A plan with a broken key leaves the port free."""
    broken = opened.plan(wire, encryption=Encryption(Cipher.CTR, b"short", bytes(16)))
    with pytest.raises(ValueError, match="bytes"):
        opened.lines.open(broken, opened.watch)
    opened.lines.open(opened.plan(wire), opened.watch).close()
