"""A worker's thread: order, batches, errors and the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from gatewayd.errors import Unavailable
from gatewayd.storage.worker import BATCH, Job, Worker
from tests.storage.store_bench import bounded, the_reactor, together


class Recorder:
    """An engine that notes what it is asked to do, and can be held up."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.threads: list[int] = []
        self.closed = 0
        self.trouble: Exception | None = None
        self.busy = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def open(self) -> str:
        self.threads.append(threading.get_ident())
        if self.trouble is not None:
            raise self.trouble
        return "context"

    def run(self, context: str, batch: list[Job]) -> None:
        self.threads.append(threading.get_ident())
        self.batches.append([job.arguments for job in batch])
        self.busy.set()
        assert self.go_on.wait(10)
        for job in batch:
            try:
                job.result = job.function(context, *job.arguments)
            except Exception as error:
                job.error = error

    def close(self, context: str) -> None:
        assert context == "context"
        self.threads.append(threading.get_ident())
        self.closed += 1

    def hold(self) -> None:
        """Stop at the next batch."""
        self.busy.clear()
        self.go_on.clear()


def pair(context: str, value: object) -> tuple[str, object]:
    """Be a job."""
    return context, value


def divide(context: str, value: int) -> float:
    """Be a job that may fail."""
    return 1 / value


async def started(**options: Any) -> tuple[Recorder, Worker[str]]:
    """Start a worker on a recorder."""
    engine = Recorder()
    worker: Worker[str] = Worker("worker-test", engine, the_reactor(), **options)
    await worker.start()
    return engine, worker


async def hold(engine: Recorder, worker: Worker[str]) -> Deferred[Any]:
    """Give the worker something that keeps it busy."""
    engine.hold()
    first = worker.submit(pair, "first")
    assert engine.busy.wait(10)
    return first


@bounded
async def test_order() -> None:
    """Jobs run in the order they were submitted, and each gets its own result."""
    engine, worker = await started()
    answered: list[object] = []
    jobs = [worker.submit(pair, number) for number in range(1000)]
    for job in jobs:
        job.addCallback(lambda result: answered.append(result[1]))
    await together(jobs)
    assert answered == list(range(1000))
    ran = [arguments for batch in engine.batches for arguments in batch]
    assert ran == [(number,) for number in range(1000)]
    await worker.stop()


@bounded
async def test_batches() -> None:
    """What is submitted while one batch runs becomes the next, up to a limit."""
    engine, worker = await started()
    first = await hold(engine, worker)
    rest = [worker.submit(pair, number) for number in range(BATCH + 20)]
    assert not first.called
    engine.go_on.set()
    await together([first, *rest])
    assert [len(batch) for batch in engine.batches] == [1, BATCH, 20]
    await worker.stop()


@bounded
async def test_errors() -> None:
    """A job that fails passes its error on, and leaves the others alone."""
    _, worker = await started()
    jobs = [worker.submit(divide, number) for number in (2, 0, 4)]
    assert await jobs[0] == 0.5
    with pytest.raises(ZeroDivisionError):
        await jobs[1]
    assert await jobs[2] == 0.25
    await worker.stop()


@bounded
async def test_delivered() -> None:
    """The hook is called in the reactor's thread once the Deferreds of the batch have fired."""
    calls: list[tuple[int, bool]] = []
    here = threading.get_ident()

    def delivered(batch: list[Job]) -> None:
        assert threading.get_ident() == here
        calls.append((len(batch), all(job.deferred.called for job in batch)))

    engine, worker = await started(delivered=delivered)
    first = await hold(engine, worker)
    rest = [worker.submit(divide, number) for number in (1, 0, 2)]
    rest[1].addErrback(lambda failure: None)
    engine.go_on.set()
    await together([first, *rest])
    await worker.stop()
    assert calls == [(1, True), (3, True)]


@bounded
async def test_submitting_from_a_callback() -> None:
    """What a job's answer makes someone submit runs as well."""
    engine, worker = await started()
    chain: Callable[[Any], Deferred[Any]] = lambda result: worker.submit(pair, result[1] + 1)  # noqa: E731
    assert await worker.submit(pair, 1).addCallback(chain).addCallback(chain) == ("context", 3)
    assert len(engine.batches) == 3
    await worker.stop()


@bounded
async def test_limit() -> None:
    """Jobs that would hold too many bytes are refused until others are done."""
    engine, worker = await started(pending=1000)
    first = await hold(engine, worker)
    second = worker.submit(pair, 2, size=744)
    with pytest.raises(Unavailable):
        await worker.submit(pair, 3, size=1)
    engine.go_on.set()
    await together([first, second])
    assert await worker.submit(pair, 4, size=1000) == ("context", 4)
    with pytest.raises(Unavailable):
        await worker.submit(pair, 5, size=1001)
    await worker.stop()


@bounded
async def test_failures_free_their_room() -> None:
    """A job that failed does not count as waiting any more."""
    _, worker = await started(pending=1000)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            await worker.submit(divide, 0, size=900)
    assert await worker.submit(divide, 1, size=900) == 1
    await worker.stop()


@bounded
async def test_stop() -> None:
    """Stopping runs what was accepted, refuses what comes later, and closes once."""
    engine, worker = await started()
    first = await hold(engine, worker)
    accepted = [worker.submit(pair, number) for number in range(BATCH * 2)]
    stopped = worker.stop()
    with pytest.raises(Unavailable):
        await worker.submit(pair, "late")
    engine.go_on.set()
    await stopped
    assert all(job.called for job in (first, *accepted))
    assert engine.closed == 1
    assert len(set(engine.threads)) == 1
    assert engine.threads[0] != threading.get_ident()


@bounded
async def test_stop_again() -> None:
    """Stopping twice, at once or later, is stopping."""
    engine, worker = await started()
    await together([worker.stop(), worker.stop()])
    await worker.stop()
    assert engine.closed == 1


@bounded
async def test_never_started() -> None:
    """A worker that was never started refuses jobs and can be stopped."""
    engine = Recorder()
    worker: Worker[str] = Worker("worker-test", engine, the_reactor())
    with pytest.raises(Unavailable):
        await worker.submit(pair, 1)
    await worker.stop()
    await worker.stop()
    assert engine.threads == []


@bounded
async def test_cannot_open() -> None:
    """When the connection cannot be opened, starting fails with the reason and nothing stays."""
    engine = Recorder()
    engine.trouble = OSError("no such thing")
    worker: Worker[str] = Worker("worker-test", engine, the_reactor())
    with pytest.raises(OSError, match="no such thing"):
        await worker.start()
    with pytest.raises(Unavailable):
        await worker.submit(pair, 1)
    await worker.stop()
    assert engine.closed == 0


@bounded
async def test_cancelled() -> None:
    """Whoever no longer waits for a job does not disturb the others."""
    engine, worker = await started()
    first = await hold(engine, worker)
    second, third = worker.submit(pair, 2), worker.submit(pair, 3)
    second.addErrback(lambda failure: None)
    second.cancel()
    engine.go_on.set()
    await together([first, third])
    assert await worker.submit(pair, 4) == ("context", 4)
    await worker.stop()


@bounded
async def test_patience() -> None:
    """What may wait does so for company, keeps its place in the order, and is not left behind."""
    engine, worker = await started()
    patient = [worker.submit(pair, number, patience=60.0) for number in range(3)]
    patient.append(worker.submit(pair, 3))
    await together(patient)
    assert [arguments for batch in engine.batches for arguments in batch] == [
        (number,) for number in range(4)
    ]
    engine.batches.clear()
    alone = [worker.submit(pair, number, patience=0.01) for number in range(5)]
    await together(alone)
    assert [arguments for batch in engine.batches for arguments in batch] == [
        (number,) for number in range(5)
    ]
    last = worker.submit(pair, "last", patience=60.0)
    await worker.stop()
    assert (await last)[1] == "last"


@bounded
async def test_patience_costs_no_room() -> None:
    """What waits for company counts as what waits for the thread."""
    _, worker = await started(pending=1000)
    first = worker.submit(pair, 1, size=900, patience=60.0)
    with pytest.raises(Unavailable):
        await worker.submit(pair, 2, size=200, patience=60.0)
    await worker.stop()
    await first
