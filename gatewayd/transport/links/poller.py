"""Which sockets of lines can be read or written.

The members of a poller are what Twisted's reactors want: objects with ``fileno``, ``doRead``,
``doWrite``, ``connectionLost`` and ``logPrefix``, which answer nothing.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any, Protocol

from twisted.logger import Logger

_log = Logger()

_IN = getattr(select, "EPOLLIN", 0)
_OUT = getattr(select, "EPOLLOUT", 0)
_ERROR = getattr(select, "EPOLLERR", 0)
_BROKEN = _ERROR | getattr(select, "EPOLLHUP", 0)
_ENDED = getattr(select, "EPOLLRDHUP", 0)
#: For who waits for nothing: to be told of an end once, not as long as it is so. What else is
#: reported, an error or that both sides have ended, is reported unasked.
_QUIET = _ENDED | getattr(select, "EPOLLET", 0)


class Pollable(Protocol):
    """A socket that waits for something; it must bear to be called without a reason."""

    def fileno(self) -> int:
        """Return its descriptor."""

    def doRead(self) -> None:
        """Know that there is something to read, an end or an error too."""

    def doWrite(self) -> None:
        """Know that there is room to write, or an error."""

    def readConnectionLost(self, reason: Any = None) -> None:
        """Know that the peer has ended; what came before may still have to be read."""

    def connectionLost(self, reason: Any = None) -> None:
        """Know that the connection is lost."""

    def logPrefix(self) -> str:
        """Return what log lines about it begin with."""


class Poller(Protocol):
    """Tells members what they wait for. Each has to be forgotten before its socket is closed."""

    def start_reading(self, member: Pollable) -> None:
        """Call ``doRead`` while there is something to read."""

    def stop_reading(self, member: Pollable) -> None:
        """Do that no longer."""

    def start_writing(self, member: Pollable) -> None:
        """Call ``doWrite`` while there is room to write."""

    def stop_writing(self, member: Pollable) -> None:
        """Do that no longer."""

    def forget(self, member: Pollable) -> None:
        """Tell it nothing any more."""

    def close(self) -> None:
        """Free what the poller itself holds, once it has no members."""


class ReactorPoller:
    """The reactor's own way. A member that waits for nothing is not told what becomes of it."""

    def __init__(self, reactor: Any) -> None:
        self.start_reading: Callable[[Pollable], None] = reactor.addReader
        self.stop_reading: Callable[[Pollable], None] = reactor.removeReader
        self.start_writing: Callable[[Pollable], None] = reactor.addWriter
        self.stop_writing: Callable[[Pollable], None] = reactor.removeWriter

    def forget(self, member: Pollable) -> None:
        """Tell it nothing any more."""
        self.stop_reading(member)
        self.stop_writing(member)

    def close(self) -> None:
        """Do nothing."""


class EpollPoller:
    """An epoll object of our own, for which the reactor waits as for one more descriptor.

    The reactor spends more on an event than a line needs to move its bytes: a log context, and on
    asyncio a handle and a context too. Here it spends that once for all events of a turn. Besides,
    a member that waits for nothing still learns that its peer has ended or reset the connection.
    """

    #: Events in one turn: the others of the reactor have to come to their turn as well.
    LIMIT = 64

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll: select.epoll | None = None
        self._members: dict[int, Pollable] = {}
        self._wanted: dict[int, int] = {}
        self._gone: set[int] = set()  # descriptors that were forgotten in this round

    def start_reading(self, member: Pollable) -> None:
        """Call ``doRead`` while there is something to read."""
        self._want(member, _IN)

    def stop_reading(self, member: Pollable) -> None:
        """Do that no longer."""
        self._unwant(member, _IN)

    def start_writing(self, member: Pollable) -> None:
        """Call ``doWrite`` while there is room to write."""
        self._want(member, _OUT)

    def stop_writing(self, member: Pollable) -> None:
        """Do that no longer."""
        self._unwant(member, _OUT)

    def forget(self, member: Pollable) -> None:
        """Tell it nothing any more."""
        descriptor = member.fileno()
        if self._members.get(descriptor) is member and self._epoll is not None:
            del self._members[descriptor], self._wanted[descriptor]
            self._gone.add(descriptor)
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Free the epoll object; the poller makes another one if it is used again."""
        if self._epoll is not None:
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None
            self._members.clear()
            self._wanted.clear()

    def fileno(self) -> int:
        """Return the descriptor of the epoll object."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def doRead(self) -> None:
        """Serve the members for which something has happened."""
        left = self.LIMIT
        while left > 0 and self._epoll is not None:
            # To look again here is cheaper than a turn of the reactor, and finds what has come
            # while the others were served.
            happened = self._epoll.poll(0, left)
            if not happened:
                return
            left -= len(happened)
            self._gone.clear()
            self._serve(happened)

    def doWrite(self) -> None:
        """Do nothing: it is never written to."""

    def connectionLost(self, reason: Any = None) -> None:
        """Do nothing: the reactor stops, and those who hold lines close them."""

    def logPrefix(self) -> str:
        """Return what log lines about it begin with."""
        return "lines"

    def _serve(self, happened: list[tuple[int, int]]) -> None:
        get, wanted = self._members.get, self._wanted
        for descriptor, events in happened:
            # Those before it in the list may have changed who is there, and what is wanted.
            member = get(descriptor)
            if member is None:
                continue
            try:
                if events != _IN and events != _OUT:
                    self._serve_several(member, descriptor, events)
                elif not events & wanted[descriptor]:
                    continue
                elif events == _IN:
                    member.doRead()
                else:
                    member.doWrite()
            except Exception:
                _log.failure("an event of a line failed")
                member.connectionLost()

    def _serve_several(self, member: Pollable, descriptor: int, events: int) -> None:
        """Tell *member* of an error, or that it can read and write."""
        if descriptor in self._gone:
            return  # the error is that of a socket which had this descriptor before
        wanted = self._wanted[descriptor]
        if wanted & _IN and events & (_IN | _BROKEN):
            member.doRead()
        if self._members.get(descriptor) is not member:
            return
        if self._wanted[descriptor] & _OUT and events & (_OUT | _BROKEN):
            member.doWrite()
        elif wanted == _QUIET:
            if events & _ERROR:
                member.connectionLost()
            elif events & _ENDED:
                member.readConnectionLost()

    def _want(self, member: Pollable, event: int) -> None:
        descriptor = member.fileno()
        old = self._wanted.get(descriptor)
        if old is None:
            self._opened().register(descriptor, event)
            self._members[descriptor] = member
        elif not old & event:
            event |= old & (_IN | _OUT)
            self._opened().modify(descriptor, event)
        else:
            return
        self._wanted[descriptor] = event

    def _unwant(self, member: Pollable, event: int) -> None:
        descriptor = member.fileno()
        old = self._wanted.get(descriptor, 0)
        if old & event:
            new = old & ~event or _QUIET
            self._opened().modify(descriptor, new)
            self._wanted[descriptor] = new

    def _opened(self) -> select.epoll:
        if self._epoll is None:
            self._epoll = select.epoll()
            self._reactor.addReader(self)
        return self._epoll


def poller_for(reactor: Any) -> Poller:
    """Return the fastest poller that this platform has."""
    if hasattr(select, "epoll"):
        return EpollPoller(reactor)
    return ReactorPoller(reactor)
