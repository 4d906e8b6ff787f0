"""The order of a connection's asynchronous requests and their replies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()


#: A reply to send, None for none, or both with something to do right after it was sent.
Reply = bytes | None | tuple[bytes | None, Callable[[], object]]
Start = Callable[[], Reply | Deferred[Any]]


class Lane:
    """Runs jobs so that their replies leave in the order in which the jobs were submitted.

    A job starts when everything before it has finished. Jobs that may overlap also start while
    others run, if all that run or wait before them may overlap too.

    Jobs that finish at once cost no Deferred, and no stack, however many are waiting.

    :param send: sends a reply.
    :param limit: how many jobs may run and wait; then *pause* is called.
    :param pause: stops the source of jobs.
    :param resume: lets it go on, when half of *limit* is left.
    :param failed: makes the reply for a job that raised or whose Deferred failed, which is a bug
        in the job and has been logged; without it there is no reply.
    """

    def __init__(
        self,
        send: Callable[[bytes], Any],
        limit: int,
        pause: Callable[[], object],
        resume: Callable[[], object],
        failed: Callable[[Failure], bytes | None] | None = None,
    ) -> None:
        self._send = send
        self._limit = limit
        self._pause = pause
        self._resume = resume
        self._failed = failed
        self._waiting: deque[tuple[Start, bool]] = deque()
        self._running: deque[_Job] = deque()
        self._working = False
        self._paused = False
        self._closed = False
        self._idlers: list[Deferred[None]] = []

    @property
    def idle(self) -> bool:
        """Whether no job runs or waits."""
        return not (self._working or self._running or self._waiting)

    def submit(self, start: Start, overlap: bool) -> None:
        """Run a job in its turn; does nothing when the lane is closed.

        :param start: begins the job and returns its reply, or a Deferred of it.
        :param overlap: whether it may run while others do.
        """
        if self._closed:
            return
        self._waiting.append((start, overlap))
        if not self._working:
            self._work()
        if not self._paused and len(self._running) + len(self._waiting) >= self._limit:
            self._paused = True
            self._pause()

    def when_idle(self) -> Deferred[None]:
        """Wait until no job runs or waits; closing the lane ends the wait too."""
        if self.idle:
            return succeed(None)
        idler: Deferred[None] = Deferred()
        self._idlers.append(idler)
        return idler

    def close(self) -> None:
        """Drop the jobs that wait. Those that run go on, but their replies are not sent."""
        self._closed = True
        self._waiting.clear()
        self._running.clear()
        if not self._working:
            self._tell_idle()

    def _work(self) -> None:
        """Send the replies that are due and start the jobs that may, until there are none."""
        self._working = True
        try:
            while True:
                if self._running and self._running[0].finished:
                    self._settle(self._running.popleft().reply)
                elif self._waiting and self._may_start(self._waiting[0][1]):
                    self._start(*self._waiting.popleft())
                else:
                    break
        finally:
            self._working = False
        if self.idle:
            self._tell_idle()
        if self._paused and len(self._running) + len(self._waiting) <= self._limit // 2:
            self._paused = False
            self._resume()

    def _may_start(self, overlap: bool) -> bool:
        # A job that may not overlap runs alone, so the first of those that run speaks for all.
        return not self._running or (overlap and self._running[0].overlap)

    def _start(self, start: Start, overlap: bool) -> None:
        try:
            result = start()
        except Exception:
            result = self._bug(Failure())
        if self._closed and not isinstance(result, Deferred):
            return
        if not self._running and not isinstance(result, Deferred):
            self._settle(result)
            return
        job = _Job(overlap)
        if not self._closed:
            self._running.append(job)
        if isinstance(result, Deferred):
            result.addErrback(self._bug).addCallback(self._finish, job)
        else:
            job.finish(result)

    def _finish(self, reply: Reply, job: _Job) -> None:
        job.finish(reply)
        if not self._working and not self._closed:
            self._work()

    def _settle(self, reply: Reply) -> None:
        after = None
        if isinstance(reply, tuple):
            reply, after = reply
        try:
            if reply is not None:
                self._send(reply)
            if after is not None:
                after()
        except Exception:
            _log.failure("sending a reply failed")

    def _bug(self, failure: Failure) -> bytes | None:
        _log.failure("a request's handler failed", failure=failure)
        if self._failed is None or self._closed:
            return None
        try:
            return self._failed(failure)
        except Exception:
            _log.failure("describing a handler's failure failed")
            return None

    def _tell_idle(self) -> None:
        idlers, self._idlers = self._idlers, []
        for idler in idlers:
            idler.callback(None)


class _Job:
    """A job that has been started and whose reply has not been sent."""

    __slots__ = ("finished", "overlap", "reply")

    def __init__(self, overlap: bool) -> None:
        self.overlap = overlap
        self.finished = False
        self.reply: Reply = None

    def finish(self, reply: Reply) -> None:
        self.finished = True
        self.reply = reply
