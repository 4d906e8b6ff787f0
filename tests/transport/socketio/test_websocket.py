"""Engine.IO by WebSocket: from the beginning, and as a change from polling."""

from __future__ import annotations

import json

import pytest
from twisted.python.failure import Failure

from gatewayd.transport.socketio.packets import Batch
from gatewayd.transport.socketio.rules import EngineRules
from tests.transport.conftest import BINARY, client_close, client_frame, handshake
from tests.transport.socketio.bench import PATH, Bench, Socket, numbered
from tests.transport.socketio.conftest import MakeBench


def probe(bench: Bench, sid: str) -> Socket:
    """Open a second way for a client, and have it answer."""
    socket = bench.socket(sid=sid)
    assert socket.accepted
    socket.send(b"2probe")
    assert socket.taken() == [b"3probe"]
    return socket


# ---- WebSocket from the beginning


def test_open(bench: Bench) -> None:
    """A client may begin by WebSocket; it is offered no other."""
    socket = bench.socket(sessionId="s")
    (packet,) = socket.taken()
    opened = json.loads(packet[1:])
    assert packet[:1] == b"0"
    assert opened["upgrades"] == []
    assert (opened["pingInterval"], opened["maxPayload"]) == (25000, 1_000_000)
    socket.send(b"40")
    bench.turn()
    (connected,) = socket.taken()
    assert connected[:2] == b"40"
    assert json.loads(connected[2:])["sid"] != opened["sid"]
    connection = bench.notes.last
    assert connection.first_transport == "websocket"
    assert connection.host == "192.0.2.1"
    assert connection.query["sessionId"] == "s"


def test_events(bench: Bench) -> None:
    """What one reactor turn sends goes in one piece, in its order."""
    socket = bench.connect_socket()
    before = socket.wire.writes
    for number in range(3):
        assert bench.notes.last.send(numbered(number))
    bench.turn()
    assert socket.wire.writes == before + 1
    assert socket.taken() == [b'42["data",%d]' % number for number in range(3)]


def test_batch(bench: Bench) -> None:
    """Packets that are sent together keep their place among others."""
    socket = bench.connect_socket()
    connection = bench.notes.last
    connection.send(numbered(0))
    assert connection.send_all(Batch([numbered(1), numbered(2)]))
    connection.send(numbered(3))
    bench.turn()
    assert socket.taken() == [b'42["data",%d]' % number for number in range(4)]
    connection.disconnect()
    assert not connection.send_all(Batch([numbered(4)]))


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ({"transport": "x"}, b'{"code":0,"message":"Transport unknown"}'),
        ({"sid": "x"}, b'{"code":1,"message":"Session ID unknown"}'),
        ({"transport": "polling"}, b'{"code":3,"message":"Bad request"}'),
        ({"EIO": "3"}, b'{"code":5,"message":"Unsupported protocol version"}'),
    ],
)
def test_refused_handshakes(bench: Bench, query: dict[str, str], body: bytes) -> None:
    """A handshake that does not fit is answered with Engine.IO's own error."""
    socket = bench.socket(**query)
    assert socket.head.startswith(b"HTTP/1.1 400 ")
    assert socket.rest == body


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (b"7", b"1002"),
        (b"x", b"1002"),
        (b"0{}", b"1002"),
        (b"2", b"1002"),
        (b"4", b"1002"),
        (b"4x", b"1002"),
        (b'42/other,["a"]', b"1002"),
        (b"40", b"1002"),
        (b'44{"message":"x"}', b"1002"),
        (b'451-["a",{}]', b"1003"),
        (b"bAAAA", b"1003"),
    ],
)
def test_garbage(bench: Bench, packet: bytes, code: bytes) -> None:
    """What is no packet, or has no place, ends the client; what follows is not looked at."""
    socket = bench.connect_socket()
    socket.send(packet, b'42["late"]')
    assert socket.taken() == [code]
    assert bench.notes.told("event") == []
    assert bench.notes.told("gone") == ["/"]


def test_empty_packet(bench: Bench) -> None:
    """An empty text is garbage."""
    socket = bench.connect_socket()
    socket.send(b"")
    assert socket.taken() == [b"1002"]


def test_binary(bench: Bench) -> None:
    """Binary messages are refused."""
    socket = bench.connect_socket()
    socket.receive(client_frame(BINARY, b"42"))
    assert socket.taken() == [b"1003"]
    assert bench.notes.told("gone") == ["/"]


def test_too_long_message(make_bench: MakeBench) -> None:
    """A message that is longer than the client was told ends it."""
    bench = make_bench(EngineRules(max_payload=100))
    socket = bench.connect_socket()
    socket.send(b'42["%b"]' % (b"x" * 94))
    assert len(bench.notes.told("event")) == 1
    socket.send(b'42["%b"]' % (b"x" * 95))
    assert socket.taken() == [b"1009"]
    assert bench.notes.told("gone") == ["/"]


def test_ignored_packets(bench: Bench) -> None:
    """Packets that mean nothing here change nothing."""
    socket = bench.connect_socket()
    socket.send(b"6", b"5", b"3", b"3probe", b'43["an ack"]', b'42["hello"]')
    assert bench.notes.told("event") == [b'["hello"]']
    assert socket.taken() == []


@pytest.mark.parametrize("data", [client_frame(1, b"1"), client_close(), client_close(None)])
def test_close_by_the_client(bench: Bench, data: bytes) -> None:
    """A client goes by a packet or by a close frame."""
    socket = bench.connect_socket()
    socket.receive(data)
    assert bench.notes.told("gone") == ["/"]
    assert not bench.notes.last.send(numbered(1))


def test_lost_connection(bench: Bench) -> None:
    """A client is gone with its connection."""
    socket = bench.connect_socket()
    socket.wire.lose()
    assert bench.notes.told("gone") == ["/"]


def test_slow_reader(make_bench: MakeBench) -> None:
    """A client that does not read what waits is closed with 1013."""
    bench = make_bench(send_window=1000)
    socket = bench.connect_socket()
    connection = bench.notes.last
    socket.wire.protocol.pauseProducing()
    assert not connection.writable
    waiting = connection.when_writable()
    assert connection.send(numbered(10**900))
    assert not connection.send(numbered(10**900))
    assert bench.notes.told("gone") == ["/"]
    assert waiting.called
    socket.wire.protocol.resumeProducing()
    assert socket.taken() == [b"1013"]


def test_writable(bench: Bench) -> None:
    """A client takes more when its transport does."""
    socket = bench.connect_socket()
    socket.wire.protocol.pauseProducing()
    waiting = bench.notes.last.when_writable()
    bench.notes.last.send(numbered(1))
    socket.wire.protocol.resumeProducing()
    assert waiting.called
    assert socket.taken() == [b'42["data",1]']


# ---- a change from polling


def test_upgrade(bench: Bench) -> None:
    """The poll that hangs is released, and then everything goes by the WebSocket."""
    sid = bench.connect(sessionId="s")
    connection = bench.notes.last
    poll = bench.poll(sid)
    socket = probe(bench, sid)
    assert poll.packets == [b"6"]
    connection.send(numbered(1))
    bench.turn()
    assert socket.taken() == []
    socket.send(b"5")
    connection.send(numbered(2))
    bench.turn()
    assert socket.taken() == [b'42["data",1]', b'42["data",2]']
    socket.send(b'42["hello"]')
    assert bench.notes.told("event") == [b'["hello"]']
    assert connection.open
    assert connection.first_transport == "polling"
    assert connection.query["sessionId"] == "s"
    assert bench.notes.told("arrived") == ["/"]


def test_polls_during_an_upgrade(bench: Bench) -> None:
    """Until the client says so, packets still go with its polls, and none hangs any more."""
    sid = bench.connect()
    connection = bench.notes.last
    poll = bench.poll(sid)
    connection.send(numbered(1))
    socket = probe(bench, sid)
    assert poll.packets == [b'42["data",1]']
    assert bench.poll(sid).packets == [b"6"]
    connection.send(numbered(2))
    assert bench.poll(sid).packets == [b'42["data",2]']
    assert bench.post(sid, b'42["hello"]').body == b"ok"
    socket.send(b"5")
    assert socket.taken() == []
    assert json.loads(bench.poll(sid).body)["code"] == 3
    assert json.loads(bench.post(sid, b'42["late"]').body)["code"] == 3
    assert bench.notes.told("event") == [b'["hello"]']


def test_poll_before_a_probe(bench: Bench) -> None:
    """A WebSocket that says nothing yet leaves polls as they are."""
    sid = bench.connect()
    socket = bench.socket(sid=sid)
    poll = bench.poll(sid)
    assert not poll.done
    bench.notes.last.send(numbered(1))
    bench.turn()
    assert poll.packets == [b'42["data",1]']
    assert socket.taken() == []


@pytest.mark.parametrize("packets", [[b"40"], [b"5"], [b"2"], [b"2probe", b"42"], [b""]])
def test_upgrade_gone_wrong(bench: Bench, packets: list[bytes]) -> None:
    """A WebSocket that does something else is closed, and polling goes on."""
    sid = bench.connect()
    socket = bench.socket(sid=sid)
    socket.send(*packets)
    assert socket.taken()[-1] == b"1002"
    bench.notes.last.send(numbered(1))
    assert bench.poll(sid).packets == [b'42["data",1]']
    poll = bench.poll(sid)
    assert not poll.done
    assert bench.socket(sid=sid).accepted


def test_upgrade_lost(bench: Bench) -> None:
    """A WebSocket that is lost before it is needed leaves the client polling."""
    sid = bench.connect()
    probe(bench, sid).wire.lose()
    poll = bench.poll(sid)
    assert not poll.done
    assert bench.notes.last.open
    socket = probe(bench, sid)
    assert poll.packets == [b"6"]
    socket.send(b"5")
    bench.notes.last.send(numbered(1))
    bench.turn()
    assert socket.taken() == [b'42["data",1]']


@pytest.mark.parametrize("probed", [False, True])
def test_upgrade_too_slow(bench: Bench, probed: bool) -> None:
    """A change that is not finished in time is given up, and polling goes on."""
    sid = bench.connect()
    socket = probe(bench, sid) if probed else bench.socket(sid=sid)
    bench.advance(9.5)
    assert socket.taken() == []
    bench.advance(1.5)
    assert socket.taken() == [b"1000"]
    bench.notes.last.send(numbered(1))
    assert bench.poll(sid).packets == [b'42["data",1]']


def test_second_upgrade(bench: Bench) -> None:
    """A client may try one WebSocket at a time, and none when it has one."""
    sid = bench.connect()
    first = probe(bench, sid)
    refused = bench.socket(sid=sid)
    assert refused.rest == b'{"code":3,"message":"Bad request"}'
    first.send(b"5")
    assert not bench.socket(sid=sid).accepted
    assert bench.notes.last.open
    assert not bench.socket(sid=json.loads(bench.socket().taken()[0][1:])["sid"]).accepted


def test_client_ends_during_an_upgrade(bench: Bench) -> None:
    """The new way ends with the client."""
    sid = bench.connect()
    socket = probe(bench, sid)
    bench.post(sid, b"1")
    assert socket.taken() == [b"1000"]
    assert bench.notes.told("gone") == ["/"]


def test_poll_that_hangs_at_the_end_of_an_upgrade(bench: Bench) -> None:
    """A client that polls and changes at the same time is answered all the same."""
    sid = bench.connect()
    socket = bench.socket(sid=sid)
    line = f"GET {PATH}?transport=polling&sid={sid} HTTP/1.1\r\nHost: gw\r\n\r\n"
    wire = bench.wire(line.encode() * 2)
    bench.notes.last.send(numbered(1))
    socket.send(b"2probe", b"5")
    bench.turn()
    assert socket.taken() == [b"3probe"]
    answers = wire.taken()
    assert b'42["data",1]' in answers
    assert answers.count(b"HTTP/1.1 ") == 2


def test_early_packets(bench: Bench) -> None:
    """A client need not wait for the answer to its handshake."""
    data = handshake(path=f"{PATH}?EIO=4&transport=websocket") + client_frame(1, b"40")
    socket = Socket(bench.wire(data))
    bench.turn()
    assert [packet[:1] for packet in socket.taken()] == [b"0", b"4"]
    assert bench.notes.last.open


def test_failing_application(bench: Bench, failures: list[Failure]) -> None:
    """An application that fails is logged, and its client closed."""
    bench.notes.on_arrival = lambda _connection: 1 // 0  # type: ignore[assignment,return-value]
    socket = bench.socket()
    socket.send(b"40")
    assert socket.taken()[-1] == b"1011"
    assert [failure.type for failure in failures] == [ZeroDivisionError]
    assert bench.notes.told("gone") == ["/"]
    sid = bench.open()
    bench.post(sid, b"40")
    assert bench.poll(sid).packets == [b"1"]
