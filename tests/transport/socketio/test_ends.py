"""How many clients there may be, when a silent one is dropped, and the end of all."""

from __future__ import annotations

import pytest

from gatewayd.transport.socketio.rules import EngineRules
from tests.transport.socketio.bench import Bench, numbered
from tests.transport.socketio.conftest import MakeBench

# ---- pings


def test_ping_by_websocket(bench: Bench) -> None:
    """A client is asked again some time after each answer, and dropped when it has none."""
    socket = bench.connect_socket()
    for _ in range(3):
        bench.advance(24.5)
        assert socket.taken() == []
        bench.advance(1.5)
        assert socket.taken() == [b"2"]
        bench.advance(18)
        socket.send(b"3")
    bench.advance(26)
    assert socket.taken() == [b"2"]
    bench.advance(18)
    assert bench.notes.last.open
    bench.advance(3)
    assert bench.notes.told("gone") == ["/"]
    assert socket.wire.aborted


def test_ping_by_polling(bench: Bench) -> None:
    """A polling client is asked by its poll, and answers by a POST."""
    sid = bench.connect()
    poll = bench.poll(sid)
    bench.advance(26)
    assert poll.packets == [b"2"]
    assert bench.post(sid, b"3").body == b"ok"
    poll = bench.poll(sid)
    bench.advance(26)
    assert poll.packets == [b"2"]
    poll = bench.poll(sid)
    bench.advance(21)
    assert poll.packets == [b"1"]
    assert bench.notes.told("gone") == ["/"]
    assert bench.poll(sid).status == 400


def test_client_that_polls_no_more(bench: Bench) -> None:
    """A client of which nothing comes is dropped after both times."""
    bench.connect()
    bench.advance(44)
    assert bench.notes.last.open
    bench.advance(3)
    assert bench.notes.told("gone") == ["/"]
    assert len(bench.server.clients) == 0


def test_packets_are_no_pong(bench: Bench) -> None:
    """Only a pong answers a ping, and one that was not asked for answers none later."""
    socket = bench.connect_socket()
    socket.send(b"3")
    bench.advance(26)
    socket.send(b'42["hello"]')
    bench.advance(21)
    assert bench.notes.told("gone") == ["/"]


def test_ping_across_an_upgrade(bench: Bench) -> None:
    """A ping that a poll brought is answered by WebSocket as well."""
    sid = bench.connect()
    bench.advance(26)
    assert bench.poll(sid).packets == [b"2"]
    socket = bench.socket(sid=sid)
    socket.send(b"2probe", b"5", b"3")
    bench.advance(24)
    assert socket.taken() == [b"3probe"]
    bench.advance(2)
    assert socket.taken() == [b"2"]


# ---- limits


def test_most_clients(make_bench: MakeBench) -> None:
    """Clients are counted whichever transport they have; the one too many is refused."""
    bench = make_bench(connections=2)
    sid, socket = bench.open(), bench.socket()
    assert socket.accepted
    assert bench.ask(EIO="4", transport="polling").status == 503
    assert bench.socket().head.startswith(b"HTTP/1.1 503 ")
    assert bench.ask(EIO="4", transport="polling").header("Access-Control-Allow-Origin") == "*"
    bench.post(sid, b"1")
    bench.open()


def test_most_clients_of_an_address(make_bench: MakeBench) -> None:
    """One address may not have them all, and its change to WebSocket is no client more."""
    bench = make_bench(connections_per_address=2)
    sid, other = bench.open(), bench.open()
    assert bench.ask(EIO="4", transport="polling").status == 503
    assert not bench.socket().accepted
    assert bench.socket(host="192.0.2.2").accepted
    for each in (sid, other):
        socket = bench.socket(sid=each)
        socket.send(b"2probe", b"5")
        assert socket.taken() == [b"3probe"]
        socket.send(b"1")
        socket.wire.lose()
    assert bench.socket().accepted
    bench.open()
    assert bench.ask(EIO="4", transport="polling").status == 503


def test_closed_client_that_was_not_told_counts(make_bench: MakeBench) -> None:
    """Whose last packets are kept is a client still."""
    bench = make_bench(connections=1)
    sid = bench.connect()
    bench.notes.last.disconnect()
    assert bench.ask(EIO="4", transport="polling").status == 503
    assert bench.poll(sid).packets == [b"41"]
    assert bench.poll(sid).packets == [b"1"]
    bench.open()


# ---- the end


def test_stop(bench: Bench) -> None:
    """Everybody is told: WebSockets by 1001, polls by an answer; nobody new comes in."""
    socket = bench.connect_socket()
    sid, idle = bench.connect(), bench.connect()
    for connection in bench.notes.arrivals:
        connection.send(numbered(1))
    first = bench.poll(sid)
    poll = bench.poll(sid)
    stopped = bench.stop()
    assert not stopped.called
    assert first.packets == [b'42["data",1]']
    assert poll.packets == [b"1"]
    assert bench.poll(idle).packets == [b'42["data",1]']
    assert bench.poll(idle).packets == [b"1"]
    assert bench.notes.told("gone") == ["/", "/", "/"]
    assert socket.taken() == [b'42["data",1]', b"1001"]
    assert bench.ask(EIO="4", transport="polling").status == 503
    assert not bench.socket().accepted
    socket.wire.lose()
    assert stopped.called


def test_stop_with_a_peer_that_stays(bench: Bench) -> None:
    """Who does not close is cut off in time, an unfinished change included."""
    socket = bench.connect_socket()
    sid = bench.connect()
    probation = bench.socket(sid=sid)
    probation.send(b"2probe")
    stopped = bench.stop(1)
    assert probation.taken() == [b"3probe", b"1000"]
    bench.advance(1.5)
    assert stopped.called
    assert socket.wire.aborted
    assert probation.wire.aborted
    assert not bench.timers


def test_stop_of_nobody(bench: Bench) -> None:
    """Without clients it is over at once, and may begin again."""
    assert bench.stop().called
    bench.server.start()
    assert bench.connect()


def test_packets_of_the_last_turn(bench: Bench) -> None:
    """What was sent in the turn in which all ends does not disturb the end."""
    sid = bench.connect()
    poll = bench.poll(sid)
    bench.notes.last.send(numbered(1))
    assert bench.stop().called
    assert poll.packets == [b'42["data",1]']
    assert not bench.timers


@pytest.mark.parametrize("seconds", [1.0, 0.3])
def test_short_times(make_bench: MakeBench, seconds: float) -> None:
    """The client is told the times in milliseconds."""
    bench = make_bench(EngineRules(ping_interval=seconds, ping_timeout=seconds))
    packet = bench.ask(EIO="4", transport="polling").packets[0]
    assert b'"pingInterval":%d,"pingTimeout":%d,' % (seconds * 1000, seconds * 1000) in packet
