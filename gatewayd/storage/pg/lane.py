"""One connection to PostgreSQL that writes, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from gatewayd.errors import Unavailable
from gatewayd.storage.dsn import Dsn
from gatewayd.storage.pg.link import Link
from gatewayd.storage.pg.pool import AWAY, NAME, answer, open_sessions
from gatewayd.storage.postgres import Lost, Refused, Session
from gatewayd.storage.sessions import Sessions
from gatewayd.storage.worker import Job

# What a batch has is one statement, several times as long; a server takes them up to 1 GB.
_BATCH_BYTES = 8 * 1024 * 1024


class Budget:
    """How many bytes may wait to be written, on all connections together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0

    def take(self, size: int) -> bool:
        """Reserve bytes, if there are so many."""
        if self._used + size > self._limit:
            return False
        self._used += size
        return True

    def give(self, size: int) -> None:
        """Give reserved bytes back."""
        self._used -= size


class Gate:
    """Stands in the queue of a lane: what is behind it waits until it is opened.

    :ivar reached: fires when nothing that was before it is to be done any more.
    """

    def __init__(self) -> None:
        self.reached: Deferred[None] = Deferred()
        self._opened: Deferred[None] = Deferred()

    def open(self, result: Any = None) -> Any:
        """Let the lane go on; returns what it is given, to be a callback."""
        self._opened.callback(None)
        return result

    async def wait(self) -> None:
        """Know that it is reached, and wait until it is opened."""
        self.reached.callback(None)
        await self._opened


class Engine(Protocol):
    """What a lane does with its jobs.

    :ivar most: at most so many jobs form one batch.
    """

    most: int

    async def run(self, link: Link, batch: list[Job]) -> None:
        """Run a batch in a transaction; put a result or an error into every job.

        :raises Lost: and then no job has either.
        """

    def first(self) -> Job | None:
        """Return what is to be done first on every new connection."""


class Lane:
    """Runs jobs on one connection, in the order they were submitted.

    Whatever queued while a batch ran forms the next batch; that, and some patience of jobs for
    which nobody waits, is all there is to group commit.

    :param patience: seconds until the server has to answer a statement.
    :param delivered: called after the Deferreds of a batch have fired.
    """

    log = Logger()

    def __init__(
        self,
        engine: Engine,
        dsn: Dsn,
        reactor: Any,
        patience: float,
        budget: Budget,
        delivered: Callable[[list[Job]], None] | None = None,
    ) -> None:
        self._engine = engine
        self._dsn = dsn
        self._reactor = reactor
        self._budget = budget
        self._delivered = delivered
        self._queue: deque[Job | Gate] = deque()
        self._held: list[Job] = []
        self._handing_over: IDelayedCall | None = None
        #: The batch that is tried a second time.
        self._again: list[Job] = []
        self._busy = False
        #: Whether nothing was done yet on the connection that is open now.
        self._fresh = False
        self._giving_back = False
        self._running = False
        self._emptied: Deferred[None] | None = None
        self._sessions = Sessions(
            dsn, 1, patience, reactor, free=self._freed, away=self._give_up, name=NAME
        )

    @property
    def reason(self) -> str | None:
        """Why the database is not reached, None when it is."""
        return self._sessions.reason

    async def start(self) -> None:
        """Connect. :raises ConfigError: that is not possible."""
        await open_sessions(self._sessions, self._dsn)
        self._running = True
        self._work()

    def refuse(self) -> None:
        """Take nothing more."""
        self._running = False

    async def stop(self) -> None:
        """Run what was submitted so far, if the database is there, and disconnect."""
        self.refuse()
        self._hand_over()
        if self._busy or self._queue:
            self._emptied = Deferred()
            await self._emptied
        await self._sessions.stop()

    def submit(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        size: int = 256,
        patience: float = 0.0,
    ) -> Deferred[Any]:
        """Have the engine call a function; fires with its result.

        :param size: about how many bytes the job holds.
        :param patience: seconds for which it may wait for company. What is submitted later does
            not overtake it.
        :raises Unavailable: (in the Deferred) the database is away, or too much is waiting.
        """
        if not self._running or self.reason is not None:
            return fail(Unavailable(AWAY if self._running else "stopping"))
        if not self._budget.take(size):
            return fail(Unavailable("too much in flight"))
        job = Job(function, arguments, size)
        if patience > 0:
            self._held.append(job)
            if self._handing_over is None:
                self._handing_over = self._reactor.callLater(patience, self._hand_over)
            return job.deferred
        self._queue.extend(self._held)
        self._held.clear()
        self._queue.append(job)
        self._work()
        return job.deferred

    def gate(self) -> Gate:
        """Return a gate behind all that was submitted so far. Somebody has to open it."""
        gate = Gate()
        if not self._running or self.reason is not None:
            gate.reached.callback(None)
        else:
            self._queue.extend(self._held)
            self._held.clear()
            self._queue.append(gate)
            self._work()
        return gate

    def _hand_over(self) -> None:
        """Queue what has waited for company."""
        timer, self._handing_over = self._handing_over, None
        if timer is not None and timer.active():
            timer.cancel()
        self._queue.extend(self._held)
        self._held.clear()
        self._work()

    def _freed(self) -> None:
        if not self._giving_back:
            self._fresh = True
            self._work()

    def _work(self) -> None:
        """Begin with what is to be done, if nothing is under way."""
        if self._busy or not (self._queue or self._fresh):
            return
        session = self._sessions.take()
        if session is not None:
            self._busy = True
            done = Deferred.fromCoroutine(self._serve(session))
            done.addErrback(lambda failure: self.log.failure("a lane failed", failure))

    async def _serve(self, session: Session) -> None:
        answered = True
        fresh, self._fresh = self._fresh, False
        try:
            await self._settle(session)
            if fresh and (first := self._engine.first()) is not None:
                await self._run(session, [first])
            while self._queue:
                if isinstance(gate := self._queue[0], Gate):
                    self._queue.popleft()
                    await gate.wait()
                else:
                    await self._run(session, self._gather())
        except Lost as error:
            answered = False
            self.log.debug("a connection was lost: {error}", error=str(error))
        self._giving_back = True
        self._sessions.give(session, answered=answered)
        self._giving_back = False
        self._busy = False
        self._look_empty()
        self._work()

    def _gather(self) -> list[Job]:
        """Take a batch from the queue."""
        batch: list[Job] = []
        size = 0
        while self._queue and len(batch) < self._engine.most and size < _BATCH_BYTES:
            job = self._queue.popleft()
            if isinstance(job, Gate):
                self._queue.appendleft(job)
                break
            batch.append(job)
            size += job.size
        return batch

    async def _settle(self, session: Session) -> None:
        try:
            await self._sessions.settle(session)
        except Refused as error:
            self.log.warn("an abandoned connection may still be there: {error}", error=str(error))

    async def _run(self, session: Session, batch: list[Job]) -> None:
        try:
            await self._engine.run(Link(session), batch)
        except Lost as error:
            if error.undone and self._again != batch and self.reason is None:
                self._again = batch
                self._queue.extendleft(reversed(batch))
            else:
                self._fail(batch)
            raise
        except Exception:
            self.log.failure("a batch failed")
            self._fail(batch)
        else:
            self._deliver(batch)

    def _fail(self, batch: list[Job]) -> None:
        for job in batch:
            job.error = Unavailable(AWAY)
        self._deliver(batch)

    def _give_up(self, reason: str) -> None:
        """Let nobody wait for a database that is away."""
        waiting = [*self._queue, *self._held]
        self._queue.clear()
        self._held.clear()
        for each in waiting:
            if isinstance(each, Gate):
                each.reached.callback(None)
            else:
                self._fail([each])
        self._look_empty()

    def _look_empty(self) -> None:
        if self._emptied is not None and not self._busy and not self._queue:
            emptied, self._emptied = self._emptied, None
            emptied.callback(None)

    def _deliver(self, batch: list[Job]) -> None:
        for job in batch:
            self._budget.give(job.size)
            answer(job)
        if self._delivered is not None:
            try:
                self._delivered(batch)
            except Exception:
                self.log.failure("what was written could not be told")
