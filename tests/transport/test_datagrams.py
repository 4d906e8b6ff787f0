"""Batches of datagrams on real sockets, moved both ways that there are."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.line import Address
from gatewayd.transport.links import datagrams, mmsg
from gatewayd.transport.links.datagrams import LIMIT, LONGEST, Batch, LoopBatch, Side, name
from gatewayd.transport.links.mmsg import MessageBatch, runs, shared_batch

KINDS: list[Callable[[], Batch]] = [LoopBatch]
if sys.platform == "linux":
    KINDS.append(MessageBatch)
SO_NO_CHECK = 11  # a socket without checksums cannot have its datagrams joined
HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}

MakeSide = Callable[..., Side]


@pytest.fixture(params=KINDS)
def batch(request: pytest.FixtureRequest) -> Batch:
    made: Batch = request.param()
    return made


@pytest.fixture
def side() -> Iterator[MakeSide]:
    """Make bound sockets."""
    made: list[Side] = []

    def make(family: int = socket.AF_INET, host: str | None = None) -> Side:
        made.append(Side(socket.socket(family, socket.SOCK_DGRAM)))
        made[-1].socket.bind((HOSTS[socket.AddressFamily(family)] if host is None else host, 0))
        return made[-1]

    yield make
    for each in made:
        each.socket.close()


def received(side: Side) -> list[bytes]:
    """All that waits in a socket."""
    found: list[bytes] = []
    while True:
        try:
            found.append(side.socket.recv(70_000))
        except BlockingIOError:
            return found


def contents(batch: Batch) -> list[bytes]:
    return [bytes(batch.content(index)) for index in range(len(batch.sizes))]


def test_nothing_there(batch: Batch, side: MakeSide) -> None:
    """An empty socket has nothing to give, and is not waited for."""
    with pytest.raises(BlockingIOError):
        batch.receive(side())


@pytest.mark.parametrize("family", HOSTS)
def test_moves(batch: Batch, side: MakeSide, family: int) -> None:
    """What is received can be sent on as it is, in its order, and is known by its sender."""
    sender, between, receiver = side(family), side(family), side(family)
    texts = [b"one", b"", b"three", b"x" * 1200, b"y" * 1200, b"z" * 1200]
    for text in texts:
        sender.socket.sendto(text, between.socket.getsockname())
    batch.receive(between)
    everything = [0, 1, 2, 3, 4, 5]
    assert batch.sizes == [3, 0, 5, 1200, 1200, 1200]
    assert contents(batch) == texts
    assert [batch.sender(index) for index in everything] == [sender.socket.getsockname()] * 6
    assert batch.arrived() == everything
    assert batch.send(between, everything, receiver.socket.getsockname()) == []
    assert received(receiver) == texts
    between.socket.connect(receiver.socket.getsockname())
    assert batch.send(between, [5, 3, 4, 0]) == []
    assert received(receiver) == [texts[5], texts[3], texts[4], texts[0]]


def test_limit(batch: Batch, side: MakeSide) -> None:
    """No more than the limit is taken at once; the rest comes next, in its order."""
    sender, receiver = side(), side()
    for number in range(LIMIT + 3):
        sender.socket.sendto(b"%d" % number, receiver.socket.getsockname())
    batch.receive(receiver)
    first = contents(batch)
    batch.receive(receiver)
    assert (len(first), len(batch.sizes)) == (LIMIT, 3)
    assert first + contents(batch) == [b"%d" % number for number in range(LIMIT + 3)]


def test_senders(batch: Batch, side: MakeSide) -> None:
    """Those of one sender are told from those of others."""
    receiver, one, two = side(), side(), side()
    for sender in (one, two, one, two, two):
        sender.socket.sendto(b"x", receiver.socket.getsockname())
    batch.receive(receiver)
    assert batch.arrived() == [0, 1, 2, 3, 4]
    assert batch.arrived(one.socket.getsockname()) == [0, 2]
    assert batch.arrived(two.socket.getsockname()) == [1, 3, 4]
    assert batch.arrived(receiver.socket.getsockname()) == []


def test_families_take_turns(batch: Batch, side: MakeSide) -> None:
    """One batch serves sockets of both IP versions, one after the other."""
    for family in (socket.AF_INET6, socket.AF_INET, socket.AF_INET6):
        sender, receiver = side(family), side(family)
        sender.socket.sendto(b"hello", receiver.socket.getsockname())
        batch.receive(receiver)
        assert batch.arrived(sender.socket.getsockname()) == [0]
        assert batch.send(receiver, [0], sender.socket.getsockname()) == []
        assert received(sender) == [b"hello"]


def test_replaced(batch: Batch, side: MakeSide) -> None:
    """Something else can go out, longer or shorter; the others are not touched."""
    sender, between = side(), side()
    for text in (b"aaaa", b"bbbb", b"cccc"):
        sender.socket.sendto(text, between.socket.getsockname())
    batch.receive(between)
    batch.replace(0, b"longer than before")
    batch.replace(1, b"")
    assert batch.send(between, [0, 1, 2], sender.socket.getsockname()) == []
    assert received(sender) == [b"longer than before", b"", b"cccc"]


@pytest.mark.parametrize("kind", KINDS)
def test_cut_off(
    kind: Callable[[], Batch], side: MakeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit is not taken for a datagram: it is not whole."""
    monkeypatch.setattr(datagrams, "ROOM", 100)
    monkeypatch.setattr(mmsg, "ROOM", 100)
    batch, sender, receiver = kind(), side(), side()
    for size in (99, 100, 101, 5):
        sender.socket.sendto(b"x" * size, receiver.socket.getsockname())
    batch.receive(receiver)
    assert batch.arrived() == [0, 3]
    assert batch.arrived(sender.socket.getsockname()) == [0, 3]


def test_too_long_for_the_way(batch: Batch, side: MakeSide) -> None:
    """One that cannot be sent does not hold up those after it."""
    sender, between, receiver = side(socket.AF_INET6), side(socket.AF_INET6), side()
    for size in (10, LONGEST + 1, 20, LONGEST + 20, 30):
        sender.socket.sendto(b"x" * size, between.socket.getsockname())
    batch.receive(between)
    unsent = batch.send(side(), [0, 1, 2, 3, 4], receiver.socket.getsockname())
    assert unsent == [1, 3]
    assert [len(text) for text in received(receiver)] == [10, 20, 30]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [[5, 6, 7], [1000] * 6])
def test_refused_earlier(kind: Callable[[], Batch], side: MakeSide, sizes: list[int]) -> None:
    """That nobody had listened before does not take a datagram away, now that somebody does."""
    batch, sender, between, gone = kind(), side(), side(), side()
    place = gone.socket.getsockname()
    for size in sizes:
        sender.socket.sendto(b"x" * size, between.socket.getsockname())
    batch.receive(between)
    between.socket.connect(place)
    gone.socket.close()
    between.socket.send(b"nobody gets this")
    again = side()
    again.socket.close()
    again.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    again.socket.setblocking(False)
    again.socket.bind(place)
    assert batch.send(between, range(len(sizes))) == []
    assert [len(text) for text in received(again)] == sizes


@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    sizes=st.lists(
        st.integers(0, 3) | st.sampled_from([100, 1200, 1472, 9000, 40_000, LONGEST]),
        min_size=1,
        max_size=20,
    ),
    repeat=st.integers(1, 4),
)
def test_any_sizes(kind: Callable[[], Batch], sizes: list[int], repeat: int) -> None:
    """Whatever follows whatever, each arrives as the datagram that it was."""
    texts = [bytes([index % 251]) * size for index, size in enumerate(sizes * repeat)][:LIMIT]
    while sum(map(len, texts)) > 150_000:  # what a socket holds by default
        texts.pop()
    batch = kind()
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
    sender, between, receiver = map(Side, sockets)
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        for text in texts:
            sender.socket.sendto(text, between.socket.getsockname())
        if texts:
            batch.receive(between)
            everything = range(len(texts))
            assert batch.send(between, everything, receiver.socket.getsockname()) == []
            assert received(receiver) == texts
    finally:
        for each in sockets:
            each.close()


@given(
    st.lists(st.sampled_from([0, 1, 500, 1200, 30_000]), max_size=LIMIT),
    st.sampled_from([0, 1, 1199, LONGEST]),
)
def test_runs(sizes: list[int], longest: int) -> None:
    """What is joined is what the kernel cuts apart again: equal sizes, and one shorter last."""
    found = runs(sizes, longest)
    assert [place for run in found for place in range(run.start, run.stop)] == [*range(len(sizes))]
    for run in found:
        *equal, last = sizes[run.start : run.stop]
        if run.joined:
            assert set(equal) == {run.size}
            assert 0 < last <= run.size <= longest
            assert sum(equal) + last <= LONGEST


def test_runs_are_long() -> None:
    """A stream of packets with a shorter one now and then takes few calls."""
    assert [run[:2] for run in runs([9] * 5 + [3] + [9] * 4, 100)] == [(0, 6), (6, 10)]
    assert [run[:2] for run in runs([1200] * 64, LONGEST)] == [(0, 54), (54, 64)]
    assert [run[:2] for run in runs([9, 9, 0, 0, 12], 100)] == [(0, 2), (2, 3), (3, 4), (4, 5)]


@pytest.mark.skipif(sys.platform != "linux", reason="an option of Linux")
def test_not_joined(side: MakeSide) -> None:
    """Where the kernel cannot join datagrams they go one by one, and that is remembered."""
    batch, sender, between, receiver = MessageBatch(), side(), side(), side()
    between.socket.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    for size in (1200, 1200, 1200, 7, 80, 80):
        sender.socket.sendto(b"x" * size, between.socket.getsockname())
    batch.receive(between)
    for _ in range(2):
        assert batch.send(between, range(6), receiver.socket.getsockname()) == []
        assert [len(text) for text in received(receiver)] == [1200, 1200, 1200, 7, 80, 80]
    assert between.segments < 80


@pytest.mark.skipif(sys.platform != "linux", reason="a call of Linux")
def test_the_quickest_is_shared() -> None:
    """On Linux the batch of all links is the one with calls for many datagrams."""
    assert isinstance(shared_batch(), MessageBatch)
    assert shared_batch() is shared_batch()


@pytest.mark.parametrize("error", [OSError(errno.ENOSYS, "no"), PermissionError("no")])
def test_calls_forbidden(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not know the calls, or forbids them, Python's own are used."""

    def refuse(batch: MessageBatch, side: Side) -> None:
        raise error

    monkeypatch.setattr(MessageBatch, "receive", refuse)
    assert isinstance(shared_batch.__wrapped__(), LoopBatch)


def test_names() -> None:
    """An address is called as the socket's IP version wants it, and by no other name."""
    assert name(Address("192.0.2.1", 5), socket.AF_INET) == ("192.0.2.1", 5)
    assert name(Address("::ffff:192.0.2.1", 5), socket.AF_INET) == ("192.0.2.1", 5)
    assert name(Address("192.0.2.1", 5), socket.AF_INET6)[:2] == ("::ffff:192.0.2.1", 5)
    assert name(Address("2001:DB8:0::1", 5), socket.AF_INET6)[:2] == ("2001:db8::1", 5)
    for address in (Address("2001:db8::1", 5), Address("localhost", 5)):
        with pytest.raises(ValueError):
            name(address, socket.AF_INET)
