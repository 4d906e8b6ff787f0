"""The pipes through which the kernel moves bytes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

import pytest

from gatewayd.transport.links.pipes import ROOM, Pipes
from tests.transport.tcp_scene import descriptors, few_descriptors


@pytest.fixture(name="pipes")
def make_pipes() -> Iterator[Pipes]:
    """Pipes of which nothing is left in the end."""
    before = descriptors()
    made = Pipes()
    yield made
    made.close()
    assert descriptors() == before


def test_shared(pipes: Pipes) -> None:
    """There is one shared pipe, with much room, and nobody waits for it."""
    pipe = pipes.renew()
    assert pipe is not None
    assert pipes.renew() is pipes.shared is pipe
    assert fcntl.fcntl(pipe.write, fcntl.F_GETPIPE_SZ) == ROOM
    with pytest.raises(BlockingIOError):
        os.read(pipe.read, 1)
    assert os.write(pipe.write, bytes(2 * ROOM)) == ROOM


def test_kept(pipes: Pipes) -> None:
    """A pipe that is kept is not the shared one any more; given back, it is used again."""
    first = pipes.renew()
    assert pipes.keep() is first
    assert first is not None
    assert pipes.shared not in (None, first)
    pipes.give_back(first)
    kept = [pipes.keep()]
    assert pipes.shared is first
    kept += [pipes.keep() for _ in range(3)]
    for pipe in kept:
        assert pipe is not None
        pipe.close()


def test_spare_ones_are_few(pipes: Pipes) -> None:
    """After many were needed at once, most are closed."""
    pipes.renew()
    before = len(descriptors())
    kept = [pipes.keep() for _ in range(50)]
    assert len(descriptors()) == before + 100
    for pipe in kept:
        assert pipe is not None
        pipes.give_back(pipe)
    assert len(descriptors()) <= before + 40


def test_spoilt(pipes: Pipes) -> None:
    """What was in a spoilt pipe is gone."""
    spoilt = pipes.renew()
    assert spoilt is not None
    os.write(spoilt.write, b"old")
    pipes.spoil()
    pipe = pipes.renew()
    assert pipe is not None
    with pytest.raises(BlockingIOError):
        os.read(pipe.read, 3)


def test_none_left(pipes: Pipes) -> None:
    """Without descriptors there is no pipe, or the shared one remains."""
    with few_descriptors():
        assert pipes.renew() is None
    shared = pipes.renew()
    with few_descriptors(1):
        assert pipes.keep() is None
    assert pipes.shared is shared


@pytest.mark.parametrize(("room", "good"), [(64 * 1024, True), (8 * 1024, False)])
def test_little_room(pipes: Pipes, monkeypatch: pytest.MonkeyPatch, room: int, good: bool) -> None:
    """A process that has many pipes gets small ones: too small a one is none."""
    set_room = fcntl.fcntl

    def limited(descriptor: int, command: int, value: int = 0) -> int:
        if command == fcntl.F_SETPIPE_SZ and value > room:
            # What the system does is to make it small from the beginning.
            set_room(descriptor, command, room)
            raise PermissionError
        return set_room(descriptor, command, value)

    monkeypatch.setattr(fcntl, "fcntl", limited)
    before = descriptors()
    assert (pipes.renew() is not None) == good
    assert len(descriptors() - before) == 2 * good


def test_given_up(pipes: Pipes) -> None:
    """When the kernel cannot use pipes, there are none."""
    pipes.renew()
    pipes.give_up()
    assert pipes.shared is None
    assert pipes.renew() is None
