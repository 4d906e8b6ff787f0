"""The reconnect rule (ux4iot contract, reconnect), for both dialects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from gatewayd.core.grants import Right
from gatewayd.core.live_sessions import LiveSession
from tests.api.ux4iot_live import NO_SESSION, Line, Scene, key, right
from tests.core.bench import bounded


@pytest_twisted.async_yield_fixture(name="scene")
async def set_up(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path / "gatewayd.db")
    await scene.open()
    yield scene
    await scene.close()


async def session_of(scene: Scene, by_grant: bool) -> LiveSession:
    """Return a session with something granted and subscribed to."""
    session = scene.sessions.create(None)
    session.by_grant = by_grant
    await scene.sessions.grant(session, key("D"))
    if not by_grant:
        await scene.sessions.subscribe(session, [key("D")])
    return session


def is_let_in(line: Line) -> bool:
    """Tell whether a client was let in or turned away, with the one thing that is said then."""
    assert line.open is (line.refused is None)
    assert line.refused in (None, NO_SESSION)
    return line.open


DIALECTS = pytest.mark.parametrize("by_grant", [False, True], ids=["dialect 3", "dialect 2"])


# Sessions that are known


@DIALECTS
@bounded
async def test_first_socket(scene: Scene, by_grant: bool) -> None:
    """A session that had no socket before is let in, by any transport."""
    for transport in ("polling", "websocket"):
        session = await session_of(scene, by_grant)
        line = scene.connect(session.id, transport)
        assert is_let_in(line)
        await scene.say("D", {"a": 1})
        assert [said["telemetry"] for said in line.said][-1:] == [{"a": 1}]


@DIALECTS
@bounded
async def test_not_met(scene: Scene, by_grant: bool) -> None:
    """One whose client may not have seen that it was let in is let in again."""
    session = await session_of(scene, by_grant)
    scene.connect(session.id).leave()
    scene.pass_time(60)
    assert is_let_in(scene.connect(session.id))


@DIALECTS
@pytest.mark.parametrize("evidence", ["heard", "stayed", "used", "used and came again"])
@bounded
async def test_met(scene: Scene, by_grant: bool, evidence: str) -> None:
    """One whose client has seen it is turned away and over, but for the older dialect."""
    session = await session_of(scene, by_grant)
    line = scene.connect(session.id)
    if evidence == "heard":
        scene.live.heard(line.connection)
    elif evidence == "stayed":
        scene.pass_time(2)
    else:
        scene.pass_time(0.1)
        scene.sessions.get(session.id)
    if evidence != "used and came again":
        line.leave()
    assert is_let_in(scene.connect(session.id)) is by_grant
    assert is_let_in(scene.connect(session.id)) is by_grant
    assert scene.sessions.count == by_grant


@bounded
async def test_met_while_the_old_one_is_there(scene: Scene) -> None:
    """When the old socket's end was not noticed yet, it goes with the session."""
    session = await session_of(scene, by_grant=False)
    line = scene.connect(session.id)
    scene.pass_time(2)
    assert not is_let_in(scene.connect(session.id))
    assert line.ended
    assert not line.open


@bounded
async def test_brief_stays_do_not_count(scene: Scene) -> None:
    """Several that were too short for the client to see them are no evidence together."""
    session = await session_of(scene, by_grant=False)
    for overlap in (0, 0.1, 0, 0.1):
        line = scene.connect(session.id)
        assert is_let_in(line)
        scene.pass_time(1.8)
        again = scene.connect(session.id) if overlap else None
        scene.pass_time(overlap)
        line.leave()
        if again is not None:
            assert is_let_in(again)
            scene.pass_time(1.8)
            again.leave()
    assert not session.met


@bounded
async def test_dialect_unknown(scene: Scene) -> None:
    """One that was granted nothing yet is let in again: it has nothing that could be forgotten."""
    session = scene.sessions.create(None)
    line = scene.connect(session.id)
    scene.pass_time(2)
    line.leave()
    again = scene.connect(session.id)
    assert is_let_in(again)
    await scene.sessions.grant(session, key("D"))
    again.leave()
    assert not is_let_in(scene.connect(session.id))


@DIALECTS
@bounded
async def test_met_before_restart(scene: Scene, by_grant: bool) -> None:
    """A restart does not forget who was met."""
    session = await session_of(scene, by_grant)
    line = scene.connect(session.id)
    scene.live.heard(line.connection)
    await scene.restart()
    assert not line.open
    assert is_let_in(scene.connect(session.id)) is by_grant


@bounded
async def test_not_met_before_restart(scene: Scene) -> None:
    """What was granted and subscribed to before the restart goes on."""
    session = await session_of(scene, by_grant=False)
    await scene.restart()
    line = scene.connect(session.id)
    assert is_let_in(line)
    await scene.say("D", {"a": 1})
    assert [said["telemetry"] for said in line.said] == [{"a": 1}]


@pytest.mark.parametrize("by", ["query", "rules"])
@bounded
async def test_resume(scene: Scene, by: str) -> None:
    """A client that goes on by itself may, and is told the current state."""
    if by == "rules":
        await scene.restart(resume=True)
    query = {"resume": "1"} if by == "query" else {}
    session = await session_of(scene, by_grant=False)
    line = scene.connect(session.id, **query)
    scene.pass_time(2)
    line.leave()
    await scene.say("D", {"a": 1})
    again = scene.connect(session.id, **query)
    assert is_let_in(again)
    await scene.settle()
    assert [said["telemetry"] for said in again.said] == [{"a": 1}]
    await scene.say("D", {"a": 2})
    assert [said["telemetry"] for said in again.said] == [{"a": 2}]


@pytest.mark.parametrize("resume", ["0", "", "true"])
@bounded
async def test_no_resume(scene: Scene, resume: str) -> None:
    """Nothing but resume=1 says that."""
    session = await session_of(scene, by_grant=False)
    scene.connect(session.id, resume=resume)
    scene.pass_time(2)
    assert not is_let_in(scene.connect(session.id, resume=resume))


# Sessions that are not known


@bounded
async def test_no_session_id(scene: Scene) -> None:
    """Who names no session is turned away."""
    for line in (Line(), Line(sessionId=""), Line("/", "polling"), Line(other="x")):
        line.arrive(scene.live)
        assert not is_let_in(line)


@pytest.mark.parametrize("transport", ["polling", "websocket"])
@bounded
async def test_not_ours(scene: Scene, transport: str) -> None:
    """An id that was not issued here is refused, however it looks."""
    issued = scene.sessions.create(None).id
    forged = issued[:-2] + ("AA" if issued[-2:] != "AA" else "BB")
    for session_id in ("x", forged, issued + "A", "é", "A" * 100_000):
        assert not is_let_in(scene.connect(session_id, transport))


async def lost(scene: Scene) -> str:
    """Return the id of a session that is not known any more."""
    session = scene.sessions.create(None)
    await scene.sessions.grant(session, key("D"))
    scene.pass_time(3600)
    await scene.settle()
    assert scene.sessions.count == 0
    return session.id


@bounded
async def test_lost(scene: Scene) -> None:
    """One that was lost is refused when its client begins with WebSocket."""
    assert not is_let_in(scene.connect(await lost(scene)))


@bounded
async def test_adopted(scene: Scene) -> None:
    """One whose client begins with polling is taken up, if it is granted something soon."""
    session_id = await lost(scene)
    line = scene.connect(session_id, "polling")
    assert is_let_in(line)
    session = scene.sessions.get(session_id)
    scene.pass_time(1.9)
    session.by_grant = True
    await scene.sessions.grant(session, key("D", "a"))
    scene.pass_time(10)
    assert line.open
    await scene.say("D", {"a": 1, "b": 2})
    assert [said["telemetry"] for said in line.said] == [{"a": 1}]


@pytest.mark.parametrize("heard", [False, True])
@bounded
async def test_adopted_for_nothing(scene: Scene, heard: bool) -> None:
    """If it is not, it is put out, so that it begins a new one; its id is worth nothing then."""
    session_id = await lost(scene)
    line = scene.connect(session_id, "polling")
    assert is_let_in(line)
    if heard:
        scene.live.heard(line.connection)
    scene.pass_time(1.9)
    assert line.open
    scene.pass_time(0.2)
    assert line.ended
    assert scene.sessions.count == 0
    assert not is_let_in(scene.connect(session_id, "polling"))


@bounded
async def test_gone_while_adopted(scene: Scene) -> None:
    """One that leaves meanwhile leaves nothing to be done."""
    session_id = await lost(scene)
    line = scene.connect(session_id, "polling")
    line.leave()
    scene.pass_time(5)
    assert not line.ended


# The end of sessions


@DIALECTS
@bounded
async def test_revoked(scene: Scene, by_grant: bool) -> None:
    """All sockets of a session that is revoked are put out at once, and no others."""
    session, other = [await session_of(scene, by_grant) for _ in range(2)]
    lines = [scene.connect(session.id) for _ in range(2)]
    rest = scene.connect(other.id)
    await scene.sessions.revoke(session.id)
    assert [line.ended for line in lines] == [True, True]
    assert rest.open
    for transport in ("polling", "websocket"):
        assert not is_let_in(scene.connect(session.id, transport))
    await scene.sessions.revoke_all()
    assert rest.ended
    await scene.say("D", {"a": 1})
    assert [line.said for line in (*lines, rest)] == [[], [], []]


@bounded
async def test_grant_revoked(scene: Scene) -> None:
    """Nothing is delivered from the moment on in which its grant is revoked."""
    session = await session_of(scene, by_grant=False)
    await scene.sessions.grant(session, right("D", Right.STATE))
    await scene.sessions.subscribe(session, [right("D", Right.STATE)])
    line = scene.connect(session.id)
    scene.bench.gate.hold("change_session")
    revoked = Deferred.fromCoroutine(scene.sessions.revoke_grant(session, key("D")))
    await scene.say("D", {"a": 1})
    assert [list(said)[1] for said in line.said] == ["connectionState"]
    await scene.bench.gate.release("change_session")
    await revoked
    await scene.say("D", {"a": 2})
    assert line.said == []
    assert line.open


@bounded
async def test_outlives_its_socket(scene: Scene) -> None:
    """A session is kept while it has sockets, and for its lifetime after the last."""
    session = await session_of(scene, by_grant=True)
    lines = [scene.connect(session.id) for _ in range(2)]
    scene.pass_time(3600)
    lines[0].leave()
    scene.pass_time(3600)
    lines[1].leave()
    scene.pass_time(599)
    assert scene.sessions.count == 1
    await scene.sessions.unsubscribe(scene.sessions.get(session.id), [key("D")])
    scene.pass_time(599)
    assert scene.sessions.count == 1
    scene.pass_time(1200)
    assert scene.sessions.count == 0


@bounded
async def test_nothing_is_left(scene: Scene) -> None:
    """When all are gone, nothing is watched, and nothing is told."""
    session = await session_of(scene, by_grant=True)
    lines = [scene.connect(session.id) for _ in range(2)]
    for line in lines:
        line.leave()
    assert session.follower is None
    assert session.holders == 0
    assert scene.live._feeds._feeds == {}
    assert scene.live._clients == {}
    assert scene.live._followings == {}
