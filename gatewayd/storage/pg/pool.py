"""Connections to PostgreSQL, and the ones that read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from psycopg2.extensions import make_dsn, parse_dsn
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.errors import ConfigError, Unavailable
from gatewayd.storage.dsn import Dsn
from gatewayd.storage.pg.link import Link
from gatewayd.storage.postgres import Lost, Refused, Session
from gatewayd.storage.sessions import Sessions
from gatewayd.storage.worker import Job

#: What the log calls it.
NAME = "the database"
#: What callers are told while it is not there.
AWAY = "the database is not reached"
_READS = 10_000  # reads that wait


class Part(Protocol):
    """What a store consists of: it is started, and takes nothing more before it is stopped."""

    @property
    def reason(self) -> str | None:
        """Why the database is not reached, None when it is."""

    async def start(self) -> None:
        """Begin. :raises ConfigError: that is not possible."""

    def refuse(self) -> None:
        """Take nothing more."""

    async def stop(self) -> None:
        """End."""


def dsn_with(url: str, **settings: str) -> Dsn:
    """Return where the database is, with settings for each session. :raises ConfigError:"""
    Dsn(url)  # or it is no URL, which is told without its password
    options = [parse_dsn(url).get("options", "")]
    options += [f"-c {name}={value}" for name, value in settings.items()]
    return Dsn(make_dsn(url, options=" ".join(options).strip()))


def unusable(dsn: Dsn, reason: object) -> ConfigError:
    """Return what is said of a database that cannot be used."""
    return ConfigError(f"cannot use the PostgreSQL database {dsn.place}: {reason}")


async def open_sessions(sessions: Sessions, dsn: Dsn) -> None:
    """Connect. :raises ConfigError: that is not possible."""
    await sessions.start()
    if (reason := sessions.reason) is not None:
        await sessions.stop()
        raise unusable(dsn, reason)


def answer(job: Job) -> None:
    """Let the caller of a job know its result, or its error."""
    if job.error is None:
        job.deferred.callback(job.result)
    else:
        job.deferred.errback(Failure(job.error))


class Readers:
    """Runs reads on a few connections, each on its own.

    :param width: how many connections.
    :param patience: seconds until the server has to answer a statement.
    """

    log = Logger()

    def __init__(self, dsn: Dsn, width: int, reactor: Any, patience: float) -> None:
        self._dsn = dsn
        self._queue: deque[tuple[Job, int]] = deque()
        self._running = False
        self._handing_out = False
        self._reading: set[Deferred[None]] = set()
        self._sessions = Sessions(
            dsn, width, patience, reactor, free=self._work, away=self._give_up, name=NAME
        )

    @property
    def reason(self) -> str | None:
        """Why the database is not reached, None when it is."""
        return self._sessions.reason

    async def start(self) -> None:
        """Connect. :raises ConfigError: that is not possible."""
        await open_sessions(self._sessions, self._dsn)
        self._running = True

    def refuse(self) -> None:
        """Take nothing more."""
        self._running = False

    async def stop(self) -> None:
        """Disconnect; reads that are under way fail."""
        self.refuse()
        self._give_up("stopping")
        await self._sessions.stop()
        for reading in list(self._reading):
            await reading

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Call ``function(tx, *arguments)``; fires with its result.

        :raises Unavailable: (in the Deferred) the database is away, or too much is waiting.
        """
        if not self._running or self.reason is not None:
            return fail(Unavailable(AWAY if self._running else "stopping"))
        if len(self._queue) >= _READS:
            return fail(Unavailable("too much in flight"))
        job = Job(function, arguments, 0)
        self._queue.append((job, 2))
        self._work()
        return job.deferred

    def _work(self) -> None:
        if self._handing_out:
            return  # a session came back at once; the loop goes on
        self._handing_out = True
        try:
            while self._queue and (session := self._sessions.take()) is not None:
                reading = Deferred.fromCoroutine(self._read(session, *self._queue.popleft()))
                self._reading.add(reading)
                reading.addBoth(self._read_done, reading)
        finally:
            self._handing_out = False

    def _read_done(self, result: object, reading: Deferred[None]) -> None:
        self._reading.discard(reading)
        if isinstance(result, Failure):
            self.log.failure("a read failed", result)

    async def _read(self, session: Session, job: Job, attempts: int) -> None:
        answered = True
        try:
            job.result = await job.function(Link(session), *job.arguments)
        except Lost as error:
            answered = False
            if attempts > 1 and self._running and self.reason is None:
                # It may be this connection alone, and to read twice does no harm.
                self._queue.appendleft((job, attempts - 1))
                self._sessions.give(session, answered=False)
                self._work()
                return
            job.error = Unavailable(f"the store cannot read: {error}")
        except Refused as error:
            job.error = Unavailable(f"the store cannot read: {error}")
        except Exception as error:
            job.error = error
        self._sessions.give(session, answered=answered)
        answer(job)

    def _give_up(self, reason: str) -> None:
        """Let nobody wait for a database that is away."""
        waiting = [job for job, _ in self._queue]
        self._queue.clear()
        for job in waiting:
            job.error = Unavailable(AWAY)
            answer(job)
