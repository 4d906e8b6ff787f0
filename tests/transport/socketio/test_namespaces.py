"""Socket.IO: namespaces, and what the application does with who asks for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.python.failure import Failure

from gatewayd.transport.socketio.connection import Connection
from gatewayd.transport.socketio.packets import event_packet
from gatewayd.transport.socketio.rules import EngineRules
from tests.transport.socketio.bench import Bench, numbered
from tests.transport.socketio.conftest import MakeBench

REASON = b'{"message":"No such sessionId"}'


def leave_it(_connection: Connection) -> None:
    """Decide later."""


@pytest.mark.parametrize(
    ("packet", "namespace", "answer"),
    [
        (b"40", "/", b'40{"sid":"'),
        (b"40/,", "/", b'40{"sid":"'),
        (b'40{"token":"x"}', "/", b'40{"sid":"'),
        (b"40/path,", "/path", b'40/path,{"sid":"'),
        (b"40/path", "/path", b'40/path,{"sid":"'),
        (b'40/path?sessionId=1,{"token":"x"}', "/path", b'40/path,{"sid":"'),
        (b"40/a/b,", "/a/b", b'40/a/b,{"sid":"'),
    ],
)
def test_connect(bench: Bench, packet: bytes, namespace: str, answer: bytes) -> None:
    """Any namespace may be asked for; its name is in the answer and in what follows."""
    sid = bench.open()
    bench.post(sid, packet)
    connection = bench.notes.last
    assert connection.namespace == namespace
    assert connection.open
    connection.send(event_packet(namespace, "data", b"1"))
    connected, event = bench.poll(sid).packets
    assert connected.startswith(answer)
    prefix = b"" if namespace == "/" else namespace.encode() + b","
    assert event == b'42%b["data",1]' % prefix


def test_decision_later(bench: Bench) -> None:
    """Nothing reaches a client before it is accepted, and that only once."""
    bench.notes.on_arrival = leave_it
    sid = bench.open()
    bench.post(sid, b"40")
    connection = bench.notes.last
    assert not connection.open
    assert not connection.send(numbered(1))
    poll = bench.poll(sid)
    connection.accept()
    connection.accept()
    connection.refuse(REASON)
    bench.turn()
    (packet,) = poll.packets
    assert packet.startswith(b'40{"sid":')
    assert connection.send(numbered(1))


def test_client_that_does_not_wait_for_the_decision(bench: Bench) -> None:
    """A client may give up, or ask for others; the application hears of it later."""
    bench.notes.on_arrival = leave_it
    socket = bench.socket()
    socket.send(b"40", b"40/b,", b"41")
    assert bench.notes.events == [("arrived", "/"), ("arrived", "/b"), ("gone", "/")]
    bench.notes.last.accept()
    socket.send(b"40")
    assert bench.notes.events[3:] == [("heard", "/b"), ("arrived", "/")]


def test_decision_too_late(bench: Bench) -> None:
    """When the client has gone, a decision changes nothing."""
    bench.notes.on_arrival = leave_it
    socket = bench.socket()
    socket.send(b"40")
    socket.wire.lose()
    for decide in (Connection.accept, lambda each: each.refuse(REASON), Connection.disconnect):
        decide(bench.notes.last)
    assert not bench.notes.last.open
    assert not bench.notes.last.send(numbered(1))
    assert bench.notes.told("gone") == ["/"]


@pytest.mark.parametrize("namespace", [b"", b"/path,"])
def test_refuse(bench: Bench, namespace: bytes) -> None:
    """Who is refused is told why, and may ask again."""
    bench.notes.on_arrival = lambda connection: connection.refuse(REASON)
    socket = bench.socket()
    socket.taken()
    for _ in range(2):
        socket.send(b"40" + namespace)
        bench.turn()
        assert socket.taken() == [b"44" + namespace + REASON]
    assert len(bench.notes.told("gone")) == 2
    assert not bench.notes.last.open


def test_several_namespaces(bench: Bench) -> None:
    """A client may be in several namespaces, and leave one of them."""
    socket = bench.connect_socket()
    socket.send(b"40/b,")
    root, other = bench.notes.arrivals
    bench.turn()
    socket.taken()
    socket.send(b"41")
    assert bench.notes.told("gone") == ["/"]
    assert not root.send(numbered(1))
    assert other.send(numbered(2, "/b"))
    socket.send(b'42/b,["hello"]', b"41/b,", b"41/b,")
    assert bench.notes.told("event") == [b'["hello"]']
    assert bench.notes.told("gone") == ["/", "/b"]
    bench.turn()
    assert socket.taken() == [b'42/b,["data",2]']
    socket.send(b"40")
    assert bench.notes.last.open


def test_too_many_namespaces(bench: Bench) -> None:
    """A client may be in eight namespaces; others it is refused."""
    socket = bench.socket()
    socket.send(*(b"40/n%d," % number for number in range(10)))
    bench.turn()
    assert [packet[:5] for packet in socket.taken()][-2:] == [b"44/n8", b"44/n9"]
    assert len(bench.notes.told("arrived")) == 8
    socket.send(b"41/n0,", b"40/n9,")
    assert bench.notes.last.namespace == "/n9"


@pytest.mark.parametrize("packet", [b'42["a"]', b"43[]", b'42/b,["a"]', b"40"])
def test_not_let_in_yet(bench: Bench, packet: bytes) -> None:
    """A client that speaks before it is let in, or asks twice, is closed."""
    bench.notes.on_arrival = leave_it
    socket = bench.socket()
    socket.taken()
    socket.send(b"40", packet)
    assert socket.taken() == [b"1002"]
    assert bench.notes.told("gone") == ["/"]


def test_disconnect(bench: Bench) -> None:
    """A client that is put out is told so, after all that was sent, and closed."""
    socket = bench.connect_socket()
    bench.notes.last.send(numbered(1))
    bench.notes.last.disconnect()
    assert bench.notes.told("gone") == ["/"]
    bench.notes.last.disconnect()
    bench.turn()
    assert socket.taken() == [b'42["data",1]', b"41", b"1000"]


def test_disconnect_from_one_of_several(bench: Bench) -> None:
    """The client stays as long as it is in another namespace."""
    socket = bench.connect_socket()
    socket.send(b"40/b,")
    root, other = bench.notes.arrivals
    bench.turn()
    socket.taken()
    root.disconnect()
    socket.send(b"41")  # crossed ours
    bench.turn()
    assert socket.taken() == [b"41"]
    other.disconnect()
    bench.turn()
    assert socket.taken() == [b"41/b,", b"1000"]


def test_disconnect_while_a_poll_hangs(bench: Bench) -> None:
    """The poll brings the last packets, the next one the end; then the client is not known.

    Together they would be taken for a lost connection by socket.io-client.
    """
    sid = bench.connect()
    poll = bench.poll(sid)
    bench.notes.last.disconnect()
    assert poll.packets == [b"41"]
    assert bench.poll(sid).packets == [b"1"]
    assert bench.poll(sid).status == 400


def test_disconnect_between_two_polls(bench: Bench) -> None:
    """The next poll brings the last packets; what the client sends meanwhile is ignored."""
    sid = bench.connect()
    bench.notes.last.send(numbered(1))
    bench.notes.last.disconnect()
    assert bench.notes.told("gone") == ["/"]
    assert not bench.notes.last.send(numbered(2))
    assert bench.post(sid, b'42["late"]').body == b"ok"
    assert not bench.socket(sid=sid).accepted
    assert bench.poll(sid).packets == [b'42["data",1]', b"41"]
    assert bench.poll(sid).packets == [b"1"]
    assert bench.poll(sid).status == 400
    assert bench.notes.told("event") == []


def test_client_that_goes_when_it_is_put_out(bench: Bench) -> None:
    """A client that has learnt of its end and says so is forgotten."""
    sid = bench.connect()
    bench.notes.last.disconnect()
    assert bench.poll(sid).packets == [b"41"]
    assert bench.post(sid, b"3", b"garbage").body == b"ok"
    assert len(bench.server.clients) == 1
    assert bench.post(sid, b"1").body == b"ok"
    assert len(bench.server.clients) == 0
    assert bench.poll(sid).status == 400


def test_many_last_packets(bench: Bench) -> None:
    """As many polls as it takes bring the last packets."""
    sid = bench.connect()
    for number in range(20):
        bench.notes.last.send(numbered(number))
    bench.notes.last.disconnect()
    bench.advance(15)
    assert len(bench.poll(sid).packets) == 16
    bench.advance(15)
    assert bench.poll(sid).packets[-1] == b"41"
    bench.advance(15)
    assert bench.poll(sid).packets == [b"1"]
    assert bench.poll(sid).status == 400


def test_last_packets_that_nobody_fetches(bench: Bench) -> None:
    """They are kept as long as an answer to a ping may take."""
    sid = bench.connect()
    bench.notes.last.disconnect()
    bench.advance(19)
    assert len(bench.server.clients) == 1
    bench.advance(2)
    assert len(bench.server.clients) == 0
    assert bench.poll(sid).status == 400


@pytest.mark.parametrize("begin", [Bench.open, Bench.socket])
def test_nobody_asks(bench: Bench, begin: Callable[[Bench], object]) -> None:
    """A client that asks for no namespace is closed."""
    rules = EngineRules()
    client = begin(bench)
    for _ in range(2):  # pings
        bench.advance(rules.connect / 2 - 1)
        if isinstance(client, str):
            bench.poll(client)
            bench.post(client, b"3")
        else:
            client.send(b"3")  # type: ignore[attr-defined]
    assert len(bench.server.clients) == 1
    bench.advance(3)
    if isinstance(client, str):
        bench.poll(client)
    assert len(bench.server.clients) == 0


@pytest.mark.parametrize("leave", [b"41", b"44"])
def test_nobody_asks_again(make_bench: MakeBench, leave: bytes) -> None:
    """A client that has left, or was refused, has to ask again in time."""
    bench = make_bench(EngineRules(connect=5))
    if leave == b"44":
        bench.notes.on_arrival = lambda connection: connection.refuse(REASON)
    socket = bench.socket()
    bench.advance(4)
    socket.send(b"40", b"41")
    bench.turn()
    socket.taken()
    bench.advance(4)
    assert socket.taken() == []
    bench.advance(2)
    assert socket.taken() == [b"1000"]


def test_alive(bench: Bench) -> None:
    """The application hears of packets and pongs of those whom it has let in."""
    socket = bench.socket()
    socket.send(b"40", b"40/b,", b'42["hello"]')
    assert bench.notes.events == [
        ("arrived", "/"),
        ("heard", "/"),
        ("arrived", "/b"),
        ("heard", "/"),
        ("heard", "/b"),
        ("event", b'["hello"]'),
    ]
    bench.notes.events.clear()
    socket.send(b"3")
    assert bench.notes.events == []
    bench.advance(26)
    socket.send(b"3", b"3")
    assert bench.notes.events == [("heard", "/"), ("heard", "/b")]
    bench.notes.events += [("arrived", "/"), ("arrived", "/b")]


@pytest.mark.parametrize("packet", [b'42["hello"]', b"40/b,"])
def test_end_by_the_application_while_it_hears(bench: Bench, packet: bytes) -> None:
    """What an application puts out when it hears of it is not heard any more."""
    socket = bench.connect_socket()
    bench.notes.heard = Connection.disconnect  # type: ignore[method-assign,assignment]
    socket.send(packet)
    bench.turn()
    assert socket.taken() == [b"41", b"1000"]
    assert bench.notes.told("event") == []
    assert bench.notes.told("arrived") == ["/"]


def test_one_connection_ends_another(bench: Bench) -> None:
    """An application may end the others of a client when it learns of the end of one."""
    socket = bench.connect_socket()
    socket.send(b"40/b,")
    root, other = bench.notes.arrivals
    told = bench.notes.gone

    def end_all(connection: Connection) -> None:
        told(connection)
        root.disconnect()
        other.disconnect()

    bench.notes.gone = end_all  # type: ignore[method-assign]
    socket.wire.lose()
    assert sorted(bench.notes.told("gone")) == ["/", "/b"]


def test_failure_in_an_end(bench: Bench, failures: list[Failure]) -> None:
    """An application that fails when it learns of an end learns of all of them."""
    socket = bench.connect_socket()
    socket.send(b"40/b,")
    told = bench.notes.gone

    def fail(connection: Connection) -> None:
        told(connection)
        raise ValueError

    bench.notes.gone = fail  # type: ignore[method-assign]
    socket.send(b"41")
    assert sorted(bench.notes.told("gone")) == ["/", "/b"]
    assert [failure.type for failure in failures] == [ValueError, ValueError]
