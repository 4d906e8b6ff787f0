"""Moving bytes one way, from one socket to another."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import attrs
from twisted.internet.interfaces import IDelayedCall

from gatewayd.transport.links.bucket import TokenBucket
from gatewayd.transport.links.cipher import Transform
from gatewayd.transport.links.end import End
from gatewayd.transport.links.gear import BUFFER, Gear
from gatewayd.transport.links.pipes import ROOM, Pipe, Pipes

_FLAGS = getattr(os, "SPLICE_F_NONBLOCK", 0) | getattr(os, "SPLICE_F_MOVE", 0)
#: How a kernel says, before it has moved anything, that it cannot do it for these sockets.
_UNABLE = {errno.EINVAL, errno.ENOSYS, errno.EPERM}
#: To copy less than that costs less than to move it through a pipe.
_LITTLE = 16 * 1024
#: After so little so many times in a row, the next is taken to be little too.
_PATIENCE = 8


@attrs.define(eq=False)
class Way:
    """From where to where bytes are moved, and who is told of it.

    :ivar moved: is told how many bytes of the payload were taken from the source.
    :ivar ending: is called when the source has ended.
    :ivar ended: is called then or later, when all that came before is sent.
    :ivar broken: is called when a connection is broken, or what came is not authentic.
    :ivar bucket: limits how much is taken.
    """

    source: End
    target: End
    moved: Callable[[int], None]
    ending: Callable[[], None]
    ended: Callable[[], None]
    broken: Callable[[], None]
    bucket: TokenBucket | None = None


class CopyPump:
    """Moves bytes through the memory of the process.

    What the target does not take is held, and nothing more is read until that is gone: it is at
    most what one event has read.

    :ivar held: bytes that the target has not taken yet. :ivar total: of the payload, so far.
    """

    __slots__ = (
        "_at_end", "_broken", "_bucket", "_buffer", "_clock", "_ended", "_ending", "_moved",
        "_poller", "_receive", "_rest", "_resting", "_source", "_stopped", "_target", "_transmit",
        "_waiting", "held", "total",
    )  # fmt: skip

    def __init__(self, way: Way, gear: Gear) -> None:
        self._source = way.source
        self._target = way.target
        self._receive = way.source.socket.recv_into
        self._transmit = way.target.socket.send
        self._moved = way.moved
        self._ending = way.ending
        self._ended = way.ended
        self._broken = way.broken
        self._bucket = way.bucket
        self._poller = gear.poller
        self._clock = gear.clock
        self._buffer = gear.buffer
        self.held = 0
        self.total = 0
        self._rest = memoryview(b"")
        self._resting: IDelayedCall | None = None
        self._waiting = False  # for room in the target, and for nothing else
        self._at_end = False
        self._stopped = False

    def start(self) -> None:
        """Begin to read."""
        self._source.doRead = self.move
        self._target.doWrite = self.flush
        self._poller.start_reading(self._source)

    def stop(self) -> None:
        """Let go of what is held, and move nothing any more."""
        self._stopped = True
        self.held = 0
        self._rest = memoryview(b"")
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def move(self) -> None:
        """Take what the source has, and send it."""
        if not self.held and not self._at_end:
            self._copy(BUFFER)

    def flush(self) -> None:
        """Send what is held, now that the target has room."""
        if not self._waiting:
            return
        try:
            self.held -= self._send_held()
        except BlockingIOError:
            return
        except OSError:
            self._broken()
            return
        # As long as the target is the slower side, it alone is waited for: to change what is
        # waited for twice in each round would cost more than to move the bytes.
        if not self.held:
            self.move()
        if not self.held and not self._stopped:
            self._waiting = False
            self._poller.stop_writing(self._target)
            if self._at_end:
                self._ended()
            elif self._resting is None:
                self._poller.start_reading(self._source)

    def _copy(self, most: int) -> int:
        """Take up to *most* bytes and send them; return how many were taken."""
        if self._bucket is not None:
            most = min(most, self._allowance(self._bucket))
            if not most:
                return 0
        try:
            size = self._receive(self._buffer, most)
        except BlockingIOError:
            return 0
        except OSError:
            self._broken()
            return 0
        if not size:
            self._end()
            return 0
        if self._bucket is not None:
            self._bucket.spend(size)
        self._pass(self._buffer[:size])
        return size

    def _pass(self, data: memoryview) -> None:
        """Send what was read."""
        size = len(data)
        self.total += size
        self._moved(size)
        self._send(data)

    def _send(self, data: memoryview) -> None:
        try:
            sent = self._transmit(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._broken()
            return
        if sent < len(data):
            # A copy, since the next event of any line overwrites the buffer.
            self._hold(bytes(data[sent:]))

    def _hold(self, rest: bytes) -> None:
        self._rest = memoryview(rest)
        self.held = len(rest)
        self._wait()

    def _wait(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._poller.stop_reading(self._source)
            self._poller.start_writing(self._target)

    def _send_held(self) -> int:
        """Send of what is held. :raises OSError: as sockets do."""
        sent = self._transmit(self._rest)
        self._rest = self._rest[sent:]
        return sent

    def _allowance(self, bucket: TokenBucket) -> int:
        """Return how much the limit of bytes per second lets through; if nothing, pause."""
        room = bucket.room()
        if not room and self._resting is None:
            self._poller.stop_reading(self._source)
            self._resting = self._clock.callLater(bucket.wait(), self._rested)
        return room

    def _rested(self) -> None:
        self._resting = None
        self._poller.start_reading(self._source)

    def _end(self) -> None:
        """Nothing more will come; what came last may still be held."""
        self._at_end = True
        self._poller.stop_reading(self._source)
        self._ending()
        if not self._waiting:
            self._ended()


class CipherPump(CopyPump):
    """Encrypts or decrypts what it copies.

    :param opens: whether it decrypts: then what leaves is the payload, otherwise what comes.
    """

    __slots__ = ("_opens", "_transform", "_update")

    def __init__(self, way: Way, gear: Gear, transform: Transform, opens: bool) -> None:
        super().__init__(way, gear)
        self._transform = transform
        self._update: Callable[[memoryview], None] | None = getattr(transform, "update_into", None)
        self._opens = opens

    def _pass(self, data: memoryview) -> None:
        size = len(data)
        if self._update is not None:
            self._update(data)
        else:
            try:
                data = memoryview(self._transform.encode(data))
            except ValueError:
                self._broken()
                return
            if self._opens:
                size = len(data)
        self.total += size
        self._moved(size)
        if data:
            self._send(data)

    def _end(self) -> None:
        try:
            last = self._transform.finish()
        except ValueError:
            self._broken()
            return
        if last:
            self._send(memoryview(last))
        if not self._stopped:
            super()._end()


class SplicePump(CopyPump):
    """Lets the kernel move what is much through a pipe; copies what is little."""

    __slots__ = ("_descriptors", "_pipe", "_pipes", "_splices")

    def __init__(self, way: Way, gear: Gear, pipes: Pipes) -> None:
        super().__init__(way, gear)
        self._descriptors = way.source.fileno(), way.target.fileno()
        self._pipes = pipes
        self._pipe: Pipe | None = None  # which holds what the target did not take
        self._splices = 0  # how often to go on with splicing, however little comes

    def stop(self) -> None:
        """Let go of what is held, and move nothing any more."""
        super().stop()
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def move(self) -> None:
        """Take what the source has, and send it."""
        if self.held or self._at_end:
            return
        if self._splices:
            self._splice()
        elif self._copy(_LITTLE) == _LITTLE:
            self._splices = _PATIENCE

    def _splice(self) -> None:
        pipe = self._pipes.shared or self._pipes.renew()
        if pipe is None:
            self._copy(BUFFER)
            return
        most = ROOM if self._bucket is None else self._allowance(self._bucket)
        if not most:
            return
        source, target = self._descriptors
        try:
            size = os.splice(source, pipe.write, most, None, None, _FLAGS)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in _UNABLE:
                self._broken()
            else:
                self._pipes.give_up()
                self._copy(BUFFER)
            return
        if not size:
            self._end()
            return
        self._splices = _PATIENCE if size >= _LITTLE else self._splices - 1
        if self._bucket is not None:
            self._bucket.spend(size)
        self.total += size
        self._moved(size)
        try:
            sent = os.splice(pipe.read, target, size, None, None, _FLAGS)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._pipes.spoil()
            self._broken()
            return
        if sent < size:
            self._keep(pipe, size - sent)

    def _keep(self, pipe: Pipe, size: int) -> None:
        """Hold *size* bytes, which are in the shared pipe."""
        self._pipe = self._pipes.keep()
        if self._pipe is None:
            self._hold(_drained(pipe, size))
        else:
            self.held = size
            self._wait()

    def _send_held(self) -> int:
        if self._pipe is None:
            return super()._send_held()
        sent = os.splice(self._pipe.read, self._descriptors[1], self.held, None, None, _FLAGS)
        if sent == self.held:
            self._pipes.give_back(self._pipe)
            self._pipe = None
        return sent


def _drained(pipe: Pipe, size: int) -> bytes:
    """Return the *size* bytes that are in a pipe."""
    parts = []
    while size:
        parts.append(os.read(pipe.read, size))
        size -= len(parts[-1])
    return b"".join(parts)
