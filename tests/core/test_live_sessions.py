"""Rights and subscriptions of live sessions, at once and after a restart."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError

from gatewayd.core.grants import Grant, Right, SessionChange
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


# What the store has, and when it counts


@bounded
async def test_given_when_stored(place: Sessions) -> None:
    """What is given counts once the store has it."""
    sessions = await place.start()
    session = sessions.create("h")
    session.by_grant = True
    calls = told(session)
    place.gate.hold("change_session")
    granting = begun(sessions.grant(session, HEAT))
    await place.gate.answered("change_session")
    assert (calls, session.may(HEAT), session.fresh) == ([], False, True)
    await place.gate.release("change_session")
    await granting
    assert (calls, session.may(HEAT), session.fresh) == ([("+", HEAT)], True, False)


@bounded
async def test_caller_goes_away(place: Sessions) -> None:
    """What the store has counts, also when who asked for it is gone."""
    sessions = await place.start()
    session = sessions.create("h")
    place.gate.hold("change_session")
    granting = begun(sessions.grant(session, HEAT))
    granting.cancel()
    await failure(CancelledError, granting)
    await place.gate.release("change_session")
    assert session.may(HEAT)


@bounded
async def test_not_given(place: Sessions) -> None:
    """When the store fails nothing is given, and it can be asked for again."""
    sessions = await place.start()
    session = sessions.create("h")
    session.by_grant = True
    calls = told(session)
    place.gate.fail("change_session", Unavailable())
    await failure(Unavailable, sessions.grant(session, HEAT))
    assert (calls, session.fresh) == ([], True)
    assert not session.grants
    place.gate.fail("change_session", None)
    await sessions.grant(session, HEAT)
    assert calls == [("+", HEAT)]
    assert (await place.restart()).get(session.id).by_grant


@bounded
async def test_taken_at_once(place: Sessions) -> None:
    """What is revoked is gone at once, whatever the store does; it hears of it later."""
    sessions = await place.start()
    session = sessions.create("h")
    await sessions.grant(session, ALL)
    await sessions.grant(session, HEAT)
    await sessions.subscribe(session, [HEAT, ALL])
    calls = told(session)
    place.gate.fail("change_session", Unavailable())
    await failure(Unavailable, sessions.revoke_grant(session, ALL))
    assert sorted(calls, key=repr) == sorted([("-", HEAT), ("-", ALL)], key=repr)
    assert not session.may(HEAT)
    assert (await place.stored())[session.id].grants == {ALL, HEAT}
    await failure(Unavailable, sessions.revoke_grant(session, ALL))
    place.gate.fail("change_session", None)
    await sessions.revoke_grant(session, ALL)
    stored = (await place.stored())[session.id]
    assert (stored.grants, stored.subscriptions) == (frozenset(), frozenset())


@bounded
async def test_granted_again(place: Sessions) -> None:
    """What was not revoked in the store and is granted again is not revoked later."""
    sessions = await place.start()
    session = sessions.create("h")
    await sessions.grant(session, HEAT)
    place.gate.fail("change_session", Unavailable())
    await failure(Unavailable, sessions.revoke_grant(session, HEAT))
    await failure(Unavailable, sessions.grant(session, HEAT))
    place.gate.fail("change_session", None)
    await sessions.grant(session, spelt(HEAT, "DEV"))
    await sessions.grant(session, STATE)
    assert (await place.stored())[session.id].grants == {spelt(HEAT, "DEV"), STATE}


@bounded
async def test_granted_again_meanwhile(place: Sessions) -> None:
    """Nor is it by a change that is on its way with the grant."""
    sessions = await place.start()
    session = sessions.create("h")
    await sessions.grant(session, ALL)
    await sessions.subscribe(session, [HEAT])
    place.gate.fail("change_session", Unavailable())
    await failure(Unavailable, sessions.unsubscribe(session, [HEAT]))
    await failure(Unavailable, sessions.grant(session, STATE))
    place.gate.fail("change_session", None)
    place.gate.hold("change_session")
    work = [
        begun(sessions.subscribe(session, [HEAT])),
        begun(sessions.grant(session, CALL)),
        begun(sessions.revoke_grant(session, CALL)),
    ]
    await place.gate.release("change_session")
    for each in work:
        await each
    place.gate.fail("change_session", Unavailable())
    await failure(Unavailable, sessions.revoke_grant(session, ALL))
    place.gate.fail("change_session", None)
    place.gate.hold("change_session")
    work = [begun(sessions.grant(session, each)) for each in (ALL, STATE)]
    await place.gate.release("change_session")
    for each in work:
        await each
    stored = (await place.stored())[session.id]
    assert stored.grants == session.grants == {ALL, STATE}
    assert stored.subscriptions == session.subscriptions


@bounded
async def test_taken_twice(place: Sessions) -> None:
    """Who takes away what another is just taking away waits, too, until the store has it."""
    sessions = await place.start()
    session = sessions.create("h")
    await sessions.grant(session, ALL)
    await sessions.subscribe(session, [HEAT, RAIN])
    place.gate.hold("change_session")
    work = [
        *(begun(sessions.unsubscribe(session, [HEAT])) for _ in range(2)),
        *(begun(sessions.revoke_grant(session, ALL)) for _ in range(2)),
        *(begun(sessions.meet(session)) for _ in range(2)),
    ]
    await place.gate.answered("change_session")
    assert not any(each.called for each in work)
    await place.gate.release("change_session")
    for each in work:
        await each


@bounded
async def test_subscription_is_left(place: Sessions) -> None:
    """A subscription that is stored without a grant counts for nothing, also when one comes."""
    sessions = await place.start()
    session = sessions.create("h")
    left = SessionChange(
        id=session.id, granted=frozenset({HEAT}), subscribed=frozenset({HEAT, RAIN})
    )
    await place.bench.store.change_session(left)
    session = (await place.restart()).get(session.id)
    assert session.subscriptions == {HEAT}
    await place.now.grant(session, RAIN)
    assert (await place.restart()).get(session.id).subscriptions == {HEAT}


@bounded
async def test_refused_out_of_turn(place: Sessions) -> None:
    """What a store that is busy refuses at once is not forgotten when it answers the rest."""
    sessions = await place.start()
    session = sessions.create("h")
    await sessions.grant(session, HEAT)
    place.gate.hold("change_session")
    work = [begun(sessions.revoke_grant(session, HEAT)), begun(sessions.grant(session, HEAT))]
    place.gate.fail("change_session", Unavailable())
    await failure(Unavailable, sessions.revoke_grant(session, HEAT))
    place.gate.fail("change_session", None)
    await place.gate.release("change_session")
    for each in work:
        await each
    assert not session.may(HEAT)
    await sessions.grant(session, STATE)
    assert (await place.stored())[session.id].grants == {STATE}


@bounded
async def test_revoked_meanwhile(place: Sessions) -> None:
    """What is revoked before the store has it never counts, nor what was to rest on it."""
    sessions = await place.start()
    session = sessions.create("h")
    session.by_grant = True
    await sessions.grant(session, ALL)
    await sessions.unsubscribe(session, [ALL])
    calls = told(session)
    place.gate.hold("change_session")
    work = [
        begun(sessions.grant(session, HEAT)),
        begun(sessions.subscribe(session, [RAIN, ALL])),
        begun(sessions.unsubscribe(session, [ALL])),
        begun(sessions.revoke_grant(session, ALL)),
    ]
    await place.gate.release("change_session")
    for each in work:
        await each
    assert not calls
    assert not session.grants
    assert not session.subscriptions
    stored = (await place.stored())[session.id]
    assert (stored.grants, stored.subscriptions) == (frozenset(), frozenset())


@bounded
async def test_ended_meanwhile(place: Sessions) -> None:
    """A session that ends before the store has what it is given stays ended."""
    sessions = await place.start()
    session = sessions.create("h")
    calls = told(session)
    place.gate.hold("change_session")
    granting = begun(sessions.grant(session, HEAT))
    await sessions.revoke(session.id)
    await place.gate.release("change_session")
    await granting
    assert not session.may(HEAT)
    assert calls == ["ended"]
    assert await place.stored() == {}
