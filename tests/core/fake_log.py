"""A log in memory whose every step the test takes by hand, and a timeline over it."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred

from gatewayd.core.access import Scope
from gatewayd.core.interfaces import Observer, Store
from gatewayd.core.model import Event, Kind
from gatewayd.core.queries import Filter, Page, Replay
from gatewayd.core.timeline import Subscription, Timeline
from tests.core.bench import NOTES, START, Recorder


class FakeLog:
    """What a timeline needs of a store.

    As in a real one, an event is committed first and published later, and a read sees what is
    committed at some moment between the question and the answer.

    :param page: how many events a read returns at most.
    """

    opened_at = (0, 0)

    def __init__(self, page: int = 500) -> None:
        self.events: list[Event] = []
        self.reads: list[Replay] = []
        self._page = page
        self._unpublished: list[Event] = []
        self._observers: list[Observer] = []
        self._asked: list[tuple[Replay, Deferred[Page]]] = []
        self._seen: list[tuple[Page, Deferred[Page]]] = []

    @property
    def waiting(self) -> int:
        """How many reads have no answer yet."""
        return len(self._asked) + len(self._seen)

    def observe(self, observer: Observer) -> None:
        self._observers.append(observer)

    def read(self, replay: Replay) -> Deferred[Page]:
        self.reads.append(replay)
        answer: Deferred[Page] = Deferred()
        self._asked.append((replay, answer))
        return answer

    def commit(self, stream: int = 1, name: str = "note", **fields: Any) -> Event:
        """Write an event; the time is its position."""
        position = len(self.events) + 1
        values = {"kind": Kind.NOTIFICATION, "network": 1, "type": 1, **fields}
        event = Event(
            stream=stream, seq=1 + sum(event.stream == stream for event in self.events),
            ts=position, stamp=position, name=name, device=f"D{stream}", position=position,
            **values,
        )  # fmt: skip
        self.events.append(event)
        self._unpublished.append(event)
        return event

    def publish(self, most: int | None = None) -> None:
        """Tell the observers of what is committed."""
        batch = self._unpublished[:most]
        del self._unpublished[:most]
        for observer in self._observers if batch else ():
            observer(batch)

    def write(self, stream: int = 1, name: str = "note", **fields: Any) -> Event:
        """Commit an event and publish it at once."""
        event = self.commit(stream, name, **fields)
        self.publish()
        return event

    def look(self) -> None:
        """Let the oldest read see what is committed now; it is not answered yet."""
        if self._asked:
            replay, answer = self._asked.pop(0)
            self._seen.append((self._read(replay), answer))

    def answer(self) -> None:
        """Answer the oldest read."""
        if not self._seen:
            self.look()
        if self._seen:
            page, answer = self._seen.pop(0)
            answer.callback(page)

    def fail(self, error: Exception) -> None:
        """Let the oldest read fail."""
        _, answer = self._asked.pop(0)
        answer.errback(error)

    def answer_all(self) -> None:
        """Answer until nobody asks any more."""
        while self.waiting:
            self.answer()

    def _read(self, replay: Replay) -> Page:
        wanted = [
            event
            for event in self.events
            if event.ts > replay.since
            and event.position > (replay.cursor or 0)
            and replay.filter.wants(event)
        ]
        events = wanted[: self._page]
        cursor = events[-1].position if events else replay.cursor or 0
        return Page(events=events, cursor=cursor, complete=len(events) < self._page)


class Fan:
    """A follower whose scope the test sets."""

    def __init__(self) -> None:
        self.scope = Scope()


class TimelineRig:
    """A timeline over a log that is moved by hand."""

    def __init__(self, page: int = 500) -> None:
        self.log = FakeLog(page)
        self.timeline = Timeline(cast("Store", self.log), lambda: START)
        self.fan = Fan()
        self.sink = Recorder()

    def subscribe(self, **wanted: Any) -> Subscription:
        wanted.setdefault("kinds", NOTES)
        return self.timeline.subscribe(Filter(**wanted), self.fan, self.sink)

    def catch_up(
        self, since: int = 0, limit: int | None = None, **wanted: Any
    ) -> tuple[Subscription, Deferred[None]]:
        subscription = self.subscribe(**wanted)
        return subscription, Deferred.fromCoroutine(subscription.catch_up(since, limit=limit))

    @property
    def positions(self) -> list[int]:
        return [event.position for event in self.sink.events]
