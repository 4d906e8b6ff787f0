"""Timelines: what happened to each device, in one order, live and replayed without a gap."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from gatewayd.core.access import UNLIMITED, Scope
from gatewayd.core.fanout import Fanout
from gatewayd.core.interfaces import Log
from gatewayd.core.model import LEAD, Device, Entry, Event, Kind
from gatewayd.core.queries import Filter, Page, Replay
from gatewayd.errors import Superseded

#: How much may arrive live during one read of the log before the log is read once more instead.
_TAIL_EVENTS = 256
_TAIL_BYTES = 256 * 1024


#: How many deliveries are made in one turn of the reactor, about 10 ms of work.
_DELIVERIES_PER_TURN = 2500
#: How many committed events may wait for later turns.
_MOST_UNPUBLISHED = 10_000
_ATTENDANCE = frozenset({Kind.ATTACHED, Kind.DETACHED})


class Sink(Protocol):
    """Where a subscription's events go: an API's session."""

    @property
    def writable(self) -> bool:
        """Whether it takes events without queueing them."""

    def when_writable(self) -> Deferred[None]:
        """Fire when it takes events again, or is gone."""

    def deliver(self, event: Event) -> None:
        """Take an event."""

    def broken(self) -> None:
        """Know that events were lost on the way; the only honest answer is to disconnect."""


class Follower(Protocol):
    """Whose rights a subscription has: a principal."""

    scope: Scope


class Subscription:
    """One subscriber's view of the timelines: first the log, then live, each event once.

    Until it is live, what is published waits in a short tail; when that overflows, the log is read
    again instead. An event's position tells whether the reader has had it.

    :ivar ended: called when it is closed.
    """

    log = Logger()
    ended: Callable[[], None] | None = None

    def __init__(self, timeline: Timeline, wanted: Filter, follower: Follower, sink: Sink) -> None:
        self.filter = wanted
        self.closed = False
        self._timeline = timeline
        self._follower = follower
        self._sink = sink
        self._live = False
        self._position = timeline.position
        self._handed: set[int] = set()
        self._tail: list[Event] = []
        self._tail_bytes = 0

    def offer(self, event: Event) -> None:
        """Take an event that was published."""
        if self._live:
            if not self._handed and self._follower.scope is UNLIMITED and not self.closed:
                # What nearly every delivery comes to, without the calls.
                if event.position > self._position:
                    self._position = event.position
                    try:
                        self._sink.deliver(event)
                    except Exception:
                        self.give_up()
            else:
                self._pass(event)
        elif not self._overflowed():
            self._tail.append(event)
            self._tail_bytes += event.size

    def close(self) -> None:
        """End it; nothing is delivered any more."""
        if not self.closed:
            self.closed = True
            self._tail.clear()
            self._timeline.forget(self)
            if self.ended is not None:
                self.ended()

    def go_live(self) -> None:
        """Deliver what comes from now on."""
        self._live = True

    async def hand_over(self, events: Sequence[Event]) -> None:
        """Deliver events that come before the log; then wait until the sink takes more."""
        for event in events:
            self._handed.add(event.position)
            self.send(event)
            if not self._sink.writable:
                await self._sink.when_writable()

    async def catch_up(self, since: int | None, limit: int | None = None) -> None:
        """Deliver the log after ``since`` (ms), then go live.

        :param since: None for nothing but what was published since the subscription began, which
            works for a subscription to one device.
        :param limit: of what was in the log when the subscription began, only the oldest so many.
        """
        try:
            since = self._begin(since)
            if since is not None:
                await self._read_log(since, limit)
            for event in self._tail:
                self._pass(event)
            self._tail = []
            self._live = True
        except Exception:
            # Live events without the log before them would be a silent gap.
            self.give_up()

    def give_up(self) -> None:
        """End it because of the error at hand: its reader must not believe it saw everything."""
        self.log.failure("a subscription failed")
        if not self.closed:
            self.close()
            self._sink.broken()

    def _begin(self, since: int | None) -> int | None:
        """Return from when the log has to be read, None when the tail has everything."""
        if since is not None:
            # It came in time, and the log will not bring it; unless it is other nodes' who tell of
            # what they have recorded before.
            for event in () if self._timeline.shared else self._tail:
                if event.ts <= since:
                    self._pass(event)
            return since
        if self._overflowed():
            # Times of one device grow: nothing that came later is earlier than this.
            return self._tail[0].ts - 1
        return None

    async def _read_log(self, since: int, limit: int | None) -> None:
        cursor = None
        began = self._position
        self._position = 0
        while not self.closed:
            self._tail = []
            self._tail_bytes = 0
            page = await self._timeline.read(self.filter, since, cursor)
            cursor = page.cursor
            for event in page.events:
                if limit is not None and event.position <= began:
                    if limit == 0:
                        continue
                    limit -= 1
                self._pass(event)
                # A page may be more than the sink's window holds.
                if not self._sink.writable:
                    await self._sink.when_writable()
            if page.complete and not self._overflowed():
                # The log may be ahead of what was published here: none of that is new.
                self._position = max(self._position, page.until)
                break
        self._position = max(self._position, began)

    def _overflowed(self) -> bool:
        return len(self._tail) > _TAIL_EVENTS or self._tail_bytes > _TAIL_BYTES

    def _pass(self, event: Event) -> None:
        """Deliver an event unless its reader has had it."""
        if event.position > self._position:
            self._position = event.position
            if event.position not in self._handed:
                self.send(event)
            elif event.position == max(self._handed):
                self._handed.clear()

    def send(self, event: Event) -> None:
        """Deliver an event that may have waited: not out of scope, not an expired command."""
        command = event.command
        # The scope is the one of now: who loses a network loses its events at once.
        if (
            not self.closed
            and self._follower.scope.shows(event)
            and (command is None or not command.lifetime or not self._timeline.expired(event))
        ):
            try:
                self._sink.deliver(event)
            except Exception:
                # One subscriber's defect must not cost the others this event.
                self.give_up()


class Timeline:
    """Appends to the timelines, and lets subscribers follow them.

    :param wall: the time of day in ms.
    :param later: calls a function in a later turn of the reactor.
    :param shared: whether other nodes append to the log, too: what they have recorded is published
        here some time later.
    """

    log = Logger()

    def __init__(
        self,
        store: Log,
        wall: Callable[[], int],
        later: Callable[[Callable[[], None]], object] = lambda function: function(),
        *,
        shared: bool = False,
    ) -> None:
        self.shared = shared
        self._store = store
        self._later = later
        self._unpublished: deque[Event] = deque()
        self._publishing = False
        #: what nobody waits for, until it is recorded
        self._noting: set[Deferred[Any]] = set()
        self.wall = wall
        self._fanout = Fanout()
        self._latest = 0
        self._position = 0
        #: told of each coming and going of a device before anybody else is
        self.attendance: Callable[[Event], None] = lambda event: None
        store.observe(self._committed)

    @property
    def position(self) -> int:
        """The position of the last event that was published, by us or before we were started."""
        return self._position or self._store.opened_at[0]

    def now(self) -> int:
        """Return the time (ms) for clients to resume from.

        Nothing that was published is later, and what is recorded from now on is: the current
        millisecond is not over, so it is not given out.
        """
        wall = self.wall()
        return max(wall - 1, self._latest, min(self._store.opened_at[1], wall + LEAD))

    def expired(self, event: Event) -> bool:
        """Whether an event is a command whose lifetime is over: nobody gets it any more."""
        command = event.command
        return command is not None and event.kind is Kind.COMMAND and command.expired(self.wall())

    def append(self, entry: Entry) -> Deferred[Event]:
        """Append an entry; fires after it is on disk. See :meth:`Log.append`."""
        return self._store.append(entry)

    def note(self, entry: Entry, patience: float = 0.0) -> None:
        """Append what nobody waits for; a failure is logged.

        :param patience: seconds for which it may wait, as in :meth:`Log.append`.
        """
        noting: Deferred[Any] = self._store.append(entry, patience)
        self._noting.add(noting)
        noting.addBoth(self._noted, noting)
        noting.addErrback(lambda failure: self.not_recorded(entry.device, entry.kind, failure))

    def not_recorded(self, device: Device, kind: Kind, failure: Failure) -> None:
        """Say in the log what is missing in a timeline, unless somebody else has recorded it."""
        level = LogLevel.debug if failure.check(Superseded) else LogLevel.warn
        self.log.emit(
            level, "not recorded: {name} of {device}: {error}",
            name=kind.name, device=device.id, error=failure.getErrorMessage(),
        )  # fmt: skip

    def _noted(self, result: Any, noting: Deferred[Any]) -> Any:
        self._noting.discard(noting)
        return result

    async def settle(self) -> None:
        """Wait until what was noted is recorded, or could not be."""
        await DeferredList(list(self._noting))

    def subscribe(self, wanted: Filter, follower: Follower, sink: Sink) -> Subscription:
        """Begin a subscription; it delivers nothing until told to go live or to catch up."""
        subscription = Subscription(self, wanted, follower, sink)
        self._fanout.add(subscription)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """Stop offering events to a subscription."""
        self._fanout.remove(subscription)

    def drop(self, stream: int) -> None:
        """End the subscriptions to a device that is deleted."""
        for subscriber in self._fanout.of_stream(stream):
            subscriber.close()

    def read(self, wanted: Filter, since: int, cursor: int | None) -> Deferred[Page]:
        """Read the next page of the log."""
        return self._store.read(Replay(filter=wanted, since=since, now=self.wall(), cursor=cursor))

    async def warn_of_horizon(self, since: int) -> None:
        """Say in the log when a replay asks for what retention has dropped."""
        horizon = await self._store.horizon()
        if since < horizon:
            self.log.info(
                "a replay from {since} ms begins before the oldest event kept; everything up to "
                "{horizon} ms was dropped by retention",
                since=since,
                horizon=horizon,
            )

    def _committed(self, events: Sequence[Event]) -> None:
        self._unpublished.extend(events)
        if not self._publishing:
            self._publish()

    def _publish(self) -> None:
        """Publish what was committed, a part per turn so that a large fan-out stops nobody else.

        When too much is waiting there are no turns: then publishing has to hold up the writers.
        """
        self._publishing = False
        waiting = self._unpublished
        lead = self.wall() + LEAD
        room = _DELIVERIES_PER_TURN
        while waiting and (room > 0 or len(waiting) > _MOST_UNPUBLISHED):
            event = waiting.popleft()
            self._position = event.position
            # A device that floods runs ahead alone; the gateway's time does not follow it.
            self._latest = max(self._latest, min(event.ts, lead))
            if event.kind in _ATTENDANCE:
                self.attendance(event)
            if event.command is None or not self.expired(event):
                room -= self._fanout.publish(event)
        if waiting:
            self._publishing = True
            self._later(self._publish)
