"""The index of subscribers finds exactly those whose filters an event passes."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.fanout import Fanout
from gatewayd.core.model import Event, Kind
from gatewayd.core.queries import Filter

KINDS = [Kind.NOTIFICATION, Kind.COMMAND]
NAMES = ["a", "b", "c"]


def event(stream: int = 1, name: str = "a", kind: Kind = Kind.NOTIFICATION, **where: int) -> Event:
    return Event(
        stream=stream, seq=1, ts=1, stamp=1, kind=kind, name=name, device="D",
        network=where.get("network", 1), type=where.get("type", 1), position=1,
    )  # fmt: skip


class Ear:
    """A subscriber that counts what it is offered."""

    def __init__(self, **wanted: object) -> None:
        values = {"kinds": frozenset(KINDS), **wanted}
        self.filter = Filter(**values)  # type: ignore[arg-type]
        self.heard: list[Event] = []
        self.then: Callable[[], None] = lambda: None

    def offer(self, event: Event) -> None:
        self.heard.append(event)
        self.then()

    def close(self) -> None:
        raise AssertionError("the index closes nobody")


def maybe(ids: st.SearchStrategy[int]) -> st.SearchStrategy[frozenset[int] | None]:
    return st.none() | st.frozensets(ids, max_size=3)


FILTERS = st.fixed_dictionaries({
    "kinds": st.frozensets(st.sampled_from(KINDS), min_size=1),
    "stream": st.none() | st.integers(1, 3),
    "networks": maybe(st.integers(1, 3)),
    "types": maybe(st.integers(1, 3)),
    "names": st.none() | st.frozensets(st.sampled_from(NAMES), max_size=3),
})  # fmt: skip
EVENTS = st.builds(
    event, st.integers(1, 3), st.sampled_from(NAMES), st.sampled_from(KINDS),
    network=st.integers(0, 3), type=st.integers(0, 3),
)  # fmt: skip
STEPS = st.lists(
    st.tuples(st.just("add"), FILTERS)
    | st.tuples(st.just("remove"), st.integers(0, 100))
    | st.tuples(st.just("drop"), st.integers(1, 3))
    | st.tuples(st.just("publish"), EVENTS),
    max_size=40,
)


@given(STEPS)
def test_like_a_scan(steps: list[tuple[str, object]]) -> None:
    """Whoever comes and goes, an event is offered once to each that a scan would find."""
    fanout = Fanout()
    ears: list[Ear] = []
    removed: list[Ear] = []
    for step, value in steps:
        if step == "add":
            assert isinstance(value, dict)
            ears.append(Ear(**value))
            fanout.add(ears[-1])
        elif step == "remove" and ears:
            assert isinstance(value, int)
            removed.append(ears.pop(value % len(ears)))
            fanout.remove(removed[-1])
        elif step == "drop":
            removed += [ear for ear in ears if ear.filter.stream == value]
            ears = [ear for ear in ears if ear.filter.stream != value]
            assert isinstance(value, int)
            for ear in fanout.of_stream(value):
                fanout.remove(ear)
        elif isinstance(value, Event):
            for ear in (*ears, *removed):
                ear.heard.clear()
            fanout.publish(value)
            for ear in ears:
                assert ear.heard == ([value] if ear.filter.wants(value) else [])
            assert not any(ear.heard for ear in removed)
    for ear in (*ears, *removed):
        fanout.remove(ear)
    assert not any((fanout._streams, fanout._networks, fanout._types, fanout._all))


def test_remove_while_publishing() -> None:
    """A subscriber that goes while an event is offered keeps it from nobody else."""
    fanout = Fanout()
    ears = [Ear(stream=1) for _ in range(3)]
    for ear in ears:
        fanout.add(ear)
    ears[0].then = lambda: fanout.remove(ears[0])
    ears[1].then = lambda: fanout.remove(ears[1])
    fanout.publish(event())
    fanout.publish(event())
    assert [len(ear.heard) for ear in ears] == [1, 1, 2]


def test_add_while_publishing() -> None:
    """A subscriber that comes while an event is offered hears at least the next one."""
    fanout = Fanout()
    first, second = Ear(), Ear()
    fanout.add(first)
    first.then = lambda: fanout.add(second)
    fanout.publish(event())
    before = len(second.heard)
    fanout.publish(event())
    assert len(second.heard) == before + 1


def test_announcements() -> None:
    """The gateway's announcements pass only filters that name no device, network or type."""
    fanout = Fanout()
    everything, named = Ear(), Ear(names=frozenset({"a"}))
    ears = [Ear(stream=1), Ear(networks=frozenset({1})), Ear(types=frozenset({1}))]
    for ear in (everything, named, *ears):
        fanout.add(ear)
    fanout.publish(event(network=0, type=0))
    assert [len(ear.heard) for ear in (everything, named)] == [1, 1]
    assert not any(ear.heard for ear in ears)
