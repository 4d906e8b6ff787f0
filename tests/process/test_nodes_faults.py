"""What goes wrong at the start of a node, and between a node and its database."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from tests.api.web import request
from tests.process.daemon import PATIENCE, reactor, succeed
from tests.process.fault_proxy import FaultProxy
from tests.process.nodes import Node, Nodes
from tests.storage.postgres import PASSWORD


@pytest_twisted.async_yield_fixture(scope="module")
async def nodes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nodes]:
    """Return a node that runs, with its database."""
    kind = os.environ.get("GATEWAYD_TEST_REACTOR", "epoll")
    nodes = Nodes(tmp_path_factory.mktemp("nodes"), kind, "a")
    try:
        await nodes.start()
        yield nodes
    finally:
        await nodes.end()


@pytest_twisted.async_yield_fixture()
async def another(nodes: Nodes, tmp_path: Path) -> AsyncIterator[Callable[..., Node]]:
    """Return what makes another node of the same database; it ends with the test."""
    made: list[Node] = []

    def make(name: str = "b", port: int | None = None) -> Node:
        url = nodes.server.url
        if port is not None:
            url = url.replace(f":{nodes.server.port}/", f":{port}/")
        home = tmp_path / f"{name}{len(made)}"
        home.mkdir()
        made.append(Node(home, os.environ.get("GATEWAYD_TEST_REACTOR", "epoll"), name, url))
        return made[-1]

    yield make
    for node in made:
        await node.end()


@pytest_twisted.async_yield_fixture()
async def proxy(nodes: Nodes) -> AsyncIterator[FaultProxy]:
    """Return a proxy before the database."""
    proxy = FaultProxy(nodes.server.port)
    proxy.start()
    yield proxy
    await proxy.stop()


def rewrite(node: Node, old: str, new: str) -> None:
    """Change something in a node's configuration."""
    text = node.config.read_text()
    assert old in text
    node.config.write_text(text.replace(old, new))


def complaint(node: Node) -> str:
    """Return the one line that the last process of a node ended with."""
    (line,) = [line for line in node.process.stderr.splitlines() if line.startswith("gatewayd:")]
    assert "Traceback" not in node.process.output
    return line


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until something is so."""
    end = reactor.seconds() + PATIENCE
    while not await condition():
        assert reactor.seconds() < end, what
        await deferLater(reactor, 0.1)


async def attach(nodes: Nodes, node: Node, device: str) -> object:
    """Attach a device to a node, on the one socket that speaks for it."""
    admin = await nodes.admin(nodes.nodes[0])
    await succeed(admin, "device/save", deviceId=device, device={"name": device})
    await admin.bye()
    socket = await node.connect("/device")
    await succeed(socket, "authenticate", token=nodes.token, deviceId=device)
    await succeed(socket, "command/subscribe")
    return socket


# The start


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_wrong_password(another: Callable[..., Node]) -> None:
    """A node that is not let in says so in a line, without the password, and ends with 1."""
    node = another()
    rewrite(node, 'url = "postgresql://gateway:', 'url = "postgresql://gateway:not-')
    assert await node.run() == 1
    assert "password authentication failed" in complaint(node)
    assert PASSWORD not in node.output
    assert "not-" not in complaint(node)


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_name_is_taken(nodes: Nodes, another: Callable[..., Node]) -> None:
    """Of two nodes with one name the second ends, and the first goes on."""
    twin = another("a")
    assert await twin.run() == 1
    assert '"a"' in complaint(twin)
    assert (await request(nodes.nodes[0].port, "GET", "/rest/info")).code == 200


@pytest.mark.process
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("what the nodes of the tests know", "what some other nodes may know"),
        ('jwt_secret = "', 'jwt_secret = "AAAA'),
    ],
)
@pytest_twisted.ensureDeferred
async def test_secrets_differ(another: Callable[..., Node], old: str, new: str) -> None:
    """A node whose cluster key, or secret of tokens, is not that of the others does not run."""
    node = another()
    rewrite(node, old, new)
    assert await node.run() == 1
    assert "cluster key" in complaint(node)
    assert new not in node.output


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_newer_schema(nodes: Nodes, another: Callable[..., Node]) -> None:
    """A database that a newer version has changed is left alone."""
    ((version,),) = nodes.execute("SELECT version FROM schema_version")
    nodes.execute("UPDATE schema_version SET version = 999")
    try:
        node = another()
        assert await node.run() == 1
        assert "newer version" in complaint(node)
    finally:
        nodes.execute("UPDATE schema_version SET version = %s", version)


# Later


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_frozen_node(nodes: Nodes, another: Callable[..., Node]) -> None:
    """A node that stood still for longer than its lease lets its devices go, and comes back."""
    node = another()
    await node.serve()
    device = await attach(nodes, node, "frozen")
    first = nodes.nodes[0]
    await until(lambda: first.connected("frozen"), "it is not connected")
    node.process.signal(signal.SIGSTOP)

    async def gone() -> bool:
        return not await first.connected("frozen")

    await until(gone, "it counts as connected for ever")
    node.process.signal(signal.SIGCONT)
    await device.gone.addTimeout(PATIENCE, reactor)  # type: ignore[attr-defined]
    admin = await node.login()

    async def works() -> bool:
        body = {"notification": "n", "parameters": {}}
        reply = await admin.ask("notification/insert", deviceId="frozen", notification=body)
        return bool(reply["status"] == "success")

    await until(works, "it does not come back")
    await attach(nodes, node, "frozen")
    await until(lambda: first.connected("frozen"), "it is not connected again")


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_network_is_cut(
    nodes: Nodes, another: Callable[..., Node], proxy: FaultProxy
) -> None:
    """A node that does not hear from the database lets its devices go before its lease ends."""
    node = another("b", proxy.port)
    await node.serve()
    device = await attach(nodes, node, "cut")
    first = nodes.nodes[0]
    proxy.freeze()
    await device.gone.addTimeout(PATIENCE, reactor)  # type: ignore[attr-defined]

    async def gone() -> bool:
        return not await first.connected("cut")

    await until(gone, "it counts as connected for ever")
    # Whoever asks meanwhile is told that nothing can be kept.
    asked = await request(
        node.port, "POST", "/rest/device/cut/notification", {"notification": "n"},
        Authorization=f"Bearer {nodes.token}",
    )  # fmt: skip
    assert asked.code == 503
    proxy.thaw()

    async def back() -> bool:
        try:
            await attach(nodes, node, "cut")
        except AssertionError:
            return False
        return True

    await until(back, "nothing can be attached again")
    await until(lambda: first.connected("cut"), "it is not connected again")


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_slow_and_lossy_network(
    nodes: Nodes, another: Callable[..., Node], proxy: FaultProxy
) -> None:
    """With 100 ms to the database, and connections that break, messages arrive, once, in order."""
    node = another("b", proxy.port)
    await node.serve()
    proxy.delay = 0.05
    await attach(nodes, node, "slow")
    admin = await nodes.admin(nodes.nodes[0])
    reader = await node.login()
    await succeed(reader, "notification/subscribe", deviceId="slow")
    tags = []
    for number in range(30):
        body = {"notification": "n", "parameters": {"tag": number}}
        await succeed(admin, "notification/insert", deviceId="slow", notification=body)
        tags.append(number)
        if number % 10 == 5:
            proxy.cut()
    seen = [(await reader.push())["notification"]["parameters"]["tag"] for _ in tags]
    assert seen == tags
