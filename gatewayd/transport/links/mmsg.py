"""Batches of datagrams moved by ``recvmmsg`` and ``sendmmsg``, which Python has no names for.

Datagrams of one size that follow each other are given to the kernel as one, which it cuts apart as
late as it can (``UDP_SEGMENT``). Where a network card or a path cannot have that the call fails;
they are sent one by one then, and none as long are joined on that socket any more.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import socket
import struct
import sys
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

from gatewayd.transport.links.datagrams import LIMIT, LONGEST, ROOM, Batch, LoopBatch, Name, Side

_DONT_WAIT = 0x40
_SOL_UDP, _UDP_SEGMENT = 17, 103
#: What says nothing about joining.
_PASSING = (errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED)

_NAMES = {
    int(socket.AF_INET): struct.Struct("=H2s4s8x"),
    int(socket.AF_INET6): struct.Struct("=H2s4s16sI"),
}


class _Piece(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("start", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """``struct msghdr``."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("pieces", ctypes.c_void_p),
        ("piece_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """``struct mmsghdr``."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint32))


class _Control(ctypes.Structure):
    """``struct cmsghdr`` with one number."""

    _fields_ = (
        ("length", ctypes.c_size_t),
        ("level", ctypes.c_int),
        ("type", ctypes.c_int),
        ("segment", ctypes.c_uint16),
    )


_MESSAGE, _PIECE, _CONTROL = map(ctypes.sizeof, (_Message, _Piece, _Control))
_CONTROL_USED = _Control.segment.offset + _Control.segment.size


@functools.lru_cache(maxsize=1024)
def _pack(family: int, name: Name) -> bytes:
    """Return a name as the kernel has it."""
    port = int(name[1]).to_bytes(2, "big")
    host = socket.inet_pton(family, name[0])
    if family == socket.AF_INET:
        return _NAMES[family].pack(family, port, host)
    return _NAMES[family].pack(family, port, name[2].to_bytes(4, "big"), host, name[3])


def _unpack(family: int, raw: bytes) -> Name:
    """Return a name as Python has it."""
    _, port, *rest = _NAMES[family].unpack(raw)
    number = int.from_bytes(port, "big")
    if family == socket.AF_INET:
        return socket.inet_ntop(family, rest[0]), number
    return socket.inet_ntop(family, rest[1]), number, int.from_bytes(rest[0], "big"), rest[2]


def _address(room: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(room))


class _Messages:
    """The headers of as many messages as a batch has, where the kernel reads and writes them.

    :param pieces: where the pieces are; each message has at first the one of its own number.
    """

    def __init__(self, pieces: int) -> None:
        self._room = bytearray(LIMIT * _MESSAGE)
        self.address = _address(self._room)
        self.each: Any = (_Message * LIMIT).from_buffer(self._room)
        for index, message in enumerate(self.each):
            message.header.pieces = pieces + index * _PIECE
            message.header.piece_count = 1
        numbers = memoryview(self._room).cast("I")
        self.lengths = numbers[_Message.length.offset // 4 :: _MESSAGE // 4]


class _Inbox:
    """What comes in, with the names of the senders."""

    def __init__(self, family: int, pieces: int) -> None:
        self.family = family
        self.size = _NAMES[family].size
        self.names = bytearray(LIMIT * self.size)
        self.messages = _Messages(pieces)
        for index, message in enumerate(self.messages.each):
            message.header.name = _address(self.names) + index * self.size
            message.header.name_length = self.size

    def name(self, index: int) -> bytes:
        return bytes(self.names[index * self.size : (index + 1) * self.size])


class _Outbox:
    """What goes out, each datagram by itself or several joined."""

    def __init__(self, family: int | None, pieces: int) -> None:
        self._pieces = pieces
        self.name = bytearray(0 if family is None else _NAMES[family].size)
        self.single = _Messages(pieces)
        self.joined = _Messages(pieces)
        self._room = bytearray(LIMIT * _CONTROL)
        self._controls: Any = (_Control * LIMIT).from_buffer(self._room)
        for control in self._controls:
            control.length, control.level, control.type = _CONTROL_USED, _SOL_UDP, _UDP_SEGMENT
        for message in (*self.single.each, *self.joined.each) if self.name else ():
            message.header.name = _address(self.name)
            message.header.name_length = len(self.name)
        for message, control in zip(self.joined.each, self._controls, strict=True):
            message.header.control = ctypes.addressof(control)

    def join(self, index: int, run: _Run) -> None:
        """Make the message *index* of the pieces of a run."""
        header = self.joined.each[index].header
        header.pieces = self._pieces + run.start * _PIECE
        header.piece_count = run.stop - run.start
        header.control_length = _CONTROL if run.joined else 0
        self._controls[index].segment = run.size


class _Run(NamedTuple):
    """Datagrams that go out together, by their places among those that are sent.

    :ivar size: of all, only the last may be shorter.
    """

    start: int
    stop: int
    size: int

    @property
    def joined(self) -> bool:
        return self.stop - self.start > 1


def runs(sizes: Sequence[int], longest: int) -> list[_Run]:
    """Return which of the datagrams can be joined, and the others by themselves.

    :param longest: the size up to which they can be.
    """
    found: list[_Run] = []
    start, count = 0, len(sizes)
    while start < count:
        size = sizes[start]
        stop = start + 1
        if 0 < size <= longest:
            most = min(count, start + LONGEST // size)
            while stop < most and sizes[stop] == size:
                stop += 1
            if stop < most and 0 < sizes[stop] < size:
                stop += 1
        found.append(_Run(start, stop, size))
        start = stop
    return found


class MessageBatch(Batch):
    """Datagrams moved by one call for taking and one for sending them.

    :raises AttributeError: the C library has no such calls.
    """

    def __init__(self) -> None:
        super().__init__()
        start = _address(self._room)
        self._starts = [start + index * ROOM for index in range(LIMIT)]
        self._in, self._out = bytearray(LIMIT * _PIECE), bytearray(LIMIT * _PIECE)
        for piece, start in zip((_Piece * LIMIT).from_buffer(self._in), self._starts, strict=True):
            piece.start, piece.length = start, ROOM
        self._pieces = memoryview(self._out).cast("Q")
        self._inboxes = {family: _Inbox(family, _address(self._in)) for family in _NAMES}
        self._inbox = self._inboxes[int(socket.AF_INET)]
        self._outboxes = {each: _Outbox(each, _address(self._out)) for each in (None, *_NAMES)}
        # PyDLL keeps Python's lock: these calls never wait, and to get it back might take long.
        library = ctypes.PyDLL(None, use_errno=True)
        number, address, count = ctypes.c_int, ctypes.c_void_p, ctypes.c_uint
        self._receive, self._send = library.recvmmsg, library.sendmmsg
        self._receive.argtypes = (number, address, count, number, address)
        self._send.argtypes = (number, address, count, number)

    def receive(self, side: Side) -> None:
        """Take them with one call."""
        self._inbox = inbox = self._inboxes[side.family]
        count = self._receive(side.descriptor, inbox.messages.address, LIMIT, _DONT_WAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self.sizes = inbox.messages.lengths[:count].tolist()

    def sender(self, index: int) -> Name:
        """Return the sender from what the kernel wrote."""
        return _unpack(self._inbox.family, self._inbox.name(index))

    def arrived(self, sender: Name | None = None) -> list[int]:
        """Compare all senders at once, since nearly always it is the same."""
        inbox = self._inbox
        found = list(range(len(self.sizes)))
        if sender is not None:
            name = _pack(inbox.family, sender)
            if inbox.names[: len(found) * inbox.size] != name * len(found):
                found = [index for index in found if inbox.name(index) == name]
        if max(self.sizes) >= ROOM:
            found = [index for index in found if self.sizes[index] < ROOM]
        return found

    def send(self, side: Side, indexes: Sequence[int], to: Name | None = None) -> list[int]:
        """Send them with one call, joined as far as that is possible."""
        outbox = self._outboxes[None if to is None else side.family]
        if to is not None:
            outbox.name[:] = _pack(side.family, to)
        sizes = [self.sizes[index] for index in indexes]
        used = 2 * len(sizes)
        self._pieces[0:used:2] = array("Q", [self._starts[index] for index in indexes])
        self._pieces[1:used:2] = array("Q", sizes)
        together = runs(sizes, side.segments)
        if len(together) == len(sizes):
            unsent = self._send_single(side, outbox, 0, len(sizes))
        else:
            unsent = self._send_joined(side, outbox, together)
        return [indexes[place] for place in unsent]

    def _send_joined(self, side: Side, outbox: _Outbox, together: Sequence[_Run]) -> list[int]:
        for index, run in enumerate(together):
            outbox.join(index, run)
        unsent: list[int] = []
        done = 0
        while done < len(together):
            start = outbox.joined.address + done * _MESSAGE
            sent = self._send(side.descriptor, start, len(together) - done, _DONT_WAIT)
            if sent > 0:
                done += sent
                continue
            run = together[done]
            done += 1
            if run.joined and ctypes.get_errno() not in _PASSING:
                side.segments = min(side.segments, run.size - 1)
            unsent += self._send_single(side, outbox, run.start, run.stop)
        return unsent

    def _send_single(self, side: Side, outbox: _Outbox, start: int, stop: int) -> list[int]:
        """Send the datagrams at these places; return the places of those that were not sent."""
        unsent: list[int] = []
        again = True  # the first call may fail for what became of an earlier datagram
        while start < stop:
            first = outbox.single.address + start * _MESSAGE
            sent = self._send(side.descriptor, first, stop - start, _DONT_WAIT)
            if sent > 0:
                start += sent
                again = True
            elif ctypes.get_errno() == errno.EAGAIN:
                return [*unsent, *range(start, stop)]
            elif again:
                again = False
            else:
                unsent.append(start)
                start += 1
                again = True
        return unsent


@functools.cache
def shared_batch() -> Batch:
    """Return the batch that all links use: the quickest that works here."""
    # Elsewhere the structures are laid out differently.
    if sys.platform == "linux" and sys.byteorder == "little" and sys.maxsize > 2**32:
        with contextlib.suppress(OSError, AttributeError):
            batch = MessageBatch()
            _check(batch)
            return batch
    return LoopBatch()


def _check(batch: Batch) -> None:
    """Find out whether the kernel has the calls, and lets us. :raises OSError: no."""
    empty = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with empty, contextlib.suppress(BlockingIOError):
        batch.receive(Side(empty))
