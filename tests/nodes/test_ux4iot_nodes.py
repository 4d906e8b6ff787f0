"""What devices said last, and the sessions of web apps, on two nodes of one database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from gatewayd.core.access import Principal
from gatewayd.core.grants import Grant, Right
from gatewayd.core.hub.hub import Hub, HubRules
from gatewayd.core.hub.methods import Methods
from gatewayd.core.invocations import Invocations
from gatewayd.core.live_sessions import SessionRules
from gatewayd.core.shared_sessions import SharedSessions
from gatewayd.errors import NotFound
from tests.core.bench import bounded
from tests.core.hubbing import Watching, plain
from tests.core.sessions import ALL, CALL, HEAT, RAIN, told
from tests.harness import Daemon, reactor
from tests.nodes.pair import Pair, until


class Side:
    """The hub and the sessions of one node.

    :ivar watching: watches the device Dev.
    """

    def __init__(self, daemon: Daemon, principal: Principal) -> None:
        self.core = core = daemon.core
        self.principal = principal
        self.make()
        assert core.cluster is not None
        assert core.membership is not None
        assert core.following is not None
        self.sessions = SharedSessions(
            core.store, core.wall, reactor, SessionRules(), core.cluster, core.membership,
            core.following,
        )  # fmt: skip

    def make(self) -> None:
        """Make a hub that is not started."""
        self.hub = Hub(self.core, HubRules(), reactor)
        self.watching = Watching()
        self.hub.watch("Dev", self.watching)

    async def start(self) -> None:
        """Start both."""
        await self.sessions.start()
        await self.hub.start()
        await self.hub.settled()

    async def stop(self) -> None:
        """Stop both."""
        self.sessions.stop()
        await self.hub.stop()

    async def say(self, device: Any, body: dict[str, Any]) -> None:
        """Let a device say something to this node."""
        text = json.dumps(body).encode()
        await self.core.notifications.insert(self.principal, device, "data", text)

    async def values(self, device: Any) -> dict[str, Any]:
        """Return what a device said last."""
        return plain(await self.hub.values.of(device))

    async def connected(self, device: Any) -> bool | None:
        """Return whether a device is connected."""
        state = await self.hub.states.of(device)
        return None if state is None else state.connected


class Sides:
    """Both nodes, and a device."""

    def __init__(self, one: Side, two: Side, device: Any) -> None:
        self.one, self.two, self.device = one, two, device


@pytest_twisted.async_yield_fixture
async def sides(pair: Pair) -> AsyncIterator[Sides]:
    """Set up hubs and sessions on both nodes."""
    device = await pair.device("Dev")
    one, two = [Side(each, await pair.admin(each)) for each in (pair.one, pair.two)]
    for each in (one, two):
        await each.start()
    yield Sides(one, two, device)
    for each in (one, two):
        await each.stop()


async def eventually(ask: Any, wanted: Any) -> None:
    """Wait until something is answered."""
    found: list[Any] = [None]

    def look() -> bool:
        Deferred.fromCoroutine(ask()).addCallback(lambda answer: found.__setitem__(0, answer))
        return bool(found[0] == wanted)

    await until(look)


# The hub


@bounded
async def test_values(sides: Sides) -> None:
    """What a device says to one node is shown and told by both, and forgotten by both."""
    one, two, device = sides.one, sides.two, sides.device
    await one.say(device, {"heat": 1, "rain": 2})
    await until(lambda: "message" in two.watching.kinds)
    assert await two.values(device) == await one.values(device) == {"heat": 1, "rain": 2}
    assert plain(await two.hub.values.forget(device)) == {"heat": 1, "rain": 2}
    await eventually(lambda: one.values(device), {})
    await two.say(device, {"heat": 3})
    await eventually(lambda: one.values(device), {"heat": 3})
    assert one.watching.kinds.count("message") == two.watching.kinds.count("message") == 2


@bounded
async def test_only_one_writes(sides: Sides) -> None:
    """The warden alone writes, and what it has not written the other one has."""
    one, two, device = sides.one, sides.two, sides.device
    assert [each.core.warden for each in (one, two)] == [True, False]
    one.hub._keeping.stop()
    await one.say(device, {"heat": 1})
    await until(lambda: "message" in two.watching.kinds)
    await two.hub._keep_or_let_go()
    assert await one.core.store.last_values(device.uid) == []
    await two.hub.keep()
    (kept,) = await one.core.store.last_values(device.uid)
    assert (kept.key, kept.value) == ("heat", b"1")


def wanted(document: Any) -> Any:
    """Return the property n that is wanted in a twin."""
    return document["properties"]["desired"]["n"]


def shows(watching: Watching, number: int) -> bool:
    """Whether a watcher was told last of a twin with that number."""
    return bool(watching.told) and wanted(watching.told[-1][1]) == number


@bounded
async def test_twins(sides: Sides) -> None:
    """A twin that one node changes is at once what the other one reads and changes."""
    one, two, device = sides.one, sides.two, sides.device
    for number, side in enumerate((one, two, one, two), 1):
        await side.hub.twins.patch_desired(None, device, b'{"n": %d}' % number)
        for other in (one, two):
            assert wanted((await other.hub.twins.of(device)).document()) == number
    for side in (one, two):
        await until(partial(shows, side.watching, 4))


@bounded
async def test_states(sides: Sides) -> None:
    """A device is connected, and is not, on both nodes, wherever its socket is."""
    one, two, device = sides.one, sides.two, sides.device
    socket = two.core.presence.share(device, "test")
    await until(lambda: one.watching.states == two.watching.states == [True])
    assert await one.connected(device)
    two.core.presence.detach(socket)
    await until(lambda: one.watching.states == two.watching.states == [True, False])
    assert not await one.connected(device)
    await two.hub.states.said(device, True, 1000, "0005")
    await until(lambda: one.watching.states == two.watching.states == [True, False, True])
    await one.hub.states.said(device, False, 2000, "0004")
    assert await one.connected(device)
    await one.hub.states.said(device, False, 3000, "0006")
    await until(lambda: two.watching.states == [True, False, True, False])
    assert await two.connected(device) is await one.connected(device) is False


@bounded
async def test_attached_before(sides: Sides) -> None:
    """A hub that is started knows of the sockets that other nodes have already."""
    one, two, device = sides.one, sides.two, sides.device
    socket = two.core.presence.share(device, "test")
    await until(lambda: one.watching.states == [True])
    await one.hub.stop()
    one.make()
    await one.hub.start()
    await one.hub.settled()
    assert await one.connected(device)
    assert one.watching.states == []
    two.core.presence.detach(socket)
    await until(lambda: one.watching.states == [False])


@bounded
async def test_method(pair: Pair, sides: Sides) -> None:
    """A method of a device on the other node is answered."""
    core = sides.one.core
    socket = await pair.login(pair.two)
    await socket.ask("command/subscribe", deviceId="Dev")
    await until(lambda: core.presence.of(sides.device))
    invocations = Invocations(core.store, core.timeline, core.presence, core.registry, reactor)
    methods = Methods(core.registry, invocations)
    asked = Deferred.fromCoroutine(methods.invoke("dev", "reboot", b"{}", connect=0, respond=10))
    command = (await socket.push())["command"]
    assert command["command"] == "reboot"
    answer = {"status": "done", "result": {"at": 7}}
    reply = await socket.ask(
        "command/update", deviceId="Dev", commandId=command["id"], command=answer
    )
    assert reply["status"] == "success", reply
    result = await asked
    assert (result.status, json.loads(result.payload)) == (200, {"at": 7})


# Sessions


@bounded
async def test_session(sides: Sides) -> None:
    """A session is created on one node, granted on the other, and used on both."""
    one, two = sides.one.sessions, sides.two.sessions
    first = one.create(None)
    there = await two.find(first.id)
    await two.grant(there, ALL)
    assert await one.may(first, HEAT)
    calls = told(first)
    await two.subscribe(there, [HEAT, RAIN])
    await until(lambda: len(calls) == 2)
    await one.unsubscribe(first, [RAIN])
    await until(lambda: there.subscriptions == {HEAT})
    await one.grant(first, CALL)
    assert await two.may(there, CALL)
    await two.revoke_grant(there, ALL)
    await until(lambda: calls[-1] == ("-", HEAT))
    assert first.grants == {CALL}


@bounded
async def test_session_ends(sides: Sides) -> None:
    """What is revoked on one node is over on the other, for good, also what is not stored."""
    one, two = sides.one.sessions, sides.two.sessions
    stored, bare = one.create(None), one.create(None)
    await one.grant(stored, Grant(device="Dev", right=Right.STATE))
    calls = told(stored)
    for each in (stored, bare):
        await two.revoke(each.id)
    await until(lambda: calls == ["ended"] and one.adopt(bare.id) is None)
    for each in (stored, bare):
        for sessions in (one, two):
            with pytest.raises(NotFound):
                await sessions.find(each.id)
            assert sessions.adopt(each.id) is None
    left = one.create(None)
    await one.grant(left, HEAT)
    await two.find(left.id)
    await two.revoke_all()
    await until(lambda: not one.count)
    assert await sides.one.core.store.live_sessions() == []
    new = one.create(None)
    assert (await two.find(new.id)).id == new.id
