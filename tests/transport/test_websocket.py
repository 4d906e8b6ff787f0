"""Sessions and their factory: backpressure, keepalive, failures and every way to end."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_twisted
from autobahn.twisted.websocket import WebSocketServerProtocol
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from gatewayd.transport.frames import text_frame
from gatewayd.transport.parser import MessageParser
from gatewayd.transport.websocket import (
    Refused,
    WebSocketFactory,
    WebSocketLimits,
    WebSocketSession,
)
from tests.transport.conftest import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Listener,
    MakeMemory,
    Memory,
    Session,
    after_head,
    client_close,
    client_frame,
    handshake,
    server_frames,
)


def close_of(code: int, reason: str = "") -> tuple[int, bytes]:
    """The close frame that a server sends."""
    return CLOSE, struct.pack("!H", code) + reason.encode()


# Opening.


def test_opening(memory: MakeMemory) -> None:
    """A handshake opens the session, and the end of the connection closes it, once."""
    session, wire = memory().connect()
    assert session.is_open
    assert session.writable
    wire.lose()
    assert session.events == ["opened", "closed"]
    assert not session.is_open


def test_accept_makes_the_greeting(memory: MakeMemory) -> None:
    """What the accept hook returns for the request is there when the session opens."""
    session, _ = memory(accept=lambda request: request.getHeader("host")).connect()
    assert session.greeting == "localhost"


def test_accept_may_take_its_time(memory: MakeMemory) -> None:
    """The answer waits for an accept hook that is not done, and early frames wait too."""
    decision: Deferred[str] = Deferred()
    wire = memory(accept=lambda request: decision).request(handshake() + client_frame(1, b"a"))
    wire.protocol.dataReceived(client_frame(TEXT, b"b"))
    assert wire.value() == b""
    decision.callback("welcome")
    session = wire.protocol
    assert session.greeting == "welcome"
    assert server_frames(after_head(wire.value())) == [(TEXT, b"a"), (TEXT, b"b")]


@pytest.mark.parametrize("later", [False, True])
def test_accept_may_refuse(memory: MakeMemory, later: bool) -> None:
    """The answer that the accept hook raises is sent instead of the upgrade."""
    refused = Refused(401, b"go away", b"text/plain")
    decision: Deferred[str] = Deferred()

    def accept(_request: Any) -> Deferred[str]:
        if later:
            return decision
        raise refused

    wire = memory(accept=accept).request(handshake())
    if later:
        decision.errback(refused)
    head, _, body = wire.value().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 ")
    assert b"Content-Length: 7" in head
    assert b"Content-Type: text/plain" in head
    assert body == b"go away"


def test_accept_may_fail(memory: MakeMemory, failures: list[Failure]) -> None:
    """An exception in the accept hook is logged and answered with 500."""

    def accept(_request: Any) -> None:
        raise RuntimeError("boom")

    wire = memory(accept=accept).request(handshake())
    head, _, body = wire.value().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    assert b"boom" not in body
    assert [str(failure.value) for failure in failures] == ["boom"]


def test_client_may_leave_before_accept_is_done(memory: MakeMemory) -> None:
    """The hook is cancelled then, and no session begins."""
    decision: Deferred[str] = Deferred()
    one = memory(accept=lambda request: decision)
    wire = one.request(handshake())
    wire.lose()
    assert decision.called
    assert not one.factory.sessions
    assert wire.value() == b""


def test_subprotocol_is_chosen_by_the_session(memory: MakeMemory) -> None:
    """The answer names the subprotocol in the client's spelling."""

    class Chooser(Session):
        def subprotocol(self, offered: list[str]) -> str | None:
            return next(one for one in offered if one.lower() == "echo-protocol")

    wire = memory(Chooser).request(handshake(("Sec-WebSocket-Protocol", "a, Echo-Protocol")))
    assert b"\r\nSec-WebSocket-Protocol: Echo-Protocol\r\n" in wire.value()
    assert wire.protocol.websocket_protocol_in_use == "Echo-Protocol"


def test_subprotocol_has_to_be_offered(memory: MakeMemory, failures: list[Failure]) -> None:
    """A subprotocol that the client did not offer is a bug: logged, and answered with 500."""

    class Wrong(Session):
        def subprotocol(self, offered: list[str]) -> str | None:
            return "other"

    wire = memory(Wrong).request(handshake(("Sec-WebSocket-Protocol", "a")))
    assert wire.value().startswith(b"HTTP/1.1 500 ")
    assert len(failures) == 1


def test_connections_are_capped(memory: MakeMemory) -> None:
    """One client too many gets 503; when another has gone there is room again."""
    one = memory(connections=2)
    _, first = one.connect()
    one.connect()
    refused = one.request(handshake())
    assert refused.value().startswith(b"HTTP/1.1 503 ")
    assert len(one.factory.sessions) == 2
    first.lose()
    one.connect()


def test_nothing_is_kept_of_the_handshake(memory: MakeMemory) -> None:
    """A session carries few attributes: there may be tens of thousands."""
    session, _ = memory().connect()
    assert len(vars(session)) < 16


def test_autobahn_finds_its_attributes() -> None:
    """What Autobahn sets on each connection is there in our class, whatever version it is."""
    stock: Any = WebSocketServerProtocol()
    stock.openHandshakeTimeout = 0  # no timer on the global reactor
    before = set(vars(stock))
    stock.factory = WebSocketFactory(Session, WebSocketLimits(), Clock())
    stock._connectionMade()
    needed = set(vars(stock)) - before - {"factory"}
    assert len(needed) > 30
    assert [name for name in needed if not hasattr(MessageParser, name)] == []


# Receiving.


def test_binary_is_refused_by_default(memory: MakeMemory) -> None:
    """A binary message closes with 1003."""
    session, wire = memory().connect()
    wire.protocol.dataReceived(client_frame(BINARY, b"x"))
    assert server_frames(wire.value()) == [close_of(1003, "text frames only")]
    assert not session.is_open


@pytest.mark.parametrize("fast", [False, True])
def test_exception_in_text_received(
    memory: MakeMemory, failures: list[Failure], fast: bool
) -> None:
    """It is logged once and closes with 1011; messages behind it are not delivered."""

    class Failing(Session):
        fast_path = fast

    session, wire = memory(Failing).connect()
    session.dataReceived(client_frame(TEXT, b"boom") + client_frame(TEXT, b"next"))
    assert session.events == ["opened", (TEXT, b"boom")]
    assert server_frames(wire.value()) == [close_of(1011, "internal error")]
    assert len(failures) == 1


@pytest.mark.parametrize("hook", ["opened", "binary_received", "pinging", "ponged"])
def test_exception_in_another_hook(memory: MakeMemory, failures: list[Failure], hook: str) -> None:
    """It is logged once and closes with 1011, in whatever hook it was raised."""

    def fail(*_arguments: Any) -> None:
        raise RuntimeError(hook)

    one = memory(type("Failing", (Session,), {hook: fail}), keepalive=1)
    session, wire = one.connect()
    if session.is_open:
        session.dataReceived(client_frame(BINARY, b"x")) if hook == "binary_received" else None
        one.clock.advance(1)
        session.dataReceived(client_frame(PONG))
    assert server_frames(wire.value())[-1] == close_of(1011, "internal error")
    assert [str(failure.value) for failure in failures] == [hook]


def test_exception_in_closed(memory: MakeMemory, failures: list[Failure]) -> None:
    """It is logged, and the session is forgotten all the same."""

    class Failing(Session):
        def closed(self) -> None:
            raise RuntimeError("boom")

    one = memory(Failing)
    _, wire = one.connect()
    wire.lose()
    assert not one.factory.sessions
    assert len(failures) == 1


def test_pausing_reading_holds_at_once(memory: MakeMemory) -> None:
    """Messages that were received together with the one that paused wait for the resume."""
    session, wire = memory().connect()
    wire.protocol.dataReceived(client_frame(TEXT, b"pause") + client_frame(TEXT, b"a") * 2)
    assert session.events == ["opened", (TEXT, b"pause")]
    assert wire.producerState == "paused"
    session.resume_reading()
    assert session.events[2:] == [(TEXT, b"a"), (TEXT, b"a")]
    assert wire.producerState == "producing"


def test_closing_while_reading_is_paused(memory: MakeMemory) -> None:
    """The client's answer to the close is seen; messages that waited are not delivered."""
    session, wire = memory().connect()
    session.dataReceived(client_frame(TEXT, b"pause") + client_frame(TEXT, b"a"))
    session.close(1000)
    session.dataReceived(client_close())
    assert wire.half_closed
    assert session.events == ["opened", (TEXT, b"pause")]


def test_resuming_within_a_hook(memory: MakeMemory) -> None:
    """A pause that is taken back within the same hook changes nothing."""

    class Hasty(Session):
        def text_received(self, payload: bytes) -> None:
            self.pause_reading()
            self.resume_reading()
            super().text_received(payload)

    session, _ = memory(Hasty).connect()
    session.dataReceived(client_frame(TEXT, b"a") + client_frame(TEXT, b"b"))
    assert session.events == ["opened", (TEXT, b"a"), (TEXT, b"b")]


# The fast path.

payloads = st.one_of(
    st.sampled_from([b"", b"pause", b"close", b"boom", "é€𝄞".encode(), b"\xff", b"\xed\xa0\x80"]),
    st.text(max_size=12).map(str.encode),
    st.binary(max_size=12),
    st.integers(100, 220).map(lambda size: b"x" * size),
)
plain = st.builds(client_frame, st.just(TEXT), payloads)
odd = st.builds(
    client_frame,
    st.sampled_from([0, 1, 1, 2, 3, 8, 9, 10, 15]),
    payloads,
    fin=st.sampled_from([True, True, False]),
    rsv=st.sampled_from([0, 0, 0, 0, 4]),
    mask=st.sampled_from([b"\x01\x02\x03\x04", b"\0\0\0\0", b"\xff\xa0\x10\x01", None]),
    length=st.sampled_from([None, None, None, b"\x7e\x00\x05", b"\x7e\x00\x90", b"\x05"]),
)


def outcome(fast: bool, chunks: list[bytes]) -> tuple[Any, ...]:
    """What a session delivers and sends, and how it ends."""
    one = Memory.make(type("Either", (Session,), {"fast_path": fast}), message=200)
    session, wire = one.connect()
    for chunk in chunks:
        session.dataReceived(chunk)
        session.resume_reading()
    result = (session.events, wire.value(), session.state, wire.half_closed, session.wasClean)
    one.clock.advance(6)
    assert wire.aborted or session.is_open
    one.check_clean()
    return (*result, wire.aborted)


@settings(max_examples=400)
@given(st.lists(st.one_of(plain, plain, odd), max_size=8), st.lists(st.integers(1, 300)))
@example([client_frame(TEXT, b"pause") + client_frame(TEXT, b"close")], [3])
@example([client_frame(TEXT, b"x" * 201)], [])
@example([client_frame(TEXT, fin=False), client_frame(TEXT, b"x")], [])
def test_fast_path_equals_autobahn(frames: list[bytes], cuts: list[int]) -> None:
    """Whatever is sent in whatever pieces, it makes no difference which parser took it."""
    data = b"".join(frames)
    chunks = []
    for cut in cuts:
        chunks.append(data[:cut])
        data = data[cut:]
    chunks = [chunk for chunk in (*chunks, data) if chunk]
    assert outcome(True, chunks) == outcome(False, chunks)


# Sending.


def test_order_of_sending(memory: MakeMemory) -> None:
    """Frames, texts, pongs and the close leave in the order of the calls."""
    session, wire = memory().connect()
    session.send_frame(text_frame(b"1"))
    session.send_text(b"2")
    session.send_frame(text_frame(b"3"))
    session.dataReceived(client_frame(PING, b"4"))
    session.send_frame(text_frame(b"5"))
    session.sendMessage(b"6")
    session.send_frame(text_frame(b"7"))
    session.close(1000)
    assert [payload for _, payload in server_frames(wire.value())[:-1]] == [
        b"1",
        b"2",
        b"3",
        b"4",
        b"5",
        b"6",
        b"7",
    ]


def test_frames_of_a_turn_leave_together(memory: MakeMemory) -> None:
    """Frames wait for the end of the reactor turn, and go out in one write per session."""
    one = memory()
    wires = [one.connect() for _ in range(3)]
    for _, wire in wires:
        wire.writes = 0
    for number in range(5):
        for session, _ in wires:
            assert session.send_frame(text_frame(b"%d" % number))
    assert [wire.value() for _, wire in wires] == [b""] * 3
    one.clock.advance(0)
    for _, wire in wires:
        assert wire.writes == 1
        assert len(server_frames(wire.value())) == 5


def test_a_text_is_written_at_once(memory: MakeMemory) -> None:
    """A text does not wait for the end of the turn."""
    session, wire = memory().connect()
    assert session.send_text(b"hello")
    assert server_frames(wire.value()) == [(TEXT, b"hello")]


def test_sending_when_not_open(memory: MakeMemory) -> None:
    """Nothing is sent behind a close frame or to a lost connection; the result says so."""
    session, wire = memory().connect()
    session.close(1000)
    wire.clear()
    assert not session.send_text(b"x")
    assert not session.send_frame(text_frame(b"x"))
    wire.lose()
    assert not session.send_text(b"x")
    assert wire.value() == b""


def test_paused_by_the_transport(memory: MakeMemory) -> None:
    """While paused everything waits here; then it leaves in order, until the next pause."""
    session, wire = memory().connect()
    wire.producer.pauseProducing()
    assert not session.writable
    session.send_text(b"1")
    session.send_frame(text_frame(b"2"))
    session.send_text(b"3")
    assert wire.value() == b""
    waiting = session.when_writable()
    assert not waiting.called
    wire.producer.resumeProducing()
    assert server_frames(wire.value()) == [(TEXT, b"1"), (TEXT, b"2"), (TEXT, b"3")]
    assert waiting.called
    assert session.writable
    assert session.when_writable().called


def test_the_window_is_drained_in_pieces(memory: MakeMemory) -> None:
    """A transport that pauses again gets no more than it wants; the rest keeps waiting."""
    session: Any
    wire: Any
    session, wire = memory().connect()
    wire.producer.pauseProducing()
    for number in range(500):
        session.send_text(b"%03d" % number + b"x" * 997)
    drained, write = b"", wire.write

    def write_and_pause(data: bytes) -> None:
        write(data)
        session.pauseProducing()

    wire.write = write_and_pause
    for _ in range(8):
        wire.producer.resumeProducing()
        piece = wire.taken()
        assert 2**16 <= len(piece) < 2**16 + 2000 or _ == 7
        drained += piece
    texts = [payload[:3] for _, payload in server_frames(drained)]
    assert texts == [b"%03d" % number for number in range(500)]


def test_when_writable_ends_with_the_connection(memory: MakeMemory) -> None:
    """Who waits for room is woken when there will be none."""
    for end in ("close", "lose", "abort"):
        session, wire = memory().connect()
        wire.producer.pauseProducing()
        waiting = session.when_writable()
        if end == "close":
            session.close(1000)
        elif end == "lose":
            wire.lose()
        else:
            session.abort()
        assert waiting.called
        assert not session.is_open


def test_slow_consumer(memory: MakeMemory) -> None:
    """One byte more than the window closes with 1013, and frees what waited."""
    one = memory(send_window=1000)
    session, wire = one.connect()
    wire.producer.pauseProducing()
    assert session.send_frame(b"\x81\x7e\x03\xe4" + b"x" * 996)
    assert not session.send_text(b"")
    assert not session.is_open
    wire.producer.resumeProducing()
    assert server_frames(wire.value()) == [close_of(1013, "slow consumer")]
    one.clock.advance(4.9)
    assert not wire.aborted
    one.clock.advance(0.2)
    assert wire.aborted
    assert session.events == ["opened", "closed"]


def test_pongs_count_for_the_window(memory: MakeMemory) -> None:
    """A client that pings and never reads does not make us keep its pongs for ever."""
    session, wire = memory(send_window=1000).connect()
    wire.producer.pauseProducing()
    session.dataReceived(client_frame(PING, b"x" * 125) * 9)
    assert not session.is_open
    assert session._waiting < 200


# Keepalive.


def test_pings_are_empty(memory: MakeMemory) -> None:
    """Every keepalive interval brings one ping without payload, announced to the session."""
    one = memory(keepalive=30)
    session, wire = one.connect()
    one.clock.pump([1] * 30)
    assert wire.taken() == b"\x89\x00"
    session.dataReceived(client_frame(PONG))
    one.clock.pump([1] * 30)
    assert wire.taken() == b"\x89\x00"
    assert session.events == ["opened", "pinging", "ponged", "pinging"]


def test_silent_peer_is_dropped(memory: MakeMemory) -> None:
    """A peer of which nothing came for an interval after a ping is cut."""
    one = memory(keepalive=30)
    session, wire = one.connect()
    one.clock.pump([1] * 59)
    assert session.is_open
    one.clock.pump([1] * 2)
    assert wire.aborted
    assert session.events == ["opened", "pinging", "closed"]


def test_any_traffic_keeps_alive(memory: MakeMemory) -> None:
    """A peer that sends, but no pong, stays; it is not pinged again before it has answered."""
    one = memory(keepalive=30)
    session, wire = one.connect()
    for _ in range(10):
        one.clock.pump([1] * 20)
        session.dataReceived(client_frame(PONG, b"other"))
    assert session.is_open
    assert session.events == ["opened", "pinging"]
    assert wire.value() == b"\x89\x00"


def test_only_the_answer_to_our_ping_counts(memory: MakeMemory) -> None:
    """An unsolicited pong, and one with a payload, do not say that anything has arrived."""
    one = memory(keepalive=1)
    session, _ = one.connect()
    session.dataReceived(client_frame(PONG))
    one.clock.advance(1)
    session.dataReceived(client_frame(PONG, b"x"))
    assert session.events == ["opened", "pinging"]
    session.dataReceived(client_frame(PONG) * 2)
    assert session.events == ["opened", "pinging", "ponged"]


def test_ping_follows_what_was_sent(memory: MakeMemory) -> None:
    """What the session sends when it learns of the ping leaves before the ping."""

    class Talker(Session):
        def pinging(self) -> None:
            self.send_frame(text_frame(b"last words"))

    one = memory(Talker, keepalive=1)
    _, wire = one.connect()
    one.clock.advance(1)
    assert server_frames(wire.value()) == [(TEXT, b"last words"), (PING, b"")]


def test_peer_that_we_do_not_read_is_not_dropped(memory: MakeMemory) -> None:
    """Silence is our own doing while reading is paused."""
    one = memory(keepalive=1)
    session, wire = one.connect()
    session.pause_reading()
    one.clock.pump([1] * 10)
    session.resume_reading()
    one.clock.advance(1)
    assert session.is_open
    assert not wire.aborted


def test_one_timer_for_all(memory: MakeMemory) -> None:
    """Idle sessions cost no delayed call, and their pings are spread over the interval."""
    one = memory(keepalive=10)
    wires = []
    for _ in range(10):
        wires.append(one.connect()[1])
        one.clock.advance(1)
    assert len(one.clock.getDelayedCalls()) == 1
    pinged = []
    for _ in range(10):
        pinged.append(sum(wire.taken().count(b"\x89\x00") for wire in wires))
        one.clock.advance(1)
    assert max(pinged) == 1


def test_keepalive_can_be_switched_off(memory: MakeMemory) -> None:
    """With an interval of 0 there are no pings, and nobody is dropped."""
    one = memory(keepalive=0)
    session, wire = one.connect()
    one.clock.pump([30] * 10)
    assert session.is_open
    assert wire.value() == b""


# Closing.


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1008, 1009, 1011, 1012, 1013, 4008])
def test_closing_with_any_code(memory: MakeMemory, code: int) -> None:
    """Our close is sent once; the client's answer ends it with the end of our stream."""
    session, wire = memory().connect()
    session.close(code, "reason")
    session.close(1000, "second thoughts")
    session.dataReceived(client_frame(TEXT, b"too late"))
    assert not wire.half_closed
    session.dataReceived(client_close(code))
    assert server_frames(wire.value()) == [close_of(code, "reason")]
    assert wire.half_closed
    assert not wire.aborted
    wire.lose()
    assert session.events == ["opened", "closed"]


def test_long_reasons_are_cut(memory: MakeMemory) -> None:
    """A reason is cut to 123 bytes, between two characters."""
    session, wire = memory().connect()
    session.close(1000, "€" * 100)
    [(_, body)] = server_frames(wire.value())
    assert body[2:].decode() == "€" * 41


def test_peer_that_never_closes_is_cut(memory: MakeMemory) -> None:
    """Whoever began the close, and however, the connection ends in time."""
    for begin in (None, client_close(), client_frame(3), client_frame(TEXT, b"\xff")):
        one = memory(close=5)
        session, wire = one.connect()
        if begin is None:
            session.close(1000)
        else:
            session.dataReceived(begin)
        one.clock.advance(4.9)
        assert not wire.aborted
        one.clock.advance(0.2)
        assert wire.aborted
        assert session.events[-1] == "closed"
        assert not one.factory.sessions


def test_violation_while_closing(memory: MakeMemory) -> None:
    """No second close frame is sent; the connection just ends."""
    session, wire = memory().connect()
    session.close(1000)
    session.dataReceived(client_frame(3))
    assert server_frames(wire.value()) == [close_of(1000)]
    assert wire.half_closed


def test_nothing_is_heard_after_a_violation(memory: MakeMemory) -> None:
    """Input is thrown away, not kept."""
    session, _ = memory().connect()
    session.dataReceived(client_frame(3) + client_frame(TEXT, b"x"))
    session.dataReceived(b"x" * 1000)
    assert session.events == ["opened"]
    assert session.data == b""


def test_closing_a_paused_transport(memory: MakeMemory) -> None:
    """What waits is still handed over, in order, before our side ends."""
    session, wire = memory().connect()
    wire.producer.pauseProducing()
    session.send_text(b"last")
    session.dataReceived(client_close())
    assert server_frames(wire.value()) == [(TEXT, b"last"), close_of(1000)]
    assert wire.half_closed
    assert wire.producer is None


def test_late_calls_do_nothing(memory: MakeMemory) -> None:
    """After the end every service is a no-op."""
    session, wire = memory().connect()
    wire.lose()
    wire.clear()
    session.close(1000)
    session.abort()
    session.pause_reading()
    session.resume_reading()
    session.dataReceived(client_frame(TEXT, b"x"))
    session.keep_alive()
    assert session.when_writable().called
    assert wire.value() == b""
    assert not wire.aborted
    assert session.events == ["opened", "closed"]


def test_shutdown(memory: MakeMemory) -> None:
    """Every client gets 1001, new ones get 503, and the Deferred waits for the last to go."""
    one = memory()
    wires = [one.connect()[1] for _ in range(3)]
    gone = one.factory.shutdown(60)
    assert one.request(handshake()).value().startswith(b"HTTP/1.1 503 ")
    for wire in wires:
        assert server_frames(wire.value()) == [close_of(1001, "going away")]
        assert not gone.called
        wire.protocol.dataReceived(client_close(1001))
        wire.lose()
    assert gone.called
    assert one.factory.shutdown(1).called


def test_shutdown_does_not_wait_for_ever(memory: MakeMemory) -> None:
    """Clients that are still there after the timeout are cut."""
    one = memory(close=100)
    _, wire = one.connect()
    gone = one.factory.shutdown(2)
    one.clock.advance(2)
    assert wire.aborted
    one.clock.advance(0)
    assert gone.called


# On real sockets.


@pytest_twisted.ensureDeferred
async def test_client_that_never_reads() -> None:
    """It is closed when the window is full and cut soon after; the others notice nothing."""
    listener = Listener.open(send_window=200_000, close=0.05)
    lazy, diligent = await listener.connect(), await listener.connect()
    wire: Any = lazy.transport
    wire.pauseProducing()
    [session] = [one for one in listener.factory.sessions if _peer_port(one) == wire.getHost().port]
    most = sent = 0
    while session.send_frame(text_frame(b"x" * 10_000)):
        most = max(most, session._waiting)
        sent += 1
        await listener.turn()
    assert most <= 200_000
    assert sent < 5000
    assert not session.is_open
    assert session._waiting < 100
    gone = listener.bounded(_gone(listener, session))
    other: Any = diligent.transport
    other.write(client_frame(TEXT, b"still there?"))
    await listener.bounded(diligent.until(lambda data: b"still there?" in data))
    await gone
    assert len(listener.factory.sessions) == 1
    wire.abortConnection()
    await listener.bounded(lazy.ended)
    other.write(client_close())
    assert isinstance(await listener.bounded(diligent.ended), ConnectionDone)
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_slow_client_gets_everything() -> None:
    """A client that reads late, but within the window, misses nothing."""
    listener = Listener.open(send_window=2**20)
    client = await listener.connect()
    wire: Any = client.transport
    [session] = listener.factory.sessions
    wire.pauseProducing()
    expected = [(TEXT, b"%05d" % number * 2000) for number in range(500)]
    for number, (_, payload) in enumerate(expected):
        while not session.writable and session._waiting > 900_000:
            wire.resumeProducing()
            await listener.bounded(session.when_writable())
            wire.pauseProducing()
        assert session.send_frame(text_frame(payload))
        if number % 10 == 0:
            await listener.turn()
    wire.resumeProducing()
    session.close(1000)
    wire.write(client_close())
    await listener.bounded(client.ended)
    assert server_frames(after_head(client.received))[:-1] == expected
    await listener.stop()


def _self_signed() -> Any:
    """TLS options of a server that signed its certificate itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
    options: Any = CertificateOptions  # its annotations still want pyOpenSSL's own types
    return options(key, certificate)


@pytest_twisted.ensureDeferred
async def test_tls() -> None:
    """Over TLS too, backpressure works, and a close or a failure arrives and ends cleanly."""
    listener = Listener.open(tls=_self_signed(), message=10**6, send_window=10**6)
    big = client_frame(BINARY, b"x" * 900_000)
    for last, answer in ((client_close(4000), close_of(4000)), (client_frame(3), None)):
        client = await listener.connect()
        wire: Any = client.transport
        wire.write(big + last + client_frame(TEXT, b"too late"))
        assert isinstance(await listener.bounded(client.ended), ConnectionDone)
        echo, end = server_frames(after_head(client.received))
        assert echo == (BINARY, b"x" * 900_000)
        assert end == answer or (answer is None and end[1][:2] == struct.pack("!H", 1002))
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_client_that_disappears() -> None:
    """A connection that is reset leaves no session and no timer."""
    listener = Listener.open(Session)
    client = await listener.connect()
    [session] = listener.factory.sessions
    wire: Any = client.transport
    gone = _gone(listener, session)
    wire.abortConnection()
    await listener.bounded(client.ended)
    await listener.bounded(gone)
    assert not listener.factory.sessions
    await listener.stop()


def _peer_port(session: Any) -> int:
    port: int = session.transport.getPeer().port
    return port


def _gone(listener: Listener, session: Any) -> Deferred[None]:
    """Wait until the server has let go of *session*."""
    deferred: Deferred[None] = Deferred()
    factory: Any = listener.factory
    forget = factory.forget

    def forgetting(one: WebSocketSession) -> None:
        forget(one)
        if one is session:
            deferred.callback(None)

    factory.forget = forgetting
    return deferred
