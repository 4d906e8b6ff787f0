"""A line of datagrams."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gatewayd.core.line import Ending, LinePlan, Traffic, Watcher
from gatewayd.transport.links.addresses import peer
from gatewayd.transport.links.bucket import TokenBucket
from gatewayd.transport.links.cipher import datagram_cipher
from gatewayd.transport.links.datagrams import ROOM, Batch, Name, Side, family, name
from gatewayd.transport.links.mmsg import shared_batch

#: The headers of UDP and IP, in bytes.
_HEADERS = {int(socket.AF_INET): 28, int(socket.AF_INET6): 48}


class UdpLine:
    """Moves datagrams between one client and a device; what cannot be moved at once is dropped.

    The client is ``plan.source``, which may be sent to before it has sent anything; without a
    source it is whoever sends the first datagram, which has to be authentic if the cipher can tell.
    It stays the client as long as the line lives, for nobody can tell when it has gone: so there
    is no use for ``plan.rebind`` here, nor for ``connect``, ``linger`` and ``connections``. Only
    what is passed on counts as traffic for ``plan.idle``.

    Errors that the network reports, for instance that nothing listens on the device's port, count
    as dropped packets, and the line goes on.

    :param client: a UDP socket that is bound to where clients send. It belongs to the line from
        now on, unless this raises.
    :param reactor: which has timers and descriptors.
    :param released: is called once, when all sockets are closed.
    :raises OSError: there is no descriptor left.
    :raises ValueError: ``plan.source`` cannot be reached from *client*; the key is not a key.
    """

    log = Logger()

    def __init__(
        self,
        plan: LinePlan,
        watcher: Watcher,
        client: socket.socket,
        reactor: Any,
        *,
        released: Callable[[], object] = lambda: None,
        batch: Batch | None = None,
    ) -> None:
        self.traffic = Traffic()
        self.port: int = client.getsockname()[1]
        self._plan = plan
        self._watcher = watcher
        self._reactor = reactor
        self._released = released
        self._batch = shared_batch() if batch is None else batch
        self._cipher = None if plan.encryption is None else datagram_cipher(plan.encryption)
        self._client = Side(client)
        self._owner: Name | None = None
        if plan.source is not None:
            self._owner = name(plan.source, self._client.family)
        self._came = False
        self._unproven = plan.unproven
        self._up = self._down = None
        if plan.rate is not None:
            self._up = TokenBucket(plan.rate, reactor)
            self._down = TokenBucket(plan.rate, reactor)
        kind = family(plan.device.host)
        self._device_name = name(plan.device, kind)
        self._device = Side(socket.socket(kind, socket.SOCK_DGRAM))
        self._readers = (
            _Reader(self._client, self._client_sent, self._lost),
            _Reader(self._device, self._device_sent, self._lost),
        )
        self._closed = False
        self._idle: IDelayedCall | None = None
        self._claim: IDelayedCall | None = None
        self._active: float = reactor.seconds()
        self._start()

    def close(self) -> Deferred[None]:
        """Close both sockets, which is done at once; the watcher is told nothing any more."""
        if not self._closed:
            self._closed = True
            for timer in (self._idle, self._claim):
                if timer is not None and timer.active():
                    timer.cancel()
            for reader in self._readers:
                self._reactor.removeReader(reader)
                reader.side.socket.close()
            self._tell(self._released)
        return succeed(None)

    def _start(self) -> None:
        later, plan = self._reactor.callLater, self._plan
        try:
            self._device.socket.connect(self._device_name)
            if plan.source is not None:
                self._device.socket.send(b"")  # so that it learns where its datagrams can go
        except OSError:
            self._claim = later(0, self._end, Ending.UNREACHABLE)
            return
        for reader in self._readers:
            self._reactor.addReader(reader)
        if plan.idle is not None:
            self._idle = later(plan.idle, self._check_idle, plan.idle)
        if plan.claim is not None:
            self._claim = later(plan.claim, self._end, Ending.TIMED_OUT)

    # From the client to the device

    def _client_sent(self) -> None:
        if not self._receive(self._client):
            return
        batch, came = self._batch, len(self._batch.sizes)
        mine = self._admitted()
        packets, size = self._pass_on(self._allowed(mine, self._up), batch.sizes, self._device)
        self.traffic.packets_up += packets
        self.traffic.bytes_up += size
        self.traffic.dropped += came - packets
        if mine and not self._came:
            self._welcome()

    def _admitted(self) -> list[int]:
        """Return which datagrams are the client's, and open them; the first decides who it is."""
        batch = self._batch
        if self._owner is not None:
            mine = batch.arrived(self._owner)
            return mine if self._cipher is None else [each for each in mine if self._open(each)]
        for index in batch.arrived():
            if self._open(index):
                self._owner = batch.sender(index)
                later = [each for each in batch.arrived(self._owner) if each > index]
                return [index, *(each for each in later if self._open(each))]
        return []

    def _welcome(self) -> None:
        self._came = True
        self.traffic.clients += 1
        if self._claim is not None:
            self._claim.cancel()
            self._claim = None
        assert self._owner is not None
        self._tell(self._watcher.client_came, peer(self._owner))

    def _open(self, index: int) -> bool:
        if self._cipher is None:
            return True
        content = self._cipher.open(self._batch.content(index))
        if content is not None:
            self._batch.replace(index, content)
        return content is not None

    # From the device to the client

    def _device_sent(self) -> None:
        if not self._receive(self._device):
            return
        batch, sizes = self._batch, self._batch.sizes.copy()
        if self._owner is None:
            self.traffic.dropped += len(sizes)
            return
        # Others may have sent something in the moment before the socket was connected.
        passing = self._allowed(batch.arrived(self._device_name), self._down)
        if not self._came:
            passing = self._within_budget(passing)
        if self._cipher is not None:
            passing = [index for index in passing if self._seal(index)]
        packets, size = self._pass_on(passing, sizes, self._client, self._owner)
        self.traffic.packets_down += packets
        self.traffic.bytes_down += size
        self.traffic.dropped += len(sizes) - packets

    def _within_budget(self, indexes: Sequence[int]) -> list[int]:
        """Return what may go to a client that was only named: it may know nothing of it."""
        added = _HEADERS[self._client.family]
        if self._cipher is not None:
            added += self._cipher.overhead
        within = []
        for index in indexes:
            cost = self._batch.sizes[index] + added
            if cost <= self._unproven:
                self._unproven -= cost
                within.append(index)
        return within

    def _seal(self, index: int) -> bool:
        assert self._cipher is not None
        sealed = self._cipher.seal(self._batch.content(index))
        if sealed is None or len(sealed) > ROOM:
            return False
        self._batch.replace(index, sealed)
        return True

    # Both ways

    def _receive(self, side: Side) -> bool:
        try:
            self._batch.receive(side)
        except BlockingIOError:
            return False
        except OSError:
            self.traffic.dropped += 1
            return False
        return True

    def _allowed(self, indexes: list[int], limit: TokenBucket | None) -> list[int]:
        """Return what is not too fast; a datagram may pass on credit, or a long one never would."""
        if limit is None:
            return indexes
        room, allowed = limit.room(), []
        for index in indexes:
            if room > 0:
                room -= self._batch.sizes[index]
                limit.spend(self._batch.sizes[index])
                allowed.append(index)
        return allowed

    def _pass_on(
        self, indexes: list[int], sizes: list[int], side: Side, to: Name | None = None
    ) -> tuple[int, int]:
        """Send; return how many packets and bytes went, counted by the sizes given."""
        if not indexes:
            return 0, 0
        unsent = self._batch.send(side, indexes, to)
        packets = len(indexes) - len(unsent)
        if packets:
            self._active = self._reactor.seconds()
        size = sum([sizes[index] for index in indexes]) - sum([sizes[index] for index in unsent])
        return packets, size

    # The end

    def _check_idle(self, limit: float) -> None:
        left = self._active + limit - self._reactor.seconds()
        if left <= 0:
            self._end(Ending.TIMED_OUT)
        else:
            self._idle = self._reactor.callLater(left, self._check_idle, limit)

    def _lost(self, reader: _Reader, reason: Failure) -> None:
        """Go on if that was only an error report, which reactors that poll take for an end."""
        if self._closed:
            return
        if not reason.check(ConnectionDone):
            self._end(Ending.STOPPED)
            return
        if reader.side.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.traffic.dropped += 1
        self._reactor.addReader(reader)

    def _end(self, ending: Ending) -> None:
        self.close()
        self._tell(self._watcher.ended, ending)

    def _tell(self, whom: Callable[..., object], *what: object) -> None:
        try:
            whom(*what)
        except Exception:
            self.log.failure("what follows from a line's event failed")


@implementer(IReadDescriptor)
class _Reader:
    """A side of a line as the reactor knows it."""

    def __init__(
        self, side: Side, readable: Callable[[], None], lost: Callable[[_Reader, Failure], None]
    ) -> None:
        self.side = side
        self._readable = readable
        self._lost = lost

    def fileno(self) -> int:
        return self.side.descriptor

    def logPrefix(self) -> str:
        return "UdpLine"

    def doRead(self) -> None:
        self._readable()

    def connectionLost(self, reason: Failure) -> None:
        self._lost(self, reason)
