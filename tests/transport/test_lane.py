"""The order of asynchronous requests and their replies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from gatewayd.transport.lane import Lane


@attrs.define
class Bench:
    """A lane, what it sent, and the jobs that were started and wait for a result."""

    sent: list[bytes] = attrs.Factory(list)
    started: list[str] = attrs.Factory(list)
    open: dict[str, Deferred[Any]] = attrs.Factory(dict)
    flow: list[str] = attrs.Factory(list)
    lane: Lane = attrs.field(init=False)

    def build(
        self, limit: int = 100, failed: Callable[[Failure], bytes | None] | None = None
    ) -> Bench:
        self.lane = Lane(
            self.sent.append,
            limit,
            lambda: self.flow.append("pause"),
            lambda: self.flow.append("resume"),
            failed,
        )
        return self

    def at_once(self, name: str, overlap: bool = False) -> None:
        """Submit a job that has its reply when it starts."""

        def start() -> bytes:
            self.started.append(name)
            return name.encode()

        self.lane.submit(start, overlap)

    def later(self, name: str, overlap: bool = False) -> None:
        """Submit a job that replies when :meth:`finish` says so."""

        def start() -> Deferred[Any]:
            self.started.append(name)
            self.open[name] = Deferred()
            return self.open[name]

        self.lane.submit(start, overlap)

    def finish(self, name: str) -> None:
        self.open.pop(name).callback(name.encode())


@pytest.fixture
def bench() -> Bench:
    """A lane with room."""
    return Bench().build()


def test_runs_at_once_when_idle(bench: Bench) -> None:
    """A job starts within submit when nothing is in flight."""
    bench.at_once("a")
    bench.at_once("b")
    assert bench.sent == [b"a", b"b"]
    assert bench.lane.idle


def test_replies_keep_the_order(bench: Bench) -> None:
    """A reply that is ready early waits for those before it."""
    for name in "abc":
        bench.later(name, overlap=True)
    assert bench.started == ["a", "b", "c"]
    bench.finish("c")
    bench.finish("b")
    assert bench.sent == []
    bench.finish("a")
    assert bench.sent == [b"a", b"b", b"c"]


def test_exclusive_job_waits_for_all_before(bench: Bench) -> None:
    """It starts when everything before it has finished, and nothing starts beside it."""
    bench.later("a", overlap=True)
    bench.later("b", overlap=True)
    bench.later("c")
    bench.later("d", overlap=True)
    assert bench.started == ["a", "b"]
    bench.finish("b")
    assert bench.started == ["a", "b"]
    bench.finish("a")
    assert bench.started == ["a", "b", "c"]
    bench.finish("c")
    assert bench.started == ["a", "b", "c", "d"]


def test_overlap_does_not_pass_a_waiting_exclusive_job(bench: Bench) -> None:
    """A job that may overlap does not overtake one that may not."""
    bench.later("a")
    bench.at_once("b", overlap=True)
    assert bench.started == ["a"]
    bench.finish("a")
    assert bench.sent == [b"a", b"b"]


def test_synchronous_reply_behind_one_in_flight(bench: Bench) -> None:
    """An overlapping job that is done at once still waits with its reply."""
    bench.later("a", overlap=True)
    bench.at_once("b", overlap=True)
    assert bench.started == ["a", "b"]
    assert bench.sent == []
    bench.finish("a")
    assert bench.sent == [b"a", b"b"]


def test_no_reply(bench: Bench) -> None:
    """None sends nothing, whether it came at once or later."""
    bench.lane.submit(lambda: None, False)
    bench.lane.submit(lambda: succeed(None), False)
    assert bench.sent == []
    assert bench.lane.idle


@pytest.mark.parametrize("deferred", [False, True])
def test_something_to_do_after_the_reply(bench: Bench, deferred: bool) -> None:
    """It is done right after the reply was sent, before the next reply."""
    reply = (b"subscribed", lambda: bench.sent.append(b"replay"))
    bench.lane.submit(lambda: succeed(reply) if deferred else reply, True)
    bench.at_once("next", overlap=True)
    assert bench.sent == [b"subscribed", b"replay", b"next"]


def test_something_to_do_without_a_reply(bench: Bench) -> None:
    """A job without a reply may leave something to do too."""
    bench.lane.submit(lambda: (None, lambda: bench.sent.append(b"done")), False)
    assert bench.sent == [b"done"]


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("described", [False, True])
def test_failure_is_logged_once(failures: list[Failure], deferred: bool, described: bool) -> None:
    """A job that fails is a bug: it is logged, may get a reply, and the next job runs."""
    bench = Bench().build(failed=(lambda failure: b"sorry") if described else None)

    def start() -> Deferred[Any]:
        if deferred:
            return fail(RuntimeError("boom"))
        raise RuntimeError("boom")

    bench.lane.submit(start, False)
    bench.at_once("next")
    assert bench.sent == ([b"sorry", b"next"] if described else [b"next"])
    assert len(failures) == 1


def test_failure_to_send_or_describe(failures: list[Failure]) -> None:
    """Nothing that the lane calls can stop it."""

    def broken(_argument: object) -> bytes:
        raise RuntimeError("boom")

    lane = Lane(broken, 10, lambda: None, lambda: None, broken)
    lane.submit(lambda: b"x", False)
    lane.submit(lambda: fail(ValueError()), False)
    assert lane.idle
    assert len(failures) == 3


def test_source_is_paused_and_resumed() -> None:
    """It is paused once at the limit and resumed once at half of it."""
    bench = Bench().build(limit=4)
    for name in "abcdef":
        bench.later(name)
    assert bench.flow == ["pause"]
    for name in "abc":
        bench.finish(name)
    assert bench.flow == ["pause"]
    bench.finish("d")
    assert bench.flow == ["pause", "resume"]
    bench.later("g")
    bench.later("h")
    assert bench.flow == ["pause", "resume", "pause"]


def test_source_may_submit_from_resume() -> None:
    """What arrives while the source is being resumed takes its place at the end."""
    bench = Bench().build(limit=2)
    backlog = ["c", "d", "e"]

    def resume() -> None:
        while backlog and len(bench.flow) % 2 == 0:
            bench.at_once(backlog.pop(0))

    bench.lane = Lane(bench.sent.append, 2, lambda: None, resume)
    bench.later("a")
    bench.later("b")
    bench.finish("a")
    bench.finish("b")
    assert bench.sent == [b"a", b"b", b"c", b"d", b"e"]


def test_many_synchronous_jobs_behind_one() -> None:
    """Ten thousand queued jobs that finish at once do not use up the stack."""
    bench = Bench().build(limit=20_000)
    bench.later("first")
    for number in range(10_000):
        bench.at_once(str(number))
    bench.finish("first")
    assert len(bench.sent) == 10_001
    assert bench.lane.idle


def test_submitting_from_within_a_job(bench: Bench) -> None:
    """A job that submits another one replies first."""

    def start() -> bytes:
        bench.at_once("inner")
        return b"outer"

    bench.lane.submit(start, False)
    assert bench.sent == [b"outer", b"inner"]


def test_waiting_for_idleness(bench: Bench) -> None:
    """The wait ends when the last reply was sent; it is over at once when nothing is to do."""
    assert bench.lane.when_idle().called
    bench.later("a")
    bench.at_once("b")
    waiting = bench.lane.when_idle()
    assert not bench.lane.idle
    assert not waiting.called
    waiting.addCallback(lambda _: bench.sent.append(b"idle"))
    bench.finish("a")
    assert bench.sent == [b"a", b"b", b"idle"]


def test_closing(bench: Bench, failures: list[Failure]) -> None:
    """What waits is dropped, what runs goes on unheard, and nothing starts any more."""
    bench.later("a", overlap=True)
    bench.later("b", overlap=True)
    bench.later("c")
    waiting = bench.lane.when_idle()
    bench.lane.close()
    assert waiting.called
    assert bench.lane.idle
    bench.finish("a")
    bench.open.pop("b").errback(RuntimeError("late"))
    bench.at_once("d")
    assert bench.sent == []
    assert bench.started == ["a", "b"]
    assert len(failures) == 1


def test_closing_from_within_a_job(bench: Bench) -> None:
    """The reply of the job that closes the lane is not sent."""

    def start() -> bytes:
        bench.lane.close()
        return b"x"

    bench.lane.submit(start, False)
    assert bench.sent == []
    assert bench.lane.idle


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), max_size=12),
    st.randoms(use_true_random=False),
)
def test_any_mixture_keeps_the_order(jobs: list[tuple[bool, bool]], random: Any) -> None:
    """Whatever overlaps and finishes when, the replies come in the order of the requests."""
    bench = Bench().build(limit=5)
    for number, (overlap, deferred) in enumerate(jobs):
        (bench.later if deferred else bench.at_once)(str(number), overlap)
        if bench.open and random.random() < 0.5:
            bench.finish(random.choice(sorted(bench.open)))
    while bench.open:
        bench.finish(random.choice(sorted(bench.open)))
    assert bench.sent == [b"%d" % number for number in range(len(jobs))]
    assert bench.lane.idle
    assert bench.flow.count("pause") == bench.flow.count("resume")
