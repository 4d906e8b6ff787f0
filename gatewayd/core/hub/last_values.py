"""What devices said last, by key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from itertools import islice

import msgspec

from gatewayd.core.hub.shelf import Shelf
from gatewayd.core.hub.telemetry import Message
from gatewayd.core.interfaces import Shadows
from gatewayd.core.model import Device
from gatewayd.core.shadow import LastValue
from gatewayd.errors import Unavailable

#: By device and key.
_Values = dict[int, dict[str, LastValue]]

#: Bytes of what is remembered of what was forgotten, and about how many one takes.
_ROOM_FOR_MARKS = 1024 * 1024
_MARK = 128


class Forgotten(msgspec.Struct, frozen=True):
    """What the nodes tell each other: what a device said was forgotten.

    :ivar uid: the device. :ivar seq: of its newest message that was.
    """

    uid: int
    seq: int


class LastValues:
    """The last value of every telemetry key of every device.

    What was taken is at hand until it is kept by the store, where a value of an older message never
    replaces one of a newer: messages may be taken again from any one on, in their order.

    :param keys: so many of a device: those that it said last.
    :param keep: lets the store keep what it has not kept yet; fires when that is on disk.
    :param announce: tells the other nodes; None: there are none.
    :ivar complete: whether everything that was recorded until now was taken.
    :ivar untold: what was forgotten here that other nodes do not know yet, nor perhaps the store.
    """

    def __init__(
        self,
        store: Shadows,
        keys: int,
        keep: Callable[[], Awaitable[None]],
        announce: Callable[[Forgotten], Awaitable[None]] | None = None,
    ) -> None:
        self.complete = False
        self.untold: dict[int, Forgotten] = {}
        self._store = store
        self._keys = keys
        self._keep = keep
        self._announce = announce
        self._unsaved: _Values = {}
        #: what the store is about to keep
        self._saving: _Values = {}
        #: of the devices in both, when the last message was recorded (ms); the latest are last
        self._taken: dict[int, int] = {}
        #: up to which message what a device said was forgotten, here or elsewhere
        self._marks: Shelf[int, int] = Shelf(_ROOM_FOR_MARKS)

    def take(self, message: Message) -> None:
        """Take over what a message says."""
        seq = message.event.seq
        if not message.values or (len(self._marks) and seq <= self._mark(message.stream)):
            return
        held = self._unsaved.get(message.stream)
        if held is None:
            held = self._unsaved[message.stream] = {}
        self._taken.pop(message.stream, None)
        self._taken[message.stream] = message.event.ts
        for key, value in islice(message.values.items(), self._keys):
            held[key] = LastValue(
                stream=message.stream, key=key, value=bytes(value), stamp=message.stamp, seq=seq
            )
        if len(held) > 2 * self._keys:  # not with every message: sorting takes its time
            self._unsaved[message.stream] = _newest(held, self._keys)

    async def of(self, device: Device) -> dict[str, LastValue]:
        """Return what a device said last. :raises Unavailable:"""
        # What is kept while the store is read may be missing in what is read.
        before = list(self._held(device.uid))
        found = {value.key: value for value in await self._store.last_values(device.uid)}
        for value in (*before, *self._held(device.uid)):
            _put(found, value)
        there = {key: value for key, value in found.items() if value.value is not None}
        return _newest(there, self._keys)

    async def forget(self, device: Device) -> dict[str, LastValue]:
        """Forget what a device said until now; fires when that is on disk.

        Return what was forgotten. Other nodes hear of it by then.

        :raises Unavailable: also while the log is still being read: what a device said may come.
            It may be forgotten nevertheless, when the store can keep that.
        """
        if not self.complete:
            raise Unavailable("what devices said is still being read")
        await self._keep()
        values = await self.of(device)
        held = self._unsaved.setdefault(device.uid, {})
        for value in values.values():
            _put(held, msgspec.structs.replace(value, value=None))
        if values and self._announce is not None:
            seq = max(self._mark(device.uid), *(value.seq for value in values.values()))
            self._marks.put(device.uid, seq, _MARK)
            self.untold[device.uid] = Forgotten(device.uid, seq)
        await self._keep()
        await self.tell_others()
        return values

    async def tell_others(self) -> None:
        """Tell the other nodes what they were not told yet. :raises Unavailable:"""
        for uid, forgotten in tuple(self.untold.items()):
            assert self._announce is not None
            await self._announce(forgotten)
            if self.untold.get(uid) is forgotten:
                del self.untold[uid]

    def forgotten(self, what: Forgotten) -> None:
        """Forget what another node has forgotten, also what of it is still on its way here."""
        self._marks.put(what.uid, max(what.seq, self._mark(what.uid)), _MARK)
        for values in (self._saving, self._unsaved):
            held = values.get(what.uid, {})
            for key in [key for key, value in held.items() if value.seq <= what.seq]:
                del held[key]

    def _mark(self, uid: int) -> int:
        return self._marks.get(uid) or 0

    def drop(self, uid: int) -> None:
        """Let go of a device that was deleted."""
        self._unsaved.pop(uid, None)
        self._saving.pop(uid, None)
        self._taken.pop(uid, None)
        self._marks.drop(uid)
        self.untold.pop(uid, None)

    # What the store has not kept yet

    def hand_over(self) -> list[LastValue]:
        """Return it; :meth:`kept` or :meth:`not_kept` has to follow."""
        self._saving, self._unsaved = self._unsaved, {}
        return [value for held in self._saving.values() for value in held.values()]

    def kept(self) -> None:
        """Know that the store has kept what was handed over."""
        for uid in self._saving:
            if uid not in self._unsaved:
                self._taken.pop(uid, None)
        self._saving = {}

    def let_go(self, until: int) -> None:
        """Let go of the devices whose messages up to then (ms) the store has, if that is all."""
        while self._taken:
            uid, taken = next(iter(self._taken.items()))
            if taken > until or uid in self._saving:  # what is on its way may come back
                break
            del self._taken[uid]
            self._unsaved.pop(uid, None)

    def not_kept(self) -> None:
        """Know that the store could not keep it: it will be handed over again."""
        for uid, values in self._saving.items():
            held = self._unsaved.setdefault(uid, {})
            for value in values.values():
                _put(held, value)
        self._saving = {}

    def _held(self, uid: int) -> Iterator[LastValue]:
        for values in (self._saving, self._unsaved):
            yield from values.get(uid, {}).values()


def _put(values: dict[str, LastValue], value: LastValue) -> None:
    """Put a value among others, unless it is older than the one of its key.

    What was deleted stays so when the message that it came from is read again.
    """
    known = values.get(value.key)
    if known is None or value.seq > known.seq or (value.seq == known.seq and value.value is None):
        values[value.key] = value


def _newest(values: dict[str, LastValue], keys: int) -> dict[str, LastValue]:
    """Return the values of so many keys at most: those that were said last."""
    if len(values) <= keys:
        return values
    newest = sorted(values.values(), key=lambda value: (-value.seq, value.key))
    return {value.key: value for value in newest[:keys]}
