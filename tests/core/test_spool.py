"""Bodies that devices fetch or bring: their tickets, their files, and how they are copied."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any, BinaryIO

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IPullProducer
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from gatewayd.core.spool import LIFETIME, Spool
from gatewayd.errors import BadAnswer, Conflict, GatewayError, NotFound, TooLarge

LARGE = bytes(range(256)) * 1024


@implementer(IConsumer)
class Consumer:
    """Takes what it asks for."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.producer: Any = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert self.producer is None
        assert not streaming
        verifyObject(IPullProducer, producer)
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.taken.append(data)

    def pull(self, times: int = 1000) -> bytes:
        """Ask for some parts, or all; return everything so far."""
        while self.producer is not None and times > 0:
            self.producer.resumeProducing()
            times -= 1
        return b"".join(self.taken)


class Broken(BytesIO):
    """A file on a disk that fails."""

    def read(self, size: int | None = -1) -> bytes:
        raise OSError("bad block")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spool(clock: Clock) -> Spool:
    return Spool(clock)


def offered(spool: Spool, content: bytes = LARGE, type_: str = "a/b") -> tuple[str, BinaryIO]:
    file = BytesIO(content)
    return spool.offer(file, len(content), type_), file


def brought(spool: Spool, content: bytes = LARGE) -> tuple[str, BinaryIO]:
    ticket, file = spool.accept(len(content)), BytesIO(content)
    spool.bring(ticket, file, len(content), "c/d")
    return ticket, file


def result(copied: Deferred[int]) -> int | str:
    """Return how a copy has ended, or its error's text."""
    found: list[Any] = []
    copied.addBoth(found.append)
    (value,) = found
    if isinstance(value, int):
        return value
    assert value.check(GatewayError, CancelledError)
    return value.getErrorMessage() or "cancelled"


# Tickets


def test_ticket(spool: Spool) -> None:
    """Tickets are 256 bits that nobody can guess, and the spool does not keep them."""
    tickets = {offered(spool)[0] for _ in range(50)} | {spool.accept(1) for _ in range(50)}
    assert len(tickets) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", ticket) for ticket in tickets)
    kept = repr([vars(spool), list(spool._tickets)])
    assert not any(ticket in kept for ticket in tickets)


@pytest.mark.parametrize("ticket", ["", "x" * 43, "\x00", "\ud800", "ä" * 10_000])
def test_unknown_ticket(spool: Spool, ticket: str) -> None:
    """Under what is no ticket there is nothing; the error does not repeat it."""
    offered(spool)
    spool.accept(10)
    for attempt in (spool.fetch, spool.limit, lambda t: spool.bring(t, BytesIO(), 0, "")):
        with pytest.raises(NotFound) as caught:
            attempt(ticket)
        assert caught.value.key is None
    assert spool.claim(ticket) is None
    spool.withdraw(ticket)


def test_one_way(spool: Spool) -> None:
    """A ticket for one direction is none for the other."""
    out, _ = offered(spool)
    in_ = spool.accept(10)
    with pytest.raises(NotFound):
        spool.bring(out, BytesIO(), 0, "")
    with pytest.raises(NotFound):
        spool.limit(out)
    with pytest.raises(NotFound):
        spool.fetch(in_)
    assert spool.claim(out) is None
    spool.bring(in_, BytesIO(b"x"), 1, "")
    with pytest.raises(NotFound):
        spool.fetch(in_)


def test_lifetime(spool: Spool, clock: Clock) -> None:
    """Tickets are good for twenty minutes, each its own."""
    old = offered(spool)[0], spool.accept(10)
    clock.advance(LIFETIME - 1)
    young = offered(spool)[0]
    assert spool.fetch(old[0]).length == len(LARGE)
    assert spool.limit(old[1]) == 10
    clock.advance(1)
    for attempt in (lambda: spool.fetch(old[0]), lambda: spool.limit(old[1])):
        with pytest.raises(NotFound):
            attempt()
    assert spool.fetch(young).length == len(LARGE)
    assert LIFETIME == 1200


def test_withdrawn(spool: Spool) -> None:
    """What is withdrawn is gone: nobody's file is kept, the caller's stays its own."""
    out, theirs = offered(spool)
    in_, ours = brought(spool)
    for ticket in (out, in_, spool.accept(10)):
        spool.withdraw(ticket)
        spool.withdraw(ticket)
    assert (theirs.closed, ours.closed) == (False, True)
    with pytest.raises(NotFound):
        spool.fetch(out)
    assert spool.claim(in_) is None
    assert not spool._tickets


# What is brought


def test_bring(spool: Spool) -> None:
    """What was brought is claimed once, and then nobody else's."""
    ticket = spool.accept(3)
    assert spool.limit(ticket) == 3
    assert spool.claim(ticket) is None
    file = BytesIO(b"abc")
    file.seek(2)
    spool.bring(ticket, file, 3, "c/d")
    blob = spool.claim(ticket)
    assert blob is not None
    assert (blob.length, blob.content_type) == (3, "c/d")
    assert spool.claim(ticket) is None
    spool.withdraw(ticket)
    with pytest.raises(NotFound):
        spool.bring(ticket, BytesIO(), 0, "")
    assert not file.closed
    consumer = Consumer()
    passed = blob.pass_on(consumer)
    assert consumer.pull() == b"abc"
    assert result(passed) == 3
    assert file.closed


def test_bring_twice(spool: Spool) -> None:
    """Only the first counts."""
    ticket, first = brought(spool, b"abc")
    second = BytesIO(b"x")
    with pytest.raises(Conflict):
        spool.bring(ticket, second, 1, "")
    with pytest.raises(Conflict):
        spool.limit(ticket)
    assert not second.closed
    blob = spool.claim(ticket)
    assert blob is not None
    assert blob.read(0) == b"abc"
    blob.close()
    blob.close()
    assert first.closed


def test_bring_too_much(spool: Spool) -> None:
    """More than was allowed is refused; less may still be brought afterwards."""
    ticket = spool.accept(3)
    with pytest.raises(TooLarge) as caught:
        spool.bring(ticket, BytesIO(b"abcd"), 4, "")
    assert caught.value.what == "answer"
    spool.bring(ticket, BytesIO(), 0, "")
    blob = spool.claim(ticket)
    assert blob is not None
    consumer = Consumer()
    passed = blob.pass_on(consumer)
    assert consumer.pull() == b""
    assert result(passed) == 0


# Copying


def test_copies(spool: Spool) -> None:
    """Several read the same body at once, each at its own pace, also again."""
    ticket, file = offered(spool)
    consumers = [Consumer() for _ in range(3)]
    copies = [spool.fetch(ticket).copy_to(consumer) for consumer in consumers]
    for _ in range(2):
        for consumer in consumers[:2]:
            consumer.pull(1)
    assert consumers[2].taken == []
    assert all(len(part) < len(LARGE) for consumer in consumers for part in consumer.taken)
    assert [consumer.pull() for consumer in consumers] == [LARGE] * 3
    assert [result(copied) for copied in copies] == [len(LARGE)] * 3
    again = Consumer()
    spool.fetch(ticket).copy_to(again)
    assert again.pull() == LARGE
    assert not file.closed


def test_withdrawn_while_copied(spool: Spool) -> None:
    """Who reads a body that is withdrawn gets no more of it, and knows that it is not all."""
    ticket, file = offered(spool)
    consumer, other = Consumer(), Consumer()
    copied, unread = (spool.fetch(ticket).copy_to(each) for each in (consumer, other))
    producer = consumer.producer
    consumer.pull(1)
    spool.withdraw(ticket)
    file.close()
    assert consumer.producer is other.producer is None
    producer.resumeProducing()
    assert 0 < len(consumer.pull()) < len(LARGE)
    assert result(copied) == result(unread) == "the body was withdrawn"


def test_given_up(spool: Spool) -> None:
    """A consumer that is gone, or a caller that gives up, ends a copy, and no other one."""
    ticket, _ = offered(spool)
    blob = spool.fetch(ticket)
    gone, given_up, kept = Consumer(), Consumer(), Consumer()
    copies = [blob.copy_to(each) for each in (gone, given_up, kept)]
    for consumer in (gone, given_up, kept):
        consumer.pull(1)
    gone.producer.stopProducing()
    copies[1].cancel()
    assert gone.producer is given_up.producer is None
    assert [result(copied) for copied in copies[:2]] == ["cancelled"] * 2
    assert kept.pull() == LARGE
    assert result(copies[2]) == len(LARGE)


def test_pass_on_given_up(spool: Spool) -> None:
    """What is passed on is closed however that ends."""
    for end in ("stop", "cancel", "close"):
        ticket, file = brought(spool)
        blob = spool.claim(ticket)
        assert blob is not None
        consumer = Consumer()
        passed = blob.pass_on(consumer)
        consumer.pull(1)
        if end == "stop":
            consumer.producer.stopProducing()
        elif end == "cancel":
            passed.cancel()
        else:
            blob.close()
        assert file.closed
        assert consumer.producer is None
        assert result(passed) in ("cancelled", "the body was withdrawn")


@pytest.mark.parametrize("file", [BytesIO(b"x" * 70_000), Broken()], ids=["short", "broken"])
def test_file_fails(spool: Spool, file: BinaryIO) -> None:
    """A file that ends early, or cannot be read, ends the copy with an error, not as if whole."""
    ticket = spool.offer(file, 100_000, "")
    consumer = Consumer()
    copied = spool.fetch(ticket).copy_to(consumer)
    assert len(consumer.pull()) < 100_000
    assert isinstance(result(copied), str)
    assert consumer.producer is None


def test_read(spool: Spool) -> None:
    """A part of a body is never more than what it has."""
    ticket, _ = offered(spool, b"abc")
    blob = spool.fetch(ticket)
    assert [blob.read(offset) for offset in (0, 1, 3)] == [b"abc", b"bc", b""]
    blob.close()
    with pytest.raises(BadAnswer):
        blob.read(0)
