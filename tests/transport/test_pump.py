"""Moving bytes one way, from one socket to another."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from gatewayd.core.line import Cipher
from gatewayd.transport.links.bucket import TokenBucket
from gatewayd.transport.links.cipher import StreamCiphers
from gatewayd.transport.links.end import End
from gatewayd.transport.links.gear import BUFFER, Gear
from gatewayd.transport.links.pipes import ROOM, Pipe, Pipes
from gatewayd.transport.links.poller import Pollable
from gatewayd.transport.links.pump import CipherPump, CopyPump, SplicePump, Way
from tests.transport.sealed import AUTHENTIC, Direction, counter_mode, encryption
from tests.transport.tcp_scene import descriptors

KINDS = ["splice", "copy", "one pipe", "no pipe", Cipher.CTR]
Step = tuple[Literal["write", "read", "turn", "wait"], int]
NOISE = Random(1).randbytes(2_000_000)


class HandPoller:
    """A poller that looks when the test says so."""

    def __init__(self) -> None:
        self.readers: set[Pollable] = set()
        self.writers: set[Pollable] = set()
        self.start_reading, self.stop_reading = self.readers.add, self.readers.discard
        self.start_writing, self.stop_writing = self.writers.add, self.writers.discard

    def forget(self, member: Pollable) -> None:
        self.readers.discard(member)
        self.writers.discard(member)

    def close(self) -> None:
        pass

    def turn(self) -> bool:
        """Serve once; whether there was anything to do."""
        readable, writable, _ = select.select([*self.readers], [*self.writers], [], 0)
        for member in readable:
            member.doRead()
        for member in writable:
            member.doWrite()
        return bool(readable or writable)


class FewPipes(Pipes):
    """Pipes of which the system allows only so many at a time."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = most

    def _another(self) -> Pipe | None:
        if not self._left:
            return None
        self._left -= 1
        return super()._another()

    def give_back(self, pipe: Pipe) -> None:
        self._left += 1
        pipe.close()


@attrs.define
class Bench:
    """A pump between two pairs of sockets, and what it told.

    :ivar source: where the test writes. :ivar target: where it reads.
    """

    source: socket.socket
    target: socket.socket
    pump: CopyPump
    poller: HandPoller
    clock: Clock
    told: list[str]
    counted: list[int]
    written: int = 0
    received: bytearray = attrs.Factory(bytearray)

    def write(self, size: int) -> None:
        """Write what the sockets take, up to *size* bytes."""
        with suppress(BlockingIOError):
            self.written += self.source.send(NOISE[self.written : self.written + size])

    def read(self, size: int) -> bool:
        """Read up to *size* bytes; whether the end has come."""
        try:
            data = self.target.recv(size)
        except BlockingIOError:
            return False
        self.received += data
        return not data

    def step(self, what: str, size: int) -> None:
        if what == "write":
            self.write(size)
        elif what == "read":
            self.read(size)
        elif what == "wait":
            self.clock.advance(size / 1_000_000)
        else:
            self.poller.turn()

    def settle(self) -> None:
        """Go on until there is nothing to do, which must come without the help of either side."""
        for _ in range(1000):
            if not self.poller.turn():
                return
        raise AssertionError("the pump turns in circles")

    def finish(self) -> None:
        """End the source, and read until the pump has passed everything on."""
        self.source.shutdown(socket.SHUT_WR)
        while self.told[-1:] not in (["ended"], ["broken"]):
            self.poller.turn()
            self.read(1 << 20)
            self.clock.advance(1)
        size = -1
        while size < len(self.received):
            size = len(self.received)
            self.read(1 << 20)


@contextmanager
def bench(kind: str, rate: int | None = None) -> Iterator[Bench]:
    """A pump of some kind, between sockets that hold little behind it and more before it."""
    before = descriptors()
    pairs = [socket.socketpair() for _ in range(2)]
    for pair, room in zip(pairs, (100_000, 10_000), strict=True):
        for each in pair:
            each.setblocking(False)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    poller, clock = HandPoller(), Clock()
    told: list[str] = []
    counted: list[int] = []
    pipes = Pipes() if kind == "splice" else FewPipes(int(kind == "one pipe"))
    gear = Gear(poller, clock, pipes)
    bucket = None if rate is None else TokenBucket(rate, clock)
    way = Way(
        End(pairs[0][1]),
        End(pairs[1][0]),
        counted.append,
        lambda: told.append("ending"),
        lambda: told.append("ended"),
        lambda: told.append("broken"),
        bucket,
    )
    pump: CopyPump
    if kind == "copy":
        pump = CopyPump(way, gear)
    elif kind in list(Cipher):
        transforms = StreamCiphers(encryption(Cipher(kind))).transforms()
        pump = CipherPump(way, gear, transforms.up, opens=True)
    else:
        pump = SplicePump(way, gear, pipes)
    pump.start()
    try:
        yield Bench(pairs[0][0], pairs[1][1], pump, poller, clock, told, counted)
    finally:
        pump.stop()
        gear.close()
        for each in (*pairs[0], *pairs[1]):
            each.close()
        assert clock.getDelayedCalls() == []
        assert descriptors() == before


def expected(kind: str, size: int) -> bytes:
    """What the target gets for the first bytes of the noise."""
    return counter_mode(NOISE[:size]) if kind == Cipher.CTR else NOISE[:size]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 200_000)),
        st.tuples(st.just("read"), st.integers(1, 200_000)),
        st.tuples(st.just("turn"), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 1_000_000)),
    ),
    max_size=60,
)


@given(kind=st.sampled_from(KINDS), steps=steps)
@settings(max_examples=200)
def test_any_order(kind: str, steps: list[Step]) -> None:
    """However both sides cut it, what comes out is what went in, and then it ends."""
    with bench(kind) as one:
        for step in steps:
            one.step(*step)
            assert one.pump.held <= ROOM
        one.settle()
        one.finish()
        assert bytes(one.received) == expected(kind, one.written)
        assert one.told == ["ending", "ended"]
        assert sum(one.counted) == one.pump.total == one.written
        assert one.pump.held == 0


@given(kind=st.sampled_from(KINDS), steps=steps, rate=st.integers(10_000, 10_000_000))
@settings(max_examples=100)
def test_any_order_with_a_limit(kind: str, steps: list[Step], rate: int) -> None:
    """A limit of bytes per second delays what passes, and changes nothing else."""
    with bench(kind, rate) as one:
        for step in steps:
            one.step(*step)
            assert sum(one.counted) <= rate * (1 + one.clock.seconds()) + 1
        one.settle()
        one.finish()
        assert bytes(one.received) == expected(kind, one.written)
        assert one.told == ["ending", "ended"]


@pytest.mark.parametrize("kind", KINDS)
def test_target_that_does_not_read(kind: str) -> None:
    """What is held is bounded, and the source is left alone until it is gone."""
    with bench(kind) as one:
        idle = 0
        while idle < 10:
            before = one.written
            one.write(100_000)
            one.poller.turn()
            idle = idle + 1 if one.written == before else 0
        assert 0 < one.pump.held <= (ROOM if kind in ("splice", "one pipe") else BUFFER)
        assert not one.poller.readers
        taken = sum(one.counted)
        one.poller.turn()
        assert sum(one.counted) == taken
        one.finish()
        assert bytes(one.received) == expected(kind, one.written)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", range(10_000, 120_000, 10_000))
def test_neither_room_nor_allowance(kind: str, rate: int) -> None:
    """With both the target and the limit in the way, nothing is done until both are gone."""
    with bench(kind, rate) as one:
        for _ in range(2):
            for _ in range(20):
                one.write(60_000)
                one.settle()
            one.clock.advance(1)
            one.settle()
            one.read(30_000)
            one.settle()
        one.finish()
        assert bytes(one.received) == expected(kind, one.written)


def test_bulk_and_chat_by_turns() -> None:
    """The way in which bytes are moved changes with their number, not the bytes."""
    with bench("splice") as one:
        for size in [10, *[60_000] * 5, *[10] * 30, *[60_000] * 5]:
            one.write(size)
            for _ in range(6):
                one.poller.turn()
                one.read(1 << 20)
        one.finish()
        assert bytes(one.received) == NOISE[: one.written]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("much", [False, True])
def test_target_is_gone(kind: str, much: bool) -> None:
    """Bytes for nobody break the connection, once, be they many."""
    with bench(kind) as one:
        if much:
            for _ in range(20):
                one.write(100_000)
                one.poller.turn()
        one.target.close()
        one.write(10)
        for _ in range(5):
            one.poller.turn()
        assert one.told[:1] == ["broken"]


def test_shared_pipe_after_a_break() -> None:
    """What a broken connection leaves in the shared pipe is not sent to the next one."""
    with bench("splice") as broken:
        for _ in range(20):
            broken.write(16_384)
            broken.poller.turn()
            broken.read(1 << 20)
        broken.target.close()
        broken.write(50_000)
        broken.poller.turn()
        assert broken.told == ["broken"]
        pipes: Any = broken.pump
        assert pipes._pipes.shared is None


def test_kernel_that_cannot_splice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel refuses to move bytes between sockets they are copied."""

    def splice(*_arguments: object) -> int:
        raise OSError(errno.EINVAL, "cannot")

    monkeypatch.setattr(os, "splice", splice)
    with bench("splice") as one:
        for _ in range(20):
            one.write(100_000)
            one.poller.turn()
            one.read(1 << 20)
        one.finish()
        assert one.written > 500_000
        assert bytes(one.received) == NOISE[: one.written]
        assert one.told == ["ending", "ended"]


@given(cipher=st.sampled_from(AUTHENTIC), cuts=st.lists(st.integers(1, 5000), max_size=40))
@settings(max_examples=50)
def test_records(cipher: Cipher, cuts: list[int]) -> None:
    """Records may be cut anywhere; their contents are counted."""
    direction = Direction(cipher, "c2d")
    contents = [NOISE[:1], NOISE[:16_384], NOISE[:300], b""]
    sealed = b"".join(direction.record(*each) for each in enumerate(contents))
    with bench(cipher) as one:
        for cut in cuts:
            one.source.send(sealed[:cut])
            sealed = sealed[cut:]
            one.poller.turn()
            one.read(1 << 20)
        one.source.send(sealed)
        one.finish()
        assert bytes(one.received) == b"".join(contents)
        assert sum(one.counted) == len(one.received)
        assert one.told == ["ending", "ended"]


@pytest.mark.parametrize("cipher", AUTHENTIC)
def test_record_that_is_not_authentic(cipher: Cipher) -> None:
    """Nothing of it passes."""
    with bench(cipher) as one:
        one.source.send(Direction(cipher, "c2d").record(1, b"out of turn"))
        one.poller.turn()
        assert one.told == ["broken"]
        assert one.counted == []


@pytest.mark.parametrize("cipher", AUTHENTIC)
def test_cut_off(cipher: Cipher) -> None:
    """An end without a last record breaks the connection."""
    with bench(cipher) as one:
        one.source.send(Direction(cipher, "c2d").record(0, b"content"))
        one.finish()
        assert bytes(one.received) == b"content"
        assert one.told == ["broken"]
