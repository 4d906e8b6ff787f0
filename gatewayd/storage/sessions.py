"""A few connections to a PostgreSQL server, which come back by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from gatewayd.storage.dsn import Dsn
from gatewayd.storage.postgres import Lost, Refused, Session

_FIRST_PAUSE = 0.25  # seconds before it is tried again; twice as many each time
_LONGEST_PAUSE = 2.0


class Sessions:
    """Keeps sessions open while the server is there, and tries to open them while it is not.

    :param width: how many.
    :param patience: seconds until the server has to answer anything.
    :param free: called when a session may be taken.
    :param away: called with the reason when the last session is gone and none can be opened.
    :param name: what the log calls the database.
    """

    log = Logger()

    def __init__(
        self,
        dsn: Dsn,
        width: int,
        patience: float,
        reactor: Any,
        *,
        free: Callable[[], None],
        away: Callable[[str], None],
        name: str = "the dashboard's database",
    ) -> None:
        self._dsn = dsn
        self._width = width
        self._patience = patience
        self._reactor = reactor
        self._call_free = free
        self._call_away = away
        self._name = name
        self._running = False
        self._open: set[Session] = set()
        self._idle: list[Session] = []
        self._opening: Session | None = None
        self._filling: Deferred[None] = succeed(None)
        self._filled = True
        #: Names of those that were lost with a statement under way, which may be done yet.
        self._abandoned: set[str] = set()
        #: Failures since a statement was last answered.
        self._failures = 0
        self._pausing: tuple[IDelayedCall, Deferred[None]] | None = None
        self._first: Deferred[None] | None = None
        #: Why the server is not reached, None when it is, or when nobody has tried yet.
        self.reason: str | None = None

    async def start(self) -> None:
        """Open the sessions; returns after one is open, or the first could not be."""
        self._running = True
        self.reason = None
        self._failures = 0
        first: Deferred[None] = Deferred()
        self._first = first
        self._fill()
        await first

    async def stop(self) -> None:
        """Close every session, also those that are taken."""
        self._running = False
        if self._pausing is not None:
            timer, paused = self._pausing
            timer.cancel()
            paused.callback(None)
        for session in (*self._open, *((self._opening,) if self._opening else ())):
            session.close()
        self._open.clear()
        self._idle.clear()
        self._abandoned.clear()
        await self._filling

    def take(self) -> Session | None:
        """Return a session that nobody else has, None when there is none now."""
        return self._idle.pop() if self._idle else None

    def give(self, session: Session, *, answered: bool) -> None:
        """Give a session back; a lost one is forgotten.

        :param answered: whether the server has answered all that it was asked.
        """
        if answered:
            self._failures = 0
        if session in self._open:
            self._idle.append(session)
            self._call_free()

    async def settle(self, session: Session) -> None:
        """See to it that nothing is done any more that was asked on sessions that are lost.

        Else it could come after what is asked next.

        :raises Refused: the server does not allow that. :raises Lost:
        """
        while names := list(self._abandoned):
            await session.terminate(names)
            self._abandoned.difference_update(names)

    # Opening

    def _fill(self) -> None:
        if self._running and self._filled:
            self._filled = False
            self._filling = Deferred.fromCoroutine(self._open_missing())
            self._filling.addErrback(lambda failure: self.log.failure("opening failed", failure))

    async def _open_missing(self) -> None:
        try:
            while self._running and len(self._open) < self._width:
                if self._failures:
                    await self._pause()
                if self._running:
                    await self._open_one()
        finally:
            self._filled = True
            self._tried()

    async def _open_one(self) -> None:
        self._opening = session = Session(self._dsn, self._reactor, self._patience, self._lost)
        try:
            await session.open()
            # A proxy may have taken the connection without a server behind it: ask.
            await session.run("SELECT 1", {})
            await self.settle(session)
        except (Lost, Refused) as error:
            session.close()
            if self._running:
                self._failures += 1
                self._not_reached(str(error))
        else:
            self._reached(session)
        finally:
            self._opening = None
        self._tried()

    def _tried(self) -> None:
        first, self._first = self._first, None
        if first is not None:
            first.callback(None)

    def _reached(self, session: Session) -> None:
        if not self._running:
            session.close()
            return
        if self.reason is not None:
            self.log.info("{name} answers again", name=self._name)
        self.reason = None
        self._open.add(session)
        self._idle.append(session)
        self._call_free()

    def _not_reached(self, reason: str) -> None:
        if self._open:
            return
        before, self.reason = self.reason, reason
        if reason != before:
            self.log.warn("{name} is not reached: {reason}", name=self._name, reason=reason)
        if before is None:
            self._call_away(reason)

    async def _pause(self) -> None:
        # Not so many doublings that the number has no end.
        seconds = min(_FIRST_PAUSE * 2 ** min(self._failures - 1, 10), _LONGEST_PAUSE)
        paused: Deferred[None] = Deferred()
        self._pausing = (self._reactor.callLater(seconds, paused.callback, None), paused)
        await paused
        self._pausing = None

    def _lost(self, session: Session) -> None:
        """Forget a session that was lost, and open another."""
        if session not in self._open:
            return  # it was just being opened
        self._open.discard(session)
        self._failures += 1
        if session in self._idle:
            self._idle.remove(session)
        if session.busy:
            self._abandoned.add(session.name)
        if session.late:
            # If the server stands still, it is better known before more is asked of it.
            for idle in self._idle:
                self._open.discard(idle)
                idle.close()
            self._idle.clear()
        self._fill()
