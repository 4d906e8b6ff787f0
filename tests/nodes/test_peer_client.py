"""How nodes ask each other: connections, times, limits, certificates."""

from __future__ import annotations

from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.logger import capturedLogs, formatEvent

from gatewayd.core.cluster import Node
from gatewayd.core.exchange import Answer
from gatewayd.core.peers import Elsewhere, Passed, credential, tag_of
from gatewayd.core.spool import Spool
from gatewayd.device.peers import CONNECT, MOST_AT_ONCE, RESPOND, PeerClient
from gatewayd.errors import GatewayError, NoAnswer, Offline, Unavailable
from gatewayd.transport.internal import CLIENT, PREFIX, Internal
from tests.api.hurried import Hurried
from tests.api.relay_devices import unreachable
from tests.api.web import request
from tests.core.bench import bounded
from tests.device.devices import OK, RawDevice
from tests.device.test_http_tls import Issued
from tests.harness import reactor
from tests.nodes.forwarding import KEY, Bodies, Known, free_port, known, local, terms
from tests.transport.http_bench import serve

B = known("b", "")
GET = Passed(method="GET", target="/x?y=%20")


class Asked:
    """A node that asks another, of which the test says every byte.

    :ivar time: its clock.
    """

    def __init__(self) -> None:
        self.time = Hurried()
        self.node = RawDevice()
        self.nodes: dict[str, Node] = {}
        self.move(self.node.url)
        self.client = self.make()

    def make(self, **arguments: Any) -> PeerClient:
        """Return another client."""
        resolve = arguments.pop("resolve", local)
        return PeerClient(Known("a", self.nodes), terms(**arguments), resolve, self.time)

    def move(self, url: str) -> None:
        """Let the other node be somewhere else."""
        self.nodes["b"] = known("b", url)

    def forward(self, request: Passed = GET) -> Deferred[Answer]:
        """Pass a request on."""
        return Deferred.fromCoroutine(self.client.forward(B, request))


@pytest_twisted.async_yield_fixture
async def asked(clean: None) -> AsyncIterator[Asked]:
    """Return a node that asks."""
    scene = Asked()
    yield scene
    scene.client.close()
    await scene.node.stop()


async def error_of(asking: Deferred[Answer]) -> type[Exception]:
    """Return as what a request fails."""
    with pytest.raises(GatewayError) as caught:
        await asking
    return caught.type


@bounded
async def test_head(asked: Asked) -> None:
    """The request is the client's, with the node's own credential; the key itself is not there."""
    asked.node.answer = OK
    headers = (("Authorization", "Bearer mine"), ("Content-Type", "a/b"))
    wanted = Passed(method="PUT", target="/p?q", headers=headers, body=BytesIO(b"\r\n\r\n"), size=4)
    answer = await asked.forward(wanted)
    assert (answer.status, answer.body) == (200, b"ok")
    host = asked.node.url.removeprefix("http://")
    assert asked.node.visits[0].received.decode() == (
        f"PUT {PREFIX}/p?q HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {credential(KEY)}\r\n"
        f"{CLIENT}: Bearer mine\r\nContent-Type: a/b\r\nContent-Length: 4\r\n\r\n\r\n\r\n"
    )
    assert KEY not in repr(terms())
    assert credential(KEY) not in repr(terms())


@bounded
async def test_connections_are_kept(asked: Asked) -> None:
    """A connection serves one request after another; one that was closed meanwhile is replaced."""
    asked.node.answer = OK
    for _ in range(3):
        await asked.forward()
    assert len(asked.node.visits) == 1
    asked.node.answer = None
    waiting = asked.forward()
    await asked.node.until(lambda: asked.node.visits[0].received.count(b"GET") == 4)
    asked.node.answer = OK
    asked.node.visits[0].transport.loseConnection()  # type: ignore[union-attr]
    assert (await waiting).body == b"ok"
    assert len(asked.node.visits) == 2


@bounded
async def test_nobody_connects(asked: Asked) -> None:
    """Who cannot be reached is not waited for longer than a few seconds."""
    with unreachable() as url:
        asked.move(url)
        waiting = asked.forward()
        asked.time.advance(CONNECT + 0.1)
        assert await error_of(waiting) is Offline
    asked.move(f"http://127.0.0.1:{free_port()}")
    assert await error_of(asked.forward()) is Offline
    asked.move("nonsense")
    assert await error_of(asked.forward()) is Offline
    asked.nodes.clear()
    assert await error_of(asked.forward()) is Offline


@bounded
async def test_names(asked: Asked) -> None:
    """A node may be known by a name; one that nobody knows is nowhere."""
    asked.node.answer = OK
    asked.move(asked.node.url.replace("127.0.0.1", "node-b.example"))
    assert (await asked.forward()).body == b"ok"
    asked.client.close()
    asked.client = asked.make(resolve=lambda host: succeed([]))
    assert await error_of(asked.forward()) is Offline


@bounded
async def test_no_answer(asked: Asked) -> None:
    """A node that falls silent, or leaves, is given up; nothing is left of the request."""
    for silent in (True, False):
        for method, body in (("GET", None), ("PUT", BytesIO(b"\n"))):
            count = len(asked.node.visits)
            waiting = asked.forward(Passed(method=method, target="/", body=body, size=1))
            await asked.node.until(lambda count=count: len(asked.node.visits) > count)  # type: ignore[misc]
            visit = asked.node.visits[-1]
            await asked.node.until(lambda visit=visit: visit.received.endswith(b"\n"))  # type: ignore[misc]
            if silent:
                asked.time.advance(RESPOND + 0.1)
            else:
                visit.transport.abortConnection()  # type: ignore[union-attr]
            assert await error_of(waiting) is NoAnswer
    asking = Deferred.fromCoroutine(asked.client.ask(B, GET, 2.0))
    asked.time.advance(2.1)
    assert await error_of(asking) is NoAnswer
    assert asked.client._running == {}


@bounded
async def test_given_up(asked: Asked) -> None:
    """Cancelling closes the connection."""
    waiting = asked.forward()
    await asked.node.until(lambda: asked.node.visits)
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
    await asked.node.until(lambda: not asked.node.visits[0].open)
    assert asked.client._running == {}


@bounded
async def test_many(asked: Asked) -> None:
    """So many requests to one node are under way, and no more; then there is room again."""
    waiting = [asked.forward() for _ in range(MOST_AT_ONCE)]
    assert await error_of(asked.forward()) is Unavailable
    for each in waiting:
        each.addErrback(lambda failure: failure.trap(CancelledError))
        each.cancel()
        await each
    asked.node.answer = OK
    assert (await asked.forward()).body == b"ok"


@bounded
async def test_body_counts(asked: Asked) -> None:
    """A request is under way until its answer is taken, or nobody wants it."""
    asked.node.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"
    answer = await asked.forward()
    assert asked.client._running == {"b": 1}
    assert not isinstance(answer.body, bytes)
    answer.body.close()
    answer.body.close()
    assert asked.client._running == {}


@pytest.mark.parametrize(("host", "fits"), [("127.0.0.1", True), ("other.example", False)])
@bounded
async def test_tls(clean: None, tmp_path: Path, host: str, fits: bool) -> None:
    """A node that is known by ``https:`` has to have a certificate for its host."""
    issued, stranger = Issued(host), Issued("127.0.0.1")
    nodes: dict[str, Node] = {}
    a, b = Bodies("a", nodes), Bodies("b", nodes)
    key = issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "cert.pem").write_bytes(issued.pem)
    files = f"privateKey={tmp_path}/key.pem:certKey={tmp_path}/cert.pem"
    await a.start()
    await b.start(f"ssl:0:interface=127.0.0.1:{files}")
    ticket = b.spool.offer(BytesIO(b"body"), 4, "a/b")
    try:
        a.client._terms = terms(ca=issued.pem)
        assert (await a.ask("GET", ticket)).code == (200 if fits else 502)
        for ca in (stranger.pem, None):
            a.client.close()
            a.client._terms = terms(ca=ca)
            assert (await a.ask("GET", ticket)).code == 502
    finally:
        await a.stop()
        await b.stop()


# Names


def elsewhere(node: str = "a", key: str = KEY) -> Elsewhere:
    """Return what a node knows of the others."""
    nodes = {name: known(name, f"http://{name}") for name in "abc"}
    nodes["d"] = known("d", "")
    nodes["e"] = known("e", "http://e", alive=False)
    return Elsewhere(node, key, Known(node, nodes), None)  # type: ignore[arg-type]


def test_owner() -> None:
    """Something belongs to the living other node with whose tag its name begins."""
    here = elsewhere()
    owners = {name: here.owner(tag_of(name) + "rest") for name in "abcdef"}
    found = {name: owner.name for name, owner in owners.items() if owner is not None}
    assert found == {"b": "b", "c": "c"}
    assert [each.name for each in here.reachable()] == ["b", "c"]


@given(st.text())
def test_owner_of_anything(name: str) -> None:
    """Whatever a client asks for, it is nobody's unless it is."""
    here = elsewhere()
    assert here.owner(name) is None
    assert not here.is_genuine(name)
    assert not here.is_genuine(here.ticket() + name + "x")


def test_tickets() -> None:
    """Tickets differ, every node with the key knows that they are genuine, and others do not."""
    tickets = {Spool(None, elsewhere("b").ticket)._make() for _ in range(9)}  # type: ignore[arg-type]
    assert len(tickets) == 9
    for ticket in tickets:
        assert elsewhere("a").is_genuine(ticket)
        assert elsewhere("c").owner(ticket) is not None
        assert not elsewhere("a", "another").is_genuine(ticket)
        assert not elsewhere("a").is_genuine(tag_of("c") + ticket[8:])


@bounded
async def test_warnings(clean: None) -> None:
    """Who has the wrong key is named once a minute."""
    time: Any = Hurried()
    endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
    served = await serve(endpoint, Internal([], credential(KEY), time))
    with capturedLogs() as events:
        for seconds in (0, 30, 31, 50):
            time.ahead += seconds
            port = served.port.getHost().port
            answer = await request(port, "GET", f"{PREFIX}/x", Authorization="Bearer wrong")
            assert answer.code == 401
    await served.stop()
    warnings = [formatEvent(each) for each in events if each["log_level"].name == "warn"]
    assert warnings == ["127.0.0.1 asked the internal listener with a wrong cluster key"] * 2
