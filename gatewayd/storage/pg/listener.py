"""Hears from the database what other nodes do, and looks whether it has missed something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from gatewayd.storage.dsn import Dsn
from gatewayd.storage.pg.clock import SharedClock
from gatewayd.storage.pg.frames import CHANGE, CHANNEL, JOINED, parse
from gatewayd.storage.pg.journal import Journal
from gatewayd.storage.pg.pool import NAME
from gatewayd.storage.pg.tail import Tail
from gatewayd.storage.postgres import Lost, Refused, Session
from gatewayd.storage.sessions import Sessions

_POLL = 2.0  # seconds
# The server gives up a node that takes nothing for so long (ms): what is kept for it is finite.
_LISTEN = f"SELECT set_config('tcp_user_timeout', '30000', false); LISTEN {CHANNEL}"
_LOOK = """
    SELECT position, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    pg_notification_queue_usage() FROM log_end
"""
# Of the queue of notifications: when it is full, nothing can be committed that has one. It grows
# while somebody who listens stands still.
_CROWDED = 0.25


class Listener:
    """A connection on which the notifications of other stores arrive.

    They are a hint: what one of them would have told, the log tells, too, which is looked at every
    2 s and whenever the connection is new.

    :param journal: of this store, whose own frames are left out.
    :ivar changed: called when the registry may have been changed.
    :ivar joined: called when there is a node more, which may be this one.
    """

    log = Logger()

    def __init__(
        self,
        dsn: Dsn,
        reactor: Any,
        patience: float,
        tail: Tail,
        clock: SharedClock,
        journal: Journal,
    ) -> None:
        self._reactor = reactor
        self._tail = tail
        self._clock = clock
        self._journal = journal
        self._running = False
        self._resting: tuple[IDelayedCall, Deferred[None]] | None = None
        self.changed: list[Callable[[], None]] = []
        self.joined: Callable[[], None] = lambda: None
        self._sessions = Sessions(
            dsn, 1, patience, reactor, free=self._freed, away=lambda _: None, name=NAME
        )

    @property
    def reason(self) -> str | None:
        """Why the database is not reached, None when it is."""
        return self._sessions.reason

    async def start(self) -> None:
        """Begin to listen; returns when the database is reached, or is not at the first time."""
        self._running = True
        await self._sessions.start()

    def refuse(self) -> None:
        """Go on until it is stopped: it takes nothing from anybody here."""

    async def stop(self) -> None:
        """Disconnect."""
        self._running = False
        self._wake()
        await self._sessions.stop()

    def _freed(self) -> None:
        if self._running and (session := self._sessions.take()) is not None:
            self._wake()  # who rests on the one before finds that it is lost
            session.on_notification(self._notified)
            done = Deferred.fromCoroutine(self._listen(session))
            done.addErrback(lambda failure: self.log.failure("listening failed", failure))

    async def _listen(self, session: Session) -> None:
        answered = False
        try:
            while self._running:
                try:
                    await self._look(session)
                    answered = True
                except Refused as error:
                    self.log.warn("the log cannot be followed: {error}", error=str(error))
                await self._rest()
        except Lost as error:
            self.log.debug("listening is interrupted: {error}", error=str(error))
        self._sessions.give(session, answered=answered)

    async def _look(self, session: Session) -> None:
        # Of what is committed from here on there are notifications; a second time changes nothing.
        await session.run(_LISTEN, {})
        ((position, now, queue),) = await session.run(_LOOK, {})
        self._journal.crowded = queue > _CROWDED
        self._clock.heard(now)
        self._tail.heard(position)
        self._call_changed()

    async def _rest(self) -> None:
        if self._running:
            rested: Deferred[None] = Deferred()
            self._resting = (self._reactor.callLater(_POLL, rested.callback, None), rested)
            await rested

    def _wake(self) -> None:
        resting, self._resting = self._resting, None
        if resting is not None:
            timer, rested = resting
            if timer.active():
                timer.cancel()
                rested.callback(None)

    def _notified(self, payload: str) -> None:
        """Take a notification; one that is none of ours is ignored."""
        if payload == CHANGE:
            self._call_changed()
            return
        if payload == JOINED:
            self.joined()
            return
        try:
            frame = parse(payload)
        except ValueError as error:
            self.log.debug("a notification is not understood: {error}", error=str(error))
            return
        if frame.sender == self._journal.token:
            return
        if frame.events is None:
            self._tail.heard(frame.upto)
        else:
            self._tail.offer(frame.after, frame.upto, frame.events)

    def _call_changed(self) -> None:
        for function in self.changed:
            try:
                function()
            except Exception:
                self.log.failure("a change of another node is not looked at")
