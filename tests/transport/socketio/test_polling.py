"""Engine.IO by HTTP."""

from __future__ import annotations

import json

import pytest

from gatewayd.transport.socketio.packets import Batch
from gatewayd.transport.socketio.rules import EngineRules
from tests.transport.socketio.bench import LONG, PATH, Bench, numbered
from tests.transport.socketio.conftest import MakeBench


def error(code: int, message: str) -> dict[str, object]:
    return {"code": code, "message": message}


def test_open(bench: Bench) -> None:
    """A handshake is answered with the open packet alone."""
    exchange = bench.ask(EIO="4", transport="polling", t="x", sessionId="a b&c")
    assert exchange.header("Content-Type") == "text/plain; charset=UTF-8"
    assert exchange.header("Cache-Control") == "no-store"
    assert exchange.header("Access-Control-Allow-Origin") == "*"
    (packet,) = exchange.packets
    opened = json.loads(packet[1:])
    sid = opened.pop("sid")
    assert packet == b'0{"sid":"%b","upgrades":["websocket"],"pingInterval":25000,' % (
        sid.encode()
    ) + (b'"pingTimeout":20000,"maxPayload":1000000}')
    assert len(sid) >= 20
    assert sid != bench.open()


def test_path_without_slash(bench: Bench) -> None:
    """The path may be without its slash, and no other is ours."""
    assert bench.ask(path="/socket.io", EIO="4", transport="polling").status == 200
    assert bench.ask(path="/socket.io/x", EIO="4", transport="polling").status == 404


@pytest.mark.parametrize(
    ("method", "query", "code", "message"),
    [
        ("GET", {"EIO": "4"}, 0, "Transport unknown"),
        ("GET", {"EIO": "4", "transport": "carrier-pigeon"}, 0, "Transport unknown"),
        ("GET", {"EIO": "4", "transport": "polling", "sid": "x"}, 1, "Session ID unknown"),
        ("POST", {"EIO": "4", "transport": "polling", "sid": "x"}, 1, "Session ID unknown"),
        ("POST", {"EIO": "4", "transport": "polling"}, 2, "Bad handshake method"),
        ("DELETE", {"EIO": "4", "transport": "polling"}, 2, "Bad handshake method"),
        ("GET", {"EIO": "4", "transport": "websocket"}, 3, "Bad request"),
        ("GET", {"EIO": "4", "transport": "polling", "j": "0"}, 3, "Bad request"),
        ("GET", {"EIO": "3", "transport": "polling"}, 5, "Unsupported protocol version"),
        ("GET", {"transport": "polling"}, 5, "Unsupported protocol version"),
    ],
)
def test_errors(bench: Bench, method: str, query: dict[str, str], code: int, message: str) -> None:
    """A request that does not fit is answered with Engine.IO's own error."""
    exchange = bench.ask(method, **query)
    assert exchange.status == 400
    assert exchange.body == b'{"code":%d,"message":"%b"}' % (code, message.encode())
    assert exchange.header("Content-Type") == "application/json"
    assert exchange.header("Access-Control-Allow-Origin") == "*"


def test_too_many_fields(bench: Bench) -> None:
    """A query of hundreds of fields is not looked at."""
    exchange = bench.ask(transport="polling", EIO="4", **{f"f{n}": "" for n in range(200)})
    assert json.loads(exchange.body) == error(3, "Bad request")


def test_field_twice(bench: Bench) -> None:
    """Of a field that comes twice, the first counts."""
    query = "EIO=4&transport=polling&transport=x&a=1&a=2"
    wire = bench.wire(f"GET {PATH}?{query} HTTP/1.1\r\nHost: gw\r\n\r\n".encode())
    sid = wire.value().split(b'"')[3].decode()
    bench.post(sid, b"40")
    assert bench.notes.last.query["a"] == "1"


def test_wrong_method_or_transport_of_a_client(bench: Bench) -> None:
    """A client may GET and POST, and needs a WebSocket to speak of one; it stays."""
    sid = bench.open()
    for method in ("PUT", "DELETE"):
        exchange = bench.ask(method, transport="polling", sid=sid)
        assert json.loads(exchange.body) == error(3, "Bad request")
    assert bench.ask(transport="websocket", sid=sid).status == 400
    assert bench.ask(transport="polling", sid=sid, j="1").status == 400
    head = bench.ask("HEAD", transport="polling", sid=sid)
    assert (head.status, head.body) == (400, b"")
    assert bench.post(sid, b"40").body == b"ok"


@pytest.mark.parametrize("path", ["/socket.io/", "/socket.io"])
def test_preflight(bench: Bench, path: str) -> None:
    """A browser's question before a request is answered with what it asks for."""
    exchange = bench.ask(
        "OPTIONS",
        b"",
        "Origin: https://elsewhere",
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: content-type, sessionid",
        path=path,
    )
    assert exchange.status == 204
    assert exchange.header("Access-Control-Allow-Origin") == "*"
    assert "POST" in (exchange.header("Access-Control-Allow-Methods") or "")
    assert exchange.header("Access-Control-Allow-Headers") == "content-type, sessionid"
    assert int(exchange.header("Access-Control-Max-Age") or 0) > 0


def test_packets_of_one_turn_go_together(bench: Bench) -> None:
    """A poll that waits gets all that one reactor turn sent; the next gets what came later."""
    sid = bench.connect()
    poll = bench.poll(sid)
    for number in range(3):
        assert bench.notes.last.send(numbered(number))
    assert not poll.done
    bench.turn()
    assert poll.packets == [b'42["data",%d]' % number for number in range(3)]
    assert poll.header("Content-Type") == "text/plain; charset=UTF-8"
    bench.notes.last.send(numbered(3))
    bench.notes.last.send(numbered(4))
    assert bench.poll(sid).packets == [b'42["data",3]', b'42["data",4]']


def test_many_packets(bench: Bench) -> None:
    """A poll brings no more packets than the official Python client takes; the rest follow."""
    sid = bench.connect()
    poll = bench.poll(sid)
    packets = [numbered(number).packet for number in range(40)]
    for number in range(40):
        bench.notes.last.send(numbered(number))
    bench.turn()
    assert poll.packets == packets[:16]
    assert bench.poll(sid).packets == packets[16:32]
    assert bench.poll(sid).packets == packets[32:]
    assert not bench.poll(sid).done


def test_batch(make_bench: MakeBench) -> None:
    """Packets that are sent together are packets by themselves, for which the window holds."""
    bench = make_bench(send_window=100)
    sid = bench.connect()
    poll = bench.poll(sid)
    assert bench.notes.last.send_all(Batch([numbered(1), numbered(2)]))
    bench.turn()
    assert poll.packets == [b'42["data",1]', b'42["data",2]']
    assert not bench.notes.last.send_all(Batch([numbered(10**30 + each) for each in range(3)]))
    assert bench.notes.told("gone") == ["/"]


def test_post_answer(bench: Bench) -> None:
    """Several packets may come in one body, and are answered with ``ok``."""
    sid = bench.open()
    exchange = bench.post(sid, b"40", b'42["hello",1]', b"6", b'42["hello",2]')
    assert exchange.body == b"ok"
    assert exchange.header("Access-Control-Allow-Origin") == "*"
    assert bench.notes.told("event") == [b'["hello",1]', b'["hello",2]']


def test_two_polls(bench: Bench) -> None:
    """A second poll beside the first ends the client."""
    sid = bench.connect()
    first = bench.poll(sid)
    second = bench.poll(sid)
    assert json.loads(second.body) == error(3, "Bad request")
    assert first.packets == [b"1"]
    assert bench.notes.told("gone") == ["/"]
    assert json.loads(bench.poll(sid).body) == error(1, "Session ID unknown")


def test_poll_that_is_given_up(bench: Bench) -> None:
    """A client that drops its poll is gone."""
    sid = bench.connect()
    bench.poll(sid).wire.lose()
    assert bench.notes.told("gone") == ["/"]
    assert bench.poll(sid).status == 400


def test_other_connections_may_go(bench: Bench) -> None:
    """The connection of a request that has been answered means nothing."""
    sid = bench.open()
    bench.post(sid, b"40").wire.lose()
    bench.poll(sid).wire.lose()
    assert bench.notes.last.open


@pytest.mark.parametrize(
    "packet",
    [b"", b"7", b"x", b"0{}", b"2", b"2probe", b"4", b"49", b"bAAAA", b'451-["a",{}]', b"\xff4"],
)
def test_garbage(bench: Bench, packet: bytes) -> None:
    """What is no packet ends the client, and packets behind it are not looked at."""
    sid = bench.connect()
    poll = bench.poll(sid)
    answer = bench.post(sid, packet, b'42["late"]')
    assert json.loads(answer.body) == error(3, "Bad request")
    assert poll.packets == [b"1"]
    assert bench.notes.told("event") == []
    assert bench.notes.told("gone") == ["/"]


def test_close(bench: Bench) -> None:
    """A client that says that it goes is gone, and its poll is released."""
    sid = bench.connect()
    poll = bench.poll(sid)
    assert bench.post(sid, b"1", b'42["late"]', b"garbage").body == b"ok"
    assert poll.packets == [b"6"]
    assert bench.notes.told("gone") == ["/"]
    assert bench.notes.told("event") == []
    assert bench.poll(sid).status == 400


@pytest.mark.parametrize("length", [101, 2_000_000])
def test_too_long_body(make_bench: MakeBench, length: int) -> None:
    """A body that is longer than the client was told is refused, for pages to read as well."""
    bench = make_bench(EngineRules(max_payload=100))
    sid = bench.connect()
    lines = f"POST {PATH}?transport=polling&sid={sid} HTTP/1.1\r\nHost: gw\r\n"
    wire = bench.wire(f"{lines}Content-Length: {length}\r\n\r\n".encode())
    answer = wire.value()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"Access-Control-Allow-Origin: *\r\n" in answer
    assert bench.post(sid, b'42["%b"]' % (b"x" * 90)).body == b"ok"


def test_long_body(bench: Bench) -> None:
    """A body as long as the client was told is taken."""
    sid = bench.connect()
    packet = b'42["%b"]' % (b"x" * (1_000_000 - 6))
    assert len(packet) == 1_000_000
    assert bench.post(sid, packet).body == b"ok"
    assert len(bench.notes.told("event")) == 1


def test_slow_reader(make_bench: MakeBench) -> None:
    """A client for which more waits than the window allows is gone; less is delivered."""
    bench = make_bench(send_window=100)
    sid = bench.connect()
    connection = bench.notes.last
    packets = [numbered(10**30 + number) for number in range(3)]
    assert len(packets[0].packet) * 2 < 100 < len(packets[0].packet) * 3
    assert connection.send(packets[0])
    assert connection.send(packets[1])
    assert not connection.send(packets[2])
    assert bench.notes.told("gone") == ["/"]
    assert bench.poll(sid).status == 400


def test_slow_reader_within_a_turn(make_bench: MakeBench) -> None:
    """The window holds also while a poll waits; that is told that it is over."""
    bench = make_bench(send_window=100)
    sid = bench.connect()
    poll = bench.poll(sid)
    sent = [bench.notes.last.send(numbered(10**30)) for _ in range(3)]
    assert sent == [True, True, False]
    bench.turn()
    assert poll.packets == [b"1"]


def test_writable(bench: Bench) -> None:
    """A client takes no more while much waits for its next poll; the poll makes it so again."""
    sid = bench.connect()
    connection = bench.notes.last
    assert connection.writable
    assert connection.when_writable().called
    connection.send(LONG)
    assert not connection.writable
    waiting = connection.when_writable()
    assert not waiting.called
    assert len(bench.poll(sid).packets) == 1
    assert waiting.called
    assert connection.writable


@pytest.mark.parametrize("gone", [False, True])
def test_wait_that_ends_with_the_client(bench: Bench, gone: bool) -> None:
    """Who waits for room learns that the client is gone."""
    sid = bench.connect()
    connection = bench.notes.last
    connection.send(LONG)
    open_then: list[bool] = []
    connection.when_writable().addCallback(lambda _: open_then.append(connection.open))
    if gone:
        bench.post(sid, b"1")
    else:
        connection.disconnect()
    assert open_then == [False]
    assert connection.when_writable().called
    poll = bench.poll(sid)
    assert poll.status == 400 if gone else poll.packets == [LONG.packet, b"41"]


def test_pipelined_polls(bench: Bench) -> None:
    """Polls that one connection sends ahead are answered one by one."""
    sid = bench.connect()
    line = f"GET {PATH}?transport=polling&sid={sid} HTTP/1.1\r\nHost: gw\r\n\r\n"
    wire = bench.wire(line.encode() * 3)
    for number in range(3):
        bench.notes.last.send(numbered(number))
        bench.turn()
        assert wire.taken().endswith(b'42["data",%d]' % number)
