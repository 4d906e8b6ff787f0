"""How live sessions come and go, and how many there may be."""

from __future__ import annotations

import pytest

from gatewayd.core.grants import Grant, Right
from gatewayd.errors import NotFound, TooMany, Unavailable
from tests.core.bench import Bench, bounded
from tests.core.sessions import (
    ALL,
    HEAT,
    LIFETIME,
    Sessions,
    begun,
    failure,
    spelt,
    told,
)


@pytest.fixture(name="place")
def set_up(bench: Bench) -> Sessions:
    return Sessions(bench)


# Ends


@bounded
async def test_revoked(place: Sessions) -> None:
    """A revoked session is over at once, for good, and for whoever has it still."""
    sessions = await place.start()
    session, other = sessions.create("h"), sessions.create("h")
    for each in (session, other):
        await sessions.grant(each, HEAT)
        await sessions.subscribe(each, [HEAT])
    calls = told(session)
    await sessions.revoke(session.id)
    assert calls == ["ended"]
    assert not session.may(HEAT)
    session.touch()
    sessions.hold(session)
    sessions.release(session)
    for attempt in (
        sessions.grant(session, HEAT),
        sessions.subscribe(session, [HEAT]),
        sessions.unsubscribe(session, [HEAT]),
        sessions.revoke_grant(session, HEAT),
    ):
        error = await failure(NotFound, attempt)
        assert (error.kind, error.key) == ("session", session.id)
    await sessions.meet(session)
    await sessions.drop(session)
    with pytest.raises(NotFound):
        sessions.get(session.id)
    assert sessions.adopt(session.id) is None
    assert list(await place.stored()) == [other.id]
    assert sessions.get(other.id).may(HEAT)
    for unknown in (session.id, "", "x", "ä" * 46):
        await sessions.revoke(unknown)


@bounded
async def test_dropped(place: Sessions) -> None:
    """A dropped session is over like a revoked one."""
    sessions = await place.start()
    session = sessions.create("h")
    await sessions.grant(session, HEAT)
    calls = told(session)
    await sessions.drop(session)
    assert calls == ["ended"]
    assert sessions.adopt(session.id) is None
    assert await place.stored() == {}


@bounded
async def test_all_revoked(place: Sessions) -> None:
    """All are revoked at once; sessions that are created then are not."""
    sessions = await place.start()
    old = [sessions.create("h") for _ in range(3)]
    await sessions.grant(old[0], HEAT)
    calls = [told(each) for each in old]
    await sessions.revoke_all()
    assert calls == [["ended"]] * 3
    assert sessions.count == 0
    assert [sessions.adopt(each.id) for each in old] == [None] * 3
    assert await place.stored() == {}
    new = sessions.create("h")
    assert sessions.get(new.id) is new


@bounded
async def test_revoked_while_the_store_fails(place: Sessions) -> None:
    """A session that cannot be dropped is over, and can be revoked again until it is gone."""
    sessions = await place.start()
    sessions_ = [sessions.create("h") for _ in range(3)]
    for each in sessions_:
        await sessions.grant(each, HEAT)
    place.gate.fail("drop_sessions", Unavailable())
    await failure(Unavailable, sessions.revoke(sessions_[0].id))
    await failure(Unavailable, sessions.revoke_all())
    assert not any(each.may(HEAT) for each in sessions_)
    assert sessions.count == 0
    place.gate.fail("drop_sessions", None)
    assert len(await place.stored()) == 3
    await sessions.revoke_all()
    assert await place.stored() == {}


# Ids


@bounded
async def test_unknown(place: Sessions) -> None:
    """What is no id of ours is no session, and does not become one."""
    sessions = await place.start()
    known = sessions.create("h").id
    for unknown in ("", "x" * 46, known[:-1], known + "A", known[:-1] + "é"):
        with pytest.raises(NotFound):
            sessions.get(unknown)
        assert sessions.adopt(unknown) is None


@bounded
async def test_lost_by_a_restart(place: Sessions) -> None:
    """A session without grants that a restart has lost is there again when it is asked for."""
    sessions = await place.start()
    lost = sessions.create("h").id
    sessions = await place.restart(10)
    session = sessions.get(lost)
    assert (session.id, session.fresh) == (lost, True)
    await sessions.grant(session, HEAT)
    assert (await place.restart()).get(lost).may(HEAT)


@bounded
async def test_lost_long_ago(place: Sessions) -> None:
    """One that is older than sessions live is not there again, but can be adopted."""
    sessions = await place.start()
    lost = sessions.create("h").id
    sessions = await place.restart(LIFETIME)
    with pytest.raises(NotFound):
        sessions.get(lost)
    session = sessions.adopt(lost)
    assert session is not None
    assert sessions.get(lost) is session
    assert sessions.adopt(lost) is session


@bounded
async def test_adopted(place: Sessions) -> None:
    """A session that expired can be adopted, with nothing of what it had."""
    sessions = await place.start()
    session = sessions.create("h")
    await sessions.grant(session, HEAT)
    place.pass_(LIFETIME)
    with pytest.raises(NotFound):
        sessions.get(session.id)
    await place.bench.settle()
    adopted = sessions.adopt(session.id)
    assert adopted is not None
    assert adopted is not session
    assert adopted.fresh
    assert not adopted.may(HEAT)
    with pytest.raises(NotFound):
        await sessions.grant(session, HEAT)
    await place.restart()
    assert await place.stored() == {}


@bounded
async def test_not_adopted_while_stored(place: Sessions) -> None:
    """What is still in the store is not adopted: a restart would give it its grants again."""
    sessions = await place.start()
    session, other = sessions.create("h"), sessions.create("h")
    await sessions.grant(session, HEAT)
    place.gate.fail("drop_sessions", Unavailable())
    place.pass_(LIFETIME)
    assert sessions.count == 0
    assert sessions.adopt(session.id) is None
    assert sessions.adopt(other.id) is not None
    place.gate.fail("drop_sessions", None)
    place.pass_(LIFETIME)
    assert await place.stored() == {}
    assert sessions.adopt(session.id) is not None


# Time


@bounded
async def test_expires(place: Sessions) -> None:
    """A session lives for its time after its last use, in the store, too."""
    sessions = await place.start()
    idle, used = sessions.create("h"), sessions.create("h")
    await sessions.grant(idle, HEAT)
    await sessions.grant(used, HEAT)
    calls = told(idle)
    place.pass_(LIFETIME - 1)
    sessions.get(used.id)
    place.pass_(1)
    assert calls == ["ended"]
    assert list(await place.stored()) == [used.id]
    place.pass_(LIFETIME - 2)
    used.touch()
    place.pass_(LIFETIME - 1)
    assert sessions.count == 1
    place.pass_(1)
    assert sessions.count == 0
    assert await place.stored() == {}


@bounded
async def test_held(place: Sessions) -> None:
    """A session does not expire while sockets hold it, nor at once after the last."""
    sessions = await place.start()
    session = sessions.create("h")
    sessions.hold(session)
    sessions.hold(session)
    place.pass_(2 * LIFETIME)
    sessions.release(session)
    session.touch()
    place.pass_(2 * LIFETIME)
    sessions.release(session)
    place.pass_(LIFETIME - 1)
    assert sessions.count == 1
    place.pass_(1)
    assert sessions.count == 0


@bounded
async def test_expires_after_a_restart(place: Sessions) -> None:
    """Stored sessions live for their time after a restart, then they are gone."""
    sessions = await place.start()
    session = sessions.create("h")
    await sessions.grant(session, HEAT)
    await place.restart(10 * LIFETIME)
    assert place.now.count == 1
    place.pass_(LIFETIME)
    assert await place.stored() == {}


@bounded
async def test_one_timer(place: Sessions) -> None:
    """However many there are, one timer serves all; none is left after the end."""
    sessions = await place.start(burst=1000)
    for _ in range(500):
        sessions.create("h")
        place.pass_(0.01)
    assert len(place.bench.timers.getDelayedCalls()) == 1
    place.pass_(LIFETIME)
    assert sessions.count == 0
    assert place.bench.timers.getDelayedCalls() == []
    sessions.create("h")
    sessions.stop()
    sessions.create("h")
    assert place.bench.timers.getDelayedCalls() == []


# Limits


@bounded
async def test_rate(place: Sessions) -> None:
    """An address creates sessions as often as it may; others, and those without, create theirs."""
    sessions = await place.start(rate=2, burst=3)
    for _ in range(3):
        sessions.create("h")
    with pytest.raises(TooMany) as caught:
        sessions.create("h")
    assert caught.value.what == "principal"
    for host in ("i", *[None] * 10):
        sessions.create(host)
    place.pass_(0.5)
    sessions.create("h")


@bounded
async def test_total(place: Sessions) -> None:
    """When there are too many, the one that was unused longest makes room, if it may."""
    sessions = await place.start(sessions=4)
    met, holding, held, unused = (sessions.create("h") for _ in range(4))
    await sessions.meet(met)
    await sessions.grant(holding, HEAT)
    sessions.hold(held)
    place.pass_(59)
    with pytest.raises(TooMany) as caught:
        sessions.create("h")
    assert caught.value.what == "gateway"
    assert sessions.adopt(unused.id) is unused
    place.pass_(59)
    with pytest.raises(TooMany):
        sessions.create("h")
    place.pass_(1)
    new = sessions.create("h")
    with pytest.raises(NotFound):
        sessions.get(unused.id)
    assert sessions.adopt(unused.id) is None
    for each in (met, holding, held, new):
        assert sessions.get(each.id) is each
    await sessions.revoke_grant(holding, HEAT)
    place.pass_(60)
    sessions.create("h")
    assert await place.stored() == {}


@bounded
async def test_per_session(place: Sessions) -> None:
    """A session has so many grants and so many subscriptions, also those not stored yet."""
    sessions = await place.start(per_session=3)
    session = sessions.create("h")
    place.gate.hold("change_session")
    keys = [Grant(device="D", right=Right.TELEMETRY, selector=str(n)) for n in range(4)]
    work = [begun(sessions.grant(session, each)) for each in (*keys[:3], keys[0])]
    error = await failure(TooMany, sessions.grant(session, keys[3]))
    assert error.what == "session"
    await place.gate.release("change_session")
    for each in work:
        await each
    await sessions.revoke_grant(session, keys[0])
    await sessions.grant(session, spelt(ALL, "D"))
    await sessions.subscribe(session, keys[:2])
    await failure(TooMany, sessions.subscribe(session, keys[1:4]))
    await sessions.subscribe(session, [*keys[:3], keys[1]])
    assert session.subscriptions == set(keys[:3])
