"""A device's answer while it is passed on."""

from __future__ import annotations

from typing import Protocol

import attrs
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from gatewayd.device.head import Head
from gatewayd.errors import NoAnswer


class Source(Protocol):
    """The connection that a body comes from."""

    def pause(self) -> None:
        """Read nothing for now."""

    def resume(self) -> None:
        """Read on."""

    def abort(self) -> None:
        """Close it at once; the body is told nothing more."""


@implementer(IPushProducer)
class Body:
    """A body that comes over a connection, which waits until somebody takes it.

    :param length: bytes; None when only its end tells.
    :param first: what has come of it.
    :param idle: seconds in which nothing comes although it is waited for, after which it fails.
    """

    def __init__(
        self, source: Source, length: int | None, first: bytes, idle: float, clock: IReactorTime
    ) -> None:
        self.length = length
        self._source = source
        self._held = [first]
        self._idle = idle
        self._clock = clock
        self._timer: IDelayedCall | None = None
        self._consumer: IConsumer | None = None
        self._waiting: Deferred[int] | None = None
        self._sent = 0
        self._paused = False
        #: None while there is more to come; then True, or what went wrong.
        self._outcome: bool | Exception | None = None

    def pass_on(self, consumer: IConsumer) -> Deferred[int]:
        """See :meth:`gatewayd.core.exchange.Stream.pass_on`.

        When it is closed, or the consumer stops it, that is a :exc:`CancelledError`.
        """
        if isinstance(self._outcome, CancelledError):
            return fail(self._outcome)
        waiting = self._waiting = Deferred(lambda _: self.close())
        self._consumer = consumer
        consumer.registerProducer(self, True)
        held, self._held = self._held, []
        for data in held:
            self._write(data)
        if self._outcome is not None:
            self._settle(self._outcome)
        elif not self._paused:
            self.resumeProducing()
        return waiting

    def close(self) -> None:
        """See :meth:`gatewayd.core.exchange.Stream.close`."""
        self._held = []
        if self._outcome is None:
            self._source.abort()
        self._settle(CancelledError())

    # What the connection says.

    def received(self, data: bytes) -> None:
        """Take some of the body."""
        if self._consumer is None:
            self._held.append(data)
            return
        if self._timer is not None:
            self._timer.reset(self._idle)
        self._write(data)

    def ended(self, error: Exception | None = None) -> None:
        """Know that the body is complete, or why it never will be."""
        self._outcome = error or True
        if self._consumer is not None:
            self._settle(self._outcome)

    # What the consumer says.

    def pauseProducing(self) -> None:
        """Let the device wait."""
        self._paused = True
        self._stop_timer()
        if self._outcome is None:
            self._source.pause()

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False
        if self._outcome is None and self._timer is None:
            self._timer = self._clock.callLater(self._idle, self._fell_silent)
            self._source.resume()

    def stopProducing(self) -> None:
        """Know that the consumer is gone."""
        self._consumer = None
        self.close()

    def _write(self, data: bytes) -> None:
        # The consumer may have gone while it took the piece before.
        if data and self._consumer is not None:
            self._sent += len(data)
            self._consumer.write(data)

    def _fell_silent(self) -> None:
        self._timer = None
        self._source.abort()
        self._settle(NoAnswer("it fell silent in the middle of its answer"))

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _settle(self, outcome: bool | Exception) -> None:
        """Tell how it came to its end, once."""
        self._outcome = outcome
        self._stop_timer()
        consumer, self._consumer = self._consumer, None
        waiting, self._waiting = self._waiting, None
        if consumer is not None:
            consumer.unregisterProducer()
        if waiting is None or waiting.called:
            return
        if isinstance(outcome, Exception):
            waiting.errback(outcome)
        else:
            waiting.callback(self._sent)


@attrs.frozen
class Response:
    """A head and a body, which is there or still comes."""

    head: Head
    body: bytes | Body
