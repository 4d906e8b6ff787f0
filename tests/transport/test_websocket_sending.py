"""How WebSocket sessions send, wait for slow readers and are kept alive."""

from __future__ import annotations

import struct
from typing import Any

from gatewayd.transport.frames import text_frame
from tests.transport.conftest import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    MakeMemory,
    Session,
    client_frame,
    server_frames,
)


def close_of(code: int, reason: str = "") -> tuple[int, bytes]:
    """The close frame that a server sends."""
    return CLOSE, struct.pack("!H", code) + reason.encode()


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
    one.clock.advance(2.9)
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
