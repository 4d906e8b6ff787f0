"""The spool: bodies that devices fetch or bring by themselves, too large for a message."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import BinaryIO

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IPullProducer, IReactorTime
from zope.interface import implementer

from gatewayd.errors import BadAnswer, Conflict, NotFound, TooLarge

#: Seconds for which a ticket is good.
LIFETIME = 20 * 60.0
#: Bytes that are read and written at once.
_CHUNK = 64 * 1024


class Blob:
    """A body in a file; several may read it at once.

    It is also a :class:`gatewayd.core.exchange.Stream`.

    :ivar length: bytes.
    :ivar content_type: as its sender said; "" when it said nothing.
    """

    def __init__(
        self, file: BinaryIO, length: int, content_type: str, closed: Callable[[], None]
    ) -> None:
        self.length = length
        self.content_type = content_type
        self._file: BinaryIO | None = file
        self._closed = closed
        self._copies: set[_Copy] = set()

    def copy_to(self, consumer: IConsumer) -> Deferred[int]:
        """Write everything to a consumer, no faster than it takes it; fires with the bytes.

        :raises BadAnswer: the body was withdrawn before its end.
        """
        copy = _Copy(self, consumer)
        self._copies.add(copy)
        copy.done.addBoth(self._copied, copy)
        copy.begin()
        return copy.done

    def _copied(self, result: int, copy: _Copy) -> int:
        self._copies.discard(copy)
        return result

    def pass_on(self, consumer: IConsumer) -> Deferred[int]:
        """Write everything to a consumer as :meth:`copy_to` does, then close."""

        def close(result: int) -> int:
            self.close()
            return result

        return self.copy_to(consumer).addBoth(close)

    def read(self, offset: int) -> bytes:
        """Return the next bytes. :raises BadAnswer: there are fewer than there should be."""
        chunk = b""
        if self._file is not None:
            self._file.seek(offset)
            chunk = self._file.read(min(_CHUNK, self.length - offset))
        if not chunk and offset < self.length:
            raise BadAnswer("the body ended early")
        return chunk

    def close(self) -> None:
        """Let it go; who still reads it gets no more."""
        if self._file is not None:
            self._file = None
            self._closed()
            for copy in tuple(self._copies):
                copy.fail(BadAnswer("the body was withdrawn"))


@implementer(IPullProducer)
class _Copy:
    """Writes a body to one consumer."""

    def __init__(self, blob: Blob, consumer: IConsumer) -> None:
        self.done: Deferred[int] = Deferred(lambda _: self._leave())
        self._blob = blob
        self._consumer = consumer
        self._written = 0

    def begin(self) -> None:
        self._consumer.registerProducer(self, False)

    def resumeProducing(self) -> None:  # noqa: N802
        """Write the next part."""
        if self.done.called:
            return
        try:
            chunk = self._blob.read(self._written)
        except (BadAnswer, OSError) as error:
            self.fail(error if isinstance(error, BadAnswer) else BadAnswer("it cannot be read"))
            return
        self._written += len(chunk)
        if chunk:
            self._consumer.write(chunk)
        if self._written >= self._blob.length and not self.done.called:
            self._leave()
            self.done.callback(self._written)

    def stopProducing(self) -> None:  # noqa: N802
        """Know that the consumer is gone."""
        self.fail(CancelledError())

    def fail(self, error: Exception) -> None:
        """End before everything was written."""
        if not self.done.called:
            self._leave()
            self.done.errback(error)

    def _leave(self) -> None:
        self._consumer.unregisterProducer()


class Spool:
    """Bodies on their way, each under a ticket that only the one device is told.

    Of a ticket only a digest is kept. A ticket either lets a device fetch a body, as often as it
    wants, or bring one, once. It is good until it is withdrawn, or for :data:`LIFETIME`.

    :param clock: for the age of tickets.
    :param make: returns a new ticket, which nobody could guess.
    """

    def __init__(self, clock: IReactorTime, make: Callable[[], str] | None = None) -> None:
        self._clock = clock
        self._make = make or _make
        #: by the digest of the ticket
        self._tickets: dict[bytes, _Ticket] = {}

    def offer(self, file: BinaryIO, size: int, content_type: str) -> str:
        """Let a body be fetched; return the ticket, which the caller has to withdraw.

        :param file: stays the caller's own, who does not close it before that.
        """
        return self._issue(_Ticket(blob=Blob(file, size, content_type, lambda: None)))

    def accept(self, limit: int) -> str:
        """Let a body of at most ``limit`` bytes be brought.

        Return the ticket, which the caller has to withdraw.
        """
        return self._issue(_Ticket(limit=limit))

    def fetch(self, ticket: str) -> Blob:
        """Return the body that a ticket offers. :raises NotFound:"""
        found = self._find(ticket)
        if found.limit is not None or found.blob is None:
            raise NotFound("ticket", None)
        return found.blob

    def limit(self, ticket: str) -> int:
        """Return how many bytes may be brought under a ticket.

        :raises NotFound: nothing is accepted under it.
        :raises Conflict: ``"different"``: something was brought already.
        """
        found = self._find(ticket)
        if found.limit is None:
            raise NotFound("ticket", None)
        if found.blob is not None:
            raise Conflict("different")
        return found.limit

    def bring(self, ticket: str, file: BinaryIO, size: int, content_type: str) -> None:
        """Keep a body that was brought.

        :param file: the spool's own from now on, unless this fails.
        :raises NotFound: :raises Conflict: as :meth:`limit`.
        :raises TooLarge: ``"answer"``: it has more bytes than were allowed.
        """
        if size > self.limit(ticket):
            raise TooLarge("answer")
        self._find(ticket).blob = Blob(file, size, content_type, file.close)

    def claim(self, ticket: str) -> Blob | None:
        """Return what was brought, which is the caller's to close, and void the ticket.

        None: nothing was brought, and the ticket stays good.
        """
        found = self._tickets.get(_digest(ticket))
        if found is None or found.limit is None or found.blob is None:
            return None
        del self._tickets[_digest(ticket)]
        return found.blob

    def withdraw(self, ticket: str) -> None:
        """Void a ticket and let go what it stands for; does nothing when it is void already."""
        found = self._tickets.pop(_digest(ticket), None)
        if found is not None and found.blob is not None:
            found.blob.close()

    def _issue(self, issued: _Ticket) -> str:
        ticket = self._make()
        issued.expires = self._clock.seconds() + LIFETIME
        self._tickets[_digest(ticket)] = issued
        return ticket

    def _find(self, ticket: str) -> _Ticket:
        found = self._tickets.get(_digest(ticket))
        if found is None or found.expires <= self._clock.seconds():
            raise NotFound("ticket", None)  # without its name, which is a secret
        return found


class _Ticket:
    """What a ticket stands for.

    :ivar limit: bytes that may be brought; None when something is to be fetched.
    :ivar expires: in the clock's seconds.
    """

    __slots__ = ("blob", "expires", "limit")

    def __init__(self, blob: Blob | None = None, limit: int | None = None) -> None:
        self.blob = blob
        self.limit = limit
        self.expires = 0.0


def _make() -> str:
    return secrets.token_urlsafe(32)


def _digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).digest()
