"""What a relayed request came to, in the form in which it is kept."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from gatewayd.core.exchange import Answer
from gatewayd.core.model import RelayCall
from gatewayd.errors import (
    BadAnswer,
    Denied,
    GatewayError,
    Invalid,
    NoAddress,
    NoAnswer,
    NotFound,
    Offline,
    TooLarge,
    TooMany,
    Unavailable,
)

#: Bytes of a request that goes on without its caller, and of an answer that is kept.
LARGEST = 1024 * 1024
#: The errors that are kept, with the names of what they are made of; without names: of a text.
_PARTS: dict[type[GatewayError], tuple[str, ...]] = {
    BadAnswer: (),
    Denied: ("reason", "key"),
    Invalid: ("entity", "field", "value", "rule"),
    NoAddress: (),
    NoAnswer: (),
    NotFound: ("kind", "key"),
    Offline: (),
    TooLarge: ("what",),
    TooMany: ("what",),
    Unavailable: (),
}
_KINDS = {kind.__name__: kind for kind in _PARTS}


@implementer(IConsumer)
class KeptAnswer:
    """Takes an answer into memory; a :class:`gatewayd.core.relay.Receiver`.

    :ivar received: bytes of its body, those too that are too many.
    """

    def __init__(self) -> None:
        self._answer: Answer | None = None
        self._pieces: list[bytes] = []
        self._producer: Any = None
        self.received = 0

    @property
    def begun(self) -> bool:
        """Whether the device has answered."""
        return self._answer is not None

    async def receive(self, answer: Answer) -> None:
        """Take an answer. :raises TooLarge: it is more than is kept."""
        self._answer = answer
        if isinstance(answer.body, bytes):
            self.write(answer.body)
        elif (answer.body.length or 0) > LARGEST:
            raise TooLarge("answer")
        else:
            try:
                await answer.body.pass_on(self)
            except CancelledError:
                if self.received <= LARGEST:
                    raise
        if self.received > LARGEST:
            raise TooLarge("answer")

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: N802 - Twisted's
        """Let a producer write; one that waits to be asked is asked to its end."""
        self._producer = producer
        while not streaming and self._producer is producer:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:  # noqa: N802 - Twisted's name
        """Know that there is nothing more."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """Take a piece; when it is too much, no more is wanted."""
        self.received += len(data)
        if self.received <= LARGEST:
            self._pieces.append(data)
        elif self._producer is not None:
            producer, self._producer = self._producer, None
            producer.stopProducing()

    @property
    def answer(self) -> Answer:
        """The answer, complete."""
        assert self._answer is not None
        return attrs.evolve(self._answer, body=b"".join(self._pieces))


def answered(call: RelayCall, answer: Answer) -> RelayCall:
    """Return a call with its answer, whose body is at hand."""
    assert isinstance(answer.body, bytes)
    headers = msgspec.json.encode(answer.headers)
    return msgspec.structs.replace(call, status=answer.status, headers=headers, body=answer.body)


def failed(call: RelayCall, error: GatewayError) -> RelayCall:
    """Return a call that came to nothing."""
    if type(error) not in _PARTS:
        error = Unavailable()
    names = _PARTS[type(error)]
    parts: list[Any] = [getattr(error, name) for name in names] if names else list(error.args)
    told = msgspec.json.encode([type(error).__name__, parts], enc_hook=str)
    return msgspec.structs.replace(call, status=0, body=told)


def outcome(call: RelayCall) -> Answer:
    """Return the answer of a call that is over. :raises GatewayError: it came to nothing."""
    body = call.body or b""
    if not call.status:
        kind, parts = msgspec.json.decode(body)
        raise _KINDS[kind](*parts)
    headers = tuple((name, value) for name, value in msgspec.json.decode(call.headers))
    return Answer(status=call.status, headers=headers, body=body)
