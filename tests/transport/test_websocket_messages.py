"""How WebSocket sessions open and receive."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from autobahn.twisted.websocket import WebSocketServerProtocol
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from gatewayd.transport.parser import MessageParser
from gatewayd.transport.websocket import (
    Refused,
    WebSocketFactory,
    WebSocketLimits,
)
from tests.transport.conftest import (
    BINARY,
    CLOSE,
    PONG,
    TEXT,
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


def test_connections_are_capped_per_address(memory: MakeMemory) -> None:
    """One address too often gets 503; when one of its sockets has gone there is room again."""
    one = memory(connections_per_address=1)
    _, first = one.connect()
    assert one.request(handshake()).value().startswith(b"HTTP/1.1 503 ")
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
