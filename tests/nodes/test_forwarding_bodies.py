"""Bodies that a device fetches from, or brings to, another node than the one that wants it to."""

from __future__ import annotations

import os
from io import BytesIO, RawIOBase
from typing import Any

import pytest
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from gatewayd.api.cloudrelay.blobs import PATH
from gatewayd.core.cluster import Node
from gatewayd.core.peers import credential
from gatewayd.transport.internal import PREFIX
from tests.api.web import Answered, request
from tests.core.bench import bounded
from tests.harness import reactor
from tests.nodes.forwarding import (
    KEY,
    LARGEST,
    Bodies,
    Reaching,
    bodies,
    free_port,
    known,
    peers,
)
from tests.transport.http_bench import Client, logged_failures

__all__ = ["bodies", "peers"]

LARGE = 20_000_000
Two = tuple[Bodies, Bodies]


def offered(node: Bodies, body: bytes) -> str:
    return node.spool.offer(BytesIO(body), len(body), "a/b")


def check_problem(answer: Answered, status: int) -> None:
    assert answer.code == status
    assert (answer.header("Content-Type") or "").startswith("application/problem+json")
    assert answer.header("Cache-Control") == "no-store"
    assert answer.json["status"] == status


# What passes


@pytest.mark.parametrize("size", [0, 1, 65537, LARGE])
@bounded
async def test_fetch(bodies: Two, size: int) -> None:
    """A body of another node is the same, with the same headers."""
    a, b = bodies
    body = os.urandom(size)
    ticket = offered(b, body)
    for _ in range(2):
        answer, own = await a.ask("GET", ticket), await b.ask("GET", ticket)
        assert (answer.code, answer.body, answer.length) == (200, body, size)
        for name in ("Content-Type", "Cache-Control", "Content-Length"):
            assert answer.headers.getRawHeaders(name) == own.headers.getRawHeaders(name)
    head = await a.ask("HEAD", ticket)
    assert (head.code, head.header("Content-Length"), head.body) == (200, str(size), b"")
    b.spool.withdraw(ticket)
    check_problem(await a.ask("GET", ticket), 404)


@pytest.mark.parametrize("size", [0, 1, 65537, LARGE])
@bounded
async def test_bring(bodies: Two, size: int) -> None:
    """A body that is brought to one node arrives at the other, once."""
    a, b = bodies
    body = os.urandom(size)
    ticket = b.spool.accept(LARGEST)
    answer = await a.ask("PUT", ticket, body, Content_Type="c/d")
    assert (answer.code, answer.body) == (201, b"")
    check_problem(await a.ask("POST", ticket, b"again"), 409)
    blob = b.spool.claim(ticket)
    assert blob is not None
    assert (blob.length, blob.content_type) == (size, "c/d")
    assert b"".join(blob.read(at) for at in range(0, size, 64 * 1024)) == body
    blob.close()


@bounded
async def test_limit_of_owner(bodies: Two) -> None:
    """What is larger than the owner takes is refused in its words."""
    a, b = bodies
    check_problem(await a.ask("PUT", b.spool.accept(1000), bytes(100_000)), 413)


@bounded
async def test_forged(bodies: Two) -> None:
    """A name that no node made is nothing, and nothing large is taken for it."""
    a, b = bodies
    ticket = b.spool.accept(LARGEST)
    forged = ticket[:-1] + ("0" if ticket[-1] != "0" else "1")
    assert (await a.ask("PUT", forged, bytes(100_000))).code == 413
    check_problem(await a.ask("PUT", forged, b"small"), 404)
    check_problem(await a.ask("GET", forged), 404)
    assert (await a.ask("DELETE", ticket)).code == 405


# What is in the way


@bounded
async def test_dead(bodies: Two) -> None:
    """What a dead node had is gone; one that is not known to be dead cannot be asked."""
    a, b = bodies
    ticket = offered(b, b"x")
    b.nodes["b"] = known("b", f"http://127.0.0.1:{free_port()}")
    check_problem(await a.ask("GET", ticket), 502)
    check_problem(await a.ask("PUT", ticket, b"x"), 502)
    b.nodes["b"] = known("b", f"http://127.0.0.1:{b.internal_port}", alive=False)
    check_problem(await a.ask("GET", ticket), 404)
    del b.nodes["b"]
    check_problem(await a.ask("GET", ticket), 404)


@pytest.mark.parametrize("method", ["GET", "PUT"])
@bounded
async def test_wrong_key(clean: None, method: str) -> None:
    """Nodes with different keys have nothing of each other, and say why, without a key."""
    nodes: dict[str, Node] = {}
    a, b = Bodies("a", nodes, key="the wrong key of a"), Bodies("b", nodes)
    await a.start()
    await b.start()
    try:
        with capturedLogs() as events:
            ticket = offered(b, b"secret") if method == "GET" else b.spool.accept(LARGEST)
            for _ in range(3):
                answer = await a.ask(method, ticket, None if method == "GET" else b"x" * 1000)
                check_problem(answer, 502)
        texts = [formatEvent(each) for each in events if each["log_level"].name == "warn"]
        assert sorted(texts) == [
            "127.0.0.1 asked the internal listener with a wrong cluster key",
            "node b has another cluster key than this one",
        ]
        assert "wrong key of a" not in str(events)
    finally:
        await a.stop()
        await b.stop()


@bounded
async def test_no_loop(bodies: Two) -> None:
    """A request is passed on once: who gets it and is not the owner says so."""
    a, b = bodies
    ticket = offered(b, b"x")
    a.nodes["b"] = known("b", f"http://127.0.0.1:{a.internal_port}")
    check_problem(await a.ask("GET", ticket), 404)


# How fast


class Endless(RawIOBase):
    """A large file that takes no room.

    :ivar reached: how far it was read.
    """

    reached = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self.reached = max(self.reached, offset)
        return offset

    def read(self, size: int = -1) -> bytes:
        return bytes(size)


class SlowClient(Client):
    """Reads nothing after the first piece."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.ended.called:
            super().connectionLost(reason)


async def fetch_slowly(node: Bodies, ticket: str) -> Client:
    endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{node.port}")
    client: Client = await connectProtocol(endpoint, SlowClient())
    client.transport.write(f"GET {PATH}/{ticket} HTTP/1.1\r\nHost: gw\r\n\r\n".encode())
    return client


@bounded
async def test_slow_reader(bodies: Two) -> None:
    """The owner reads a body no faster than the device at the other node does."""
    a, b = bodies
    size, file = 2**30, Endless()
    ticket = b.spool.offer(file, size, "a/b")  # type: ignore[arg-type]
    small = offered(b, b"x")
    with logged_failures() as failures:
        client = await fetch_slowly(a, ticket)
        before = -1
        while before != file.reached:  # until the buffers of the system are full
            before = file.reached
            for _ in range(20):
                assert (await a.ask("GET", small)).body == b"x"
        assert 0 < file.reached < size // 4
        client.transport.abortConnection()
        blob = b.spool.fetch(ticket)
        while blob._copies:  # that the device is gone reaches the owner
            await a.ask("HEAD", small)
    assert failures == []
    assert a.client._running == {}


@bounded
async def test_owner_withdraws(bodies: Two) -> None:
    """A body that ends early is cut off, not finished."""
    a, b = bodies
    ticket = b.spool.offer(Endless(), 2**30, "a/b")  # type: ignore[arg-type]
    client = await fetch_slowly(a, ticket)
    while not client.received:
        await a.ask("HEAD", ticket)
    b.spool.withdraw(ticket)
    client.transport.pauseProducing = lambda: None
    client.transport.resumeProducing()
    await client.end()
    assert len(client.received) < 2**30


# Whole gateways


@bounded
async def test_relayed(peers: Reaching) -> None:
    """A device fetches and brings the bodies of a request at the node to which it is attached."""
    one, two = peers.both
    body, back = os.urandom(LARGE), os.urandom(LARGE)
    device = await two.attached("D")
    asked = one.relay("D", "POST", body)
    command: dict[str, Any] = await device.command()
    told = command["parameters"]
    place = f"http://127.0.0.1:{one.port}"
    fetched = await request(two.port, "GET", told["blobUrl"].removeprefix(place))
    assert (fetched.code, fetched.body) == (200, body)
    brought = await request(two.port, "PUT", told["uploadUrl"].removeprefix(place), back)
    assert brought.code == 201
    await device.answer({"blobUrl": told["uploadUrl"]}, command)
    answer = await asked
    assert (answer.code, answer.body) == (200, back)


@bounded
async def test_internal_listener(peers: Reaching) -> None:
    """It serves the other nodes alone, and nothing but what they need."""
    one, _ = peers.both
    port = one.gateway.ports[-1].getHost().port  # type: ignore[attr-defined]
    for path in ("/", "/api/info", f"{PREFIX}/api/rest/info", f"{PATH}/x", f"{PREFIX}{PATH}/x"):
        answer = await request(port, "GET", path, Authorization="Bearer nonsense")
        assert (answer.code, answer.json["error"]) == (401, 401)
    assert (await request(port, "GET", "/")).code == 401
    large = await request(port, "PUT", f"{PREFIX}{PATH}/x", bytes(5_000_000))
    assert large.code == 401
    right = f"Bearer {credential(KEY)}"
    for path in ("/", PREFIX, f"{PREFIX}/", f"{PATH}/x", f"{PREFIX}/api/rest/info", "/health"):
        assert (await request(port, "GET", path, Authorization=right)).code == 404


@bounded
async def test_internal_listener_is_no_device(peers: Reaching) -> None:
    """No link leads to it."""
    one, _ = peers.both
    await one.device()
    port = one.gateway.ports[-1].getHost().port  # type: ignore[attr-defined]
    assert await one.refused("D", devicePort=port) == (403, "destination-not-allowed")
