"""What asks relays over HTTP, and measures how long that takes."""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Sequence

import attrs

from benchmarks.daemon import KIB, MIB, connect, percentile
from benchmarks.http_ends import INFO, LARGE

#: Seconds in which one answer has to come.
PATIENCE = 8.0

_GOOD = b"HTTP/1.1 200 "
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@attrs.frozen
class Asked:
    """What came of many small requests. :ivar rate: per second. :ivar p50: seconds, as p99."""

    rate: float
    p50: float
    p99: float


def ask(port: int, request: bytes, connections: int, seconds: float) -> Asked:
    """Ask again and again for :data:`INFO`, on each connection as soon as the answer is there.

    :raises ConnectionError: an answer is another one.
    """
    poll = select.epoll()
    members = {each.fileno(): each for each in (connect(port) for _ in range(connections))}
    for number, member in members.items():
        member.sendall(request)
        poll.register(number, select.EPOLLIN)
    sent = dict.fromkeys(members, 0.0)  # the first answers are not counted
    held = dict.fromkeys(members, b"")
    took: list[float] = []
    began = now = heard = time.perf_counter()
    while now < began + seconds:
        for number, _ in poll.poll(0.05):
            held[number] += _receive(members[number], held[number])
            if not held[number].endswith(INFO):
                continue
            held[number] = b""
            heard = time.perf_counter()
            if sent[number]:
                took.append(heard - sent[number])
            sent[number] = heard
            members[number].send(request)
        now = time.perf_counter()
        if now > heard + PATIENCE:
            raise TimeoutError("no answer")
    return Asked(len(took) / (now - began), percentile(took, 0.5), percentile(took, 0.99))


def _receive(member: socket.socket, before: bytes) -> bytes:
    """Return what has come of an answer. :raises ConnectionError: it is no good one."""
    data = member.recv(64 * KIB)
    if not data or not (before + data).startswith(_GOOD):
        raise ConnectionError(f"answered {(before + data)[:200]!r}")
    return data


def fetch(port: int, request: bytes) -> float:
    """Fetch the large body once; return the bytes per second. :raises ConnectionError:"""
    room = bytearray(4 * MIB)
    with connect(port) as client:
        client.settimeout(PATIENCE)
        began = time.perf_counter()
        client.sendall(request)
        head = b""
        while b"\r\n\r\n" not in head:
            head += _receive(client, head)
        head, _, body = head.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if length is None or int(length[1]) != LARGE:
            raise ConnectionError(f"answered {head[:200]!r}")
        left = LARGE - len(body)
        client.settimeout(None)  # with a limit, Python would poll before every call
        while left:
            # The kernel throws it away, which costs less than to copy it.
            size = client.recv_into(room, 4 * MIB, socket.MSG_TRUNC)
            if not size:
                raise ConnectionError(f"{left} bytes are missing")
            left -= size
        return LARGE / (time.perf_counter() - began)


def ask_beside(
    port: int, request: bytes, slow: tuple[int, bytes], count: int, seconds: float
) -> Asked:
    """Ask on one connection while so many slow requests are under way, which all have to succeed.

    :param slow: the port and the request.
    """
    late = [connect(slow[0]) for _ in range(count)]
    for each in late:
        each.sendall(slow[1])
    time.sleep(0.2)  # they are with their device now, and what that took is over
    asked = ask(port, request, 1, seconds)
    _await_all(late)
    return asked


def _await_all(late: Sequence[socket.socket]) -> None:
    for each in late:
        each.settimeout(PATIENCE)
        answer = b""
        while not answer.endswith(INFO):
            answer += _receive(each, answer)
        each.close()
