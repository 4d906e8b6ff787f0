"""A body between the connection that it comes from and who takes it."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from gatewayd.device.response import Body
from gatewayd.errors import BadAnswer
from tests.device.devices import Sink


class Wire:
    """A connection that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def abort(self) -> None:
        self.told.append("abort")


class Hasty(Sink):
    """A consumer that does something as soon as it is told its producer."""

    def __init__(self, does: str) -> None:
        super().__init__()
        self._does = does

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        getattr(producer, self._does)()


def begin(first: bytes = b"abc") -> tuple[Body, Wire, Clock]:
    """Return a body of which something has come."""
    wire, clock = Wire(), Clock()
    return Body(wire, None, first, 60.0, clock), wire, clock


def outcome(passing: Deferred[int]) -> Any:
    """Return what a Deferred has fired with, the exception if it is one."""
    got: list[Any] = []
    passing.addBoth(got.append)
    (result,) = got
    return getattr(result, "value", result)


def test_whole_before_it_is_taken() -> None:
    """What came while nobody took it is passed on when somebody does."""
    body, wire, clock = begin()
    body.received(b"def")
    body.ended()
    sink = Sink()
    assert outcome(body.pass_on(sink)) == 6
    assert (bytes(sink.data), sink.producer) == (b"abcdef", None)
    assert (wire.told, clock.getDelayedCalls()) == ([], [])


def test_failed_before_it_is_taken() -> None:
    """What came of a body that was lost is passed on before that is told."""
    body, _, _ = begin()
    body.ended(BadAnswer("lost"))
    sink = Sink()
    assert isinstance(outcome(body.pass_on(sink)), BadAnswer)
    assert (bytes(sink.data), sink.producer) == (b"abc", None)


def test_closed_when_it_is_over() -> None:
    """Closing a body that is whole does not touch the connection, which has other work by then."""
    body, wire, _ = begin()
    body.ended()
    body.close()
    assert isinstance(outcome(body.pass_on(Sink())), CancelledError)
    body, wire, _ = begin()
    passing = body.pass_on(Sink())
    body.ended()
    body.close()
    assert outcome(passing) == 3
    assert wire.told == ["resume"]


def test_consumer_gone_at_once() -> None:
    """A consumer that is gone when it is told its producer gets nothing."""
    body, wire, clock = begin()
    sink = Hasty("stopProducing")
    assert isinstance(outcome(body.pass_on(sink)), CancelledError)
    assert (bytes(sink.data), wire.told, clock.getDelayedCalls()) == (b"", ["abort"], [])


def test_consumer_full_at_once() -> None:
    """A consumer that has enough when it is told its producer makes the device wait."""
    body, wire, clock = begin()
    sink = Hasty("pauseProducing")
    passing = body.pass_on(sink)
    assert (wire.told, clock.getDelayedCalls()) == (["pause"], [])
    sink.producer.resumeProducing()
    sink.producer.resumeProducing()
    assert wire.told == ["pause", "resume"]
    body.ended()
    assert outcome(passing) == 3


def test_consumer_gone_while_it_takes() -> None:
    """A consumer that goes while it takes a piece gets no other one."""

    class Leaving(Sink):
        def write(self, data: bytes) -> None:
            super().write(data)
            self.producer.stopProducing()

    body, wire, _ = begin()
    body.received(b"def")
    sink = Leaving()
    passing = body.pass_on(sink)
    assert isinstance(outcome(passing), CancelledError)
    assert (bytes(sink.data), wire.told) == (b"abc", ["abort"])


@pytest.mark.parametrize("paused", [False, True])
def test_ends_while_the_consumer_is_full(paused: bool) -> None:
    """The end of a body is told whether or not its consumer has enough."""
    body, wire, clock = begin()
    sink = Sink(most=3 if paused else None)
    passing = body.pass_on(sink)
    producer = sink.producer
    body.received(b"def")
    body.ended()
    assert outcome(passing) == 6
    told = list(wire.told)
    producer.resumeProducing()
    producer.pauseProducing()
    assert (wire.told, clock.getDelayedCalls()) == (told, [])
