"""Subscriptions: the log, then live, without a gap and without a duplicate."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import capturedLogs

from gatewayd.core.access import NOTHING, Scope
from gatewayd.core.model import Command, Event, Kind
from gatewayd.core.queries import Filter
from gatewayd.errors import Unavailable
from tests.core.bench import NOTES, START, Recorder
from tests.core.fake_log import TimelineRig


@pytest.fixture
def rig() -> TimelineRig:
    return TimelineRig()


def command(size: int) -> dict[str, Any]:
    """Return the fields of an event with a command of that size."""
    return {
        "kind": Kind.COMMAND,
        "command": Command(
            stream=1, seq=1, device="D", name="c", network=1, type=1, ts=1, stamp=1, updated=1,
            parameters=b"x" * size,
        ),
    }  # fmt: skip


def test_live_only(rig: TimelineRig) -> None:
    """A subscription that goes live has what is published from then on, and reads no log."""
    rig.log.write()
    subscription = rig.subscribe()
    rig.log.write(name="before")
    subscription.go_live()
    live = [rig.log.write(), rig.log.write(stream=2)]
    assert rig.sink.events == live
    assert rig.log.reads == []


def test_filter(rig: TimelineRig) -> None:
    """Only what passes the filter is delivered, from the log and live."""
    rig.log.write(stream=2)
    rig.log.write(name="other")
    wanted = rig.log.write()
    rig.catch_up(stream=1, names=frozenset({"note"}))
    rig.log.answer_all()
    rig.log.write(stream=2)
    rig.log.write(name="other")
    assert rig.sink.events == [wanted, rig.log.write()]


def test_catch_up(rig: TimelineRig) -> None:
    """The log after a time comes first, then what is live."""
    for _ in range(5):
        rig.log.write()
    rig.catch_up(since=2)
    assert rig.sink.events == []
    rig.log.answer_all()
    assert rig.positions == [3, 4, 5]
    rig.log.write()
    assert rig.positions == [3, 4, 5, 6]


def test_catch_up_by_pages() -> None:
    """A long log is read page by page, each asked for when the one before was taken."""
    rig = TimelineRig(page=2)
    for _ in range(5):
        rig.log.write()
    rig.catch_up()
    for taken in (2, 4, 5):
        rig.log.answer()
        assert len(rig.positions) == taken
    assert rig.log.waiting == 0
    assert [read.cursor for read in rig.log.reads] == [None, 2, 4]


def test_live_waits_for_the_log(rig: TimelineRig) -> None:
    """What is published while the log is read comes after the log, once."""
    rig.log.write()
    rig.catch_up()
    rig.log.write()
    rig.log.look()
    rig.log.write()
    assert rig.positions == []
    rig.log.answer()
    assert rig.positions == [1, 2, 3]


def test_published_late(rig: TimelineRig) -> None:
    """What the log had before it was published is not delivered again when it is."""
    rig.log.commit()
    rig.log.commit()
    rig.catch_up()
    rig.log.answer_all()
    assert rig.positions == [1, 2]
    rig.log.publish(1)
    rig.log.publish()
    assert rig.positions == [1, 2]


def test_tail_overflow_by_number(rig: TimelineRig) -> None:
    """More live events than the tail takes are read from the log instead."""
    _, done = rig.catch_up()
    rig.log.look()
    for _ in range(1000):
        rig.log.write()
    rig.log.answer()
    assert (rig.positions, rig.log.waiting) == ([], 1)
    rig.log.answer_all()
    assert rig.positions == [*range(1, 1001)]
    assert done.called


@pytest.mark.parametrize(
    ("kind", "fields"), [("notification", {"body": b"x" * 100_000}), ("command", command(100_000))]
)
def test_tail_overflow_by_size(rig: TimelineRig, kind: str, fields: dict[str, Any]) -> None:
    """A tail is bounded by the bytes that wait in it, whatever kind of event they are."""
    subscription, _ = rig.catch_up(kinds=frozenset(Kind))
    rig.log.look()
    for _ in range(100):
        rig.log.write(name=kind, **fields)
    held = sum(
        len(event.body or b"") + len((event.command and event.command.parameters) or b"")
        for event in subscription._tail
    )
    assert held < 1_000_000
    rig.log.answer_all()
    assert rig.positions == [*range(1, 101)]


def test_slow_sink() -> None:
    """The next event is delivered, and the next page read, when the sink takes events again."""
    rig = TimelineRig(page=2)
    for _ in range(4):
        rig.log.write()
    rig.sink.writable = False
    rig.catch_up()
    rig.log.answer()
    assert rig.positions == [1]
    assert rig.log.waiting == 0
    rig.log.write()
    rig.sink.drain()
    rig.log.answer_all()
    assert rig.positions == [1, 2, 3, 4, 5]


def test_limit() -> None:
    """Of the log the oldest so many are delivered, over all pages; what came since, all."""
    rig = TimelineRig(page=2)
    for _ in range(6):
        rig.log.write()
    rig.catch_up(limit=3)
    rig.log.write()
    rig.log.answer_all()
    rig.log.write()
    assert rig.positions == [1, 2, 3, 7, 8]


def test_scope_narrows(rig: TimelineRig) -> None:
    """Who loses a network in the middle of a replay gets nothing more of it."""
    rig.log.write(network=2)
    rig.catch_up()
    rig.log.answer_all()
    rig.log.write(network=2)
    assert rig.positions == [1, 2]
    rig.fan.scope = Scope(networks=frozenset({1}))
    rig.log.write(network=2)
    rig.log.write(network=1)
    assert rig.positions == [1, 2, 4]
    rig.fan.scope = NOTHING
    rig.log.write(network=1)
    assert rig.positions == [1, 2, 4]


def test_scope_narrows_between_pages() -> None:
    """The scope of the moment of delivery counts, also for events of the log."""
    rig = TimelineRig(page=1)
    rig.log.write(network=2)
    rig.log.write(network=2)
    rig.log.write(network=1)
    rig.catch_up()
    rig.log.answer()
    rig.fan.scope = Scope(networks=frozenset({1}))
    rig.log.answer_all()
    assert rig.positions == [1, 3]


def test_scope_of_one_device(rig: TimelineRig) -> None:
    """A device that follows everything gets its own events only."""
    rig.fan.scope = Scope(stream=2)
    rig.subscribe().go_live()
    rig.log.write(stream=1)
    own = rig.log.write(stream=2)
    assert rig.sink.events == [own]


@pytest.mark.parametrize("pages", [0, 1])
def test_read_fails(pages: int) -> None:
    """A replay that cannot go on is closed and said to be broken; nothing comes after that."""
    rig = TimelineRig(page=1)
    rig.log.write()
    rig.log.write()
    subscription, done = rig.catch_up()
    for _ in range(pages):
        rig.log.answer()
    with capturedLogs() as logged:
        rig.log.fail(Unavailable("the disk is gone"))
    assert done.called
    assert subscription.closed
    assert rig.sink.breaks == 1
    assert len(logged) == 1
    rig.log.write()
    assert len(rig.positions) == pages


def test_read_fails_after_close(rig: TimelineRig) -> None:
    """A replay that nobody waits for any more breaks nobody."""
    subscription, done = rig.catch_up()
    subscription.close()
    with capturedLogs():
        rig.log.fail(Unavailable("the disk is gone"))
    assert done.called
    assert rig.sink.breaks == 0


@pytest.mark.parametrize("pages", [0, 1])
def test_close_during_catch_up(pages: int) -> None:
    """After a close nothing is delivered: not what a read brings, not what is live."""
    rig = TimelineRig(page=1)
    for _ in range(3):
        rig.log.write()
    subscription, done = rig.catch_up()
    for _ in range(pages):
        rig.log.answer()
    rig.log.write()
    subscription.close()
    rig.log.answer_all()
    rig.log.write()
    assert len(rig.positions) == pages
    assert done.called
    assert subscription._tail == []


def test_close_by_the_sink(rig: TimelineRig) -> None:
    """A sink may close its subscription while it is given an event; the rest does not come."""
    for _ in range(3):
        rig.log.write()
    subscription, _ = rig.catch_up()
    deliver = rig.sink.deliver

    def deliver_and_close(event: Event) -> None:
        deliver(event)
        subscription.close()

    rig.sink.deliver = deliver_and_close  # type: ignore[method-assign]
    rig.log.answer_all()
    rig.log.write()
    assert rig.positions == [1]
    subscription.close()


def test_defective_sink(rig: TimelineRig) -> None:
    """A sink that fails loses its own subscription; the others have the event."""

    def explode(event: Event) -> None:
        raise ZeroDivisionError

    defective = Recorder()
    defective.deliver = explode  # type: ignore[method-assign]
    broken = rig.timeline.subscribe(Filter(kinds=NOTES), rig.fan, defective)
    broken.go_live()
    rig.subscribe().go_live()
    with capturedLogs() as logged:
        rig.log.write()
        rig.log.write()
    assert (rig.positions, len(logged)) == ([1, 2], 1)
    assert (broken.closed, defective.breaks) == (True, 1)


def test_drop(rig: TimelineRig) -> None:
    """Subscriptions to a deleted device get nothing more; others do."""
    rig.subscribe(stream=1).go_live()
    rig.subscribe().go_live()
    rig.timeline.drop(1)
    rig.log.write(stream=1)
    assert rig.positions == [1]


def test_now(rig: TimelineRig) -> None:
    """The time to resume from is just before the clock's, and never before what was published."""
    assert rig.timeline.now() == START - 1
    late = rig.log.commit()
    late.ts = START + 5
    rig.log.publish()
    assert rig.timeline.now() == START + 5
