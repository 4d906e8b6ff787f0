"""Which sockets of lines can be read or written."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.python.failure import Failure

from gatewayd.transport.links.poller import EpollPoller


class OneDescriptor:
    """A reactor that has the poller only."""

    def __init__(self) -> None:
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)


class Member:
    """A connected socket, and what it was told.

    :ivar then: what it does besides, by what it is told.
    """

    def __init__(self, poller: EpollPoller) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.peer = socket.create_connection(server.getsockname())
            self.socket = server.accept()[0]
        self.socket.setblocking(False)
        self.fileno = self.socket.fileno
        self.told: list[str] = []
        self.then: dict[str, Callable[[], object]] = {}
        self._poller = poller

    def doRead(self) -> None:
        self._note("read")

    def doWrite(self) -> None:
        self._note("write")

    def readConnectionLost(self, reason: Any = None) -> None:
        self._note("ended")

    def connectionLost(self, reason: Any = None) -> None:
        self._note("lost")

    def logPrefix(self) -> str:
        return "member"

    def reset(self) -> None:
        """Let the peer reset the connection."""
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    def renumber(self, number: int) -> None:
        """Let its socket have that descriptor, which must be free."""
        old = self.socket
        self.socket = socket.socket(fileno=os.dup2(old.fileno(), number))
        self.fileno = self.socket.fileno
        old.close()

    def close(self) -> None:
        self._poller.forget(self)
        self.socket.close()

    def _note(self, what: str) -> None:
        self.told.append(what)
        self.then.get(what, lambda: None)()


class Bench:
    """A poller and its members."""

    def __init__(self) -> None:
        self.reactor = OneDescriptor()
        self.poller = EpollPoller(self.reactor)
        self.members: list[Member] = []

    def member(self) -> Member:
        self.members.append(Member(self.poller))
        return self.members[-1]


@pytest.fixture(name="bench")
def make_bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    for member in made.members:
        member.close()
        member.peer.close()
    made.poller.close()
    assert made.reactor.readers == []


def once(bench: Bench, member: Member, what: str) -> None:
    """Let *member* do without what it is told, after it was told."""
    stop = bench.poller.stop_reading if what == "read" else bench.poller.stop_writing
    member.then[what] = lambda: stop(member)


def test_reading_and_writing(bench: Bench) -> None:
    """A member is told what it waits for, and nothing else."""
    one, other = bench.member(), bench.member()
    for each in (one, other):
        once(bench, each, "read")
        once(bench, each, "write")
        each.peer.send(b"x")
    bench.poller.start_reading(one)
    bench.poller.start_writing(other)
    bench.poller.doRead()
    assert (one.told, other.told) == (["read"], ["write"])
    bench.poller.start_reading(other)
    bench.poller.doRead()
    assert (one.told, other.told) == (["read"], ["write", "read"])


def test_both_at_once(bench: Bench) -> None:
    """A member may wait for both."""
    member = bench.member()
    once(bench, member, "read")
    once(bench, member, "write")
    member.peer.send(b"x")
    for _ in range(2):
        bench.poller.start_reading(member)
        bench.poller.start_writing(member)
    bench.poller.doRead()
    assert member.told == ["read", "write"]


def test_others_have_their_turn(bench: Bench) -> None:
    """A member that is always ready does not keep the reactor from going on."""
    member = bench.member()
    bench.poller.start_writing(member)
    bench.poller.doRead()
    assert 0 < len(member.told) <= EpollPoller.LIMIT


def test_end_of_the_peer(bench: Bench) -> None:
    """An end can be read."""
    member = bench.member()
    once(bench, member, "read")
    bench.poller.start_reading(member)
    member.peer.close()
    bench.poller.doRead()
    assert member.told[0] == "read"


@pytest.mark.parametrize("waits", ["read", "write", "nothing"])
def test_reset_of_the_peer(bench: Bench, waits: str) -> None:
    """A reset is told to who waits as what it waits for, otherwise as such."""
    member = bench.member()
    once(bench, member, "read")
    bench.poller.start_reading(member)
    if waits != "read":
        bench.poller.stop_reading(member)
    if waits == "write":
        once(bench, member, "write")
        bench.poller.start_writing(member)
    member.reset()
    bench.poller.doRead()
    assert member.told[0] == {"nothing": "lost"}.get(waits, waits)


@pytest.mark.parametrize("ours_too", [False, True])
def test_end_without_waiting(bench: Bench, ours_too: bool) -> None:
    """Who waits for nothing is told once that its peer has ended, be it that it has ended too."""
    member = bench.member()
    bench.poller.start_reading(member)
    bench.poller.stop_reading(member)
    if ours_too:
        member.socket.shutdown(socket.SHUT_WR)
    member.peer.send(b"to be read")
    bench.poller.doRead()
    assert member.told == []
    member.peer.close()
    for _ in range(3):
        bench.poller.doRead()
    assert member.told == ["ended"]


def test_no_longer_wanted_in_the_same_round(bench: Bench) -> None:
    """An event is dropped if an earlier one has made it unwelcome."""
    members = [bench.member() for _ in range(2)]

    def stop() -> None:
        for each in members:
            bench.poller.stop_reading(each)

    for member in members:
        member.peer.send(b"x")
        bench.poller.start_reading(member)
        member.then["read"] = stop
    bench.poller.doRead()
    assert sorted(member.told for member in members) == [[], ["read"]]


def test_forgotten_in_the_same_round(bench: Bench) -> None:
    """An event for a member that another one has closed is dropped."""
    members = [bench.member() for _ in range(5)]
    for member in members:
        member.peer.send(b"x")
        bench.poller.start_reading(member)

    def close_all() -> None:
        for member in members:
            member.close()

    for member in members:
        member.then["read"] = close_all
    bench.poller.doRead()
    assert [what for member in members for what in member.told] == ["read"]


def test_descriptor_used_again_in_the_same_round(bench: Bench) -> None:
    """The reset of a socket is not taken for that of the next one with its number."""
    first, second, new = bench.member(), bench.member(), bench.member()
    for each in (first, second):
        bench.poller.start_reading(each)
        bench.poller.stop_reading(each)
        each.reset()

    def replace(other: Member) -> None:
        number = other.fileno()
        other.close()
        new.renumber(number)
        bench.poller.start_reading(new)
        bench.poller.stop_reading(new)

    first.then["lost"] = lambda: replace(second)
    second.then["lost"] = lambda: replace(first)
    bench.poller.doRead()
    assert sorted([first.told, second.told]) == [[], ["lost"]]
    assert new.told == []


def test_member_that_fails(bench: Bench, failures: list[Failure]) -> None:
    """A member with a bug is logged and lost; the others are served."""
    bad, good = bench.member(), bench.member()

    def fail() -> None:
        raise RuntimeError("boom")

    bad.then = {"read": fail, "lost": bad.close}
    once(bench, good, "read")
    for each in (bad, good):
        each.peer.send(b"x")
        bench.poller.start_reading(each)
    bench.poller.doRead()
    assert (bad.told, good.told) == (["read", "lost"], ["read"])
    assert [failure.type for failure in failures] == [RuntimeError]


def test_closed_and_used_again(bench: Bench) -> None:
    """A poller without members frees its descriptor, and can go on later."""
    member = bench.member()
    bench.poller.start_reading(member)
    member.close()
    bench.poller.close()
    assert bench.reactor.readers == []
    assert bench.poller.fileno() == -1
    bench.poller.doRead()
    other = bench.member()
    once(bench, other, "write")
    bench.poller.start_writing(other)
    assert bench.reactor.readers == [bench.poller]
    bench.poller.doRead()
    assert other.told == ["write"]
