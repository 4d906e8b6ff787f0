"""The plugin proxy: who gets in, what it may ask, and when a plugin is active."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from gatewayd.api.devicehive.timestamps import parse_timestamp
from gatewayd.core.model import PluginStatus
from tests.api.gate import Gate
from tests.api.plugins import (
    PROXY,
    attach,
    client_token,
    done,
    listen,
    refused,
    register,
    rest,
    send,
    status_of,
    tell,
    until_status,
)
from tests.api.scene import (
    closing,
    cut,
    holder,
    no_failures,
    ok,
    payload_of,
    save_device,
    token,
    until,
)
from tests.harness import Daemon, make_settings, reactor
from tests.stores import sqlite_only

MALFORMED = {"m": "Malformed Json received."}
HEALTHY = {"prx": "Available", "mb": "Available", "mbfp": 0.0, "comm": "Available"}


@pytest_twisted.ensureDeferred
async def test_authenticate(daemon: Daemon) -> None:
    """A plugin's token opens the proxy, which tells whose it is and makes the plugin active."""
    plugin, other = await register(daemon), await register(daemon)
    socket = await daemon.connect(f"{PROXY}/")
    claims = payload_of(plugin.access)["payload"]
    for _ in range(2):
        told = await done(socket, "plugin", "authenticate", token=plugin.access)
        assert parse_timestamp(told.pop("e")) == claims["e"]
        assert told == {"tpc": plugin.topic, "t": 1}
        assert await status_of(daemon, plugin) == "ACTIVE"
    # One connection speaks for one plugin.
    text = await refused(socket, "plugin", "authenticate", token=other.access)
    assert text == "Another plugin has authenticated on this connection"
    assert await done(socket, "topic", "list") == {"t": [plugin.topic]}
    assert await status_of(daemon, other) == "CREATED"
    await socket.bye()
    await until_status(daemon, plugin, "INACTIVE")


@pytest_twisted.ensureDeferred
async def test_bad_tokens(daemon: Daemon) -> None:
    """What is wrong with a token is told; nobody is let in, and one may try again."""
    admin = await holder(daemon)
    owner = await client_token(admin, "owner")
    plugin, deleted = await register(daemon, owner), await register(daemon, owner)
    await rest(daemon, "DELETE", "/plugin", topicName=deleted.topic)
    of_plugin = {"u": None, "n": None, "dt": None, "tpc": plugin.topic}
    every = (await rest(daemon, "POST", "/token/plugin/create", {"tpc": "*"})).json["accessToken"]
    socket = await daemon.connect(PROXY)
    for payload, text in (
        ({}, "Token is empty"), ({"token": ""}, "Token is empty"),
        ({"token": None}, "Token is empty"), ({"token": 5}, "Token is not valid"),
        ({"token": plugin.access[:-2]}, "Token is not valid"),
        ({"token": token()}, "Token is not valid"),
        ({"token": plugin.refresh}, "Invalid token type"),
        ({"token": token(**of_plugin, e=1)}, "Token has expired"),
        ({"token": deleted.access}, "Plugin is not found"),
        ({"token": every}, "Plugin is not found"), ({"token": {}}, MALFORMED["m"]),
    ):  # fmt: skip
        assert await refused(socket, "plugin", "authenticate", **payload) == text
        assert await refused(socket, "topic", "list") == "Unauthorized"
    await ok(admin, "user/update", userId=2, user={"status": 1})
    text = await refused(socket, "plugin", "authenticate", token=plugin.access)
    assert text == "User is locked or disabled"
    assert await status_of(daemon, plugin) == "CREATED"
    await ok(admin, "user/update", userId=2, user={"status": 0})
    await done(socket, "plugin", "authenticate", token=token(**of_plugin))
    # A bad token afterwards takes nothing away.
    await refused(socket, "plugin", "authenticate", token=plugin.refresh)
    assert await done(socket, "topic", "list") == {"t": [plugin.topic]}


@pytest_twisted.ensureDeferred
async def test_topics(daemon: Daemon) -> None:
    """A plugin has its own topic and no other; nothing goes before it has authenticated."""
    plugin, other = await register(daemon), await register(daemon)
    socket = await daemon.connect(PROXY)
    assert await done(socket, "health", None) == HEALTHY
    actions = ("subscribe", "unsubscribe", "create", "list")
    payload: dict[str, Any]
    for action in actions:
        assert await refused(socket, "topic", action, t=[plugin.topic]) == "Unauthorized"
    await done(socket, "plugin", "authenticate", token=plugin.access)
    for action in ("create", "unsubscribe", "subscribe", "subscribe", "unsubscribe", "unsubscribe"):
        for payload in ({"t": [plugin.topic]}, {"sg": "group", "t": [plugin.topic, plugin.topic]}):
            assert await done(socket, "topic", action, **payload) == payload
    for action in actions[:3]:
        for topics in ([other.topic], ["*"], [plugin.topic, other.topic], ["x"]):
            text = await refused(socket, "topic", action, t=topics)
            assert text == f"No access to topic {topics[-1]}"
        for payload in ({}, {"t": None}, {"t": []}, {"t": [""]}, {"t": [None]}):
            assert await refused(socket, "topic", action, **payload) == "Topic is wrong or empty"
        for payload in ({"t": plugin.topic}, {"t": [[]]}, {"t": [plugin.topic], "sg": {}}):
            assert await refused(socket, "topic", action, **payload) == MALFORMED["m"]
    assert await done(socket, "health", "check", x=1) == HEALTHY
    text = await refused(socket, "topic", "subscribe", t=[plugin.topic], timestamp="soon")
    assert text == MALFORMED["m"]


@pytest_twisted.ensureDeferred
async def test_frames(daemon: Daemon) -> None:
    """Each frame has a reply with its id, type and action as far as it has them."""
    socket = await daemon.connect(PROXY)
    bad = {"s": 1, "p": MALFORMED}
    unknown = "Unknown type or action: "
    deep: Any = json.loads("[" * 64 + "]" * 64)
    cases: list[tuple[object, object]] = [
        *((text, bad) for text in (b"", b"x", b"{", b"[", b'[{"t":}]', b"[1,]")),
        *((value, bad) for value in (None, 1, "x", {"t": "health", "p": {"x": deep}})),
        ({}, {"s": 1, "p": {"m": f"{unknown}/"}}),
        ({"id": None, "t": "health"}, {"t": "health", "s": 0, "p": HEALTHY}),
        ({"id": 1.5, "a": "x"}, {"id": 1.5, "a": "x", "s": 1, "p": {"m": f"{unknown}/x"}}),
        (
            {"t": "Topic", "a": "list"},
            {"t": "Topic", "a": "list", "s": 1, "p": {"m": f"{unknown}Topic/list"}},
        ),
        ({"t": {}, "a": "list", "id": 1}, {"id": 1, **bad}),
        (
            {"t": "topic", "a": "list", "p": [], "id": "x", "s": 7, "other": 1},
            {"id": "x", "t": "topic", "a": "list", **bad},
        ),
    ]
    ids: list[object] = [0, "", "ä\n🙂", False, [1, {"a": None}], {}, 2**70]
    cases += [
        ({"id": each, "t": "health"}, {"id": each, "t": "health", "s": 0, "p": HEALTHY})
        for each in ids
    ]
    with no_failures():
        for message, reply in cases:
            if isinstance(message, bytes):
                socket.send(message)
            else:
                send(socket, message)
            assert await socket.next() == reply, message
    socket.sendMessage(b"{}", isBinary=True)
    assert (await closing(socket))[0] == 1003


@pytest_twisted.ensureDeferred
async def test_batches(daemon: Daemon) -> None:
    """A list of frames is done in its order and answered by one list; it has a limit."""
    plugin = await register(daemon)
    socket = await daemon.connect(PROXY)
    topics = {"t": [plugin.topic]}
    batch: list[Any] = [
        {"id": 1, "t": "topic", "a": "list"},
        {"id": 2, "t": "plugin", "a": "authenticate", "p": {"token": plugin.access}},
        7,
        [],
        {"id": 3, "t": "topic", "a": "subscribe", "p": topics},
        {"t": "topic", "a": "list"},
    ]
    send(socket, batch)
    replies = await socket.next()
    assert replies[1].pop("p").keys() == {"tpc", "e", "t"}
    assert replies == [
        {"id": 1, "t": "topic", "a": "list", "s": 1, "p": {"m": "Unauthorized"}},
        {"id": 2, "t": "plugin", "a": "authenticate", "s": 0},
        {"s": 1, "p": MALFORMED},
        {"s": 1, "p": MALFORMED},
        {"id": 3, "t": "topic", "a": "subscribe", "s": 0, "p": topics},
        {"t": "topic", "a": "list", "s": 0, "p": topics},
    ]
    socket.send(b" \n[ ]")
    assert await socket.next() == []
    health = {"t": "health"}
    send(socket, [health] * 100)
    assert await socket.next() == [{"t": "health", "s": 0, "p": HEALTHY}] * 100
    send(socket, [health] * 101)
    assert await socket.next() == {"s": 1, "p": {"m": "A batch may have at most 100 frames"}}


@pytest_twisted.ensureDeferred
async def test_status(daemon: Daemon) -> None:
    """A plugin is active from its first connection until the last is gone, however it goes."""
    plugin = await register(daemon)
    numbers = set()
    for _ in range(2):
        first, second = await attach(daemon, plugin), await listen(daemon, plugin)
        [found] = (await rest(daemon, "GET", "/plugin", status=0)).json
        numbers.add(found["subscriptionId"])
        await first.bye()
        assert await status_of(daemon, plugin) == "ACTIVE"
        cut(second)
        await until_status(daemon, plugin, "INACTIVE")
    assert len(numbers) == 2
    # Who has not authenticated, or failed to, does not count.
    socket = await daemon.connect(PROXY)
    await tell(socket, "plugin", "authenticate", token="x")
    await socket.bye()
    assert await status_of(daemon, plugin) == "INACTIVE"


@pytest_twisted.ensureDeferred
async def test_cut_while_it_authenticates(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin whose connection is lost before it is active does not stay so."""
    plugin = await register(daemon)
    told: list[PluginStatus] = []
    daemon.core.plugins.changed.append(lambda changed, deleted: told.append(changed.status))
    socket = await daemon.connect(PROXY)
    gate = Gate(monkeypatch, "plugins.save")
    request = {"t": "plugin", "a": "authenticate", "p": {"token": plugin.access}}
    subscribe = {"t": "topic", "a": "subscribe", "p": {"t": [plugin.topic]}}
    send(socket, [request, subscribe])
    await until(gate.entered.is_set)
    cut(socket)
    await socket.gone
    with no_failures():
        gate.opened.set()
        await until(lambda: len(told) == 2)
    assert told == [PluginStatus.ACTIVE, PluginStatus.INACTIVE]
    assert await status_of(daemon, plugin) == "INACTIVE"


@pytest_twisted.ensureDeferred
async def test_cut_while_it_subscribes(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is delivered to a connection that was lost while it subscribed."""
    plugin = await register(daemon)
    socket = await attach(daemon, plugin)
    gate = Gate(monkeypatch, "plugins.get")
    send(socket, {"t": "topic", "a": "subscribe", "p": {"t": [plugin.topic]}})
    await until(gate.entered.is_set)
    cut(socket)
    await socket.gone
    gate.opened.set()
    await until_status(daemon, plugin, "INACTIVE")
    assert daemon.core.plugins._feeds == {}
    with no_failures():
        await save_device(await holder(daemon), "dev")


@pytest_twisted.ensureDeferred
async def test_deleted(daemon: Daemon) -> None:
    """The connections of a plugin that is deleted are closed, and no others."""
    plugin, other = await register(daemon), await register(daemon)
    sockets = [await attach(daemon, plugin), await listen(daemon, plugin)]
    stranger, waiting = await listen(daemon, other), await daemon.connect(PROXY)
    with no_failures():
        assert (await rest(daemon, "DELETE", "/plugin", topicName=plugin.topic)).code == 204
        for socket in sockets:
            assert await closing(socket) == (1000, "the plugin is deleted")
    assert await done(stranger, "topic", "list") == {"t": [other.topic]}
    text = await refused(waiting, "plugin", "authenticate", token=plugin.access)
    assert text == "Plugin is not found"


@pytest_twisted.ensureDeferred
async def test_patience(daemon: Daemon) -> None:
    """Whose socket does not authenticate in time is closed, whatever else it says."""
    plugin = await register(daemon)

    def deadlines() -> list[Any]:
        return [call for call in reactor.getDelayedCalls() if call.args[:1] == (1008,)]

    await listen(daemon, plugin)
    assert deadlines() == []
    socket = await daemon.connect(PROXY)
    await done(socket, "health", None)
    await refused(socket, "plugin", "authenticate", token="x")
    [deadline] = deadlines()
    assert 0 < deadline.getTime() - reactor.seconds() <= 10
    deadline.reset(0)
    assert await closing(socket) == (1008, "authentication timeout")
    assert await status_of(daemon, plugin) == "ACTIVE"


@pytest_twisted.ensureDeferred
async def test_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that stops closes its plugins' connections, and none of them is active then."""
    daemon = Daemon(make_settings(tmp_path / "gatewayd.db"))
    await daemon.start()
    plugin = await register(daemon)
    sockets = [await listen(daemon, plugin), await attach(daemon, plugin)]
    told: list[PluginStatus] = []
    daemon.core.plugins.changed.append(lambda changed, deleted: told.append(changed.status))
    gate = Gate(monkeypatch, "plugins.get")
    with no_failures():
        stopping = daemon.gateway.stopService()
        assert [(await closing(socket))[0] for socket in sockets] == [1001, 1001]
        await until(gate.entered.is_set)
        gate.opened.set()
        await stopping
    assert told == [PluginStatus.INACTIVE]


@sqlite_only("it copies the file of a gateway that runs")
@pytest_twisted.ensureDeferred
async def test_crash(tmp_path: Path) -> None:
    """After a crash no plugin is active until it connects again, with the token that it had."""
    before = Daemon(make_settings(tmp_path / "before" / "gatewayd.db"))
    await before.start()
    try:
        plugin = await register(before)
        await listen(before, plugin)
        shutil.copytree(tmp_path / "before", tmp_path / "after")
    finally:
        await before.stop()
    after = Daemon(make_settings(tmp_path / "after" / "gatewayd.db"))
    await after.start()
    try:
        assert await status_of(after, plugin) == "INACTIVE"
        await listen(after, plugin)
        assert await status_of(after, plugin) == "ACTIVE"
    finally:
        await after.stop()
