"""How WebSocket sessions end, and how they fare on real sockets."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone

from gatewayd.transport.frames import text_frame
from gatewayd.transport.websocket import (
    WebSocketSession,
)
from tests.fake_server import certificate
from tests.transport.conftest import (
    BINARY,
    CLOSE,
    TEXT,
    Listener,
    MakeMemory,
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


@pytest_twisted.ensureDeferred
async def test_tls() -> None:
    """Over TLS too, backpressure works, and a close or a failure arrives and ends cleanly."""
    _, options = certificate()
    listener = Listener.open(tls=options, message=10**6, send_window=10**6)
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
