"""The live sessions of a gateway of several nodes, each of which serves any client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from gatewayd.core.cluster import Change, ChangeKind, ClusterStore
from gatewayd.core.following import Following
from gatewayd.core.grants import Grant
from gatewayd.core.live_session import Change as SessionChange
from gatewayd.core.live_session import Gift
from gatewayd.core.live_sessions import LiveSession, LiveSessions, SessionRules, Store
from gatewayd.core.locks import Locks
from gatewayd.core.membership import Membership
from gatewayd.errors import Unavailable

#: Seconds between two times of telling the store which sessions are used.
_TELL_EVERY = 60.0
#: Seconds by which the store knows of a use too late, at most.
_LATE = 70.0
#: Seconds after a session has expired here when it can be known whether another node uses it.
_SURE = 2 * _LATE


class _Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """What the nodes tell each other of ids that are refused from now on.

    :ivar ids: these. :ivar until: all that were issued up to then, ms since the epoch.
    """

    ids: list[str] = []
    until: int | None = None


#: Ids of sessions that the store has forgotten, which are no reason to refuse them; or others.
_Gone = list[str] | _Revoked


class SharedSessions(LiveSessions):
    """The sessions that this node knows; the store has those that were ever granted anything.

    A session that is not known here is looked for in the store, and one that is to be refused
    something is read again before. What other nodes make of a session is taken over.

    Of a session all that is written and read is done one after the other, so that what is read is
    never older than what is known here.

    A session may outlive its time by some minutes: the nodes tell each other only once a minute
    which are in use.

    :param wall: the time of the store's clock, ms since the epoch.
    """

    def __init__(
        self,
        store: Store,
        wall: Callable[[], int],
        clock: IReactorTime,
        rules: SessionRules,
        cluster: ClusterStore,
        membership: Membership,
        following: Following,
    ) -> None:
        super().__init__(store, wall, clock, rules)
        self._cluster = cluster
        self._membership = membership
        self._locks = Locks()
        #: what expired here, and when
        self._expired: dict[str, float] = {}
        #: until when it is known which sessions were used
        self._told_until = 0.0
        self._swept = 0.0
        self._upkeep = LoopingCall(lambda: Deferred.fromCoroutine(self._keep_up()))
        self._upkeep.clock = clock
        self._following = following

    async def start(self) -> None:
        """Read what is stored, and begin to follow it. :raises Unavailable:"""
        for kind in (ChangeKind.SESSION, ChangeKind.SESSIONS_GONE):
            self._following.on(kind, self._changed)
        async with self._locks.hold(None):
            await super().start()
        self._told_until = self._swept = self._clock.seconds()
        self._upkeep.start(_TELL_EVERY, now=False)

    def stop(self) -> None:
        """Stop the timers."""
        super().stop()
        if self._upkeep.running:
            self._upkeep.stop()

    # One session

    async def find(self, session_id: str) -> LiveSession:
        """Return a session, and know that it is used. :raises NotFound: :raises Unavailable:"""
        if session_id not in self._sessions and self._is_good(session_id):
            async with self._locks.hold(session_id):
                stored = await self._store.live_session(session_id)
                known = session_id in self._sessions
                if stored is not None and not known and self._is_good(session_id):
                    self._add(session_id).load(stored)
        return self.get(session_id)

    def _is_good(self, session_id: str) -> bool:
        """Whether a session of that id may be in use."""
        return self._ids.created(session_id) is not None and session_id not in self._undropped

    def _may_be_lost(self, created: int) -> bool:
        return True  # it may be another node's, which has not stored it

    async def refresh(self, session: LiveSession) -> None:
        """Take over what other nodes have made of a session. :raises Unavailable:"""
        async with self._locks.hold(session.id):
            stored = await self._store.live_session(session.id)
            if self._is_live(session):
                session.adjust(stored)

    async def revoke_grant(self, session: LiveSession, grant: Grant) -> None:
        """Take back what a grant covers, whoever has given that; at once what is known here.

        :raises NotFound: the session is over. :raises Unavailable:
        """
        await super().revoke_grant(session, grant)
        await self.refresh(session)
        await self._tell(session, Gift(), *session.revoke(grant))

    async def unsubscribe(self, session: LiveSession, grants: Sequence[Grant]) -> None:
        """End subscriptions, also those that another node has made.

        :raises NotFound: the session is over. :raises Unavailable:
        """
        if not session.subscriptions.issuperset(grants):
            await self.refresh(session)
        await super().unsubscribe(session, grants)

    def _store_change(self, session: LiveSession, change: SessionChange) -> Deferred[None]:
        return Deferred.fromCoroutine(self._store_in_turn(session, change))

    async def _store_in_turn(self, session: LiveSession, change: SessionChange) -> None:
        async with self._locks.hold(session.id):
            if not self._is_live(session):  # it ended meanwhile, and is dropped already
                session.not_stored(change)
                return
            await super()._store_change(session, change)
            if session.id not in self._sessions:  # another node dropped it, perhaps before
                self._undropped.add(session.id)
                await self._end([])

    # The ends of sessions

    async def revoke(self, session_id: str) -> None:
        """End the session of that id on all nodes. The id is refused from now on.

        :raises Unavailable: it may be used on other nodes; it can be revoked again.
        """
        if self._ids.issued(session_id) is not None:
            self._undropped.add(session_id)  # another node may have stored it
            await super().revoke(session_id)
            await self._announce(_Revoked(ids=[session_id]))

    async def revoke_all(self) -> None:
        """End all sessions on all nodes. Their ids are refused from now on.

        :raises Unavailable: some may be used on other nodes; they can be revoked again.
        """
        until = self._ids.revoke_all()
        here = list(self._sessions.values())
        self._undropped.update(each.id for each in here if each.kept)
        self._forget(here)  # at once, whether the store can be asked or not
        stored = await self._store.live_sessions()
        self._undropped.update(each.id for each in stored if self._ids.created(each.id) is None)
        await self._end([])
        await self._announce(_Revoked(until=until))

    async def _announce(self, revoked: _Revoked) -> None:
        subject = msgspec.json.encode(revoked)
        await self._cluster.announce(ChangeKind.SESSIONS_GONE, subject)

    def _let_go(self, sessions: Sequence[LiveSession]) -> None:
        """Forget sessions here; the store forgets them when it is sure that nobody uses them."""
        now = self._clock.seconds()
        self._expired.update((each.id, now) for each in sessions if each.kept)
        self._forget(sessions)

    # What other nodes do

    async def _changed(self, change: Change) -> None:
        async with self._locks.hold(None):
            pass  # what is read at the start may be older than this
        if change.kind is ChangeKind.SESSION:
            await self._reread([msgspec.json.decode(change.subject, type=str)])
        elif change.kind is ChangeKind.SESSIONS_GONE:
            await self._gone(msgspec.json.decode(change.subject, type=_Gone))
        else:
            await self._reread(list(self._sessions))

    async def _reread(self, ids: Iterable[str]) -> None:
        for session_id in ids:
            async with self._locks.hold(session_id):
                session = self._sessions.get(session_id)
            if session is not None:
                await self.refresh(session)
                await self._tell(session, Gift())  # unless the store knows of what kind it is

    async def _gone(self, gone: _Gone) -> None:
        """End what is over. :raises Unavailable: it is over, but may still be stored."""
        if isinstance(gone, list):
            self._forget([self._sessions[each] for each in gone if each in self._sessions])
            return
        for session_id in gone.ids:
            self._ids.revoke(session_id)
        if gone.until is not None:
            self._ids.revoke_until(gone.until)
        over = [each for each in self._sessions.values() if self._ids.created(each.id) is None]
        await self._end(over)

    # Time

    async def _keep_up(self) -> None:
        try:
            await self._tell_used()
            await self._drop_unused()
        except Unavailable as error:
            self.log.warn("it is not known which sessions are used: {error}", error=str(error))
        except Exception:
            self.log.failure("live sessions are not kept in order")

    async def _tell_used(self) -> None:
        """Tell the store which sessions were used since the last time."""
        now = self._clock.seconds()
        used = [
            each.id
            for each in self._sessions.values()
            if each.kept and (each.holders or each.used >= self._told_until)
        ]
        if used:
            await self._store.touch_sessions(used, self._wall())
        self._told_until = now

    async def _drop_unused(self) -> None:
        """Let the store forget what expired, here or on a node that is no more."""
        now = self._clock.seconds()
        over = [each for each, since in self._expired.items() if since + _SURE <= now]
        sweep = self._membership.warden and self._swept + self._rules.lifetime <= now
        ids = set(over)
        if sweep:
            ids.update(each.id for each in await self._store.live_sessions())
        ids.difference_update(self._sessions)
        if ids:
            before = self._wall() - round((self._rules.lifetime + _LATE) * 1000)
            await self._store.drop_unused_sessions(sorted(ids), before)
        for session_id in over:
            self._expired.pop(session_id, None)
        if sweep:
            self._swept = now
