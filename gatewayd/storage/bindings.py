"""The connections of devices, in the database of an iotkit dashboard."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.errors import ConfigError, Unavailable
from gatewayd.storage.binding_tables import BINDING_TABLES
from gatewayd.storage.dsn import Dsn
from gatewayd.storage.postgres import Lost, Refused, Session
from gatewayd.storage.sessions import Sessions

_WIDTH = 3  # connections to the database
_MOST = 100_000  # devices that wait to be written
_STOPPING = 5.0  # seconds for writing that nobody is connected any more


@attrs.define(eq=False)
class _Binding:
    """What is known of one device, and who waits for its row to be written.

    :ivar held: whether it is connected, as far as those who said so know.
    :ivar row: what the database says; None when nobody knows.
    :ivar busy: whether it is being written.
    :ivar asking: who wait for a write that has not begun, that it is connected.
    :ivar leaving: who wait until the row says that it is not.
    :ivar served: who wait for the write that is under way.
    """

    held: bool = False
    row: bool | None = None
    busy: bool = False
    asking: list[Deferred[None]] = attrs.Factory(list)
    leaving: list[Deferred[None]] = attrs.Factory(list)
    served: list[Deferred[None]] = attrs.Factory(list)

    @property
    def due(self) -> bool | None:
        """What is to be written next, None when nothing is."""
        if _live(self.asking):
            return True
        return self.held if self.row is not self.held else None

    def begin(self, status: bool) -> None:
        """Know that ``status`` is being written."""
        self.busy = True
        if status:
            self.served, self.asking = self.asking, []
        else:
            self.served, self.leaving = self.leaving, []

    def written(self, status: bool) -> None:
        """Know that it is written."""
        self.row = status
        waiting = self._end()
        # A connection that nobody waits for any more was told as failed: it does not count.
        if status and waiting:
            self.held = True
        for each in waiting:
            each.callback(None)

    def refused(self, status: bool, reason: str) -> int:
        """Know that the dashboard does not take it; return how many were told so."""
        if status is self.held:
            self.row = status  # as good as it gets: to try again would be of no use
        return _fail(self._end(), reason)

    def lost(self, status: bool, reason: str) -> None:
        """Know that it may be written or not."""
        if self.row is not status:
            self.row = None
        _fail(self._end(), reason)

    def part(self) -> None:
        """Know that the device is not connected: who wait for its connection do so in vain."""
        self.held = False
        for waiting in (self.asking, self.served):
            _fail(_live(waiting), "the device has disconnected")
        self.asking = []

    def give_up(self, reason: str) -> None:
        """Tell all who wait for a write that has not begun that there will be none for now."""
        asking, leaving, self.asking, self.leaving = self.asking, self.leaving, [], []
        _fail(_live(asking) + _live(leaving), reason)

    def _end(self) -> list[Deferred[None]]:
        waiting, self.served, self.busy = _live(self.served), [], False
        return waiting


def _live(waiting: list[Deferred[None]]) -> list[Deferred[None]]:
    return [each for each in waiting if not each.called]


def _fail(waiting: list[Deferred[None]], reason: str) -> int:
    for each in waiting:
        each.errback(Unavailable(reason))
    return len(waiting)


class PostgresBindings:
    """Writes to PostgreSQL who is connected here; see :class:`gatewayd.core.bindings.Bindings`.

    Each device is written by itself, one state after the other and only the last that matters. That
    a device has disconnected is remembered while the database is away, and written when it is back,
    unless the device has connected again.

    A database that cannot be reached, also one that does not let the gateway in or does not exist,
    is tried again until it can: databases start later than gateways and move, and who serves other
    APIs does so without. Until then devices are refused, and one line in the log says why.

    :param url: of the database, see :class:`~gatewayd.storage.dsn.Dsn`.
    :param flavour: how the dashboard keeps it: ``"function"``, ``"table"`` or ``"uid"``.
    :param server: ``host:port`` at which the dashboard reaches this server.
    :param patience: seconds after which a caller is told that the database does not answer.
    :raises ConfigError: the URL or the flavour is none.
    """

    log = Logger()

    def __init__(
        self, url: str, flavour: str, server: str, reactor: Any, *, patience: float = 2.0
    ) -> None:
        if flavour not in BINDING_TABLES:
            raise ConfigError(f"there is no flavour {flavour!r} of the dashboard's database")
        self._table = BINDING_TABLES[flavour]
        self._server = server
        self._reactor = reactor
        self._patience = patience
        self._sessions = Sessions(
            Dsn(url), _WIDTH, patience, reactor, free=self._write_due, away=self._give_up
        )
        self._bindings: dict[str, _Binding] = {}
        #: Devices that wait to be written, in order; the values mean nothing.
        self._queue: dict[str, None] = {}
        self._writing: set[Deferred[None]] = set()
        self._handing_out = False
        self._running = False
        self._emptied: Deferred[None] | None = None

    async def start(self) -> None:
        """Connect to the database; one that does not answer yet is tried again later."""
        self._running = True
        await self._sessions.start()

    async def stop(self) -> None:
        """Write that nobody is connected any more, within a few seconds, and disconnect."""
        self._running = False
        for device_id, binding in list(self._bindings.items()):
            binding.part()
            self._arrange(device_id, binding)
        await self._drain()
        if self._bindings:
            self.log.warn(
                "the dashboard was not told of {count} devices that they are disconnected",
                count=len(self._bindings),
            )
        self._queue.clear()
        for binding in list(self._bindings.values()):
            binding.give_up("stopping")
        await self._sessions.stop()
        for writing in list(self._writing):
            await writing
        self._queue.clear()
        self._bindings.clear()

    def connected(self, device_id: str) -> Deferred[None]:
        """Write that a device is connected; fires after it is written.

        :raises Unavailable: the database does not take it, or not now. It is not connected then.
        """
        if not self._running:
            return fail(Unavailable("stopping"))
        if self._sessions.reason is not None:
            return fail(Unavailable("the dashboard's database is not reached"))
        binding = self._bindings.get(device_id)
        if binding is None:
            if len(self._queue) >= _MOST:
                return fail(Unavailable("too much in flight"))
            binding = self._bindings[device_id] = _Binding(row=False)
        # Who waits until it is disconnected need not: it is connected again.
        leaving, binding.leaving = _live(binding.leaving), []
        waiting = self._waiting()
        binding.asking.append(waiting)
        self._arrange(device_id, binding)
        for each in leaving:
            each.callback(None)
        return waiting

    def disconnected(self, device_id: str) -> Deferred[None]:
        """Write that a device is connected no more; fires after it is written.

        :raises Unavailable: the database does not take it, or not now. If it is only away, it is
            written later.
        """
        if not self._running:
            return fail(Unavailable("stopping"))
        binding = self._bindings.get(device_id)
        if binding is None:
            if len(self._queue) >= _MOST:
                return fail(Unavailable("too much in flight"))
            binding = self._bindings[device_id] = _Binding()
        binding.part()
        self._arrange(device_id, binding)
        if device_id not in self._bindings:
            return succeed(None)
        if self._sessions.reason is not None:
            return fail(Unavailable("the dashboard's database is not reached; written later"))
        waiting = self._waiting()
        binding.leaving.append(waiting)
        return waiting

    def _waiting(self) -> Deferred[None]:
        """Return what fires when something is written, and fails when that takes too long."""

        def late(failure: Any, seconds: float) -> Failure:
            assert isinstance(failure, Failure)
            failure.trap(CancelledError)
            return Failure(Unavailable("the dashboard's database does not answer in time"))

        waiting: Deferred[None] = Deferred()
        return waiting.addTimeout(self._patience, self._reactor, onTimeoutCancel=late)

    # Writing

    def _arrange(self, device_id: str, binding: _Binding) -> None:
        """Queue what is to be written of a device, or forget it when nothing is to be known."""
        if binding.busy or self._bindings.get(device_id) is not binding:
            return
        if binding.due is not None:
            self._queue[device_id] = None
            self._write_due()
            return
        self._queue.pop(device_id, None)
        if not binding.held:
            leaving, binding.leaving = _live(binding.leaving), []
            del self._bindings[device_id]
            for each in leaving:
                each.callback(None)

    def _write_due(self) -> None:
        """Write as much as there are free sessions for."""
        if self._handing_out:
            return  # a write was over at once; the loop goes on
        self._handing_out = True
        try:
            while self._queue:
                device_id = next(iter(self._queue))
                binding = self._bindings[device_id]
                if (status := binding.due) is None:
                    self._arrange(device_id, binding)  # who wanted it has not waited so long
                elif (session := self._sessions.take()) is not None:
                    del self._queue[device_id]
                    binding.begin(status)
                    self._begin(self._write(session, device_id, binding, status))
                else:
                    return
        finally:
            self._handing_out = False

    def _begin(self, write: Coroutine[Deferred[Any], Any, None]) -> None:
        writing = Deferred.fromCoroutine(write)
        self._writing.add(writing)
        writing.addErrback(lambda failure: self.log.failure("a write failed", failure))
        writing.addBoth(lambda _: self._written(writing))

    async def _write(
        self, session: Session, device_id: str, binding: _Binding, status: bool
    ) -> None:
        answered = True
        try:
            await self._sessions.settle(session)
            await self._table.write(session, device_id, self._server, status)
            binding.written(status)
        except Refused as error:
            if not binding.refused(status, str(error)):
                self.log.warn("the dashboard does not take it: {reason}", reason=str(error))
        except Lost as error:
            answered = False
            binding.lost(status, str(error))
        self._arrange(device_id, binding)
        self._sessions.give(session, answered=answered)

    def _written(self, writing: Deferred[None]) -> None:
        self._writing.discard(writing)
        self._look_empty()

    def _give_up(self, reason: str) -> None:
        """Let nobody wait for a database that is away; nobody begins to while it is."""
        for device_id in list(self._queue):
            binding = self._bindings[device_id]
            binding.give_up("the dashboard's database is not reached")
            self._arrange(device_id, binding)
        self._look_empty()

    # Stopping

    async def _drain(self) -> None:
        """Wait until all is written, if the database is there, but not for long."""
        emptied: Deferred[None] = Deferred()
        self._emptied = emptied
        timer = self._reactor.callLater(_STOPPING, self._end_drain)
        self._look_empty()
        await emptied
        if timer.active():
            timer.cancel()

    def _look_empty(self) -> None:
        if not self._bindings or self._sessions.reason is not None:
            self._end_drain()

    def _end_drain(self) -> None:
        emptied, self._emptied = self._emptied, None
        if emptied is not None:
            emptied.callback(None)
