"""Whatever clients do, in whichever order: nothing fails, hangs, is lost or stays."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.transport.socketio.rules import EngineRules
from tests.transport.http_bench import logged_failures
from tests.transport.socketio.bench import Bench, Exchange, Socket, numbered

MOST = 3
WINDOW = 400
PACKETS = st.sampled_from(
    [
        *(b"40", b"40/b,", b"41", b"41/b,", b"1", b"3", b"5", b"6", b"2probe"),
        *(b'42["a"]', b'42/b,["a"]', b"", b"7", b"44", b"451-[]", b"\xff", b"bAAAA"),
    ]
)
STEPS = st.one_of(
    st.tuples(st.just("open")),
    st.tuples(st.just("socket"), st.none() | st.integers(0, 3)),
    st.tuples(st.just("poll"), st.integers(0, 3)),
    st.tuples(st.just("post"), st.integers(0, 3), st.lists(PACKETS, min_size=1, max_size=4)),
    st.tuples(st.just("send"), st.integers(0, 3), st.lists(PACKETS, min_size=1, max_size=4)),
    st.tuples(st.just("lose"), st.integers(0, 20)),
    st.tuples(st.just("pause"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("event"), st.integers(0, 3), st.integers(0, 10**60)),
    st.tuples(st.just("answer"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("disconnect"), st.integers(0, 3)),
    st.tuples(st.just("advance"), st.sampled_from([0, 0.5, 3, 12, 30])),
)


class Play:
    """A bench on which clients do as a script says."""

    def __init__(self) -> None:
        self.bench = Bench(EngineRules(connect=20), connections=MOST, send_window=WINDOW)
        self.bench.notes.on_arrival = lambda _connection: None
        self.sids: list[str] = []
        self.sockets: list[Socket] = []
        self.polls: list[Exchange] = []

    def do(self, step: str, *arguments: Any) -> None:
        getattr(self, step)(*arguments)

    def open(self) -> None:
        exchange = self.bench.ask(EIO="4", transport="polling")
        if exchange.status == 200:
            self.sids.append(exchange.body.split(b'"')[3].decode())

    def socket(self, which: int | None) -> None:
        query = {} if which is None else {"sid": self.sid(which)}
        socket = self.bench.socket(**query)
        if socket.accepted:
            self.sockets.append(socket)

    def poll(self, which: int) -> None:
        self.polls.append(self.bench.poll(self.sid(which)))

    def post(self, which: int, packets: list[bytes]) -> None:
        assert self.bench.post(self.sid(which), *packets).done

    def send(self, which: int, packets: list[bytes]) -> None:
        for socket in self.sockets[which : which + 1]:
            socket.send(*packets)

    def lose(self, which: int) -> None:
        for wire in self.bench.wires[which : which + 1]:
            wire.lose()

    def pause(self, which: int, pause: bool) -> None:
        for socket in self.sockets[which : which + 1]:
            if not socket.wire.lost:
                protocol = socket.wire.protocol
                (protocol.pauseProducing if pause else protocol.resumeProducing)()

    def event(self, which: int, number: int) -> None:
        for connection in self.bench.notes.arrivals[which : which + 1]:
            connection.send(numbered(number, connection.namespace))

    def answer(self, which: int, accept: bool) -> None:
        for connection in self.bench.notes.arrivals[which : which + 1]:
            if accept:
                connection.accept()
            else:
                connection.refuse(b"{}")

    def disconnect(self, which: int) -> None:
        for connection in self.bench.notes.arrivals[which : which + 1]:
            connection.disconnect()

    def advance(self, seconds: float) -> None:
        self.bench.advance(seconds)
        self.bench.turn()

    def sid(self, which: int) -> str:
        return self.sids[which] if which < len(self.sids) else "nobody"

    def check(self) -> None:
        """Look for what must hold at any time."""
        assert len(self.bench.server.clients) <= MOST
        open_now = [each for each in self.bench.notes.arrivals if each.open]
        assert len(open_now) <= 2 * MOST
        assert len(self.bench.notes.told("gone")) <= len(self.bench.notes.arrivals)

    def check_end(self) -> None:
        """Nobody speaks any more, so everybody is dropped, and all polls are answered."""
        rules = EngineRules()
        self.bench.advance(2 * rules.ping_interval + 2 * rules.ping_timeout)
        assert len(self.bench.server.clients) == 0
        assert not self.bench.timers
        assert all(poll.done for poll in self.polls if not poll.wire.lost)
        self.bench.check_clean()


@given(st.lists(STEPS, max_size=40))
def test_any_sequence(steps: list[tuple[Any, ...]]) -> None:
    """No sequence of requests, packets, losses and decisions brings the server out of order."""
    with logged_failures() as failures:
        play = Play()
        for step in steps:
            play.do(*step)
            play.check()
        play.check_end()
    assert failures == []


@given(st.lists(st.sampled_from(["send", "poll", "turn", "upgrade", "probe"]), max_size=30))
def test_nothing_is_lost_or_out_of_order(steps: list[str]) -> None:
    """Events arrive once each and in their order, whenever a client changes its transport."""
    bench = Bench()
    sid = bench.connect()
    socket: Socket | None = None
    hanging: Exchange | None = None
    changed = False
    got: list[bytes] = []
    sent = 0
    for step in [*steps, *["turn", "poll"] * 3, "turn"]:
        if hanging is not None and hanging.done:
            got += hanging.packets
            hanging = None
        if step == "send":
            assert bench.notes.last.send(numbered(sent))
            sent += 1
        elif step == "poll" and not changed and hanging is None:
            hanging = bench.poll(sid)
        elif step == "turn":
            bench.turn()
        elif step == "probe" and socket is None:
            socket = bench.socket(sid=sid)
            socket.send(b"2probe")
        elif step == "upgrade" and socket is not None and not changed and hanging is None:
            socket.send(b"5")  # its polls are over, as they have to be
            changed = True
    if hanging is not None and hanging.done:
        got += hanging.packets
    if socket is not None:
        got += socket.taken()
    events = [packet for packet in got if packet not in (b"6", b"3probe")]
    assert events == [b'42["data",%d]' % number for number in range(sent)]
    bench.check_clean()


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes(data: bytes, framed: bool) -> None:
    """Garbage behind a handshake, and instead of packets, only ends its client."""
    with logged_failures() as failures:
        bench = Bench()
        socket = bench.connect_socket()
        socket.receive(data)
        if framed:
            socket.send(data)
        sid = bench.connect()
        assert bench.post(sid, data).done
        bench.check_clean()
    assert failures == []


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60), st.booleans())
def test_any_query(query: str, post: bool) -> None:
    """Whatever the query says, there is one complete answer."""
    with logged_failures() as failures:
        bench = Bench()
        line = f"{'POST' if post else 'GET'} /socket.io/?{query} HTTP/1.1\r\n"
        wire = bench.wire(f"{line}Host: gw\r\nContent-Length: 0\r\n\r\n".encode())
        assert wire.taken().startswith(b"HTTP/1.1 ")
        bench.check_clean()
    assert failures == []
