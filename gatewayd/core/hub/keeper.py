"""Lets the store keep what devices said last."""

from __future__ import annotations

from collections.abc import Sequence

from gatewayd.core.hub.connection_states import ConnectionStates
from gatewayd.core.hub.last_values import LastValues
from gatewayd.core.interfaces import Store
from gatewayd.core.locks import Locks
from gatewayd.core.model import Event
from gatewayd.core.shadow import ConnectionState, LastValue
from gatewayd.core.timeline import Timeline
from gatewayd.errors import Unavailable

#: ms before now up to which the log is surely in what is kept, whatever is on its way.
_MARGIN = 60_000
#: So much is kept in one transaction, so that no writer waits long.
_ROWS = 500
_BYTES = 256 * 1024

_Batch = tuple[list[LastValue], list[ConnectionState]]


class Keeper:
    """Writes what is new, and up to when the log is in what was written.

    Several nodes have the same that is new: one writes it, the others let go of it then.

    :param keys: telemetry keys that are kept of a device.
    :ivar until: ms up to which the log is in what was kept; None: not known yet.
    :ivar complete: whether the log was read to its end.
    """

    def __init__(
        self,
        store: Store,
        timeline: Timeline,
        values: LastValues,
        states: ConnectionStates,
        keys: int,
    ) -> None:
        self.until: int | None = None
        self.complete = False
        self._store = store
        self._timeline = timeline
        self._values = values
        self._states = states
        self._keys = keys
        self._locks = Locks()
        #: the position in the log by ``until``
        self._position = 0
        #: ms; the time of the latest event that was taken
        self._latest = 0

    def taken(self, event: Event) -> None:
        """Know that an event is in what is new."""
        self._latest = max(self._latest, event.ts)

    async def keep(self) -> None:
        """Let the store keep what is new; fires when that is on disk. :raises Unavailable:"""
        async with self._locks.hold(None):
            if self.until is None:
                raise Unavailable("the log was not read yet")
            position, until = self._timeline.position, self._reached(self.until)
            states = await self._states.hand_over()
            values = self._values.hand_over()
            try:
                if values or states or position != self._position:
                    await self._write(values, states, until)
                    self._position = position
            except BaseException:
                self._values.not_kept()
                self._states.not_kept()
                raise
            self._values.kept()
            self._states.kept()

    async def let_go(self) -> None:
        """Let go of what another node has written meanwhile. :raises Unavailable:"""
        until = await self._store.shadowed_until()
        if until is not None:
            self._values.let_go(until)
            self._states.let_go(until)

    def _reached(self, until: int) -> int:
        """Return the ms up to which the log is in what is written now."""
        if not self.complete:
            return until
        now = self._timeline.wall()
        if self._store.cluster is not None:
            # What other nodes have recorded may be long on its way to this one.
            return max(until, min(now, self._latest) - _MARGIN)
        return now - _MARGIN

    async def _write(
        self, values: list[LastValue], states: list[ConnectionState], until: int
    ) -> None:
        """Write in several transactions; the last one says up to when the log is in them."""
        assert self.until is not None
        *earlier, last = _batches(values, states)
        for batch in earlier:
            await self._store.keep_shadows(*batch, self.until, self._keys)
        await self._store.keep_shadows(*last, until, self._keys)
        self.until = until


def _batches(values: Sequence[LastValue], states: Sequence[ConnectionState]) -> list[_Batch]:
    """Divide what is to be kept into batches, at least one."""
    batches: list[_Batch] = [
        ([], list(states[first : first + _ROWS])) for first in range(0, len(states) or 1, _ROWS)
    ]
    room = _BYTES
    for value in values:
        if room <= 0 or len(batches[-1][0]) >= _ROWS:
            batches.append(([], []))
            room = _BYTES
        batches[-1][0].append(value)
        room -= 128 + len(value.value or b"")
    return batches
