"""What the names of hosts mean, and which addresses are this machine's."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from gatewayd.transport.names import Names, is_mine, look_up


class Threads:
    """Threads that answer when the test lets them."""

    def __init__(self) -> None:
        self.running: list[tuple[str, Deferred[list[str]]]] = []

    def __call__(self, function: Callable[[str], list[str]], host: str) -> Deferred[list[str]]:
        assert function is look_up
        self.running.append((host, Deferred()))
        return self.running[-1][1]


def answers(lookup: Deferred[list[str]]) -> list[Any]:
    """Return what a lookup has found, once it has."""
    found: list[Any] = []
    lookup.addBoth(found.append)
    return found


def test_order_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses come in the order of the system's preference, each once."""
    kinds = (socket.AF_INET6, socket.AF_INET, socket.AF_INET, socket.AF_INET6)
    hosts = ("2001:db8::1", "192.0.2.1", "192.0.2.1", "2001:db8::2")
    found = [(kind, 1, 6, "", (host, 0)) for kind, host in zip(kinds, hosts, strict=True)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert look_up("x") == ["2001:db8::1", "192.0.2.1", "2001:db8::2"]


@pytest.mark.parametrize("host", ["no.such.name.invalid", "x" * 64, "a..b", "\u00e4" * 80])
def test_unknown(host: str) -> None:
    """A name that is unknown, or cannot be one, has no address."""
    assert look_up(host) == []


def test_localhost() -> None:
    """What the operating system knows is known."""
    assert "127.0.0.1" in look_up("localhost")


def test_timeout() -> None:
    """A name is unknown when there is no answer in time; a late answer does not matter."""
    clock, threads = Clock(), Threads()
    look = Names(threads, clock, timeout=5.0)
    quick, slow = answers(look("quick")), answers(look("slow"))
    threads.running[0][1].callback(["192.0.2.1"])
    clock.advance(4.9)
    assert (quick, slow) == ([["192.0.2.1"]], [])
    clock.advance(0.2)
    assert slow == [[]]
    threads.running[1][1].callback(["192.0.2.2"])
    assert slow == [[]]
    assert clock.getDelayedCalls() == []


def test_threads_are_left_to_others() -> None:
    """Only a few lookups are in threads at a time, also of those that nobody waits for any more."""
    clock, threads = Clock(), Threads()
    look = Names(threads, clock, timeout=5.0, most=2)
    found = [answers(look(name)) for name in "abc"]
    assert [host for host, _ in threads.running] == ["a", "b"]
    clock.advance(6)
    assert found == [[[]]] * 3
    late = answers(look("d"))
    threads.running[0][1].callback([])
    threads.running[1][1].callback([])
    assert [host for host, _ in threads.running] == ["a", "b", "c", "d"]
    threads.running[3][1].callback(["192.0.2.4"])
    assert late == [["192.0.2.4"]]


@pytest.mark.parametrize(
    ("host", "mine"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("0.0.0.0", True),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
    ],
)
def test_is_mine(host: str, mine: bool) -> None:
    """An address is this machine's when a socket can be bound to it."""
    assert is_mine(host) is mine
