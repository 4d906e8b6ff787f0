"""What goes through relays to measure them, and the device behind them.

Everything here runs in processes of its own. Its work is kept small, so that the relay is what
limits a figure: received bytes are discarded in the kernel, and bursts of packets are sent by one
call, which the kernel splits.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable, MutableSequence, Sequence
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from benchmarks.daemon import KIB, MIB

HOST = "127.0.0.1"
#: What every load may take beyond the time that is measured, in seconds.
GRACE = 10.0
WARM_UP = 0.2
#: Connections that are opened at one time, and packets that are on their way.
CONNECTING, IN_FLIGHT = 16, 64
BURST = 32

_CHUNK = bytes(256 * KIB)
_ECHOED = b"twenty-four bytes of text"[:24]
_RESET = struct.pack("ii", 1, 0)
_UDP_SEGMENT = 103
#: Of a packet that was lost.
_LOST_SECONDS = 0.02

_fork = get_context("fork")

#: What a load finds out; no text, which would be an error's.
Figure = TypeVar("Figure")

#: Loads a relay on its ports for some seconds; returns a figure.
Load = Callable[[Sequence[int], float], float]


def listen() -> socket.socket:
    """Return a TCP socket that listens on a port of its own."""
    listener = socket.create_server((HOST, 0), backlog=1024)
    listener.setblocking(False)
    return listener


def udp_socket() -> socket.socket:
    """Return a bound UDP socket with much room, non-blocking."""
    bound = socket.socket(type=socket.SOCK_DGRAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)
    bound.bind((HOST, 0))
    bound.setblocking(False)
    return bound


class Device:
    """What is behind the relays; a context manager that ends its process.

    :ivar sink: the port of TCP that discards what it is sent.
    :ivar echo: the port of TCP that sends it back.
    :ivar udp: the socket of the device, which the loads of UDP read themselves.
    """

    def __init__(self) -> None:
        self._sink, self._echo = listen(), listen()
        self.sink: int = self._sink.getsockname()[1]
        self.echo: int = self._echo.getsockname()[1]
        self.udp = udp_socket()
        self._received: MutableSequence[int] = _fork.RawArray("Q", 1)
        self._process = _fork.Process(target=self._serve, args=(os.getpid(),), daemon=True)

    def __enter__(self) -> Device:
        self._process.start()
        self._sink.close()
        self._echo.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()
        self.udp.close()

    @property
    def pid(self) -> int:
        """Its process."""
        pid = self._process.pid
        assert pid is not None
        return pid

    def _serve(self, parent: int) -> None:
        """Serve until the parent is gone."""
        poll = select.epoll()
        members: dict[int, tuple[socket.socket, Callable[[socket.socket], bool]]] = {}

        def accept(into: Callable[[socket.socket], bool], listener: socket.socket) -> bool:
            connection, _ = listener.accept()
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            add(connection, into)
            return True

        def add(member: socket.socket, readable: Callable[[socket.socket], bool]) -> None:
            members[member.fileno()] = member, readable
            poll.register(member.fileno(), select.EPOLLIN)

        add(self._sink, lambda listener: accept(self._discard, listener))
        add(self._echo, lambda listener: accept(_send_back, listener))
        while os.getppid() == parent:
            for number, _ in poll.poll(1.0):
                member, readable = members[number]
                try:
                    alive = readable(member)
                except BlockingIOError:
                    continue
                except ConnectionError:
                    alive = False
                if not alive:
                    del members[number]
                    poll.unregister(number)
                    member.close()

    def _discard(self, connection: socket.socket) -> bool:
        size = connection.recv_into(_room, 4 * MIB, socket.MSG_TRUNC)
        self._received[0] += size
        return size > 0

    # Loads

    def streams(self, ports: Sequence[int], seconds: float) -> float:
        """Return the GB/s that arrive when a connection to each port sends all it can."""
        poll = select.epoll()
        members = {each.fileno(): each for each in map(_connect, ports)}
        for number in members:
            poll.register(number, select.EPOLLOUT)
        began, before = time.perf_counter() + WARM_UP, 0
        now = warm = 0.0
        while now < began + seconds:
            for number, _ in poll.poll(0.05):
                try:
                    members[number].send(_CHUNK, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    continue
            now = time.perf_counter()
            if not warm and now >= began:
                warm, before = now, self._received[0]
        return (self._received[0] - before) / (now - warm) / 1e9

    def one_way(self, ports: Sequence[int], seconds: float, size: int) -> float:
        """Return how many packets of *size* bytes arrive per second, 64 at a time on their way."""
        self._forget_late()
        client = _connect_udp(ports[0])
        arrived = on_way = 0
        began = time.perf_counter()
        while (now := time.perf_counter()) < began + seconds:
            while on_way <= IN_FLIGHT - BURST:
                _send_burst(client, size, BURST)
                on_way += BURST
            count = len(_take(self.udp))
            arrived += count
            on_way = max(0, on_way - count) if count else 0
        return arrived / (now - began)

    def echoes(self, ports: Sequence[int], seconds: float, size: int) -> float:
        """Return how many packets come back per second, 64 at a time on their way."""
        self._forget_late()
        client = _connect_udp(ports[0])
        poll = select.poll()
        for each in (client, self.udp):
            poll.register(each, select.POLLIN)
        back = on_way = 0
        began = time.perf_counter()
        while (now := time.perf_counter()) < began + seconds:
            while on_way <= IN_FLIGHT - BURST:
                _send_burst(client, size, BURST)
                on_way += BURST
            ready = poll.poll(_LOST_SECONDS * 1000)
            if not ready:
                on_way = 0
            for number, _ in ready:
                if number == client.fileno():
                    count = len(_take(client))
                    back += count
                    on_way = max(0, on_way - count)
                elif senders := _take(self.udp):
                    _send_burst(self.udp, size, len(senders), senders[0])
        return back / (now - began)

    def lost(self, ports: Sequence[int], seconds: float, size: int, rate: int = 20_000) -> float:
        """Return the percentage of packets that are lost when so many are sent per second."""
        self._forget_late()
        client = _connect_udp(ports[0])
        sent = arrived = 0
        began = time.perf_counter()
        while (elapsed := time.perf_counter() - began) < seconds:
            if due := min(BURST, int(elapsed * rate) - sent):
                _send_burst(client, size, due)
                sent += due
            arrived += len(_take(self.udp, 0.001))
        while more := len(_take(self.udp, 0.2)):
            arrived += more
        return 100 * (sent - arrived) / sent

    def _forget_late(self) -> None:
        """Read what an earlier load has left."""
        while _take(self.udp, 0):
            pass


_room = bytearray(4 * MIB)


def _send_back(connection: socket.socket) -> bool:
    data = connection.recv(64 * KIB)
    connection.send(data)
    return bool(data)


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection((HOST, port), GRACE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Blocking, as a time limit would make Python poll before every call.
    connection.settimeout(None)
    return connection


def _connect_udp(port: int) -> socket.socket:
    client = udp_socket()
    client.connect((HOST, port))
    return client


def _send_burst(
    sender: socket.socket, size: int, count: int, to: tuple[str, int] | None = None
) -> None:
    split = [(socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("H", size))]
    data = [_CHUNK[: size * count]]
    if to is None:
        sender.sendmsg(data, split)
    else:
        sender.sendmsg(data, split, 0, to)


def _take(receiver: socket.socket, seconds: float = _LOST_SECONDS) -> list[tuple[str, int]]:
    """Return who sent the packets that are there, at most a burst; waits for the first."""
    senders: list[tuple[str, int]] = []
    poll = select.poll()
    poll.register(receiver, select.POLLIN)
    if poll.poll(seconds * 1000):
        try:
            while len(senders) < BURST:
                senders.append(receiver.recvfrom_into(_room)[1])
        except BlockingIOError:
            pass
    return senders


def round_trips(ports: Sequence[int], seconds: float) -> float:
    """Return how many small messages come back per second, one at a time on each port."""
    poll = select.epoll()
    members = {each.fileno(): each for each in map(_connect, ports)}
    for number, member in members.items():
        poll.register(number, select.EPOLLIN)
        member.send(_ECHOED)
    count = 0
    began = time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        for number, _ in poll.poll(0.05):
            if members[number].recv(KIB) != _ECHOED:
                raise ConnectionError("the message did not come back")
            count += 1
            members[number].send(_ECHOED)
    return count / (now - began)


def connections(ports: Sequence[int], seconds: float) -> float:
    """Return how many connections per second can be made, used once, and reset."""
    poll = select.epoll()
    members: dict[int, socket.socket] = {}

    def another() -> None:
        member = _connect(ports[0])
        members[member.fileno()] = member
        poll.register(member.fileno(), select.EPOLLIN)
        member.send(_ECHOED)

    for _ in range(CONNECTING):
        another()
    count = refused = 0
    began = time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        for number, _ in poll.poll(0.05):
            member = members.pop(number)
            try:
                count += len(member.recv(KIB)) > 0
            except ConnectionError:
                refused += 1
            member.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            member.close()
            another()
    if refused > count / 100:
        raise ConnectionError(f"{refused} connections were refused, {count} were not")
    return count / (now - began)


def measure(load: Load, ports: Sequence[int], seconds: float, cores: Sequence[int]) -> float:
    """Run a load in a process of its own, on these processors; return its figure."""
    return float(apart(partial(load, ports, seconds), seconds, cores))


def apart(work: Callable[[], Figure], seconds: float, cores: Sequence[int]) -> Figure:
    """Do what takes some seconds in a process of its own, on these processors.

    :raises TimeoutError: it takes much longer. :raises RuntimeError: it failed.
    """
    ours, theirs = _fork.Pipe()
    process = _fork.Process(target=_report, args=(work, cores, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(seconds + GRACE):
            raise TimeoutError("the load does not end")
        figure: Any = ours.recv()
    finally:
        process.kill()
        process.join()
        ours.close()
    if isinstance(figure, str):
        raise RuntimeError(figure)
    result: Figure = figure
    return result


def pin(pid: int, cores: Sequence[int]) -> None:
    """Let a process run on these processors alone."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), cores)


def _report(work: Callable[[], object], cores: Sequence[int], to: Connection) -> None:
    os.sched_setaffinity(0, cores)
    try:
        to.send(work())
    except (OSError, ValueError) as error:
        to.send(f"{type(error).__name__}: {error}")
