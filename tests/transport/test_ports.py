"""The ports on which lines wait for their clients."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from random import Random

import pytest
from twisted.internet.task import Clock

from gatewayd.core.line import Wire
from gatewayd.errors import NoFreePort
from gatewayd.transport.links.ports import Port, PortPool
from tests.transport.tcp_scene import LOCAL, few_descriptors, free_port

FIRST = 21000
LAST = 21399


@pytest.fixture(name="clock")
def make_clock() -> Clock:
    return Clock()


@pytest.fixture(name="taken")
def close_all() -> Iterator[list[Port]]:
    """Ports that are closed in the end."""
    ports: list[Port] = []
    yield ports
    for port in ports:
        port.close()


def pool_of_one(clock: Clock) -> PortPool:
    number = free_port()
    return PortPool(number, number, clock)


def test_tcp(clock: Clock, taken: list[Port]) -> None:
    """A TCP port of the range listens on the interface, and blocks nobody."""
    taken.append(port := PortPool(FIRST, LAST, clock).take(Wire.TCP, LOCAL))
    assert FIRST <= port.number <= LAST
    assert port.socket.getsockname() == (LOCAL, port.number)
    with pytest.raises(BlockingIOError):
        port.socket.accept()
    with socket.create_connection((LOCAL, port.number)):
        port.socket.accept()[0].close()


def test_udp(clock: Clock, taken: list[Port]) -> None:
    """A UDP port of the range receives on the interface, and nobody else can bind it."""
    taken.append(port := PortPool(FIRST, LAST, clock).take(Wire.UDP, LOCAL))
    assert FIRST <= port.number <= LAST
    with pytest.raises(BlockingIOError):
        port.socket.recv(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.sendto(b"x", (LOCAL, port.number))
        assert port.socket.recv(2) == b"x"
        other_thief = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with other_thief, pytest.raises(OSError, match="in use"):
            other_thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other_thief.bind((LOCAL, port.number))


@pytest.mark.parametrize("wire", Wire)
@pytest.mark.parametrize("host", ["::1", "::"])
def test_ipv6(clock: Clock, taken: list[Port], wire: Wire, host: str) -> None:
    """An IPv6 interface, and all of both protocols."""
    taken.append(port := PortPool(FIRST, LAST, clock).take(wire, host))
    assert port.socket.getsockname()[0] == host
    if wire is Wire.TCP:
        reached = []
        for family, address in ((socket.AF_INET, LOCAL), (socket.AF_INET6, "::1")):
            with socket.socket(family) as client:
                reached.append(client.connect_ex((address, port.number)) == 0)
        assert reached == [host == "::", True]


def order(seed: int) -> list[int]:
    """All ports of a small range, as they are handed out."""
    pool = PortPool(FIRST, FIRST + 19, Clock(), random=Random(seed))
    ports = []
    try:
        while True:
            ports.append(pool.take(Wire.TCP, LOCAL))
    except NoFreePort:
        return [port.number for port in ports]
    finally:
        for port in ports:
            port.close()


def test_order() -> None:
    """Every port is handed out once, in an order that chance decides."""
    one, other = order(1), order(2)
    assert one != sorted(one)
    assert one != other
    assert set(one) <= set(range(FIRST, FIRST + 20))
    assert len(set(one)) == len(one) > 10  # some may be other programs'


def test_default_order_cannot_be_foreseen(clock: Clock) -> None:
    """Without a given randomness the system's is used: two pools do not agree."""
    orders = []
    for _ in range(2):
        ports = [PortPool(FIRST, LAST, clock).take(Wire.TCP, LOCAL) for _ in range(8)]
        orders.append([port.number for port in ports])
        for port in ports:
            port.close()
    assert orders[0] != orders[1]


def test_quarantine(clock: Clock, taken: list[Port]) -> None:
    """A closed port rests before it is handed out again."""
    pool = pool_of_one(clock)
    port = pool.take(Wire.TCP, LOCAL)
    with pytest.raises(NoFreePort):
        pool.take(Wire.TCP, LOCAL)
    port.close()
    clock.advance(29.9)
    with pytest.raises(NoFreePort):
        pool.take(Wire.TCP, LOCAL)
    clock.advance(0.2)
    taken.append(again := pool.take(Wire.TCP, LOCAL))
    assert again.number == port.number


def test_closing_twice(clock: Clock, taken: list[Port]) -> None:
    """Closing a port again neither frees it twice nor disturbs who has it then."""
    pool = pool_of_one(clock)
    port = pool.take(Wire.TCP, LOCAL)
    port.close()
    port.close()
    clock.advance(30)
    taken.append(pool.take(Wire.TCP, LOCAL))
    port.close()
    clock.advance(30)
    with pytest.raises(NoFreePort):
        pool.take(Wire.TCP, LOCAL)


def test_tcp_and_udp_are_separate(clock: Clock, taken: list[Port]) -> None:
    """A port can be taken for both."""
    pool = pool_of_one(clock)
    taken += [pool.take(Wire.TCP, LOCAL), pool.take(Wire.UDP, LOCAL)]
    assert taken[0].number == taken[1].number
    for wire in Wire:
        with pytest.raises(NoFreePort):
            pool.take(wire, LOCAL)


@pytest.mark.parametrize("wire", Wire)
def test_taken_by_another_program(clock: Clock, taken: list[Port], wire: Wire) -> None:
    """A port that somebody else has is left alone, and can be had when it is free again."""
    number = free_port()
    pool = PortPool(number, number, clock)
    kind = socket.SOCK_STREAM if wire is Wire.TCP else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind((LOCAL, number))
        if wire is Wire.TCP:
            other.listen()
        with pytest.raises(NoFreePort):
            pool.take(wire, LOCAL)
    taken.append(port := pool.take(wire, LOCAL))
    assert port.number == number


def test_not_our_interface(clock: Clock, taken: list[Port]) -> None:
    """An address of somebody else is a mistake that no other port would mend."""
    pool = pool_of_one(clock)
    with pytest.raises(OSError, match="assign"):
        pool.take(Wire.TCP, "192.0.2.1")
    taken.append(pool.take(Wire.TCP, LOCAL))


def test_no_descriptor(clock: Clock, taken: list[Port]) -> None:
    """When the process may open nothing more there is no port either."""
    pool = pool_of_one(clock)
    with few_descriptors(), pytest.raises(NoFreePort, match="descriptor"):
        pool.take(Wire.TCP, LOCAL)
    taken.append(pool.take(Wire.TCP, LOCAL))
