"""The tail of the log: every event once and in order, whichever way it comes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from gatewayd.core.model import Command, Event, Kind
from gatewayd.errors import Unavailable
from gatewayd.storage.pg.clock import SharedClock
from gatewayd.storage.pg.frames import frames, parse
from gatewayd.storage.pg.tail import Tail


def event(position: int, **fields: object) -> Event:
    """Make an event."""
    values = {
        "stream": 1, "seq": position, "ts": position, "stamp": position, "kind": Kind.NOTIFICATION,
        "name": "note", "device": "D", "network": 1, "type": 1, "position": position,
    }  # fmt: skip
    return Event(**{**values, **fields})  # type: ignore[arg-type]


def events(after: int, upto: int) -> list[Event]:
    """Make the events of a piece of the log."""
    return [event(position) for position in range(after + 1, upto + 1)]


class Log:
    """A log of which pages of three are read, and a tail that begins where it is empty.

    :ivar told: what the observer was told.
    :ivar reads: the reads that were begun, each with what it waits for.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.told: list[Event] = []
        self.reads: list[tuple[int, int, Deferred[tuple[list[Event], int]]]] = []
        self.tail = Tail(self._read, self.clock)
        self.tail.observe(self.told.extend)
        self.tail.begin(0)
        Deferred.fromCoroutine(self.tail.start())

    def _read(self, after: int, until: int) -> Deferred[tuple[list[Event], int]]:
        done: Deferred[tuple[list[Event], int]] = Deferred()
        self.reads.append((after, until, done))
        return done

    def answer(self) -> None:
        """Answer the oldest read."""
        after, until, done = self.reads.pop(0)
        upto = min(after + 3, until)
        done.callback((events(after, upto), upto))

    def answer_all(self) -> None:
        while self.reads:
            self.answer()

    @property
    def positions(self) -> list[int]:
        return [each.position for each in self.told]


def test_in_order() -> None:
    """What follows what was told is told at once, as it is."""
    log = Log()
    first, second = events(0, 2), events(2, 3)
    log.tail.offer(0, 2, first)
    log.tail.offer(2, 3, second)
    assert log.told == first + second
    assert not any(each.foreign for each in log.told)
    assert not log.reads


def test_before_its_predecessors() -> None:
    """A piece waits until what is before it was read; it is not read itself."""
    log = Log()
    log.tail.offer(2, 4, events(2, 4))
    assert log.positions == []
    assert log.reads[0][:2] == (0, 2)
    log.answer()
    assert log.positions == [1, 2, 3, 4]
    assert [each.foreign for each in log.told] == [True, True, False, False]
    assert not log.reads


def test_predecessors_come_by_themselves() -> None:
    """A piece that comes while the gap is read fills it; what is read is not told again."""
    log = Log()
    log.tail.offer(4, 5, events(4, 5))
    log.tail.offer(2, 4, events(2, 4))
    log.tail.offer(0, 2, events(0, 2))
    assert log.positions == [1, 2, 3, 4, 5]
    log.answer_all()
    assert log.positions == [1, 2, 3, 4, 5]


def test_overlap() -> None:
    """Of a piece that was told in part, the rest is told; of one that was told, nothing."""
    log = Log()
    log.tail.offer(0, 3, events(0, 3))
    log.tail.offer(1, 5, events(1, 5))
    log.tail.offer(2, 4, events(2, 4))
    assert log.positions == [1, 2, 3, 4, 5]


def test_removed_events() -> None:
    """Positions whose events are gone are passed over."""
    log = Log()
    log.tail.offer(0, 5, [event(3)])
    log.tail.offer(5, 6, [event(6)])
    assert log.positions == [3, 6]


def test_known_to_exist() -> None:
    """What is known to exist is read, page by page, also what comes to be known meanwhile."""
    log = Log()
    log.tail.heard(4)
    log.tail.heard(2)
    log.tail.heard(7)
    log.answer_all()
    assert log.positions == list(range(1, 8))


def test_what_is_being_committed() -> None:
    """Own events are not read while their writers have not heard of them."""
    log = Log()
    log.tail.hold(2)
    log.tail.heard(6)
    log.answer_all()
    assert log.positions == [1, 2]
    log.tail.offer(2, 4, events(2, 4))
    log.tail.release()
    log.answer_all()
    assert log.positions == [1, 2, 3, 4, 5, 6]
    assert [each.foreign for each in log.told] == [True, True, False, False, True, True]


def test_lost_commit() -> None:
    """Own events whose commit was in doubt are read when they are there."""
    log = Log()
    log.tail.hold(0)
    log.tail.release()
    log.tail.heard(2)
    log.answer()
    assert [each.foreign for each in log.told] == [True, True]


@pytest.mark.parametrize("large", [False, True])
def test_too_much_waits(large: bool) -> None:
    """When too much waits for a gap, it is forgotten and read, too."""
    log = Log()
    number = 9 if large else 65
    body = b"x" * 1_000_000 if large else b""
    for position in range(2, 2 + number):
        log.tail.offer(position - 1, position, [event(position, body=body)])
    log.answer_all()
    assert log.positions == list(range(1, 2 + number))
    assert all(each.foreign and each.body is None for each in log.told)


def test_database_is_away() -> None:
    """A read that fails is tried again after a pause, until the tail is stopped."""
    log = Log()
    log.tail.heard(1)
    log.reads.pop()[2].errback(Unavailable("away"))
    assert not log.reads
    log.clock.advance(0.5)
    log.reads.pop()[2].errback(Unavailable("away"))
    Deferred.fromCoroutine(log.tail.stop())
    assert not log.clock.getDelayedCalls()
    assert not log.reads


def test_stopped_while_it_reads() -> None:
    """What is read after the end is not told."""
    log = Log()
    log.tail.heard(5)
    Deferred.fromCoroutine(log.tail.stop())
    log.answer()
    assert log.told == []
    assert not log.reads


@given(st.data())
def test_any_order(data: st.DataObject) -> None:
    """Whatever comes in whatever order, often or never: all is told, once and in order."""
    log = Log()
    end = data.draw(st.integers(1, 40))
    for _ in range(data.draw(st.integers(0, 30))):
        after = data.draw(st.integers(0, end - 1))
        upto = data.draw(st.integers(after + 1, end))
        match data.draw(st.sampled_from(["offer", "heard", "answer", "fail"])):
            case "offer":
                log.tail.offer(after, upto, events(after, upto))
            case "heard":
                log.tail.heard(upto)
            case "answer" if log.reads:
                log.answer()
            case "fail" if log.reads:
                log.reads.pop(0)[2].errback(Unavailable("away"))
                log.clock.advance(0.5)
        assert log.positions == list(range(1, log.tail.position + 1))
        assert len(log.reads) <= 1
    log.tail.heard(end)
    log.answer_all()
    assert log.positions == list(range(1, end + 1))


def test_one_observer_fails() -> None:
    """An observer that fails costs the others nothing."""
    tail = Tail(lambda after, until: fail(Unavailable("")), Clock())
    told: list[Event] = []

    def stumble(_: object) -> None:
        raise ZeroDivisionError

    tail.observe(stumble)
    tail.observe(told.extend)
    tail.offer(0, 1, events(0, 1))
    assert len(told) == 1


def test_reads_that_answer_at_once() -> None:
    """Reading is not in need of waiting."""
    tail = Tail(lambda after, until: succeed((events(after, after + 1), after + 1)), Clock())
    told: list[Event] = []
    tail.observe(told.extend)
    Deferred.fromCoroutine(tail.start())
    tail.heard(5)
    assert told == [event(position, foreign=True) for position in range(1, 6)]


# Frames


def unframed(payloads: list[str]) -> list[Event]:
    """Read what a commit has notified of, which has to be without a gap."""
    found: list[Event] = []
    position = None
    for payload in payloads:
        frame = parse(payload)
        assert frame.sender == "me"
        assert frame.events is not None
        assert position in (None, frame.after)
        position = frame.upto
        found += frame.events
    return found


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
numbers = st.integers(0, 2**63 - 1)
bodies = st.none() | st.binary(max_size=3000)
commands = st.builds(
    Command, stream=numbers, seq=numbers, device=texts, name=texts, network=numbers, type=numbers,
    ts=numbers, stamp=numbers, updated=numbers, user=st.none() | numbers, parameters=bodies,
    lifetime=st.none() | numbers, status=st.none() | texts, result=bodies, changed=st.booleans(),
)  # fmt: skip
logged = st.builds(
    Event, stream=numbers, seq=numbers, ts=numbers, stamp=numbers, kind=st.sampled_from(Kind),
    name=texts, device=texts, network=numbers, type=numbers, position=st.just(0), body=bodies,
    epoch=numbers, command=st.none() | commands, foreign=st.just(True), memo=st.just({}),
)  # fmt: skip


@given(st.integers(0, 2**62), st.lists(logged, min_size=1, max_size=30))
def test_frames(after: int, written: list[Event]) -> None:
    """What fits into notifications is read as it was written; nothing is longer than it may be."""
    for position, each in enumerate(written, after + 1):
        each.position = position
    payloads = frames("me", after, written)
    assert max(len(payload.encode()) for payload in payloads) <= 7900
    assert len(payloads) <= 16
    if len(payloads) > 1 or parse(payloads[0]).events is not None:
        assert unframed(payloads) == written
    else:
        assert (parse(payloads[0]).after, parse(payloads[0]).upto) == (after, after + len(written))
        assert sum(each.size for each in written) > 4000


@pytest.mark.parametrize(
    "written",
    [
        [event(1, body=b"x" * 6000)],
        [event(position, body=b"x" * 4000) for position in range(1, 18)],
        [event(position, body=b"x" * 100_000) for position in range(1, 3)],
        [event(1), event(2, name="\1" * 2000)],
    ],
)
def test_too_large_for_frames(written: list[Event]) -> None:
    """Of what does not fit, only the positions are told."""
    (payload,) = frames("me", 0, written)
    frame = parse(payload)
    assert (frame.after, frame.upto, frame.events) == (0, len(written), None)


def test_as_large_as_frames_may_be() -> None:
    """What fits goes into as many frames as are allowed."""
    written = [event(position, body=b"x" * 5000) for position in range(1, 17)]
    payloads = frames("me", 0, written)
    assert len(payloads) == 16
    assert [each.body for each in unframed(payloads)] == [each.body for each in written]


@pytest.mark.parametrize(
    "payload",
    ["", "[", "null", '["me",0,1,[]]', '["me",0,0,[[]]]', '["me",0,"x",null]', "change now"],
)
def test_no_frame(payload: str) -> None:
    """What is no frame is refused with a ValueError."""
    with pytest.raises(ValueError):
        parse(payload)


# The clock


class Local:
    """A local clock, in s."""

    def __init__(self) -> None:
        self.now = 10_000.0

    def __call__(self) -> float:
        return self.now


def test_clock_without_an_answer() -> None:
    """Until the database was heard, the time of day has to do."""
    assert SharedClock(lambda: 5_000, Local()).now() == 5_000


def test_clock_goes_on() -> None:
    """Between answers the local clock goes on; the wall does not matter."""
    local = Local()
    clock = SharedClock(lambda: 9_999_999_999_999, local)
    clock.heard(7_000)
    assert clock.now() == 7_000
    local.now += 3
    assert clock.now() == 10_000


def test_clock_never_goes_back() -> None:
    """An answer that shows less than the time that was told does not turn it back."""
    local = Local()
    clock = SharedClock(lambda: 0, local)
    clock.heard(7_000)
    local.now += 60
    assert clock.now() == 67_000
    clock.heard(60_000)
    assert clock.now() == 67_000
    local.now += 10
    assert clock.now() == 70_000


@pytest.mark.parametrize("seed", range(20))
def test_clock_is_a_lower_bound(seed: int) -> None:
    """The time is never ahead of the database's, and after a quick answer close to it."""
    chance = random.Random(seed)
    local = Local()
    ahead = chance.uniform(-3_600, 3_600)
    clock = SharedClock(lambda: 0, local)
    told = 0
    for _ in range(300):
        shown = int((local.now + ahead) * 1000)
        late = chance.choice([0.0, 0.001, 0.2, 5.0])
        local.now += late
        clock.heard(shown)
        now = clock.now()
        true = int((local.now + ahead) * 1000)
        assert told <= now <= true
        if late < 0.01:
            assert true - now <= 2
        told = now
        local.now += chance.uniform(0, 4)
