"""What every store promises about live sessions."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.core.grants import Grant, Right, SessionChange, StoredSession
from tests.storage.store_bench import Rig, bounded, together

ALL_KEYS = Grant(device="D", right=Right.TELEMETRY)
ONE_KEY = Grant(device="D", right=Right.TELEMETRY, selector="temperature")
#: A key may be empty; that is not all of them.
EMPTY_KEY = Grant(device="D", right=Right.TELEMETRY, selector="")
OTHER_CASE = Grant(device="d", right=Right.TELEMETRY)
METHOD = Grant(device="no/such é", right=Right.METHOD, selector="reboot\x00")
DIFFERENT = frozenset({ALL_KEYS, ONE_KEY, EMPTY_KEY, OTHER_CASE, METHOD})


def stored(
    session_id: str = "s",
    grants: frozenset[Grant] = frozenset(),
    subscriptions: frozenset[Grant] = frozenset(),
    **flags: bool,
) -> StoredSession:
    """Make what is to be found."""
    return StoredSession(id=session_id, grants=grants, subscriptions=subscriptions, **flags)


async def change(rig: Rig, session_id: str = "s", **fields: Any) -> None:
    """Change a session; sets of grants may be written as lists."""
    for name in {"granted", "revoked", "subscribed", "unsubscribed"} & fields.keys():
        fields[name] = frozenset(fields[name])
    await rig.store.change_session(SessionChange(id=session_id, **fields))


async def sessions(rig: Rig) -> list[StoredSession]:
    """List all sessions, by id."""
    return sorted(await rig.store.live_sessions(), key=lambda each: each.id)


class LiveSessionConformance:
    """The live sessions that were granted something."""

    @bounded
    async def test_session(self, rig: Rig) -> None:
        """A session is stored whole with its first change, and is there after reopening."""
        assert await rig.store.live_sessions() == []
        await change(rig, "full", by_grant=True, granted=DIFFERENT, subscribed=[ONE_KEY])
        await change(rig, "bare", met=True)
        for _ in range(2):
            assert await sessions(rig) == [
                stored("bare", met=True),
                stored("full", DIFFERENT, frozenset({ONE_KEY}), by_grant=True),
            ]
            await rig.place.reopen()

    @pytest.mark.parametrize("right", Right)
    @bounded
    async def test_session_rights(self, rig: Rig, right: Right) -> None:
        """Every right is kept as it is, with and without a selector."""
        grants = frozenset(
            Grant(device="D", right=right, selector=each) for each in (None, "", "a")
        )
        await change(rig, granted=grants, subscribed=grants)
        await rig.place.reopen()
        assert await sessions(rig) == [stored("s", grants, grants)]

    @bounded
    async def test_session_changes(self, rig: Rig) -> None:
        """Changes add to what is there and take from it; nothing is there twice."""
        await change(rig, granted=[ALL_KEYS, METHOD])
        await change(rig, granted=[ALL_KEYS, ONE_KEY], subscribed=[ALL_KEYS])
        await change(rig, granted=[ALL_KEYS], subscribed=[ALL_KEYS])
        both = frozenset({ALL_KEYS})
        assert await sessions(rig) == [stored("s", frozenset({ALL_KEYS, METHOD, ONE_KEY}), both)]
        await change(rig, revoked=[METHOD, ONE_KEY, OTHER_CASE], unsubscribed=[ONE_KEY])
        assert await sessions(rig) == [stored("s", both, both)]
        await change(rig, revoked=[ALL_KEYS], granted=[ONE_KEY], unsubscribed=[ALL_KEYS])
        assert await sessions(rig) == [stored("s", frozenset({ONE_KEY}))]
        await change(rig, revoked=[ONE_KEY])
        assert await sessions(rig) == [stored()]

    @bounded
    async def test_session_grants_are_told_apart(self, rig: Rig) -> None:
        """Taking one away leaves all that differ from it, by a selector or by case."""
        for gone in DIFFERENT:
            await change(rig, granted=DIFFERENT, subscribed=DIFFERENT)
            await change(rig, revoked=[gone])
            assert await sessions(rig) == [stored("s", DIFFERENT - {gone}, DIFFERENT)]
            await change(rig, granted=[gone], unsubscribed=[gone])
            assert await sessions(rig) == [stored("s", DIFFERENT, DIFFERENT - {gone})]

    @bounded
    async def test_session_flags(self, rig: Rig) -> None:
        """A change says anew whether the client was met and how it subscribes."""
        await change(rig, granted=[ALL_KEYS])
        grants = frozenset({ALL_KEYS})
        for met, by_grant in ((True, False), (True, True), (False, True), (False, False)):
            await change(rig, met=met, by_grant=by_grant)
            assert await sessions(rig) == [stored("s", grants, met=met, by_grant=by_grant)]

    @bounded
    async def test_sessions_are_strangers(self, rig: Rig) -> None:
        """What one session gains or loses is no other's, whose id differs in case only."""
        for session_id in ("s", "S"):
            await change(rig, session_id, granted=[ALL_KEYS], subscribed=[ALL_KEYS])
        await change(rig, "s", revoked=[ALL_KEYS], unsubscribed=[ALL_KEYS])
        both = frozenset({ALL_KEYS})
        assert await sessions(rig) == [stored("S", both, both), stored("s")]

    @bounded
    async def test_session_dropped(self, rig: Rig) -> None:
        """A session goes with all that it was granted; a new one of its id has nothing of it."""
        for session_id in ("a", "b", "c"):
            await change(rig, session_id, met=True, granted=DIFFERENT, subscribed=DIFFERENT)
        await rig.store.drop_sessions([])
        await rig.store.drop_sessions(["a", "unknown", "c", "a", "B"])
        kept = stored("b", DIFFERENT, DIFFERENT, met=True)
        assert await sessions(rig) == [kept]
        await rig.place.reopen()
        await change(rig, "a")
        assert await sessions(rig) == [stored("a"), kept]

    @pytest.mark.parametrize("count", [63, 64, 65, 2000])
    @bounded
    async def test_session_with_many_grants(self, rig: Rig, count: int) -> None:
        """However much is granted at once, each is kept once, and taken away once."""
        grants = frozenset(
            Grant(device=f"D{n % 7}", right=Right.TELEMETRY, selector=f"k{n}") for n in range(count)
        )
        await change(rig, granted=grants, subscribed=grants)
        assert await sessions(rig) == [stored("s", grants, grants)]
        await change(rig, revoked=grants)
        assert await sessions(rig) == [stored("s", frozenset(), grants)]

    @bounded
    async def test_many_sessions(self, rig: Rig) -> None:
        """Thousands of sessions are changed together and dropped together."""
        names = [f"{number:04}" for number in range(3000)]
        await together(
            [
                rig.store.change_session(SessionChange(id=name, granted=frozenset({ALL_KEYS})))
                for name in names
            ]
        )
        assert await sessions(rig) == [stored(name, frozenset({ALL_KEYS})) for name in names]
        await rig.store.drop_sessions(names[:-1])
        assert await sessions(rig) == [stored(names[-1], frozenset({ALL_KEYS}))]

    @bounded
    async def test_session_outlives_devices(self, rig: Rig) -> None:
        """Grants name devices that need not exist, so they stay when one goes."""
        device = await rig.device("D")
        await change(rig, granted=[ALL_KEYS])
        await rig.store.delete_device(device.uid)
        assert await sessions(rig) == [stored("s", frozenset({ALL_KEYS}))]

    @bounded
    async def test_one_session(self, rig: Rig) -> None:
        """One session is found by its id, in its case, as it is in the list."""
        assert await rig.store.live_session("s") is None
        await change(rig, "s", by_grant=True, granted=DIFFERENT, subscribed=[ONE_KEY])
        await change(rig, "bare", met=True)
        full = stored("s", DIFFERENT, frozenset({ONE_KEY}), by_grant=True)
        assert await rig.store.live_session("s") == full
        assert await rig.store.live_session("bare") == stored("bare", met=True)
        assert await rig.store.live_session("S") is None
        await rig.store.drop_sessions(["s"])
        assert await rig.store.live_session("s") is None

    @bounded
    async def test_unused_sessions(self, rig: Rig) -> None:
        """Of those that are named the ones go that were not used since."""
        for session_id, used in (("a", 10), ("b", 20), ("c", 10)):
            await change(rig, session_id, used=used, granted=DIFFERENT)
        assert await rig.store.drop_unused_sessions([], 99) == []
        assert await rig.store.drop_unused_sessions(["b", "a"], 10) == []
        gone = await rig.store.drop_unused_sessions(["x", "b", "a", "A", "x"], 20)
        assert gone == ["A", "a", "x"]
        assert await sessions(rig) == [stored("b", DIFFERENT), stored("c", DIFFERENT)]
        await rig.place.reopen()
        assert await rig.store.drop_unused_sessions(["a", "b", "c"], 21) == ["a", "b", "c"]
        await change(rig, "a", used=1)
        assert await sessions(rig) == [stored("a")]

    @bounded
    async def test_used_sessions(self, rig: Rig) -> None:
        """A session was used when it was changed or touched last, whichever is told later."""
        for session_id in ("a", "b", "c"):
            await change(rig, session_id, used=10)
        await rig.store.touch_sessions([], 99)
        await rig.store.touch_sessions(["a", "b", "unknown"], 30)
        await rig.store.touch_sessions(["a"], 20)
        await change(rig, "b", used=25, granted=[ALL_KEYS])
        await change(rig, "c", used=40)
        assert await rig.store.drop_unused_sessions(["a", "b", "c"], 30) == []
        assert await rig.store.drop_unused_sessions(["a", "b", "c"], 31) == ["a", "b"]
        assert await sessions(rig) == [stored("c")]
        assert await rig.store.drop_unused_sessions(["c"], 41) == ["c"]
