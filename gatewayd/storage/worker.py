"""A thread that owns a database connection and runs the jobs it is given, many at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from gatewayd.errors import Unavailable

Context = TypeVar("Context")
#: At most so many jobs form one batch.
BATCH = 500


class Job:
    """One function call on its way to the thread and back."""

    __slots__ = ("arguments", "deferred", "error", "events", "function", "result", "size")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], size: int) -> None:
        self.function = function
        self.arguments = arguments
        self.size = size
        self.deferred: Deferred[Any] = Deferred()
        self.result: Any = None
        self.error: BaseException | None = None
        #: what the transaction that this job was the first of has recorded
        self.events: list[Any] = []


class Engine(Protocol[Context]):
    """What a worker does in its thread."""

    def open(self) -> Context:
        """Open the connection."""

    def run(self, context: Context, batch: list[Job]) -> None:
        """Run a batch; put a result or an error into every job."""

    def close(self, context: Context) -> None:
        """Close the connection."""


class Worker(Generic[Context]):
    """Runs jobs in one thread, in the order they were submitted.

    Whatever queued while a batch ran forms the next batch; that, and some patience of jobs for
    which nobody waits, is all there is to group commit.

    :param reactor: calls from the thread, and keeps time.
    :param pending: refuse jobs when those that wait hold more bytes than this.
    :param delivered: called in the reactor thread after the Deferreds of a batch have fired.
    """

    def __init__(
        self,
        name: str,
        engine: Engine[Context],
        reactor: Any,
        *,
        pending: int = 64 * 1024 * 1024,
        delivered: Callable[[list[Job]], None] | None = None,
    ) -> None:
        self._engine = engine
        self._reactor = reactor
        self._limit = pending
        self._pending = 0
        self._delivered = delivered
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._held: list[Job] = []
        self._handing_over: IDelayedCall | None = None
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._started: Deferred[None] = Deferred()
        self._stopped: Deferred[None] = Deferred()
        self._running = False
        self._stopping = False

    def start(self) -> Deferred[None]:
        """Start the thread; fires when its connection is open, fails with what opening raised."""
        self._running = True
        self._thread.start()
        return self._started

    def stop(self) -> Deferred[None]:
        """Run what was submitted so far, then close; fires when the thread is gone."""
        if self._running:
            self._running = False
            self._stopping = True
            self._hand_over()
            self._queue.put(None)
        elif not self._stopping:
            self._stopping = True
            self._stopped.callback(None)
        return self._stopped

    def submit(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        size: int = 256,
        patience: float = 0.0,
    ) -> Deferred[Any]:
        """Call ``function(context, *arguments)`` in the thread; fires with its result.

        :param size: about how many bytes the job holds.
        :param patience: seconds for which it may wait for company: a batch of many costs little
            more than one of its own. What is submitted later does not overtake it.
        :raises Unavailable: (in the Deferred) too much is waiting already, or the worker stops.
        """
        if not self._running or self._pending + size > self._limit:
            return fail(Unavailable("stopping" if not self._running else "too much in flight"))
        self._pending += size
        job = Job(function, arguments, size)
        if patience > 0:
            self._held.append(job)
            if self._handing_over is None:
                self._handing_over = self._reactor.callLater(patience, self._hand_over)
            return job.deferred
        if self._held:
            self._hand_over()
        self._queue.put(job)
        return job.deferred

    def _hand_over(self) -> None:
        """Give the thread what has waited for company."""
        timer, self._handing_over = self._handing_over, None
        if timer is not None and timer.active():
            timer.cancel()
        for job in self._held:
            self._queue.put(job)
        self._held.clear()

    def _main(self) -> None:
        call = self._reactor.callFromThread
        try:
            context = self._engine.open()
        except BaseException:
            self._running = False
            call(self._started.errback, Failure())
            return
        call(self._started.callback, None)
        try:
            while batch := self._gather():
                self._run(context, batch)
                call(self._deliver, batch)
        finally:
            self._engine.close(context)
            call(self._stopped.callback, None)

    def _run(self, context: Context, batch: list[Job]) -> None:
        """Run a batch; a defect in the engine fails its jobs, and the thread lives on."""
        try:
            self._engine.run(context, batch)
        except Exception as error:
            for job in batch:
                job.error = error

    def _gather(self) -> list[Job]:
        """Wait for a job, then take all that are there; an empty list ends the thread."""
        batch: list[Job] = []
        job = self._queue.get()
        while job is not None:
            batch.append(job)
            if len(batch) == BATCH:
                return batch
            try:
                job = self._queue.get_nowait()
            except Empty:
                return batch
        if batch:
            self._queue.put(None)
        return batch

    def _deliver(self, batch: list[Job]) -> None:
        for job in batch:
            self._pending -= job.size
            if job.error is None:
                job.deferred.callback(job.result)
            else:
                job.deferred.errback(Failure(job.error))
        if self._delivered is not None:
            self._delivered(batch)
