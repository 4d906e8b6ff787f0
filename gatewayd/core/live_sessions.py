"""Sessions of people without an account: who may see what live, and what is pushed to whom."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any, Protocol

import attrs
import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.core.grants import SUBSCRIBABLE, Grant
from gatewayd.core.interfaces import SessionStore, Vault
from gatewayd.core.live_session import Change, Gift
from gatewayd.core.live_session import Follower as Follower
from gatewayd.core.live_session import LiveSession as LiveSession
from gatewayd.core.rates import Rates
from gatewayd.core.session_ids import SessionIds
from gatewayd.errors import Denied, GatewayError, NotFound, TooMany

_NAME = "live-sessions"
_SECRET_BYTES = 32
#: Seconds after which an unused session makes room for another.
_UNUSED = 60.0
#: Sessions that expire within so many seconds go together.
_TOGETHER = 1.0


@attrs.frozen(kw_only=True)
class SessionRules:
    """How many sessions there may be, and for how long.

    :ivar sessions: at one time.
    :ivar per_session: grants that one may have, and as many subscriptions.
    :ivar lifetime: seconds after its last use for which one is kept while no socket holds it.
    :ivar rate: new ones per second and address. :ivar burst: at once.
    """

    sessions: int = 10_000
    per_session: int = 2_000
    lifetime: float = 600.0
    rate: float = 20.0
    burst: int = 200


class Store(SessionStore, Vault, Protocol):
    """Where sessions and the secret of their ids are kept."""


class LiveSessions:
    """Creates sessions, gives them rights and subscriptions, and takes them back.

    What takes rights away has effect at once, even if the store fails; what gives some has effect
    once the store has it. Both return after the store has it. A session that was never granted
    anything is not stored.

    :param wall: the time of day in ms.
    :param clock: for timers.
    """

    log = Logger()

    def __init__(
        self, store: Store, wall: Callable[[], int], clock: IReactorTime, rules: SessionRules
    ) -> None:
        self._store = store
        self._wall = wall
        self._clock = clock
        self._rules = rules
        self._rates = Rates(rules.rate, rules.burst, clock, "principal")
        self._ids: SessionIds
        #: ms; what was issued before was issued by another process
        self._started = 0
        self._sessions: dict[str, LiveSession] = {}
        #: those that no socket holds; the one that was used longest ago is first
        self._idle: dict[str, LiveSession] = {}
        #: ids of sessions that are over, but may be in the store
        self._undropped: set[str] = set()
        self._running = False
        self._timer: IDelayedCall | None = None

    async def start(self) -> None:
        """Read what is stored, and let sessions expire from now on.

        :raises Unavailable: the secret cannot be kept.
        """
        secret = await self._store.secret(_NAME)
        if secret is None:
            new = secrets.token_bytes(_SECRET_BYTES)
            secret = await self._store.keep_secret(_NAME, new)
        self._ids = SessionIds(secret, self._wall)
        self._started = self._wall()
        self._running = True
        for stored in await self._store.live_sessions():
            self._add(stored.id).load(stored)

    def stop(self) -> None:
        """Stop the timer."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._sessions)

    # Life

    def create(self, host: str | None) -> LiveSession:
        """Create a session.

        :param host: the address of who asks; None when it has none, as that of a Unix socket.
        :raises TooMany: ``"principal"``: too often; ``"gateway"``: there are too many sessions.
        """
        if host is not None:
            self._rates.take(host)
        if not self._make_room():
            raise TooMany("gateway")
        return self._add(self._ids.issue())

    async def find(self, session_id: str) -> LiveSession:
        """Return a session as :meth:`get` does, also another node's. :raises Unavailable:"""
        return self.get(session_id)

    def get(self, session_id: str) -> LiveSession:
        """Return a session, and know that it is used.

        One that was lost by a restart is there again, with nothing granted to it.

        :raises NotFound:
        """
        session = self._sessions.get(session_id)
        if session is not None:
            session.touch()
            return session
        created = self._ids.created(session_id)
        oldest = self._wall() - round(self._rules.lifetime * 1000)
        if created is not None and oldest <= created and self._may_be_lost(created):
            session = self.adopt(session_id)
        if session is None:
            raise NotFound("session", session_id)
        return session

    def _may_be_lost(self, created: int) -> bool:
        """Whether a session that is not known may be another process's (ms)."""
        return created < self._started

    def adopt(self, session_id: str) -> LiveSession | None:
        """Return a session of that id, a new one if there is none.

        None: it is no id of ours, or was revoked or dropped, or there is no room.
        """
        session = self._sessions.get(session_id)
        if session is not None:
            session.touch()
            return session
        # What the store still has of it would be granted again by a restart.
        if self._ids.created(session_id) is None or session_id in self._undropped:
            return None
        return self._add(session_id) if self._make_room() else None

    def hold(self, session: LiveSession) -> None:
        """Keep a session from expiring, until as many :meth:`release` it."""
        session.holders += 1
        if self._is_live(session):
            self._idle.pop(session.id, None)

    def release(self, session: LiveSession) -> None:
        """Hold a session no longer."""
        session.holders -= 1
        session.touch()

    async def meet(self, session: LiveSession) -> None:
        """Know that a client of a session is, or was, connected.

        :raises Unavailable: it is not stored.
        """
        session.met = True
        if self._is_live(session):
            await self._tell(session, Gift())

    async def drop(self, session: LiveSession) -> None:
        """End a session. Its id is refused from now on.

        :raises Unavailable: it may be back after a restart.
        """
        if self._is_live(session):
            await self.revoke(session.id)

    async def revoke(self, session_id: str) -> None:
        """End the session of that id, if there is one. The id is refused from now on.

        :raises Unavailable: it may be back after a restart; it can be revoked again.
        """
        self._ids.revoke(session_id)
        session = self._sessions.get(session_id)
        await self._end([] if session is None else [session])

    async def revoke_all(self) -> None:
        """End all sessions. Their ids are refused from now on.

        :raises Unavailable: they may be back after a restart; they can be revoked again.
        """
        self._ids.revoke_all()
        await self._end(list(self._sessions.values()))

    # Rights and subscriptions

    async def may(self, session: LiveSession, grant: Grant) -> bool:
        """Whether something covers this that was granted, here or on another node.

        :raises Unavailable: nothing does that is known here, and the store cannot be asked.
        """
        if not session.may(grant):
            await self.refresh(session)
        return session.may(grant)

    async def refresh(self, session: LiveSession) -> None:
        """Take over what other nodes have made of a session. :raises Unavailable:"""

    async def grant(self, session: LiveSession, grant: Grant) -> None:
        """Grant something, and subscribe to it if the session is of that kind.

        :raises NotFound: the session is over. :raises TooMany: ``"session"``.
        :raises Unavailable: nothing is granted.
        """
        follows = session.by_grant and grant.right in SUBSCRIBABLE
        await self._give(session, [grant], [grant] if follows else [])

    async def revoke_grant(self, session: LiveSession, grant: Grant) -> None:
        """Take back what a grant covers, and the subscriptions that rest on it.

        :raises NotFound: the session is over.
        :raises Unavailable: it may be back after a restart, unless it is revoked again.
        """
        self._require_live(session)
        await self._tell(session, Gift(), *session.revoke(grant))

    def covered(self, session: LiveSession, grants: Iterable[Grant]) -> list[Grant]:
        """Return what of that the session may subscribe to."""
        return [each for each in grants if each.right in SUBSCRIBABLE and session.may(each)]

    async def subscribe(self, session: LiveSession, grants: Sequence[Grant]) -> None:
        """Subscribe to all of that, or to nothing.

        A client that is connected knows that by now.

        :raises NotFound: the session is over. :raises Denied: ``"grant"``: something is not
            granted. :raises TooMany: ``"session"``. :raises Unavailable: nothing is subscribed to.
        """
        if len(self.covered(session, grants)) != len(grants):
            await self.refresh(session)
        if len(self.covered(session, grants)) != len(grants):
            self._require_live(session)
            raise Denied("grant")
        if session.follower is not None:
            session.met = True  # it is stored with the subscriptions: a crash may be near
        await self._give(session, [], grants)

    async def unsubscribe(self, session: LiveSession, grants: Sequence[Grant]) -> None:
        """End subscriptions, each in the spelling in which it was made.

        :raises NotFound: the session is over.
        :raises Unavailable: they may be back after a restart, unless this is done again.
        """
        self._require_live(session)
        await self._tell(session, Gift(), (), session.unsubscribe(grants))

    async def _give(
        self, session: LiveSession, grants: Iterable[Grant], subscriptions: Iterable[Grant]
    ) -> None:
        self._require_live(session)
        gift = session.promise(grants, subscriptions, self._rules.per_session)
        await self._tell(session, gift)

    def _tell(
        self,
        session: LiveSession,
        gift: Gift,
        revoked: Iterable[Grant] = (),
        unsubscribed: Iterable[Grant] = (),
    ) -> Deferred[None]:
        """Tell the store what becomes of a session, then give it what it was promised."""
        change = session.change(gift, revoked, unsubscribed)
        if change is None:
            session.take(gift)
            return succeed(None)
        return _apart(self._store_change(session, change))

    def _store_change(self, session: LiveSession, change: Change) -> Deferred[None]:
        """Let the store have a change, which has effect then."""

        def told(result: Any) -> Any:
            (session.not_stored if isinstance(result, Failure) else session.stored)(change)
            return result

        wanted = msgspec.structs.replace(change.told, used=self._wall())
        return self._store.change_session(wanted).addBoth(told)

    # All of them

    def _is_live(self, session: LiveSession) -> bool:
        return self._sessions.get(session.id) is session

    def _require_live(self, session: LiveSession) -> None:
        if not self._is_live(session):
            raise NotFound("session", session.id)

    def _add(self, session_id: str) -> LiveSession:
        session = self._sessions[session_id] = LiveSession(session_id, self._touched)
        session.touch()
        return session

    def _make_room(self) -> bool:
        """Make room for one more if there is none, and return whether there is."""
        if len(self._sessions) >= self._rules.sessions:
            latest = self._clock.seconds() - _UNUSED
            idle = takewhile(lambda each: each.used <= latest, self._idle.values())
            unused = next((each for each in idle if each.unused), None)
            if unused is not None:
                self._let_go([unused])
        return len(self._sessions) < self._rules.sessions

    def _end(self, sessions: Sequence[LiveSession]) -> Deferred[None]:
        """Take everything from sessions at once, then forget them in the store."""
        self._undropped.update(session.id for session in sessions if session.kept)
        self._forget(sessions)
        if not self._undropped:
            return succeed(None)
        ids = sorted(self._undropped)

        def dropped(_: None) -> None:
            self._undropped.difference_update(ids)

        return _apart(self._store.drop_sessions(ids).addCallback(dropped))

    def _forget(self, sessions: Sequence[LiveSession]) -> None:
        """Take everything from sessions."""
        for session in sessions:
            del self._sessions[session.id]
            self._idle.pop(session.id, None)
        for session in sessions:
            session.end()

    def _let_go(self, sessions: Sequence[LiveSession]) -> None:
        """End sessions that nobody asks for."""
        ending = self._end(sessions)
        ending.addErrback(
            lambda failure: self.log.warn(
                "live sessions are over, but still stored: {error}", error=failure.value
            )
        )

    # Time

    def _touched(self, session: LiveSession) -> None:
        session.used = self._clock.seconds()
        if session.holders == 0 and self._is_live(session):
            self._idle.pop(session.id, None)
            self._idle[session.id] = session
            self._wait()

    def _wait(self) -> None:
        """Wait until the next one expires."""
        if self._running and self._timer is None and self._idle:
            next_ = next(iter(self._idle.values()))
            left = next_.used + self._rules.lifetime - self._clock.seconds()
            self._timer = self._clock.callLater(max(left, _TOGETHER), self._expire)

    def _expire(self) -> None:
        self._timer = None
        latest = self._clock.seconds() - self._rules.lifetime
        over = list(takewhile(lambda each: each.used <= latest, self._idle.values()))
        if over:
            self._let_go(over)
        self._wait()


def _apart(work: Deferred[None]) -> Deferred[None]:
    """Let work go on when who waits for it is cancelled: it would be left half done."""
    waiting: Deferred[None] = Deferred()

    def over(result: Any) -> None:
        if not waiting.called:
            waiting.callback(result)
        elif isinstance(result, Failure) and not result.check(GatewayError):
            LiveSessions.log.failure("a live session was not stored", failure=result)

    work.addBoth(over)
    return waiting
