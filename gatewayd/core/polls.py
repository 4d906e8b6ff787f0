"""Long polls: requests that wait for the next events of a timeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from gatewayd.core.access import Action, Principal
from gatewayd.core.interfaces import Store
from gatewayd.core.model import Command, Device, Event, Kind, message_seq
from gatewayd.core.queries import Filter
from gatewayd.core.timeline import Subscription, Timeline
from gatewayd.errors import Unavailable

#: An answer ends after so many events or bytes; who polls on from its last one misses nothing.
_MOST_EVENTS = 10_000
_MOST_BYTES = 8 * 1024 * 1024


class Polls:
    """Requests that wait for events.

    A poll is no attachment: it marks no command as delivered, since nobody knows whether the
    answer arrived. The client says by its timestamp what it has had.

    :param clock: for timers.
    """

    def __init__(self, store: Store, timeline: Timeline, clock: IReactorTime) -> None:
        self._store = store
        self._timeline = timeline
        self._clock = clock
        self._waiting: set[Deferred[None]] = set()
        self._released = False

    async def events(
        self,
        principal: Principal,
        wanted: Sequence[Filter],
        since: int | None,
        limit: int | None,
        wait: float,
    ) -> list[Event]:
        """Return the events in the log that show a time after ``since``, else the next to come.

        :param wanted: what passes any of these, which share their kinds.
        :param since: ms; None for now. :param limit: at most so many, the oldest; None for all.
        :param wait: seconds; when they are over the list is empty.
        :raises Denied: the permission is missing. :raises Unavailable: the log cannot be read.
        """
        kinds = wanted[0].kinds
        principal.require(Action.EVENT_READ if Kind.NOTIFICATION in kinds else Action.COMMAND_READ)
        if since is None:
            since = self._timeline.now()
        began = self._timeline.position
        shown = _updated if Kind.COMMAND_UPDATE in kinds else _stamp
        # The time that an event shows may be long before it was recorded. Of the log only what
        # shows a later time counts: the client polls on from there, and would get it for ever.
        collector = _Collector(
            lambda event: event.position > began or shown(event) > since, limit or _MOST_EVENTS
        )
        parts = [self._timeline.subscribe(each, principal, collector) for each in wanted]
        collector.full = lambda: _close(parts)
        try:
            for part in parts:
                await _shielded(part.catch_up(since))
            await self._first(collector, wait)
        finally:
            _close(parts)
        return sorted(collector.events, key=shown)

    async def answered(
        self, principal: Principal, device: Device, public_id: int, wait: float
    ) -> Command | None:
        """Return a command once it was updated.

        :param wait: seconds. :return: None when they are over, or there is no such command.
        :raises Denied: the permission is missing. :raises Unavailable: the log cannot be read.
        """
        principal.require(Action.COMMAND_READ)
        seq = message_seq(device.uid, public_id)
        collector = _Collector(
            lambda event: event.command is not None and event.command.seq == seq, 1
        )
        wanted = Filter(kinds=frozenset({Kind.COMMAND_UPDATE}), stream=device.uid)
        subscription = self._timeline.subscribe(wanted, principal, collector)
        try:
            command = await self._store.command(device, seq)
            if command is None or command.changed:
                return command
            await _shielded(subscription.catch_up(None))
            await self._first(collector, wait)
        finally:
            subscription.close()
        return collector.events[0].command if collector.events else None

    async def _first(self, collector: _Collector, wait: float) -> None:
        """Wait until there is an event, if there is none. :raises Unavailable: they were lost."""
        if wait > 0 and not (collector.events or collector.lost or self._released):
            came: Deferred[None] = Deferred()
            self._waiting.add(came)
            collector.came = came
            came.addTimeout(wait, self._clock, onTimeoutCancel=lambda *_: None)
            try:
                await came
            finally:
                self._waiting.discard(came)
        if collector.lost:
            raise Unavailable

    def release(self) -> None:
        """Answer every poll that waits with what it has, and let none wait any more."""
        self._released = True
        for came in list(self._waiting):
            _fire(came)


class _Collector:
    """The sink of a poll.

    :ivar came: fires when there is an event or nothing more will come.
    :ivar full: is called when there is no room for another event.
    :ivar lost: whether events were lost on the way.
    """

    writable = True

    def __init__(self, accepts: Callable[[Event], bool], most: int) -> None:
        self.events: list[Event] = []
        self.came: Deferred[None] | None = None
        self.full: Callable[[], None] = lambda: None
        self.lost = False
        self._accepts = accepts
        self._events_left = min(most, _MOST_EVENTS)
        self._bytes_left = _MOST_BYTES

    def when_writable(self) -> Deferred[None]:
        """Fire at once: what does not fit is not waited for."""
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def deliver(self, event: Event) -> None:
        """Keep an event."""
        if not self._accepts(event):
            return
        self.events.append(event)
        self._events_left -= 1
        self._bytes_left -= event.size
        if self._events_left <= 0 or self._bytes_left <= 0:
            self.full()
        _fire(self.came)

    def broken(self) -> None:
        """Know that events were lost."""
        self.lost = True
        _fire(self.came)


def _close(parts: Sequence[Subscription]) -> None:
    for part in parts:
        part.close()


def _fire(came: Deferred[None] | None) -> None:
    if came is not None and not came.called:
        came.callback(None)


def _stamp(event: Event) -> int:
    return event.stamp


def _updated(event: Event) -> int:
    return event.ts if event.command is None else event.command.updated


def _shielded(work: Any) -> Deferred[None]:
    """Run a coroutine to its end, also when nobody waits for it any more.

    A client that goes away cancels its request; reading the log must not take that for an error.
    """
    done: Deferred[None] = Deferred()
    Deferred.fromCoroutine(work).addBoth(lambda _: done.callback(None))
    return done
