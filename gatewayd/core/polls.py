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
from gatewayd.core.timeline import Timeline
from gatewayd.errors import Denied, Unavailable

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
        devices: Sequence[Device] = (),
    ) -> list[Event]:
        """Return the events in the log that show a time after ``since``, else the next to come.

        :param wanted: what passes any of these, which share their kinds.
        :param since: ms; None for now.
        :param limit: at most so many, those with the oldest times; None for all.
        :param wait: seconds; when they are over the list is empty.
        :param devices: those that are named: who polls their commands is taken for them.
        :raises Denied: the permission is missing; ``"blocked"``: a device is.
        :raises Unavailable: the log cannot be read.
        """
        kinds = wanted[0].kinds
        principal.require(Action.EVENT_READ if Kind.NOTIFICATION in kinds else Action.COMMAND_READ)
        if Kind.COMMAND in kinds and any(device.blocked for device in devices):
            raise Denied("blocked")
        if since is None:
            since = self._timeline.now()
        began = self._timeline.position
        shown = _updated if Kind.COMMAND_UPDATE in kinds else _stamp

        def accepts(event: Event) -> bool:
            # The time that an event shows may be long before it was recorded. Of the log only what
            # shows a later time counts: the client polls on from there, and would get it for ever.
            return event.position > began or shown(event) > since

        collectors = [_Collector(accepts, len(wanted)) for _ in wanted]
        parts = [
            self._timeline.subscribe(each, principal, collector)
            for each, collector in zip(wanted, collectors, strict=True)
        ]
        try:
            for part, collector in zip(parts, collectors, strict=True):
                collector.full = part.close
                await _shielded(part.catch_up(since))
            await self._first(collectors, wait)
        finally:
            for part in parts:
                part.close()
        return _oldest(collectors, shown)[:limit]

    async def answered(
        self, principal: Principal, device: Device, public_id: int, wait: float
    ) -> Command | None:
        """Return a command once it was updated.

        :param wait: seconds. :return: None when they are over, or there is no such command.
        :raises Denied: the permission is missing. :raises Unavailable: the log cannot be read.
        """
        principal.require(Action.COMMAND_READ)
        seq = message_seq(device.uid, public_id)
        collector = _Collector(lambda event: event.command is not None and event.command.seq == seq)
        wanted = Filter(kinds=frozenset({Kind.COMMAND_UPDATE}), stream=device.uid)
        subscription = self._timeline.subscribe(wanted, principal, collector)
        try:
            command = await self._store.command(device, seq)
            if command is None or command.changed:
                return command
            await _shielded(subscription.catch_up(None))
            await self._first([collector], wait)
        finally:
            subscription.close()
        return collector.events[0].command if collector.events else None

    async def _first(self, collectors: Sequence[_Collector], wait: float) -> None:
        """Wait until there is an event, if there is none. :raises Unavailable: they were lost."""
        settled = self._released or any(each.events or each.lost for each in collectors)
        if wait > 0 and not settled:
            came: Deferred[None] = Deferred()
            self._waiting.add(came)
            for each in collectors:
                each.came = came
            came.addTimeout(wait, self._clock, onTimeoutCancel=lambda *_: None)
            try:
                await came
            finally:
                self._waiting.discard(came)
        if any(each.lost for each in collectors):
            raise Unavailable

    def release(self) -> None:
        """Answer every poll that waits with what it has, and let none wait any more."""
        self._released = True
        for came in list(self._waiting):
            _fire(came)


class _Collector:
    """The sink of a subscription of a poll.

    :param share: into how many parts the room of an answer is divided.
    :ivar came: fires when there is an event or nothing more will come.
    :ivar full: is called when there is no room for another event.
    :ivar lost: whether events were lost on the way.
    """

    writable = True

    def __init__(self, accepts: Callable[[Event], bool], share: int = 1) -> None:
        self.events: list[Event] = []
        self.came: Deferred[None] | None = None
        self.full: Callable[[], None] = lambda: None
        self.lost = False
        self._accepts = accepts
        self._events_left = _MOST_EVENTS // share
        self._bytes_left = _MOST_BYTES // share

    @property
    def is_full(self) -> bool:
        """Whether more events may have come than it has."""
        return self._events_left <= 0 or self._bytes_left <= 0

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
        if self.is_full:
            self.full()
        _fire(self.came)

    def broken(self) -> None:
        """Know that events were lost."""
        self.lost = True
        _fire(self.came)


def _oldest(collectors: Sequence[_Collector], shown: Callable[[Event], int]) -> list[Event]:
    """Return the events of several collectors in the order of their times.

    Where one is full the answer ends, whatever the others have: what it had no room for may be
    older, and the client, polling on from the end of the answer, would never get it.
    """
    events = sorted((event for each in collectors for event in each.events), key=shown)
    ends = [max(map(shown, each.events)) for each in collectors if each.is_full and each.events]
    if ends:
        end = min(ends)
        events = [event for event in events if shown(event) <= end]
    return events


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
