"""One connection to a PostgreSQL server, which never makes anybody wait for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg2
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ConnectionClosed
from txpostgres import txpostgres

from gatewayd.storage.dsn import Dsn

# Classes of SQLSTATE that say nothing about the statement, but that the server cannot do it now: no
# connection, read-only, rolled back, out of resources, locked, shut down, broken.
_TROUBLES = ("08", "25", "40", "53", "55", "57", "58", "XX")
# The server works on what an abandoned connection has asked, after who asked has gone.
_END = """
    SELECT pg_terminate_backend(pid), pg_sleep(0.02) FROM pg_stat_activity
    WHERE application_name = ANY(%(names)s) AND usename = current_user AND pid <> pg_backend_pid()
"""


# Of these, the ones that say that all was undone and may be done again: a deadlock.
_UNDONE = "40"


class Lost(Exception):
    """The connection is gone; nobody knows what became of a statement that was under way.

    :ivar undone: the server did say that nothing became of it, nor of its transaction.
    """

    def __init__(self, text: str, *, undone: bool = False) -> None:
        super().__init__(text)
        self.undone = undone


class Refused(Exception):
    """The server did not take a statement, and will not take it later; nothing has changed."""


class _Connection(txpostgres.Connection):  # type: ignore[misc]
    """The library's connection, with the end of one told instead of logged.

    :ivar gone: called when the connection is found dead while nothing is asked of it.
    :ivar notified: called with the payload of each notification.
    """

    gone: Callable[[], None]
    notified: Callable[[str], None] = staticmethod(lambda _: None)

    def doRead(self) -> None:  # noqa: N802 - the reactor calls it
        """Go on connecting, or see the server close the connection."""
        self.reactor.removeReader(self)
        try:
            self.continuePolling()
        except psycopg2.Error:
            self.gone()
        else:
            # While it connects it is told whether to read or to write: to do both would leave
            # something with the reactor when the library tries the next address.
            if self._pollingD is None:
                self._watch()
                self._notify()

    def cursorFinished(self, cursor: Any) -> None:  # noqa: N802 - the library calls it
        """Watch for the server's closing again, after a statement."""
        self._cursors.discard(cursor)
        self._watch()
        self._notify()

    def _notify(self) -> None:
        """Pass on the notifications that came with what was read."""
        notifies = self._connection.notifies[:]
        del self._connection.notifies[:]
        for notify in notifies:
            self.notified(notify.payload)

    def _watch(self) -> None:
        # The database's library may have closed the socket of a connection that it calls open.
        if not self._connection.closed and self.fileno() >= 0:
            self.reactor.addReader(self)

    def connectionLost(self, reason: Any) -> None:  # noqa: N802 - the reactor calls it
        """Know that the reactor has found it broken, or that it is closed."""
        super().connectionLost(reason)
        # While it connects, there may be another address to try.
        if self._pollingD is None:
            self.gone()

    def close(self) -> None:
        """Close it; what is under way fails. Does nothing to one that never was begun."""
        if self._connection is None:
            return
        # A reactor may know the cursor that waits for an answer apart from the connection.
        for each in (*self._cursors, self):
            self.reactor.removeReader(each)
            self.reactor.removeWriter(each)
        # Also one that counts as closed because it is broken: its socket may be open still.
        self._connection.close()
        super().close()


class Session:
    """A connection on which one statement is run at a time.

    :param patience: seconds until a statement has to be answered; else the session is lost. It is
        never cancelled: that would make the whole process wait for a server that does not answer.
    :param lost: called once when the session is lost, however; not when it is closed.
    :ivar name: by which the server knows it; no other has the same.
    :ivar busy: whether a statement is under way, or was when it was lost.
    :ivar late: whether it was lost because an answer did not come in time.
    """

    def __init__(
        self, dsn: Dsn, reactor: Any, patience: float, lost: Callable[[Session], None]
    ) -> None:
        self.name = f"gatewayd {uuid4().hex}"
        self.busy = False
        self.late = False
        self._dsn = dsn
        self._reactor = reactor
        self._patience = patience
        self._lost = lost
        self._closed = False
        self._connection = _Connection(reactor)
        self._connection.gone = self._end

    async def open(self) -> None:
        """Connect. :raises Lost: that is not possible."""
        try:
            parameters = await self._dsn.parameters(self.name, self._reactor, self._patience)
        except CancelledError:
            raise Lost("the host of the database was not found in time") from None
        except (OSError, UnicodeError) as error:
            raise Lost(f"the host of the database is not found: {error}") from None
        if self._closed:
            raise Lost("closed")
        try:
            await self._answer(self._connection.connect(**parameters))
        except Refused as error:
            self._end()
            raise Lost(str(error)) from None

    def on_notification(self, notified: Callable[[str], None]) -> None:
        """Call ``notified``, which must not raise, with the payload of each notification."""
        self._connection.notified = notified

    async def run(self, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Run a statement by itself, and return its rows.

        :raises Refused: the server does not take it. :raises Lost: the session is lost.
        """
        rows, _ = await self.execute(statement, parameters)
        return rows

    async def execute(
        self, statement: str, parameters: dict[str, Any] | tuple[Any, ...] | None
    ) -> tuple[list[tuple[Any, ...]], int]:
        """Run a statement and return its rows, if it gives any, and how many rows it was about.

        Of several statements in one, that is the last one's.

        :raises Refused: the server does not take it. :raises Lost: the session is lost.
        """
        if self._closed:
            raise Lost("closed")
        self.busy = True
        try:
            answer: tuple[list[tuple[Any, ...]], int] = await self._answer(
                maybeDeferred(self._ask, statement, parameters)
            )
        except Refused:
            self.busy = False
            raise
        self.busy = False
        return answer

    def _ask(self, statement: str, parameters: Any) -> Any:
        return self._connection.cursor().execute(statement, parameters).addCallback(_fetched)

    async def terminate(self, names: list[str]) -> None:
        """Have the server end its part of sessions that are lost; return when there is none.

        What they had asked is done then, or never will be.

        :raises Refused: the server does not do that. :raises Lost: it takes too long.
        """
        until = self._reactor.seconds() + self._patience
        while await self.run(_END, {"names": names}):
            if self._reactor.seconds() > until:
                self._end()
                raise Lost("the server does not end what it was asked before")

    def close(self) -> None:
        """Disconnect, and call nobody for it. What is under way fails."""
        if not self._closed:
            self._closed = True
            self._connection.close()

    async def _answer(self, asked: Deferred[Any]) -> Any:
        """Wait for an answer, but not for ever, and say what went wrong in our own terms."""
        timer = self._reactor.callLater(self._patience, self._give_up)
        try:
            return await asked
        except psycopg2.Error as error:
            text = self._dsn.tell(error)
            if error.pgcode is not None and not error.pgcode.startswith(_TROUBLES):
                raise Refused(text) from None
            self._end()
            raise Lost(text, undone=(error.pgcode or "").startswith(_UNDONE)) from None
        except ValueError as error:
            # What has no place in a text of the database: NUL, half a surrogate pair.
            raise Refused(type(error).__name__) from None
        except (ConnectionClosed, CancelledError):
            self._end()
            raise Lost("no answer in time" if self.late else "it was broken off") from None
        finally:
            if timer.active():
                timer.cancel()

    def _give_up(self) -> None:
        self.late = True
        self._end()

    def _end(self) -> None:
        if not self._closed:
            self._closed = True
            # First: who waits for an answer takes another session when this one fails it.
            self._lost(self)
            self._connection.close()


def _fetched(cursor: Any) -> tuple[list[tuple[Any, ...]], int]:
    """Take what a statement gave; that fails when the connection was closed since it was done."""
    return cursor.fetchall() if cursor.description else [], cursor.rowcount
