"""Whether devices are connected: by their sockets, by what they say, by what other hubs say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from gatewayd.core.cluster import StoredAttachment
from gatewayd.core.hub.deadlines import Deadlines
from gatewayd.core.hub.telemetry import Message
from gatewayd.core.hub.words import Said, Word, of_event
from gatewayd.core.interfaces import Store
from gatewayd.core.locks import Locks
from gatewayd.core.model import Device, Event
from gatewayd.core.presence import Presence
from gatewayd.core.queries import DeviceQuery
from gatewayd.core.shadow import ConnectionState
from gatewayd.errors import Unavailable

#: ms after which it is kept that a connected device was heard again; until then the log says so.
_CONFIRM_EVERY = 30_000
#: So many states are asked for at once.
_READS = 200
_BOOLEANS = {b"true": True, b"false": False}


class ConnectionStates:
    """Who is connected, kept in memory, and who is not, kept by the store.

    A device is connected while it has a socket. Without one the last word counts: telemetry makes
    it connected, for a while; another hub says that it is, or is not; and when its last socket
    goes it is not, whatever was said before. With a ``key`` none of that counts, but the boolean
    that the device itself says under it.

    Sockets do not outlive the node that has them, so that a device has some is not kept.

    :param wall: the time of day in ms. :param clock: for the timer.
    :param now: that of the timelines, in ms: what comes later in them is later.
    :param keep: lets the store keep what it has not kept yet; fires when that is on disk.
    :param announce: tells the other nodes; None: there are none.
    :param key: of telemetry; "" for none.
    :param on_telemetry: whether telemetry makes a device connected.
    :param ttl: seconds without telemetry after which a connected device is not; 0 for ever.
    :ivar changed: called with a device's id, whether it is connected now, and since when, in ms.
    :ivar untold: what another hub said that other nodes do not know yet, nor perhaps the store.
    :ivar live: whether changes are told: not while the log is read.
    """

    log = Logger()

    def __init__(
        self,
        store: Store,
        presence: Presence,
        wall: Callable[[], int],
        now: Callable[[], int],
        clock: IReactorTime,
        keep: Callable[[], Awaitable[None]],
        announce: Callable[[Said], Awaitable[None]] | None = None,
        *,
        key: str = "",
        on_telemetry: bool = True,
        ttl: float = 60.0,
    ) -> None:
        self.changed: list[Callable[[str, bool, int], None]] = []
        self.live = False
        self.untold: dict[int, Said] = {}
        self._store = store
        self._presence = presence
        self._wall = wall
        self._now = now
        self._keep = keep
        self._announce = announce
        self._key = key
        #: whether what sockets and other hubs say does not count
        self.keyed = bool(key)
        self._on_telemetry = on_telemetry
        self._ttl = round(ttl * 1000)
        self._locks = Locks()
        self._deadlines = Deadlines(wall, clock, self._expire)
        #: the devices with sockets, and since when
        self._attached: dict[int, int] = {}
        #: of all that are connected, and of others until the store has kept it
        self._words: dict[int, Word] = {}
        self._unsaved: set[int] = set()
        self._saving: set[int] = set()
        #: those of which nothing is new but that they were heard
        self._confirmed: set[int] = set()
        self._confirmed_at = 0

    # What happens

    def load(self, states: Sequence[ConnectionState]) -> None:
        """Take over what the store has of those that are connected."""
        for state in states:
            if state.stream not in self._words:
                word = Word("", True, state.stamp, state.heard, state.sequence, recalled=True)
                self._words[state.stream] = word
                self._watch(state.stream, word)

    def load_attached(self, attachments: Sequence[StoredAttachment]) -> None:
        """Take over who had sockets on other nodes when the log was begun, and still has."""
        for attachment in attachments:
            if not self._key and self._presence.of(attachment.device):
                self._attached.setdefault(attachment.device.uid, attachment.since)

    def start(self) -> None:
        """Know that the log was read: tell of changes from now on, and of the end of words."""
        self._deadlines.start()
        self.live = True

    def stop(self) -> None:
        """Stop the timer."""
        self.live = False
        self._deadlines.stop()

    def take(self, message: Message) -> None:
        """Take over what a message says."""
        said: bool | None = self._on_telemetry or None
        if self._key:
            value = message.values.get(self._key)
            said = None if value is None else _BOOLEANS.get(bytes(value))
        heard = message.event.ts
        word = self._words.get(message.stream)
        if word is not None and word.connected and said is not False:
            word.device = message.device
            if heard > word.heard:
                word.heard = heard
                self._confirmed.add(message.stream)
        elif said is not None and self._is_news(message.event):
            before = self._shown(message.stream)
            self._apply(message.stream, message.device, said, heard, heard)
            self._tell(message.stream, message.device, before, heard)

    def attached(self, event: Event) -> None:
        """Know that a device has one socket more."""
        if not self._key:
            before = self._shown(event.stream)
            self._attached.setdefault(event.stream, event.ts)
            self._tell(event.stream, event.device, before, event.ts)

    def detached(self, event: Event) -> None:
        """Know that a device has one socket less.

        Whether that was the last shows by those that it has now: who takes over is attached
        before the other one is detached.
        """
        if self._key or self._presence.of(of_event(event)):
            return
        before = self._shown(event.stream)
        self._attached.pop(event.stream, None)
        if self._is_news(event):
            self._apply(event.stream, event.device, False, event.ts, event.ts)
        self._tell(event.stream, event.device, before, event.ts)

    async def said(self, device: Device, connected: bool, stamp: int, sequence: str) -> None:
        """Take over what another hub says; fires when that is on disk, and told to other nodes.

        :param stamp: since when, ms since the epoch. :param sequence: that hub's number of it; what
            is not newer than what it said before is ignored; "" for none.
        :raises Unavailable:
        """
        if self._key:
            return
        async with self._locks.hold(device.uid):
            latest = await self._sequence(device.uid)
            if not sequence or sequence > latest:
                word = self._words.get(device.uid)
                heard = max(self._now(), 0 if word is None else word.heard)
                before = self._shown(device.uid)
                word = self._apply(device.uid, device.id, connected, stamp, heard)
                word.sequence, word.recalled = sequence or latest, True
                self._tell(device.uid, device.id, before, stamp)
                if self._announce is not None:
                    self.untold[device.uid] = Said(
                        uid=device.uid, device=device.id, connected=connected, stamp=stamp,
                        heard=heard, sequence=sequence,
                    )  # fmt: skip
        await self._keep()
        await self.tell_others()

    async def tell_others(self) -> None:
        """Tell the other nodes what they were not told yet. :raises Unavailable:"""
        for uid, said in tuple(self.untold.items()):
            assert self._announce is not None
            await self._announce(said)
            if self.untold.get(uid) is said:
                del self.untold[uid]

    async def said_elsewhere(self, said: Said) -> None:
        """Take over what another node was told, which the store has. :raises Unavailable:"""
        if self._key:
            return
        async with self._locks.hold(said.uid):
            latest = await self._sequence(said.uid)
            if said.sequence and said.sequence < latest:
                return
            word = self._words.get(said.uid)
            if word is None or said.heard >= word.heard:
                before = self._shown(said.uid)
                word = self._apply(said.uid, said.device, said.connected, said.stamp, said.heard)
                self._tell(said.uid, said.device, before, said.stamp)
            word.sequence, word.recalled = said.sequence or latest, True

    def drop(self, device: Device) -> None:
        """Let go of a device that was deleted."""
        before = self._shown(device.uid)
        self._attached.pop(device.uid, None)
        self._words.pop(device.uid, None)
        self._unsaved.discard(device.uid)
        self.untold.pop(device.uid, None)
        if before and self.live:
            self._call(device.id, False, self._wall())

    # How it is

    async def of(self, device: Device) -> ConnectionState | None:
        """Return whether a device is connected; None: nothing was ever heard of that.

        :raises Unavailable:
        """
        state = self._at_hand(device)
        if state is None:
            stored = await self._store.connection_state(device.uid)
            state = self._at_hand(device) or stored
        return None if state is None else self._at(self._wall(), state)

    def _at_hand(self, device: Device) -> ConnectionState | None:
        sockets = () if self._key else self._presence.of(device)
        if sockets:
            since = self._attached.get(device.uid, sockets[0].since)
            return ConnectionState(
                stream=device.uid, connected=True, stamp=since, heard=self._wall()
            )
        word = self._words.get(device.uid)
        return None if word is None else word.state(device.uid)

    def _at(self, now: int, state: ConnectionState) -> ConnectionState:
        """Return what has become of a state, in case that its time is over."""
        if state.connected and 0 < self._ttl <= now - state.heard:
            over = state.heard + self._ttl
            return msgspec.structs.replace(state, connected=False, stamp=over)
        return state

    def _shown(self, stream: int) -> bool | None:
        """Whether a device is connected, as it was told; None: that may never have been."""
        if stream in self._attached:
            return True
        word = self._words.get(stream)
        if word is not None:
            return word.connected
        return None if self._key else False

    # Words

    def _is_news(self, event: Event) -> bool:
        """Whether nothing that came after an event is known: it may be read again."""
        word = self._words.get(event.stream)
        return word is None or event.ts > word.heard

    def _apply(self, stream: int, device: str, connected: bool, stamp: int, heard: int) -> Word:
        """Let a word count, and return it."""
        word = self._words.get(stream)
        if word is None:
            word = self._words[stream] = Word(device, connected, stamp, heard)
        else:
            if word.connected != connected:
                word.connected, word.stamp = connected, stamp
            word.device, word.heard = device, heard
        self._unsaved.add(stream)
        self._watch(stream, word)
        return word

    def _watch(self, stream: int, word: Word) -> None:
        if word.connected and self._ttl > 0:
            self._deadlines.add(stream, word.heard + self._ttl)

    def _expire(self, stream: int) -> int | None:
        """End a word whose time is over; return when it will be, if it is not."""
        word = self._words.get(stream)
        if word is None or not word.connected:
            return None
        over = word.heard + self._ttl
        if over > self._wall():
            return over
        before = self._shown(stream)
        word.connected, word.stamp = False, over
        self._unsaved.add(stream)
        self._tell(stream, word.device, before, over)
        return None

    async def _sequence(self, stream: int) -> str:
        """Return the number of what another hub said last of a device; "" for none."""
        word = self._words.get(stream)
        # With other nodes, the word of one of them may be on its way here.
        if word is not None and word.recalled and self._announce is None:
            return word.sequence
        stored = await self._store.connection_state(stream)
        word = self._words.get(stream)
        return max("" if stored is None else stored.sequence, "" if word is None else word.sequence)

    # Telling

    def _tell(self, stream: int, device: str, before: bool | None, stamp: int) -> None:
        after = self._shown(stream)
        if after is None or after == before or not self.live:
            return
        if device:
            self._call(device, after, stamp)
        else:
            Deferred.fromCoroutine(self._look_up_and_call(stream, after, stamp))

    def _call(self, device: str, connected: bool, stamp: int) -> None:
        for callback in self.changed:
            try:
                callback(device, connected, stamp)
            except Exception:
                self.log.failure("a change of a connection state could not be told")

    async def _look_up_and_call(self, stream: int, connected: bool, stamp: int) -> None:
        """Tell of a device that was not heard of since the start, so that its id is not known."""
        try:
            found = await self._store.devices(DeviceQuery(stream=stream))
        except Unavailable as error:
            self.log.warn("a connection state could not be told: {error}", error=str(error))
            return
        if found and self.live and self._shown(stream) == connected:
            self._call(found[0].id, connected, stamp)

    # What the store has not kept yet

    async def hand_over(self) -> list[ConnectionState]:
        """Return it; :meth:`kept` or :meth:`not_kept` has to follow. :raises Unavailable:"""
        if not 0 <= self._wall() - self._confirmed_at < _CONFIRM_EVERY:
            self._confirmed_at = self._wall()
            self._unsaved |= self._confirmed & self._words.keys()
            self._confirmed.clear()
        while fresh := [each for each in self._unsaved if not self._words[each].recalled]:
            for first in range(0, len(fresh), _READS):
                await self._recall(fresh[first : first + _READS])
        self._saving, self._unsaved = self._unsaved, set()
        return [self._words[stream].state(stream) for stream in self._saving]

    async def _recall(self, streams: Sequence[int]) -> None:
        """Take over what the store has of devices, before it is written over."""
        reading = [self._store.connection_state(stream) for stream in streams]
        answers: list[Any] = await DeferredList(reading, consumeErrors=True)
        for stream, (success, stored) in zip(streams, answers, strict=True):
            if not success:
                stored.raiseException()
            word = self._words.get(stream)
            if word is None:  # it was deleted meanwhile
                continue
            word.recalled = True
            if stored is not None:
                word.sequence = max(word.sequence, stored.sequence)
                if stored.heard >= word.heard:  # what is in no log: another hub's word
                    before = self._shown(stream)
                    word.connected, word.stamp = stored.connected, stored.stamp
                    word.heard = stored.heard
                    self._watch(stream, word)
                    self._tell(stream, word.device, before, word.stamp)

    def kept(self) -> None:
        """Know that the store has kept what was handed over: who is not connected is forgotten."""
        saved, self._saving = self._saving, set()
        for stream in saved - self._unsaved:
            word = self._words.get(stream)
            if word is not None and not word.connected:
                del self._words[stream]

    def let_go(self, until: int) -> None:
        """Let go of what is from before then (ms), and which the store has by now."""
        self._confirmed &= self._words.keys()
        for stream in self._unsaved - self.untold.keys():
            word = self._words[stream]
            changed = min(word.stamp, word.heard + self._ttl)  # when its time was over, if it was
            if max(word.heard, changed) <= until:
                self._unsaved.discard(stream)
                if not word.connected:
                    del self._words[stream]

    def doubt(self) -> None:
        """Know that the store may have what other nodes were told, and this one was not."""
        for word in self._words.values():
            word.recalled = False
        self._unsaved.update(self._words)

    def not_kept(self) -> None:
        """Know that the store could not keep it: it will be handed over again."""
        self._unsaved |= self._saving & self._words.keys()
        self._saving = set()
