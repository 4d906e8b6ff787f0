"""Rights and subscriptions of live sessions, at once and after a restart."""

from __future__ import annotations

import pytest

from gatewayd.core.grants import Grant, Right
from gatewayd.errors import Denied, Unavailable
from tests.core.bench import Bench, bounded
from tests.core.sessions import (
    ALL,
    CALL,
    HEAT,
    RAIN,
    STATE,
    Sessions,
    begun,
    failure,
    spelt,
    told,
)


@pytest.fixture(name="place")
def set_up(bench: Bench) -> Sessions:
    return Sessions(bench)


# Rights


@bounded
async def test_nothing_at_first(place: Sessions) -> None:
    """A new session may nothing, follows nothing, and is not stored."""
    sessions = await place.start()
    session = sessions.create("h")
    assert sessions.get(session.id) is session
    assert (session.fresh, session.met, session.by_grant) == (True, False, False)
    assert not session.may(HEAT)
    assert await place.stored() == {}
    await sessions.meet(session)
    assert not session.fresh
    assert await place.stored() == {}


@pytest.mark.parametrize(
    ("granted", "asked", "may"),
    [
        (HEAT, HEAT, True),
        (HEAT, spelt(HEAT, "dEV"), True),
        (ALL, HEAT, True),
        (ALL, ALL, True),
        (HEAT, ALL, False),
        (HEAT, RAIN, False),
        (HEAT, spelt(HEAT, "Dev2"), False),
        (HEAT, Grant(device="Dev", right=Right.METHOD, selector="heat"), False),
        (Grant(device="Dev", right=Right.TELEMETRY, selector=""), ALL, False),
    ],
)
@bounded
async def test_may(place: Sessions, granted: Grant, asked: Grant, may: bool) -> None:
    """A grant opens what it covers and no more; a restart changes nothing of that."""
    sessions = await place.start()
    session = sessions.create("h")
    await sessions.grant(session, granted)
    assert session.may(asked) is may
    assert not session.fresh
    session = (await place.restart()).get(session.id)
    assert session.may(asked) is may
    assert session.grants == {granted}


@bounded
async def test_granted_twice(place: Sessions) -> None:
    """The same grant twice, in any spelling, is one; one revocation takes it away."""
    sessions = await place.start()
    session = sessions.create("h")
    both = [begun(sessions.grant(session, each)) for each in (HEAT, spelt(HEAT, "DEV"))]
    for each in both:
        await each
    await sessions.grant(session, spelt(HEAT, "dev"))
    assert session.grants == {HEAT}
    assert (await place.stored())[session.id].grants == {HEAT}
    await sessions.revoke_grant(session, spelt(HEAT, "dEV"))
    assert session.grants == frozenset()
    assert (await place.stored())[session.id].grants == frozenset()


@bounded
async def test_nothing_new(place: Sessions) -> None:
    """What the store knows already is not written again."""
    sessions = await place.start()
    session = sessions.create("h")
    await sessions.grant(session, ALL)
    await sessions.subscribe(session, [HEAT])
    await sessions.meet(session)
    place.gate.fail("change_session", Unavailable())
    await sessions.grant(session, spelt(ALL, "dev"))
    await sessions.subscribe(session, [HEAT, HEAT])
    await sessions.subscribe(session, [])
    await sessions.unsubscribe(session, [RAIN])
    await sessions.revoke_grant(session, CALL)
    await sessions.meet(session)


@bounded
async def test_all_keys_revoked(place: Sessions) -> None:
    """Revoking all keys takes single ones, too, of that device and right alone."""
    sessions = await place.start()
    session = sessions.create("h")
    other = spelt(HEAT, "Other")
    for grant in (HEAT, RAIN, other, STATE, CALL):
        await sessions.grant(session, grant)
    await sessions.subscribe(session, [HEAT, RAIN, other])
    await sessions.revoke_grant(session, spelt(ALL, "DEV"))
    assert session.grants == {other, STATE, CALL}
    assert session.subscriptions == {other}
    stored = (await place.stored())[session.id]
    assert stored.grants == {other, STATE, CALL}
    assert stored.subscriptions == {other}


@bounded
async def test_wider_grant_stays(place: Sessions) -> None:
    """Revoking a key leaves what was granted for all keys, and what rests on that."""
    sessions = await place.start()
    session = sessions.create("h")
    await sessions.grant(session, ALL)
    await sessions.grant(session, HEAT)
    await sessions.subscribe(session, [HEAT])
    await sessions.revoke_grant(session, HEAT)
    assert session.subscriptions == {HEAT}
    await sessions.revoke_grant(session, ALL)
    assert not session.subscriptions
    assert not session.may(HEAT)


# Subscriptions


@bounded
async def test_subscribe(place: Sessions) -> None:
    """What is granted can be subscribed to, each spelling for itself; a restart keeps it."""
    sessions = await place.start()
    session = sessions.create("h")
    calls = told(session)
    await sessions.grant(session, ALL)
    assert calls == []
    wanted = [HEAT, spelt(HEAT, "DEV"), ALL]
    await sessions.subscribe(session, wanted)
    await sessions.subscribe(session, wanted[:2])
    assert calls == [("+", each) for each in wanted]
    assert session.subscriptions == set(wanted)
    session = (await place.restart()).get(session.id)
    assert session.subscriptions == set(wanted)
    calls = told(session)
    await place.now.unsubscribe(session, [HEAT, RAIN, HEAT])
    assert calls == [("-", HEAT)]
    session = (await place.restart()).get(session.id)
    assert session.subscriptions == set(wanted[1:])


@pytest.mark.parametrize(
    "wanted", [[RAIN], [HEAT, RAIN], [ALL], [CALL], [spelt(HEAT, "Dev2")]], ids=repr
)
@bounded
async def test_not_granted(place: Sessions, wanted: list[Grant]) -> None:
    """What is not granted cannot be subscribed to, nor can an act; nothing is done then."""
    sessions = await place.start()
    session = sessions.create("h")
    calls = told(session)
    await sessions.grant(session, HEAT)
    await sessions.grant(session, CALL)
    error = await failure(Denied, sessions.subscribe(session, wanted))
    assert error.reason == "grant"
    assert not calls
    assert not session.subscriptions
    assert sessions.covered(session, [*wanted, HEAT]) == [*wanted[:-1], HEAT]
    assert not (await place.stored())[session.id].subscriptions


@bounded
async def test_by_grant(place: Sessions) -> None:
    """In a session of that kind a grant subscribes, and its revocation unsubscribes."""
    sessions = await place.start()
    session = sessions.create("h")
    session.by_grant = True
    calls = told(session)
    for grant in (ALL, HEAT, spelt(HEAT, "dev"), CALL):
        await sessions.grant(session, grant)
    assert calls == [("+", ALL), ("+", HEAT), ("+", spelt(HEAT, "dev"))]
    sessions = await place.restart()
    session = sessions.get(session.id)
    assert session.by_grant
    assert session.subscriptions == {ALL, HEAT, spelt(HEAT, "dev")}
    assert session.grants == {ALL, HEAT, CALL}
    await sessions.revoke_grant(session, HEAT)
    assert session.subscriptions == {ALL}
    assert session.may(HEAT)
    session = (await place.restart()).get(session.id)
    assert session.subscriptions == {ALL}


@bounded
async def test_kind_is_stored(place: Sessions) -> None:
    """A session that turns out to be of that kind later is so after a restart."""
    sessions = await place.start()
    session = sessions.create("h")
    await sessions.grant(session, CALL)
    session.by_grant = True
    await sessions.grant(session, CALL)
    assert (await place.restart()).get(session.id).by_grant


@bounded
async def test_met_is_stored(place: Sessions) -> None:
    """That a client was met is known after a restart, whenever that was."""
    sessions = await place.start()
    early, late, between = (sessions.create("h") for _ in range(3))
    await sessions.meet(early)
    await sessions.grant(early, HEAT)
    await sessions.grant(late, HEAT)
    await sessions.meet(late)
    place.gate.hold("change_session")
    granting, meeting = begun(sessions.grant(between, HEAT)), begun(sessions.meet(between))
    await place.gate.release("change_session")
    await granting
    await meeting
    sessions = await place.restart()
    assert [sessions.get(each.id).met for each in (early, late, between)] == [True] * 3


@bounded
async def test_met_is_stored_at_last(place: Sessions) -> None:
    """That a client was met is stored when the store works again, and somebody says so."""
    sessions = await place.start()
    session = sessions.create("h")
    await sessions.grant(session, HEAT)
    place.gate.fail("change_session", Unavailable())
    await failure(Unavailable, sessions.meet(session))
    place.gate.fail("change_session", None)
    await sessions.meet(session)
    assert (await place.stored())[session.id].met


@bounded
async def test_meeting_is_refused(place: Sessions) -> None:
    """Nor does it count as stored when that was refused while something else was written."""
    sessions = await place.start()
    session = sessions.create("h")
    place.gate.hold("change_session")
    granting = begun(sessions.grant(session, HEAT))
    place.gate.fail("change_session", Unavailable())
    await failure(Unavailable, sessions.meet(session))
    place.gate.fail("change_session", None)
    await place.gate.release("change_session")
    await granting
    await sessions.meet(session)
    assert (await place.stored())[session.id].met
