"""Whatever happens to live sessions, in whatever order: nothing is followed that is not granted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from gatewayd.core.grants import SUBSCRIBABLE, Grant, Right, StoredSession
from gatewayd.core.interfaces import Store
from gatewayd.core.live_sessions import LiveSession, LiveSessions, SessionRules
from gatewayd.errors import Denied, NotFound, Unavailable
from tests.core.sessions import LIFETIME, Disk

EVERY = [
    *(Grant(device=d, right=Right.TELEMETRY, selector=s) for d in "Dd" for s in (None, "a", "b")),
    Grant(device="D", right=Right.METHOD, selector="a"),
]
grants = st.sampled_from(EVERY)
picks = st.integers(0, 1000)


def folded(grant: Grant) -> Grant:
    return Grant(device=grant.device.upper(), right=grant.right, selector=grant.selector)


class Model:
    """What one session must have: what was given after it was taken away last.

    Calls are numbered in the order in which they were made.

    :ivar used: when it was used last. :ivar over: whether it ended.
    :ivar forgotten: whether the store has forgotten it for good.
    """

    def __init__(self, session: LiveSession, now: float) -> None:
        self.session = session
        self.used = now
        self.holders = 0
        self.over = self.forgotten = False
        self.by_grant = session.by_grant
        self.rights = Ledger(map(folded, session.grants))
        self.subscriptions = Ledger(session.subscriptions)
        self.pushed = set(session.subscriptions)
        session.follower = self

    def may(self, grant: Grant) -> bool:
        return any(each.covers(grant) for each in self.rights.has())

    def resting(self, grant: Grant) -> list[Grant]:
        """Return the subscriptions that go with a grant."""
        covered = [each for each in EVERY if grant.covers(each)]
        return [each for each in covered if self.by_grant or not self.may(each)]

    # The follower

    def subscribed(self, grant: Grant) -> None:
        assert not self.over
        assert grant not in self.pushed
        self.pushed.add(grant)

    def unsubscribed(self, grant: Grant) -> None:
        self.pushed.remove(grant)

    def ended(self) -> None:
        assert not self.over
        self.over = True
        self.pushed.clear()


class Ledger:
    """Which call gave something, and which was the last that took it away."""

    def __init__(self, given: Iterable[Grant]) -> None:
        self.asked: dict[Grant, int] = {}
        self.given = dict.fromkeys(given, 1)
        self.taken: dict[Grant, int] = {}
        self.erased: dict[Grant, int] = {}

    def ask(self, what: Iterable[Grant], call: int) -> None:
        self.asked.update(dict.fromkeys(what, call))

    def give(self, what: Iterable[Grant], call: int) -> None:
        """Know that the store has what a call gave."""
        for each in what:
            self.given[each] = max(call, self.given.get(each, 0))

    def take(self, what: Iterable[Grant], call: int) -> None:
        self.taken.update(dict.fromkeys(what, call))

    def erase(self, what: Iterable[Grant], call: int) -> None:
        """Know that the store has what a call took away."""
        for each in what:
            self.erased[each] = max(call, self.erased.get(each, 0))

    def has(self) -> set[Grant]:
        return {each for each, call in self.given.items() if call > self.taken.get(each, 0)}

    def must_not_return(self) -> set[Grant]:
        """Return what the store has forgotten, and nobody has asked for since."""
        return {each for each, call in self.erased.items() if call > self.asked.get(each, 0)}


class History(RuleBasedStateMachine):
    """Sessions of a gateway whose store is slow, fails or refuses, and which is restarted."""

    @initialize()
    def begin(self) -> None:
        self.disk = Disk()
        self.clock = Clock()
        self.calls = 1
        self.ids: list[str] = []
        self.models: dict[str, Model] = {}
        self.refused: set[str] = set()
        self.failures: list[Any] = []
        self.steps = 0
        self._start()

    def _start(self) -> None:
        rules = SessionRules(lifetime=LIFETIME, rate=1000, burst=1000)
        store = cast("Store", self.disk)
        self.sessions = LiveSessions(store, self._wall, self.clock, rules)
        self._run(self.sessions.start())

    def _wall(self) -> int:
        return round(self.clock.seconds() * 1000)

    def _run(self, work: Any, done: Callable[[], None] = lambda: None, *allowed: Any) -> None:
        """Begin a call; other failures than those of the store must be allowed."""

        def failed(failure: Any) -> None:
            if not failure.check(Unavailable, *allowed):
                self.failures.append(failure)

        Deferred.fromCoroutine(work).addCallback(lambda _: done()).addErrback(failed)

    def _call(self) -> int:
        self.calls += 1
        self.steps += 1
        return self.calls

    def _meet(self, session: LiveSession) -> None:
        self.models[session.id] = Model(session, self.clock.seconds())
        self.ids.append(session.id)

    def _live(self) -> list[Model]:
        return [each for each in self.models.values() if not each.over]

    def _pick(self, pick: int) -> Model:
        """Return one of two sessions that are not over."""
        while len(self._live()) < 2:
            self._meet(self.sessions.create("h"))
        return self._live()[pick % 2]

    def _disturb(self) -> bool:
        """Whether enough was done since the last disturbance to disturb it."""
        long_ago = self.steps >= 8
        if long_ago:
            self.steps = 0
        return long_ago

    # What may happen

    @rule(pick=picks, adopt=st.booleans())
    def ask(self, pick: int, adopt: bool) -> None:
        """Ask for a session that there is or was."""
        self._pick(pick)
        id_ = self.ids[pick % len(self.ids)]
        found: LiveSession | None
        try:
            found = self.sessions.adopt(id_) if adopt else self.sessions.get(id_)
        except NotFound:
            found = None
        model = self.models.get(id_)
        if model is not None and not model.over:
            assert found is model.session
            model.used = self.clock.seconds()
        elif found is not None:
            assert id_ not in self.refused
            assert found.fresh
            self._meet(found)

    @rule(pick=picks, grant=grants)
    def grant(self, pick: int, grant: Grant) -> None:
        model, call = self._pick(pick), self._call()
        follows = [grant] if model.by_grant and grant.right in SUBSCRIBABLE else []

        def done() -> None:
            model.rights.give([folded(grant)], call)
            model.subscriptions.give(follows, call)

        model.rights.ask([folded(grant)], call)
        model.subscriptions.ask(follows, call)
        self._run(self.sessions.grant(model.session, grant), done)

    @rule(pick=picks, grant=grants)
    def revoke_grant(self, pick: int, grant: Grant) -> None:
        model, call = self._pick(pick), self._call()
        gone = [each for each in map(folded, EVERY) if grant.covers(each)]
        model.rights.take(gone, call)
        rest = model.resting(grant)
        model.subscriptions.take(rest, call)

        def done() -> None:
            model.rights.erase(gone, call)
            model.subscriptions.erase(rest, call)

        self._run(self.sessions.revoke_grant(model.session, grant), done)

    @rule(pick=picks, wanted=st.lists(grants, max_size=3), covered=st.booleans())
    def subscribe(self, pick: int, wanted: list[Grant], covered: bool) -> None:
        model, call = self._pick(pick), self._call()
        if covered:
            wanted = self.sessions.covered(model.session, wanted)
        allowed = all(each.right in SUBSCRIBABLE and model.may(each) for each in wanted)
        assert allowed or not covered
        if allowed:
            model.subscriptions.ask(wanted, call)
            done = partial(model.subscriptions.give, wanted, call)
            self._run(self.sessions.subscribe(model.session, wanted), done)
        else:
            self._run(self.sessions.subscribe(model.session, wanted), self._never, Denied)

    def _never(self) -> None:
        raise AssertionError

    @rule(pick=picks, gone=st.lists(grants, max_size=3))
    def unsubscribe(self, pick: int, gone: list[Grant]) -> None:
        model, call = self._pick(pick), self._call()
        model.subscriptions.take(gone, call)
        done = partial(model.subscriptions.erase, gone, call)
        self._run(self.sessions.unsubscribe(model.session, gone), done)

    @rule(pick=picks, met=st.booleans())
    def mark(self, pick: int, met: bool) -> None:
        """Know more of a session."""
        model = self._pick(pick)
        if met:
            self._run(self.sessions.meet(model.session))
        else:
            model.session.by_grant = model.by_grant = True

    @rule(pick=picks, how=st.sampled_from(["revoke", "drop", "all"]))
    def end(self, pick: int, how: str) -> None:
        ending = self._live() if how == "all" else [self._pick(pick)]
        if not (ending and self._disturb()):
            return
        session = ending[0].session
        self.refused.update(self.ids if how == "all" else [session.id])

        def done() -> None:
            for each in ending:
                each.forgotten = True

        if how == "all":
            self._run(self.sessions.revoke_all(), done)
        elif how == "drop":
            self._run(self.sessions.drop(session), done)
        else:
            self._run(self.sessions.revoke(session.id), done)
        assert all(each.over for each in ending)

    @rule(pick=picks)
    def hold(self, pick: int) -> None:
        """Hold a session, or release one that is held, also after its end."""
        held = [each for each in self.models.values() if each.holders]
        if held and pick % 2:
            model = held[pick % len(held)]
            model.holders -= 1
            model.used = self.clock.seconds()
            self.sessions.release(model.session)
        elif self._live():
            model = self._pick(pick)
            model.holders += 1
            self.sessions.hold(model.session)

    @rule(seconds=st.sampled_from([1, 100, LIFETIME - 1, LIFETIME + 1]))
    def pass_time(self, seconds: int) -> None:
        if seconds > 100 and not self._disturb():
            return
        self.clock.advance(seconds)
        for model in self.models.values():
            idle = 0.0 if model.holders else self.clock.seconds() - model.used
            if idle < LIFETIME:
                assert not model.over or model.session.id in self.refused
            if idle >= LIFETIME + 1:
                assert model.over

    # What the store does

    @rule(fails=st.lists(st.booleans(), max_size=6), refusing=st.booleans())
    def commit(self, fails: list[bool], refusing: bool) -> None:
        for each in fails[: len(self.disk.waiting)]:
            self.disk.commit(each)
        self.disk.refusing = refusing

    def _commit_all(self) -> None:
        while self.disk.waiting:
            self.disk.commit()

    @rule()
    def settle(self) -> None:
        """When the store works again, and hears of each session, it has what the sessions have."""
        self.disk.refusing = False
        self._commit_all()
        for model in self._live():
            self._run(self.sessions.unsubscribe(model.session, []))
        self._run(self.sessions.revoke(""))
        self._commit_all()
        live = {each.session.id: each.session for each in self._live()}
        assert set(self.disk.sessions) <= set(live)
        for id_, session in live.items():
            stored = self.disk.sessions.get(id_) or StoredSession(id=id_)
            assert (stored.grants, stored.subscriptions) == (session.grants, session.subscriptions)
            if id_ in self.disk.sessions:
                assert (stored.by_grant, stored.met) == (session.by_grant, session.met)

    @rule(crash=st.booleans())
    def restart(self, crash: bool) -> None:
        if not self._disturb():
            return
        if not crash:
            self._commit_all()
        self.sessions.stop()
        self.disk.waiting.clear()
        self.disk.refusing = False
        before, self.models = self.models, {}
        self.refused.clear()
        self.clock.advance(1)
        self._start()
        for id_ in self.disk.sessions:
            session = self.sessions.get(id_)
            old = before[id_]
            assert not old.forgotten
            has = set(map(folded, session.grants))
            assert not has & old.rights.must_not_return()
            assert not session.subscriptions & old.subscriptions.must_not_return()
            self._meet(session)
        for id_, old in before.items():
            if not old.over and (old.rights.has() or old.subscriptions.has()):
                session = self.models[id_].session
                assert old.rights.has() <= set(map(folded, session.grants))
                assert old.subscriptions.has() <= session.subscriptions

    # What is always so

    @invariant()
    def as_the_model_says(self) -> None:
        for model in self.models.values():
            session = model.session
            if model.over:
                assert not session.grants
                assert not model.pushed
                continue
            assert set(map(folded, session.grants)) == model.rights.has()
            assert len(session.grants) == len(model.rights.has())
            assert session.subscriptions == model.subscriptions.has() == model.pushed
            assert all(model.may(each) for each in model.pushed)

    @invariant()
    def none_is_lost(self) -> None:
        assert self.sessions.count == len(self._live())

    @invariant()
    def nothing_else_fails(self) -> None:
        assert self.failures == []

    def teardown(self) -> None:
        self.sessions.stop()
        assert self.clock.getDelayedCalls() == []


History.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestHistory = History.TestCase
