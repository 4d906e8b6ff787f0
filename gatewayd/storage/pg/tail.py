"""The end of the log as it grows on all nodes: every event once, in the order of positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from gatewayd.core.interfaces import Observer
from gatewayd.core.model import Event
from gatewayd.errors import Unavailable

_MOST = 64  # pieces of the log that wait for those before them
_MOST_BYTES = 8 * 1024 * 1024
_PAUSE = 0.5  # seconds before a gap is read again when that failed

#: Reads the events after one position and up to another that exists: fires with those of a page,
#: and the position up to which these are all.
ReadGap = Callable[[int, int], Deferred[tuple[list[Event], int]]]


class Tail:
    """Tells observers of the events of all nodes, whichever way they come here.

    What comes before its predecessors waits for them, and what is missing is read.

    :ivar position: of the last event that was told.
    """

    log = Logger()

    def __init__(self, read: ReadGap, reactor: Any) -> None:
        self._read = read
        self._reactor = reactor
        self._observers: list[Observer] = []
        self._running = False
        self._reading = False
        self._pausing: tuple[IDelayedCall, Deferred[None]] | None = None
        self._waiting: list[tuple[int, int, Sequence[Event]]] = []
        self._waiting_bytes = 0
        self.position = 0
        #: The last position that is known to exist.
        self._known = 0
        #: Behind this one there are, or will be, our own events, which their writers hear of first.
        self._held: int | None = None

    @property
    def reason(self) -> str | None:
        """Whether the database is not reached: others know that."""
        return None

    def begin(self, position: int) -> None:
        """Know where the log ends when it is opened."""
        self.position = self._known = position
        self._held = None
        self._forget()

    async def start(self) -> None:
        """Read what is missing from now on."""
        self._running = True
        self._fill()

    def observe(self, observer: Observer) -> None:
        """Call ``observer`` with what comes from now on."""
        self._observers.append(observer)

    def refuse(self) -> None:
        """Go on until it is stopped: what is written until then is told."""

    async def stop(self) -> None:
        """Read nothing more."""
        self._running = False
        if self._pausing is not None:
            timer, paused = self._pausing
            timer.cancel()
            paused.callback(None)

    def offer(self, after: int, upto: int, events: Sequence[Event]) -> None:
        """Take a piece of the log: all events there are behind ``after`` and up to ``upto``."""
        self._known = max(self._known, upto)
        if after > self.position:
            self._keep(after, upto, events)
        else:
            self._advance(upto, events)
            self._take_up()
        self._fill()

    def heard(self, position: int) -> None:
        """Know that the log goes up to a position, or further."""
        self._known = max(self._known, position)
        self._fill()

    def hold(self, position: int) -> None:
        """Read nothing behind a position: what is being committed there is ours."""
        if self._held is None:
            self._held = position

    def release(self) -> None:
        """Know what became of what was being committed, after that was offered."""
        self._held = None
        self._fill()

    def _keep(self, after: int, upto: int, events: Sequence[Event]) -> None:
        """Let a piece wait for what is before it."""
        self._waiting.append((after, upto, events))
        self._waiting_bytes += _size(events)
        if len(self._waiting) > _MOST or self._waiting_bytes > _MOST_BYTES:
            self._forget()  # it is read, too

    def _forget(self) -> None:
        self._waiting = []
        self._waiting_bytes = 0

    def _take_up(self) -> None:
        """Tell of pieces for which nothing is missing any more."""
        while ready := [piece for piece in self._waiting if piece[0] <= self.position]:
            piece = min(ready, key=lambda piece: piece[0])
            self._waiting.remove(piece)
            self._waiting_bytes -= _size(piece[2])
            self._advance(*piece[1:])

    def _advance(self, upto: int, events: Sequence[Event]) -> None:
        """Tell of those events that are new."""
        if upto <= self.position:
            return
        new = [event for event in events if event.position > self.position]
        self.position = upto
        if not new:
            return
        for observer in self._observers:
            try:
                observer(new)
            except Exception:
                self.log.failure("what was written could not be told")

    # Reading what is missing

    def _until(self) -> int:
        """Return the position up to which events are missing."""
        bounds = [self._known, *(after for after, _, _ in self._waiting)]
        return min(bounds) if self._held is None else min(*bounds, self._held)

    def _fill(self) -> None:
        if self._running and not self._reading and self._until() > self.position:
            self._reading = True
            done = Deferred.fromCoroutine(self._read_missing())
            done.addErrback(lambda failure: self.log.failure("a gap cannot be read", failure))

    async def _read_missing(self) -> None:
        try:
            while self._running and (until := self._until()) > self.position:
                after = self.position
                try:
                    events, upto = await self._read(after, until)
                except Unavailable as error:
                    self.log.debug("a gap is not read: {error}", error=str(error))
                    await self._pause()
                else:
                    if self._running:
                        self._tell_read(after, upto, events)
        finally:
            self._reading = False

    def _tell_read(self, after: int, upto: int, events: list[Event]) -> None:
        for event in events:
            event.foreign = True
        self.offer(after, upto, events)

    async def _pause(self) -> None:
        paused: Deferred[None] = Deferred()
        if self._running:
            self._pausing = (self._reactor.callLater(_PAUSE, paused.callback, None), paused)
            await paused
            self._pausing = None


def _size(events: Sequence[Event]) -> int:
    return sum(256 + event.size for event in events)
