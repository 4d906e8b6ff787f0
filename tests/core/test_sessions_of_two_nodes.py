"""Live sessions of two nodes over one store: how they end, and what each hears of the other."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_twisted
from twisted.logger import LogLevel, capturedLogs

from gatewayd.core.cluster import ChangeKind
from gatewayd.errors import Denied, NotFound, Unavailable
from tests.core.bench import Bench, bounded
from tests.core.peers import Peer, Peers
from tests.core.sessions import ALL, CALL, HEAT, RAIN, begun, failure, told

_LIFETIME = 120
#: Seconds after which the store has forgotten what expired.
_FORGOTTEN = 220


@pytest_twisted.async_yield_fixture(name="peers")
async def set_up(bench: Bench) -> AsyncIterator[Peers]:
    """Set up two nodes whose sessions are not started."""
    peers = Peers(bench)
    await peers.join()
    yield peers
    await peers.close()


async def stored(peers: Peers) -> list[str]:
    """Return the ids of the sessions that the store has."""
    await peers.bench.settle()
    return [each.id for each in await peers.bench.store.live_sessions()]


def touches(peer: Peer) -> int:
    """Return how often a node has told the store what is used."""
    return peer.gate.calls.count("touch_sessions")


# Expiry


@bounded
async def test_used_elsewhere(peers: Peers) -> None:
    """What expires on one node, while another one uses it, is forgotten on that one alone."""
    one, two = await peers.open_sessions(lifetime=_LIFETIME)
    session = one.create(None)
    await one.grant(session, HEAT)
    calls = told(session)
    there = await two.find(session.id)
    for _ in range(5):
        await peers.wait(100)
        await two.find(session.id)
    assert (one.count, two.count, calls) == (0, 1, ["ended"])
    assert await stored(peers) == [session.id]
    assert there.grants == {HEAT}
    assert (await one.find(session.id)).grants == {HEAT}


@bounded
async def test_used_nowhere(peers: Peers) -> None:
    """What no node uses is forgotten by the store, too, and refused for good."""
    one, two = await peers.open_sessions(lifetime=_LIFETIME)
    session = one.create(None)
    await one.grant(session, HEAT)
    await two.find(session.id)
    await peers.wait(_LIFETIME + 10)
    assert (one.count, two.count) == (0, 0)
    assert await stored(peers) == [session.id]
    await peers.wait(_FORGOTTEN)
    assert await stored(peers) == []
    for sessions in (one, two):
        await failure(NotFound, sessions.find(session.id))


@bounded
async def test_held(peers: Peers) -> None:
    """A session that a socket holds is used all the time, whoever else has let go of it."""
    one, two = await peers.open_sessions(lifetime=_LIFETIME)
    session = one.create(None)
    await one.grant(session, HEAT)
    two.hold(await two.find(session.id))
    await peers.wait(2 * (_LIFETIME + _FORGOTTEN))
    assert (one.count, two.count) == (0, 1)
    assert await stored(peers) == [session.id]


@bounded
async def test_told_once_a_minute(peers: Peers) -> None:
    """The store is told of what is used, once a minute; of what is not, nothing."""
    one, _ = await peers.open_sessions()
    session = one.create(None)
    await one.grant(session, HEAT)
    bare = one.create(None)
    await peers.wait(59)
    assert touches(peers.one) == 0
    await peers.wait(1)
    assert touches(peers.one) == 1
    await peers.wait(120)
    assert touches(peers.one) == 1
    for _ in range(60):
        await one.find(session.id)
        one.get(bare.id)
        await peers.wait(1)
    assert touches(peers.one) == 2
    one.hold(session)
    await peers.wait(180)
    assert touches(peers.one) == 5


@bounded
async def test_use_that_cannot_be_told(peers: Peers) -> None:
    """While the database is away nothing is lost: what was used then is told of later."""
    one, two = await peers.open_sessions(lifetime=_LIFETIME)
    session = one.create(None)
    await one.grant(session, HEAT)
    await two.find(session.id)
    await peers.wait(55)
    await two.find(session.id)
    peers.two.gate.fail("touch_sessions", Unavailable("away"))
    with capturedLogs() as logged:
        await peers.wait(10)
    assert [each["log_level"] for each in logged if "used" in each["log_format"]] == [LogLevel.warn]
    peers.two.gate.fail("touch_sessions", None)
    await peers.wait(60)
    since = peers.bench.clock.now - 60_000
    assert await peers.bench.store.drop_unused_sessions([session.id], since) == []


@bounded
async def test_sweep(peers: Peers) -> None:
    """What a node has left behind that is no more is forgotten by the warden, after its time."""
    one, two = await peers.open_sessions(lifetime=_LIFETIME)
    await peers.wait(5)
    session = two.create(None)
    await two.grant(session, HEAT)
    two.stop()
    peers.two.die()
    await peers.wait(_LIFETIME)
    assert await stored(peers) == [session.id]
    await peers.wait(2 * _LIFETIME)
    assert one.count == 0
    assert await stored(peers) == []


@bounded
async def test_swept_by_one(peers: Peers) -> None:
    """Who is not the warden does not look at what others have left."""
    one, two = await peers.open_sessions(lifetime=_LIFETIME)
    session = one.create(None)
    await one.grant(session, HEAT)
    one.stop()  # its node lives on, and does not sweep
    looks = peers.two.gate.calls.count("live_sessions")
    await peers.wait(4 * _LIFETIME)
    assert peers.two.gate.calls.count("live_sessions") == looks
    assert (two.count, await stored(peers)) == (0, [session.id])
    peers.one.die()
    await peers.wait(2 * _LIFETIME)
    assert await stored(peers) == []


@bounded
async def test_no_room(peers: Peers) -> None:
    """Who makes room for another session forgets one here; the store has it as long as before."""
    one, two = await peers.open_sessions(sessions=1)
    session = one.create(None)
    await one.grant(session, HEAT)
    await one.revoke_grant(session, HEAT)
    await peers.wait(90)
    new = one.create(None)
    assert (one.count, one.get(new.id)) == (1, new)
    assert await stored(peers) == [session.id]
    assert (await two.find(session.id)).id == session.id


# Revocations


@bounded
async def test_revoked(peers: Peers) -> None:
    """What is revoked on one node is over on the other at once, also what is not stored."""
    one, two = await peers.open_sessions()
    granted, bare = one.create(None), one.create(None)
    await one.grant(granted, HEAT)
    calls = told(granted)
    for each in (granted, bare):
        await two.revoke(each.id)
    await peers.bench.settle()
    assert (calls, one.count, await stored(peers)) == (["ended"], 0, [])
    for each in (granted, bare):
        for sessions in (one, two):
            await failure(NotFound, sessions.find(each.id))
            assert sessions.adopt(each.id) is None


@bounded
async def test_revocation_that_is_not_told(peers: Peers) -> None:
    """Who could not tell the others says so, and can do it again; here it is over at once."""
    one, two = await peers.open_sessions()
    session = one.create(None)
    await one.grant(session, HEAT)
    await two.find(session.id)
    peers.two.cluster.error = Unavailable("away")
    peers.two.cluster.deaf = True
    await failure(Unavailable, two.revoke(session.id))
    await failure(NotFound, two.find(session.id))
    assert one.get(session.id) is session
    peers.two.cluster.error, peers.two.cluster.deaf = None, False
    await two.revoke(session.id)
    await peers.bench.settle()
    await failure(NotFound, one.find(session.id))


@bounded
async def test_all_revoked(peers: Peers) -> None:
    """All sessions are over, also those that only the other node or the store knows."""
    one, two = await peers.open_sessions()
    sessions = [one.create(None), two.create(None), two.create(None)]
    await one.grant(sessions[0], HEAT)
    await two.grant(sessions[1], HEAT)
    await two.revoke_all()
    await peers.bench.settle()
    assert (one.count, two.count, await stored(peers)) == (0, 0, [])
    for session in sessions:
        for each in (one, two):
            await failure(NotFound, each.find(session.id))
    new = one.create(None)
    assert (await two.find(new.id)).id == new.id


@pytest.mark.parametrize("call", ["live_sessions", "drop_sessions"])
@bounded
async def test_all_revoked_while_the_database_is_away(peers: Peers, call: str) -> None:
    """Here all sessions are over at once; the others hear of it when it is done again."""
    one, two = await peers.open_sessions()
    session = one.create(None)
    await one.grant(session, HEAT)
    there = await two.find(session.id)
    calls = told(there)
    peers.two.gate.fail(call, Unavailable("away"))
    await failure(Unavailable, two.revoke_all())
    assert (calls, there.may(HEAT), two.count) == (["ended"], False, 0)
    await failure(NotFound, two.find(session.id))
    peers.two.gate.fail(call, None)
    await two.revoke_all()
    await peers.bench.settle()
    assert (one.count, await stored(peers)) == (0, [])


@bounded
async def test_revoked_before_the_start(peers: Peers) -> None:
    """What others do before the sessions are started is nothing to stumble over."""
    with capturedLogs() as logged:
        for subject in (["id"], {"ids": ["id"]}, {"until": 1}):
            peers.one.cluster.change((ChangeKind.SESSIONS_GONE, subject))
        peers.one.cluster.change((ChangeKind.SESSION, "id"), (ChangeKind.ALL, None))
        await peers.bench.settle()
    assert [each for each in logged if each["log_level"] > LogLevel.info] == []
    one, two = await peers.open_sessions()
    session = one.create(None)
    await two.revoke(session.id)
    await peers.bench.settle()
    assert one.count == 0


@bounded
async def test_revoked_while_it_is_started(peers: Peers) -> None:
    """What is revoked while the store is read counts, whatever is read."""
    peers.one.make_sessions()
    await peers.one.sessions.start()
    session = peers.one.sessions.create(None)
    await peers.one.sessions.grant(session, HEAT)
    peers.two.gate.hold("live_sessions")
    starting = begun(peers.two.sessions.start())
    await peers.bench.settle()
    await peers.two.gate.answered("live_sessions")
    await peers.one.sessions.revoke(session.id)
    await peers.two.gate.release("live_sessions")
    await starting
    await peers.bench.settle()
    await failure(NotFound, peers.two.sessions.find(session.id))


# What the other node has made of a session


@bounded
async def test_asked_again_before_a_refusal(peers: Peers) -> None:
    """Nobody is refused what another node has given, although nothing is heard of that."""
    one, two = await peers.open_sessions()
    session = one.create(None)
    peers.two.cluster.deaf = True
    there = await two.find(session.id)
    await two.grant(there, HEAT)
    assert not session.may(HEAT)
    assert await one.may(session, HEAT)
    assert not await one.may(session, RAIN)
    await two.grant(there, RAIN)
    await one.subscribe(session, [RAIN])
    assert session.subscriptions == {RAIN}
    await failure(Denied, one.subscribe(session, [CALL]))
    peers.one.gate.fail("live_session", Unavailable("away"))
    await failure(Unavailable, one.may(session, CALL))
    await failure(Unavailable, one.subscribe(session, [CALL]))
    assert await one.may(session, HEAT)


@bounded
async def test_looked_for_before_a_refusal(peers: Peers) -> None:
    """A session that only the other node knows is found; while it cannot be, nobody is refused."""
    one, two = await peers.open_sessions()
    session = two.create(None)
    await two.grant(session, HEAT)
    peers.one.gate.fail("live_session", Unavailable("away"))
    await failure(Unavailable, one.find(session.id))
    peers.one.gate.fail("live_session", None)
    assert (await one.find(session.id)).grants == {HEAT}


@bounded
async def test_everything_may_be_new(peers: Peers) -> None:
    """Who has missed what others have changed reads all that it knows again."""
    one, two = await peers.open_sessions()
    more, less, over = [one.create(None) for _ in range(3)]
    for each in (less, over):
        await one.grant(each, ALL)
        await one.subscribe(each, [HEAT])
    calls = {each: told(each) for each in (more, less, over)}
    peers.two.cluster.deaf = True
    peers.two.cluster.error = Unavailable("it is not told")
    await two.grant(await two.find(more.id), HEAT)
    await two.subscribe(await two.find(more.id), [HEAT])
    await two.revoke_grant(await two.find(less.id), ALL)
    await failure(Unavailable, two.revoke(over.id))
    await peers.bench.settle()
    assert all(not each for each in calls.values())
    peers.one.cluster.change((ChangeKind.ALL, None))
    await peers.bench.settle()
    assert calls == {more: [("+", HEAT)], less: [("-", HEAT)], over: [("-", HEAT)]}
    assert [set(each.grants) for each in (more, less, over)] == [{HEAT}, set(), set()]


@bounded
async def test_change_that_cannot_be_read(peers: Peers) -> None:
    """A change of another node that cannot be read now is read later."""
    one, two = await peers.open_sessions()
    session = one.create(None)
    session.by_grant = True
    calls = told(session)
    peers.one.gate.fail("live_session", Unavailable("away"))
    await two.grant(await two.find(session.id), HEAT)
    peers.one.cluster.change((ChangeKind.SESSION, session.id))
    await peers.bench.settle()
    assert not session.grants
    peers.one.gate.fail("live_session", None)
    await peers.wait(3)
    assert session.grants == {HEAT}
    assert calls == []
