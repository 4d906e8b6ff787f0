"""What clients are told of what devices said before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from gatewayd.core.grants import Grant, Right
from gatewayd.core.live_sessions import LiveSession
from gatewayd.errors import Unavailable
from tests.api.ux4iot_live import Line, Scene, key, right, telemetry
from tests.core.bench import bounded

ALL = (key("D"), *(right("D", each) for each in (Right.STATE, Right.TWIN, Right.MESSAGES)))


@pytest_twisted.async_yield_fixture(name="scene")
async def set_up(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path / "gatewayd.db")
    await scene.open()
    yield scene
    await scene.close()


async def granted(scene: Scene, *grants: Grant) -> LiveSession:
    """Return a session of the older dialect."""
    session = scene.sessions.create(None)
    session.by_grant = True
    for grant in grants:
        await scene.sessions.grant(session, grant)
    return session


def values(line: Line) -> list[Any]:
    """Return the telemetry that a client was told, and nothing else."""
    return [said["telemetry"] for said in line.said if "telemetry" in said]


# The older dialect


@bounded
async def test_granted_before_the_socket(scene: Scene) -> None:
    """What was said before the socket came is told when it comes, each value with its time."""
    first = await scene.say("D", {"a": 1, "b": False, "c": 0})
    scene.pass_time(1)
    second = await scene.say("D", {"a": 2})
    session = await granted(scene, key("D"))
    line = scene.connect(session.id)
    await scene.settle()
    assert line.said == [
        telemetry("D", {"b": False}, first),
        telemetry("D", {"c": 0}, first),
        telemetry("D", {"a": 2}, second),
    ]


@bounded
async def test_all_kinds(scene: Scene) -> None:
    """So are the connection state and the twin; messages are not kept."""
    await scene.say("D", {"a": 1})
    await scene.hub.twins.patch_desired(None, scene.device, b'{"x":1}')
    session = await granted(scene, *ALL)
    line = scene.connect(session.id)
    await scene.settle()
    said = line.said
    assert [list(each)[1] for each in said] == ["telemetry", "connectionState", "deviceTwin"]
    assert said[1]["connectionState"] == {"connected": True}
    assert said[2]["deviceTwin"]["properties"]["desired"]["x"] == 1


@bounded
async def test_coming_again(scene: Scene) -> None:
    """Each time that its socket comes again, it is told everything."""
    session = await granted(scene, key("D"))
    for number in range(3):
        await scene.say("D", {"a": number})
        line = scene.connect(session.id)
        scene.pass_time(2)
        await scene.settle()
        assert values(line) == [{"a": number}]
        line.leave()


@bounded
async def test_granted_with_a_socket(scene: Scene) -> None:
    """What is granted to one that is connected is told, and nothing that it knows."""
    await scene.say("D", {"a": 1, "b": 2})
    session = await granted(scene, key("D", "a"))
    lines = [scene.connect(session.id) for _ in range(2)]
    await scene.settle()
    assert [values(line) for line in lines] == [[{"a": 1}]] * 2
    await scene.sessions.grant(session, key("D", "b"))
    await scene.settle()
    assert [values(line) for line in lines] == [[{"b": 2}]] * 2
    await scene.sessions.grant(session, key("D", "b"))
    await scene.settle()
    assert [values(line) for line in lines] == [[]] * 2


@bounded
async def test_only_what_is_granted(scene: Scene) -> None:
    """No other key is told."""
    await scene.say("D", {"a": 1, "secret": 2})
    line = scene.connect((await granted(scene, key("D", "a"), key("X"))).id)
    await scene.settle()
    assert values(line) == [{"a": 1}]


@bounded
async def test_newer_wins(scene: Scene) -> None:
    """What the device says meanwhile is not followed by what it said before."""
    await scene.say("D", {"a": 1, "b": 1})
    session = await granted(scene, key("D"))
    scene.bench.gate.hold("last_values")
    line = scene.connect(session.id)
    await scene.say("D", {"a": 2})
    assert values(line) == [{"a": 2}]
    await scene.bench.gate.release("last_values")
    await scene.settle()
    assert values(line) == [{"b": 1}]


@bounded
async def test_newer_state_wins(scene: Scene) -> None:
    """So it is with states."""
    session = await granted(scene, key("D"), right("D", Right.STATE))
    scene.bench.gate.hold("last_values")
    line = scene.connect(session.id)
    scene.bench.core.presence.share(scene.device, "test")
    await scene.settle()
    assert [said["connectionState"] for said in line.said] == [{"connected": True}]
    await scene.bench.gate.release("last_values")
    await scene.settle()
    assert line.said == []


@bounded
async def test_revoked_meanwhile(scene: Scene) -> None:
    """What is revoked while it is looked up is not told."""
    await scene.say("D", {"a": 1, "b": 1})
    session = await granted(scene, key("D", "a"), key("D", "b"))
    scene.bench.gate.hold("last_values")
    line = scene.connect(session.id)
    revoked = Deferred.fromCoroutine(scene.sessions.revoke_grant(session, key("D", "a")))
    await scene.bench.gate.release("last_values")
    await revoked
    await scene.settle()
    assert values(line) == [{"b": 1}]


@bounded
async def test_hub_that_still_reads(scene: Scene) -> None:
    """A client that comes before the hub has read the log is let in, and told when it has."""
    await scene.say("D", {"a": 1})
    session = await granted(scene, key("D"))
    await scene.restart(held="connected")
    line = scene.connect(session.id)
    await scene.settle()
    assert line.open
    assert line.said == []
    await scene.bench.gate.release("connected")
    await scene.hub.settled()
    await scene.settle()
    assert values(line) == [{"a": 1}]
    await scene.say("D", {"a": 2})
    assert values(line) == [{"a": 2}]


@bounded
async def test_slow_client(scene: Scene) -> None:
    """One that reads slowly is told as it reads, and not what is revoked until then."""
    for stamp in range(3):
        await scene.say("D", {f"k{stamp}": stamp})
        scene.pass_time(1)
    session = await granted(scene, *(key("D", f"k{number}") for number in range(3)))
    line = Line(sessionId=session.id)
    line.full = Deferred()
    line.arrive(scene.live)
    await scene.settle()
    assert values(line) == [{"k0": 0}]
    await scene.sessions.revoke_grant(session, key("D", "k1"))
    full, line.full = line.full, None
    full.callback(None)
    assert values(line) == [{"k2": 2}]


@bounded
async def test_unknown_device(scene: Scene) -> None:
    """Of a device that does not exist there is nothing to tell; it may come."""
    line = scene.connect((await granted(scene, key("X"), right("X", Right.STATE))).id)
    await scene.settle()
    assert line.said == []
    await scene.bench.device("x")
    await scene.say("x", {"a": 1})
    assert [list(each)[:2] for each in line.said] == [
        ["deviceId", "telemetry"], ["deviceId", "connectionState"]
    ]  # fmt: skip


@bounded
async def test_failing_store(scene: Scene) -> None:
    """When the store fails, live data goes on."""
    session = await granted(scene, key("D"))
    scene.bench.gate.fail("last_values", Unavailable("no disk"))
    line = scene.connect(session.id)
    await scene.settle()
    assert line.open
    await scene.say("D", {"a": 1})
    assert values(line) == [{"a": 1}]


# The newer dialect: what came between a client's question and its subscription


async def connected(scene: Scene) -> tuple[LiveSession, Line]:
    """Return a session that was granted everything, and its socket."""
    session = scene.sessions.create(None)
    for grant in ALL:
        await scene.sessions.grant(session, grant)
    return session, scene.connect(session.id)


async def wait(scene: Scene) -> None:
    """Wait until what was missed is told."""
    scene.pass_time(0.3)
    await scene.settle()


@bounded
async def test_missed(scene: Scene) -> None:
    """A value that came just before the subscription is told once, when the client listens."""
    session, line = await connected(scene)
    said = await scene.say("D", {"a": 1, "b": 2, "c": 3})
    scene.pass_time(0.5)
    await scene.sessions.subscribe(session, [key("D", "a"), key("D", "b")])
    scene.pass_time(0.2)
    await scene.settle()
    assert line.said == []
    await wait(scene)
    assert line.said == [telemetry("D", {"a": 1, "b": 2}, said)]
    await wait(scene)
    assert line.said == []


@bounded
async def test_missed_state(scene: Scene) -> None:
    """So is a connection state."""
    session, line = await connected(scene)
    await scene.say("D", {"a": 1})
    await scene.sessions.subscribe(session, [right("D", Right.STATE)])
    await wait(scene)
    assert [said["connectionState"] for said in line.said] == [True]


@bounded
async def test_nothing_missed(scene: Scene) -> None:
    """What is older the client has seen already."""
    session, line = await connected(scene)
    await scene.say("D", {"a": 1})
    scene.pass_time(5.1)
    await scene.sessions.subscribe(session, list(ALL))
    await wait(scene)
    assert line.said == []


@bounded
async def test_missed_and_outdated(scene: Scene) -> None:
    """The newest value is told again: a client that does not listen yet does not take it."""
    session, line = await connected(scene)
    await scene.say("D", {"a": 1, "b": 1})
    await scene.sessions.subscribe(session, [key("D")])
    await scene.say("D", {"a": 2})
    assert values(line) == [{"a": 2}]
    await wait(scene)
    assert sorted(values(line), key=str) == [{"a": 2}, {"b": 1}]


@bounded
async def test_missed_and_unsubscribed(scene: Scene) -> None:
    """Nor what is not subscribed to any more."""
    session, line = await connected(scene)
    await scene.say("D", {"a": 1})
    await scene.sessions.subscribe(session, [key("D", "a"), right("D", Right.STATE)])
    await scene.sessions.unsubscribe(session, [key("D", "a"), right("D", Right.STATE)])
    await wait(scene)
    assert line.said == []


@bounded
async def test_missed_one_after_the_other(scene: Scene) -> None:
    """Each subscription has its own time."""
    session, line = await connected(scene)
    await scene.say("D", {"a": 1, "b": 2})
    await scene.sessions.subscribe(session, [key("D", "a")])
    scene.pass_time(0.2)
    await scene.sessions.subscribe(session, [key("D", "b")])
    scene.pass_time(0.1)
    await scene.settle()
    assert values(line) == [{"a": 1}]
    scene.pass_time(0.2)
    await scene.settle()
    assert values(line) == [{"b": 2}]


@pytest.mark.parametrize("subscribed", [False, True])
@bounded
async def test_first_socket_is_told_nothing(scene: Scene, subscribed: bool) -> None:
    """A client of the newer dialect asks for what it wants to know when it comes."""
    await scene.say("D", {"a": 1})
    session = scene.sessions.create(None)
    await scene.sessions.grant(session, key("D"))
    if subscribed:
        await scene.sessions.subscribe(session, [key("D")])
    line = scene.connect(session.id)
    await wait(scene)
    assert line.said == []
