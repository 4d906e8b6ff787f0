"""Links that one node has, asked for at another."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.protocol import Factory, Protocol

from gatewayd.core.peers import credential, tag_of
from gatewayd.transport.internal import CLIENT, PREFIX, REALM
from tests.api.links import ADMIN, PATH, Linked, Sockets
from tests.api.scene import token
from tests.api.web import request
from tests.core.bench import bounded
from tests.harness import reactor
from tests.nodes.forwarding import KEY, Reaching, peers
from tests.storage.postgres import PostgresServer

__all__ = ["peers"]


def code_of(answer: Any) -> tuple[int, str]:
    """Return the status and the code of an error."""
    assert answer.json.keys() == {"code", "message", "errors"}
    return answer.code, answer.json["code"]


async def opened(node: Linked, device_id: str = "D") -> dict[str, Any]:
    """Open a link to a new device."""
    await node.device(device_id)
    return await node.opened(device_id, devicePort=22)


@bounded
async def test_names(peers: Reaching) -> None:
    """Tokens and names keep their shape, and begin with what finds the node."""
    for node in peers.both:
        link = await opened(node)
        tag = tag_of(node.gateway.settings.node.name)
        assert re.fullmatch(f"{tag}[0-9a-f]{{56}}", link["token"])
        assert link["host"] == "127.0.0.1"
        (shown,) = [each for each in await node.listed() if each["port"] == link["port"]]
        assert re.fullmatch(f"{tag}[0-9a-f]{{8}}", shown["id"])


@pytest.mark.parametrize("key", ["token", "id"])
@bounded
async def test_get_and_delete(peers: Reaching, sockets: Sockets, key: str) -> None:
    """Any node shows a link, word for word, and closes it."""
    one, two = peers.both
    await two.device()
    link = await two.opened(devicePort=sockets.tcp_device())
    client = await sockets.connect(link["port"])
    client.write(b"x")
    await client.until(1)
    (shown,) = await two.listed()
    path = f"/{link['token'] if key == 'token' else shown['id']}"
    there, here = await two.ask("GET", path), await one.ask("GET", path)
    assert (here.code, here.body) == (200, there.body)
    for name in ("Content-Type", "Cache-Control"):
        assert here.header(name) == there.header(name)
    answer = await one.ask("DELETE", path)
    assert (answer.code, answer.body) == (204, b"")
    await client.gone()
    for node in peers.both:
        for method in ("GET", "DELETE"):
            assert code_of(await node.ask(method, path)) == (404, "link-not-found")
        assert await node.listed() == []


@bounded
async def test_list(peers: Reaching) -> None:
    """Every node lists the links of all, oldest first."""
    ports = [(await opened(peers.both[number % 2], f"D{number}"))["port"] for number in range(5)]
    listed = [await node.listed() for node in peers.both]
    assert listed[0] == listed[1]
    assert {each["port"] for each in listed[0]} == set(ports)
    times = [each["openedAt"] for each in listed[0]]
    assert times == sorted(times)


@bounded
async def test_who_asks(peers: Reaching) -> None:
    """The owner checks who asks, and its answer is passed on; nobody passes without a token."""
    one, two = peers.both
    link = await opened(two)
    path = f"/{link['token']}"
    assert (await one.ask("GET", path, token=None)).code == 401
    reader = token(a=[23], dt=[99], n=[99])
    for node in peers.both:
        for method in ("GET", "DELETE"):
            assert (await node.ask(method, path, token=reader)).code == 403
            assert (await node.ask(method, path, token="nonsense")).code == 401
    assert len(await two.listed()) == 1


@bounded
async def test_who_is_a_node(peers: Reaching) -> None:
    """To be a node is not to be a client: one that says nothing of its client has none."""
    one, _ = peers.both
    await opened(one)
    port = one.gateway.ports[-1].getHost().port  # type: ignore[attr-defined]
    node = f"Bearer {credential(KEY)}"
    answer = await request(port, "GET", PREFIX + PATH, Authorization=node)
    assert code_of(answer) == (401, "unauthorized")
    client = {CLIENT.replace("-", "_"): f"Bearer {ADMIN}"}
    answer = await request(port, "GET", PREFIX + PATH, Authorization=node, **client)
    assert (answer.code, len(answer.json)) == (200, 1)


@bounded
async def test_dead(peers: Reaching) -> None:
    """The links of a dead node are gone; of one that cannot be asked nobody knows."""
    one, two = peers.both
    link, own = await opened(two), await opened(one, "E")
    path = f"/{link['token']}"
    await two.mute()
    for method in ("GET", "DELETE"):
        assert code_of(await one.ask(method, path)) == (502, "node-unreachable")
    answer = await one.ask("GET")
    assert [each["port"] for each in answer.json] == [own["port"]]
    assert answer.header("Warning") == '299 - "the links of these nodes are left out: two"'
    await peers.end(two)
    for method in ("GET", "DELETE"):
        assert code_of(await one.ask(method, path)) == (404, "link-not-found")
    answer = await one.ask("GET")
    assert len(answer.json) == 1
    assert answer.header("Warning") is None


class Odd(Protocol):
    """A server that answers what the test says, and nothing without."""

    said = b""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        if self.said:
            self.transport.write(self.said)


class Strange(Reaching):
    """Nodes of which the second is not where it says that it is.

    :ivar there: what is there instead.
    """

    there: type[Odd]


@pytest_twisted.async_yield_fixture(scope="module")
async def strange(nodes_server: PostgresServer) -> AsyncIterator[Strange]:
    """Return such nodes."""

    class There(Odd):
        pass

    listening = reactor.listenTCP(0, Factory.forProtocol(There), interface="127.0.0.1")
    peers = Strange(nodes_server, advertise=f"http://127.0.0.1:{listening.getHost().port}")
    peers.there = There
    await peers.start()
    await opened(peers.both[0])
    yield peers
    await peers.stop()
    await listening.stopListening()


def answer_of(body: bytes, status: bytes = b"200 OK", line: bytes = b"X: y") -> bytes:
    """Return an answer as it is on the wire. :param line: one of its headers."""
    return b"HTTP/1.1 %b\r\n%b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
        status, line, len(body), body,
    )  # fmt: skip


_UNKNOWN = answer_of(b"{}", b"401 Oh", f'WWW-Authenticate: Bearer realm="{REALM}"'.encode())


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"220 mail.example ESMTP\r\n\r\n",
        answer_of(b"<html>"),
        answer_of(b"{}"),
        answer_of(b"[1]"),
        answer_of(b'[{"id": "x"}]'),
        answer_of(b"\xff"),
        answer_of(b"[]", b"500 Oh"),
        _UNKNOWN,
        answer_of(b"[" + b" " * 5_000_000 + b"]"),
    ],
)
@bounded
async def test_nonsense(strange: Strange, said: bytes) -> None:
    """What is no list of links is left out, and said to be; so is a node that is silent."""
    strange.there.said = said
    one, _ = strange.both
    answer = await one.ask("GET")
    assert answer.code == 200
    assert len(answer.json) == 1
    assert "two" in (answer.header("Warning") or "")


@bounded
async def test_refused(strange: Strange) -> None:
    """What a node refuses to another is not what it refuses to a client."""
    one, _ = strange.both
    path = "/" + tag_of("two") + 56 * "0"
    strange.there.said = _UNKNOWN
    assert code_of(await one.ask("GET", path)) == (502, "node-unreachable")
    strange.there.said = answer_of(b"{}", b"401 Oh", b"WWW-Authenticate: Bearer")
    answer = await one.ask("GET", path)
    assert (answer.code, answer.body, answer.header("WWW-Authenticate")) == (401, b"{}", "Bearer")
