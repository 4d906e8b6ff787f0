"""What of live sessions is stored, and what counts while it is not, or cannot be."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError

from gatewayd.core.grants import SessionChange
from gatewayd.errors import Unavailable
from tests.core.bench import Bench, bounded
from tests.core.sessions import (
    ALL,
    CALL,
    HEAT,
    RAIN,
    STATE,
    Sessions,
    Slow,
    begun,
    failure,
    spelt,
    told,
)


@pytest.fixture(name="place")
def set_up(bench: Bench) -> Sessions:
    return Sessions(bench)


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


# One answer after the other


def test_subscribed_again_while_that_fails() -> None:
    """What is subscribed to again while its end is on its way, and fails, does not end later."""
    slow = Slow()
    sessions, session = slow.sessions, slow.session
    slow.all_done(sessions.grant(session, HEAT))
    slow.all_done(sessions.subscribe(session, [HEAT]))
    slow.begin(sessions.unsubscribe(session, [HEAT]), sessions.subscribe(session, [HEAT]))
    slow.disk.commit(fails=True)
    slow.disk.commit()
    slow.all_done(sessions.grant(session, RAIN))
    slow.check({HEAT, RAIN}, {HEAT})


def test_granted_again_while_that_fails() -> None:
    """What is granted again while it is being revoked, which fails, is not revoked later."""
    slow = Slow()
    sessions, session = slow.sessions, slow.session
    slow.all_done(sessions.grant(session, HEAT))
    slow.begin(sessions.revoke_grant(session, HEAT), sessions.grant(session, HEAT))
    slow.disk.commit(fails=True)
    slow.disk.commit()
    slow.all_done(sessions.grant(session, RAIN))
    slow.check({HEAT, RAIN}, set())


def test_revoked_again_while_that_fails() -> None:
    """What is revoked twice at once is gone when one of them succeeds, with what rested on it."""
    slow = Slow()
    sessions, session = slow.sessions, slow.session
    slow.all_done(sessions.grant(session, HEAT))
    slow.all_done(sessions.subscribe(session, [HEAT]))
    slow.begin(*(sessions.revoke_grant(session, HEAT) for _ in range(2)))
    slow.disk.commit(fails=True)
    slow.disk.commit()
    slow.check(set(), set())


def test_each_revocation_waits() -> None:
    """Whoever revokes waits for the store, however often it was granted and revoked meanwhile."""
    slow = Slow()
    sessions, session = slow.sessions, slow.session
    slow.all_done(sessions.grant(session, CALL), sessions.grant(session, HEAT))
    slow.begin(
        sessions.revoke_grant(session, HEAT),
        sessions.grant(session, HEAT),
        sessions.revoke_grant(session, HEAT),
    )
    slow.disk.commit()
    assert slow.done == 3
    slow.begin(sessions.revoke_grant(session, HEAT))
    slow.disk.commit()
    assert slow.done == 4
    slow.disk.commit()
    assert slow.done == 5
    slow.disk.commit()
    assert slow.done == 6
    slow.check({CALL}, set())
