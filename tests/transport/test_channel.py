"""One HTTP connection: deadlines, strict framing, limits and the polite close."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost

from gatewayd.transport import channel as channel_module
from gatewayd.transport.channel import CLOSE_SECONDS
from tests.transport.http_bench import GET, POST, Bench, assert_error, logged_failures, statuses

BAD = {
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "length list": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "signed length": POST + b"Content-Length: +3\r\n\r\nabc",
    "length and chunked": POST
    + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "unknown encoding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "chunked 1.0": POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "folded header": POST + b"A: b\r\n c\r\n\r\n",
    "folded with tab": POST + b"A: b\r\n\tc\r\n\r\n",
    "folded first": b"GET / HTTP/1.1\r\n Host: gw\r\n\r\n",
    "space before colon": POST + b"A : b\r\n\r\n",
    "no colon": POST + b"A\r\n\r\n",
    "NUL in value": POST + b"A: \0\r\n\r\n",
    "bare LF": GET.replace(b"\r\n", b"\n"),
    "one bare LF": b"GET / HTTP/1.1\nHost: gw\r\n\r\n",
    "bare LF in the second request": b"",
    "control in target": GET.replace(b"/echo", b"/e\x01cho"),
    "DEL in target": GET.replace(b"/echo", b"/e\x7fcho"),
    "byte above ASCII in target": GET.replace(b"/echo", b"/e\x80cho"),
    "target without slash": GET.replace(b"/echo", b"echo"),
    "no host": b"GET /echo HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /echo HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "odd host": b"GET /echo HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "HTTP 2": b"PRI * HTTP/2.0\r\n\r\n",
    "HTTP 0.9": b"GET /\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\r\n",
}


@pytest.fixture(name="failures")
def collect_failures() -> Iterator[list[str]]:
    """Collect every traceback that is logged."""
    with logged_failures() as seen:
        yield seen


# ---- deadlines


@pytest.mark.parametrize("first", [b"", b"GET / HT"])
def test_header_deadline_is_absolute(first: bytes) -> None:
    """A byte now and then does not prolong the ten seconds for the headers."""
    bench = Bench()
    wire = bench.connect(first)
    for _ in range(9):
        bench.advance(1)
        wire.protocol.dataReceived(b"G" if first else b"")
    assert wire.value() == b""
    bench.advance(2)
    assert_error(wire.value(), 408)
    assert wire.half_closed


def test_header_deadline_starts_again_with_each_request() -> None:
    """The second request of a connection has its own ten seconds, from its first byte."""
    bench = Bench()
    wire = bench.connect(GET)
    bench.advance(30)
    wire.protocol.dataReceived(b"G")
    bench.advance(9)
    assert statuses(wire.value()) == [200]
    bench.advance(2)
    assert statuses(wire.value()) == [200, 408]


def test_start_of_a_pipelined_request_has_the_header_deadline() -> None:
    """The rest of a segment counts as the first byte of the next request."""
    bench = Bench()
    wire = bench.connect(GET + b"GET /ec")
    bench.advance(11)
    assert statuses(wire.value()) == [200, 408]


def test_body_below_the_minimum_rate() -> None:
    """A body that trickles in is refused after the first ten seconds of it."""
    bench = Bench()
    wire = bench.connect(POST + b"Content-Length: 100000\r\n\r\n")
    for _ in range(18):
        wire.protocol.dataReceived(b"x" * 100)
        bench.advance(0.5)
    assert wire.value() == b""
    bench.advance(2)
    assert_error(wire.value(), 408)


def test_body_deadline() -> None:
    """A body that keeps the minimum rate is still refused after thirty seconds."""
    bench = Bench()
    wire = bench.connect(POST + b"Content-Length: 1000000\r\n\r\n")
    for _ in range(29):
        wire.protocol.dataReceived(b"x" * 2048)
        bench.advance(1)
    assert wire.value() == b""
    bench.advance(2)
    assert_error(wire.value(), 408)


def test_idle_connection_is_closed() -> None:
    """A connection without a next request is closed after a minute, without an answer."""
    bench = Bench()
    wire = bench.connect(GET)
    wire.stuck = True
    bench.advance(59)
    assert not wire.disconnecting
    bench.advance(2)
    assert wire.disconnecting
    assert statuses(wire.value()) == [200]
    bench.advance(CLOSE_SECONDS + 1)
    assert wire.disconnected
    assert bench.clean


def test_running_request_has_no_deadline() -> None:
    """A long poll may take longer than any deadline of the listener."""
    bench = Bench()
    wire = bench.connect(GET.replace(b"echo", b"hold"))
    bench.advance(300)
    bench.root.held.pop().finish()
    assert statuses(wire.value()) == [200]


def test_client_that_does_not_read_is_aborted() -> None:
    """A transport that has paused us for too long is dropped, whatever we were doing."""
    for data in (GET, GET.replace(b"echo", b"hold"), b"GET /"):
        bench = Bench()
        wire = bench.connect(data)
        wire.protocol.pauseProducing()
        bench.advance(9)
        assert not wire.disconnected
        bench.advance(2)
        assert wire.disconnected
        assert bench.clean


@pytest.mark.parametrize("closing", [False, True])
def test_client_that_reads_slowly_is_kept(closing: bool) -> None:
    """Who reads a kilobyte per second is waited for, also at the end; who reads less is not."""
    bench = Bench()
    wire: Any = bench.connect(GET.replace(b"echo", b"hold"))
    wire.stuck = True  # there is something to send before it is closed
    wire.dataBuffer, wire.offset = bytes(100_000), 1_000
    wire.protocol.pauseProducing()
    if closing:
        wire.protocol.loseConnection()
    for _ in range(5):
        wire.offset += 11_300
        bench.advance(11)
        assert not wire.disconnected
    wire.offset += 9_000
    bench.advance(12)
    assert wire.disconnected
    assert bench.clean


def test_client_that_reads_in_time_is_kept() -> None:
    """The time without reading starts again when everything was read."""
    bench = Bench()
    wire = bench.connect(GET)
    for _ in range(4):
        wire.protocol.pauseProducing()
        bench.advance(8)
        wire.protocol.resumeProducing()
    bench.advance(59)
    assert not wire.disconnecting
    bench.advance(2)
    assert wire.disconnecting


def test_close_that_does_not_finish_is_aborted() -> None:
    """A client that neither reads the error nor closes is gone within fifteen seconds."""
    bench = Bench()
    wire = bench.connect()
    bench.advance(14)
    assert wire.half_closed
    bench.advance(1)
    assert wire.disconnected
    assert bench.clean


def test_response_before_close_may_be_read_slowly() -> None:
    """With ``Connection: close`` the unread rest of a response has the stall time."""
    bench = Bench()
    wire = bench.connect(GET.replace(b"echo", b"hold").replace(b"gw", b"gw\r\nConnection: close"))
    wire.stuck = True
    bench.root.held.pop().finish()
    assert wire.disconnecting
    bench.advance(9)
    assert not wire.disconnected
    bench.advance(2)
    assert wire.disconnected


def test_input_after_an_error_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever goes on sending after the answer is cut off at a fixed amount."""
    monkeypatch.setattr(channel_module, "DISCARD_BYTES", 1000)
    bench = Bench()
    wire = bench.connect(b"bad\r\n")
    wire.protocol.dataReceived(b"x" * 1000)
    assert not wire.disconnected
    wire.protocol.dataReceived(b"x")
    assert wire.disconnected
    assert bench.clean


# ---- framing


@pytest.mark.parametrize("name", BAD)
def test_bad_request(name: str, failures: list[str]) -> None:
    """What two parsers could read in two ways is refused with 400 at once, and nothing runs."""
    bench = Bench()
    wire = bench.connect(BAD[name] or b"GET /echo")
    if not BAD[name]:
        wire.protocol.dataReceived(b" HTTP/1.1\n")
    assert_error(wire.value(), 400)
    assert wire.half_closed
    wire.protocol.dataReceived(GET)
    assert_error(wire.value(), 400)
    wire.end(ConnectionDone())
    assert bench.clean
    assert failures == []


@pytest.mark.parametrize(
    "data",
    [
        POST + b"A: b\r\n" * 100,
        POST + b"A: " + b"b" * 8000 + b"\r\nB: " + b"b" * 9000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20000,
        b"GET /" + b"a" * 16380 + b" HTTP/1.1\r\n",
    ],
)
def test_headers_too_large(data: bytes) -> None:
    """Too many lines or bytes before the body are 431."""
    assert_error(Bench().connect(data).value(), 431)


def test_headers_at_the_limit() -> None:
    """A hundred header lines are allowed, and counted anew for each request."""
    bench = Bench()
    wire = bench.connect((POST + b"A: b\r\n" * 99 + b"\r\n") * 2)
    assert statuses(wire.value()) == [200, 200]


@pytest.mark.parametrize("length", [b"9", b"1" + b"0" * 18, b"9" * 5000])
def test_length_over_the_limit(length: bytes, failures: list[str]) -> None:
    """A Content-Length over the limit is 413 at once, without ``100 Continue``."""
    wire = Bench(body=8).connect(
        POST + b"Expect: 100-continue\r\nContent-Length: " + length + b"\r\n\r\n"
    )
    assert_error(wire.value(), 413)
    assert wire.half_closed
    assert failures == []


def test_chunks_over_the_limit() -> None:
    """A chunked body is 413 as soon as it is too long, even if its end has come as well."""
    bench = Bench(body=8)
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    assert_error(bench.connect(head + b"5\r\nabcde\r\n4\r\nabcd").value(), 413)
    assert_error(bench.connect(head + b"9\r\nabcdefghi\r\n0\r\n\r\n" + GET).value(), 413)
    assert_error(bench.connect(head + b"fffffff\r\nabcdefghi").value(), 413)
    assert bench.connect(head + b"8\r\nabcdefgh\r\n0\r\n\r\n").value().endswith(b"echo:abcdefgh")


def test_expect_continue() -> None:
    """A body within the limit is asked for before it is sent."""
    wire = Bench().connect(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert wire.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.protocol.dataReceived(b"hi")
    assert wire.value().endswith(b"echo:hi")


def test_pipelined_requests_are_answered_in_order() -> None:
    """A request behind a running one waits for its response."""
    bench = Bench()
    two = POST + b"Content-Length: 1\r\n\r\n2" + POST + b"Content-Length: 1\r\n\r\n3"
    wire = bench.connect(GET.replace(b"echo", b"hold") + two)
    assert wire.value() == b""
    held = bench.root.held.pop()
    held.setHeader("Content-Length", "1")
    held.write(b"1")
    held.finish()
    bodies = [part.rpartition(b"\r\n")[2] for part in wire.value().split(b"HTTP/1.1")[1:]]
    assert bodies == [b"1", b"echo:2", b"echo:3"]


VALID = (
    GET
    + POST
    + b"Content-Length: 3\r\n\r\nabc"
    + POST
    + (b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nde\r\n1\r\nf\r\n0\r\nT: t\r\n\r\n")
)


@given(cuts=st.sets(st.integers(1, len(VALID) - 1)))
def test_any_segmentation_of_valid_requests(cuts: set[int]) -> None:
    """Where the network cuts a stream of requests makes no difference."""
    bench = Bench()
    wire = bench.connect()
    borders = [0, *sorted(cuts), len(VALID)]
    for start, end in pairwise(borders):
        wire.protocol.dataReceived(VALID[start:end])
    assert statuses(wire.value()) == [200, 200, 200]
    assert wire.value().endswith(b"echo:def")
    wire.end(ConnectionLost())
    assert bench.clean


PIECES = st.sampled_from(
    [
        *BAD.values(), GET, VALID, b"GET /hold HTTP/1.1\r\nHost: gw\r\n\r\n", b"\r\n", b"\n", b"\r",
        b"GET ", b"/ ", b"HTTP/1.1", b"Host: gw", b"Content-Length: 4", b"Expect: 100-continue",
        b"Transfer-Encoding: chunked", b"4\r\nabcd\r\n", b"0\r\n\r\n", b"Connection: close", b" ",
    ]
)  # fmt: skip


@given(pieces=st.lists(PIECES | st.binary(max_size=30), max_size=12))
def test_any_input_ends(pieces: list[bytes]) -> None:
    """Whatever comes in, nothing is logged as an error, nothing hangs, and nothing is left."""
    bench = Bench()
    with logged_failures() as failures:
        wire = bench.connect()
        for piece in pieces:
            wire.protocol.dataReceived(piece)
        while bench.root.held:
            bench.root.held.pop().finish()
        bench.advance(80)
    assert failures == []
    assert bench.clean
