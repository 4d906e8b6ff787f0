"""The seam between relayed requests and the ways in which they reach a device.

An exchange is one HTTP request for a device and the answer to it. An adapter carries it, in
whatever form that kind of device understands.
"""

from __future__ import annotations

from typing import BinaryIO, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer

from gatewayd.core.model import Device

#: Names and values, in the order in which they are sent.
Headers = tuple[tuple[str, str], ...]


@attrs.frozen(kw_only=True)
class Request:
    """What is to be asked of a device. Times are seconds.

    :ivar id: names the exchange in records.
    :ivar method: upper case.
    :ivar query: ``/path[?query][#fragment]``, or whatever else the device understands; printable
        text that is not empty.
    :ivar headers: those that are passed on, without Content-Length.
    :ivar body: what the caller sent, at its beginning; None when there is none. The exchange's own:
        nobody else reads it, and whoever began the exchange closes it.
    :ivar size: bytes of the body.
    :ivar respond: until the answer has begun.
    :ivar connect: until the device is there, when it is not.
    :ivar gateway: the URL of the gateway, as far as the path, for a device that fetches something.
    """

    id: str
    method: str
    query: str
    headers: Headers = ()
    body: BinaryIO | None = None
    size: int = 0
    respond: float = 30.0
    connect: float = 0.0
    gateway: str = ""


class Stream(Protocol):
    """A body that comes from a device while it is passed on."""

    @property
    def length(self) -> int | None:
        """Bytes; None when nobody knows before its end."""

    def pass_on(self, consumer: IConsumer) -> Deferred[int]:
        """Write everything to a consumer, no faster than it takes it; fires with the bytes.

        The consumer is told its producer, and told nothing more at the end than that there is none.
        Cancelling closes the connection to the device.

        :raises BadAnswer: the body was cut short. :raises NoAnswer: the device fell silent.
        """

    def close(self) -> None:
        """Let the body go that nobody wants; may be called at any time."""


@attrs.frozen(kw_only=True)
class Answer:
    """What a device answered.

    :ivar headers: those that are passed back, without Content-Length.
    """

    status: int
    headers: Headers = ()
    body: bytes | Stream = b""


class Adapter(Protocol):
    """One way to a device."""

    @property
    def name(self) -> str:
        """What records call it."""

    async def send(self, device: Device, request: Request) -> Answer:
        """Carry a request to a device; cancelling gives it up.

        :raises Offline: the device is not there; it was sent nothing.
        :raises NoAnswer: it did not answer in time; nobody knows what it did.
        :raises BadAnswer: what it answered is no answer.
        :raises TooLarge: it answered more than can be passed on.
        :raises Denied: ``"destination"``: the gateway may not connect to where it is.
        :raises Invalid: ``Remote-Query`` is nothing for such a device; it was sent nothing.
        :raises Unavailable: the gateway cannot do it now; the device was sent nothing.
        """


class Queue(Protocol):
    """A way to a device on which requests can be left for it while it is away."""

    @property
    def name(self) -> str:
        """What records call it."""

    async def submit(self, device: Device, request: Request, lifetime: int, key: str) -> int:
        """Leave a request, on disk; return the number under which its answer will be found.

        :param lifetime: seconds in which the device may take it.
        :param key: names it; what was left under the same name before is not left again: its
            number is returned.
        :raises TooLarge: ``"request"``: it is too large to wait.
        :raises Denied: ``"blocked"``. :raises Unavailable: :raises NotFound: the device is gone.
        """

    async def answer(self, device: Device, number: int, wait: float) -> Answer | None:
        """Return the answer to a request that was left; None when there is none yet.

        :param wait: seconds to wait for it.
        :raises NoAnswer: there will be none: its lifetime is over, or it is forgotten.
        :raises BadAnswer: :raises TooLarge: as :meth:`Adapter.send`.
        """
