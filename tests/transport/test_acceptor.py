"""Accepting the clients of a line."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.internet.task import Clock

from gatewayd.transport.links.acceptor import Acceptor
from gatewayd.transport.links.gear import Gear
from tests.transport.test_pump import HandPoller


class Connection:
    """A connection that has been accepted."""

    def setblocking(self, blocking: bool) -> None:
        assert not blocking


class Listening:
    """A listening socket with given answers; which a real one gives cannot be arranged."""

    def __init__(self, *answers: int | Connection) -> None:
        self._answers = list(answers)

    def accept(self) -> tuple[Connection, tuple[str, int]]:
        answer = self._answers.pop(0) if self._answers else errno.EAGAIN
        if isinstance(answer, int):
            raise OSError(answer, "no")
        return answer, ("127.0.0.1", 1)

    def fileno(self) -> int:
        return 0


@pytest.mark.parametrize("trouble", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN])
def test_trouble_of_one(trouble: int) -> None:
    """What has happened to one connection does not keep others out."""
    one, two = Connection(), Connection()
    accepted: list[Any] = []
    listening: Any = Listening(one, trouble, two)
    acceptor = Acceptor(
        listening, lambda each, _name: accepted.append(each), Gear(HandPoller(), Clock())
    )
    acceptor.doRead()
    assert accepted == [one, two]


@pytest.mark.parametrize("trouble", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_trouble_of_all(trouble: int) -> None:
    """When nothing can be accepted there is a pause."""
    poller, clock = HandPoller(), Clock()
    listening: Any = Listening(trouble, Connection())
    acceptor = Acceptor(listening, lambda *_arguments: None, Gear(poller, clock))
    acceptor.start()
    acceptor.doRead()
    assert not poller.readers
    clock.advance(1)
    assert poller.readers == {acceptor}
    assert clock.getDelayedCalls() == []


def test_many_at_once() -> None:
    """A flood of clients is let in bit by bit, and stops at once with the acceptor."""
    accepted: list[Any] = []
    listening: Any = Listening(*[Connection()] * 1000)
    poller = HandPoller()

    def accept(connection: Any, _name: Any) -> None:
        accepted.append(connection)
        if len(accepted) == 100:
            acceptor.stop()

    acceptor = Acceptor(listening, accept, Gear(poller, Clock()))
    acceptor.doRead()
    assert 0 < len(accepted) < 100
    for _ in range(10):
        acceptor.doRead()
    assert len(accepted) == 100
