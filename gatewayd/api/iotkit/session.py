"""One echo-protocol socket: a device's, or a dashboard's (iotkit contract, A2 and A3)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from gatewayd.api.iotkit import messages
from gatewayd.api.iotkit.messages import Actuate, Ping, Register, Wrong
from gatewayd.api.iotkit.registrations import NORMAL, Registration
from gatewayd.errors import TooMany, Unauthenticated, Unavailable
from gatewayd.transport.lane import Lane
from gatewayd.transport.websocket import WebSocketSession

if TYPE_CHECKING:
    from gatewayd.api.iotkit.api import IotKit

PROTOCOL = "echo-protocol"
#: Messages of one socket that wait or are worked on; then no more are read.
_IN_FLIGHT = 16
#: Of a device id so much counts where it is only told from others.
_LONGEST_ID = 128


def chosen(offered: list[str]) -> str | None:
    """Return the protocol as the client spells it; None when it is not offered."""
    return next((each for each in offered if each.lower() == PROTOCOL), None)


class EchoSession(WebSocketSession):
    """A socket on which a device registers, or a dashboard sends actuations, or both.

    Pings are answered at once. Everything else is done in its order, and a registration alone.

    :ivar registration: what it is registered as; None for nothing.
    """

    log = Logger()
    registration: Registration | None = None
    _patience: IDelayedCall | None = None
    _late: Deferred[None] | None = None
    _last = 0.0

    def __init__(self, api: IotKit) -> None:
        super().__init__()
        self.api = api

    def subprotocol(self, offered: list[str]) -> str | None:
        """Choose the one protocol that is spoken here."""
        return chosen(offered)

    def opened(self) -> None:
        """Begin; who registers no device may not be silent for ever."""
        self._lane = Lane(self.send_text, _IN_FLIGHT, self.pause_reading, self.resume_reading)
        self._last = self.api.reactor.seconds()
        self._patience = self.api.reactor.callLater(self.api.rules.idle, self._check_idle)

    def _check_idle(self) -> None:
        left = self._last + self.api.rules.idle - self.api.reactor.seconds()
        self._patience = None
        if left > 0:
            self._patience = self.api.reactor.callLater(left, self._check_idle)
        else:
            self.close(*NORMAL)

    # Messages

    def text_received(self, payload: bytes) -> None:
        """Take a message."""
        self._last = self.api.reactor.seconds()
        try:
            message = messages.read(payload)
        except Wrong:
            self._refuse_format()
            return
        match message:
            case Ping():
                self.send_text(messages.PONG)
            case Register():
                self._lane.submit(partial(self._begin, message), False)
            case Actuate():
                self._lane.submit(partial(self._actuate, message), True)

    def binary_received(self, payload: bytes) -> None:
        """Refuse it: all messages are text."""
        self._refuse_format()

    def _refuse_format(self) -> None:
        self.send_text(messages.WRONG_FORMAT)
        self.close(1003, "Unprocessable input")

    def _actuate(self, message: Actuate) -> Deferred[None]:
        return Deferred.fromCoroutine(self.api.dashboard.send(message, self.peer))

    # Registering

    def _begin(self, message: Register) -> Deferred[None]:
        return Deferred.fromCoroutine(self._register(message))

    async def _register(self, message: Register) -> None:
        device_id, token = message.device_id, message.token
        # Names of devices that do not exist are anybody's: the refusals of one do not hold up
        # another that is let in.
        keys = [("device", (device_id or "")[:_LONGEST_ID])]
        try:
            device, proof = await self.api.admission.admit(device_id, token)
            await self.api.registrations.register(self, device, proof)
            self._trust()
        except Unauthenticated:
            if self.host is not None:
                keys.append(("address", self.host))
            await self._refuse(messages.INVALID_TOKEN, 1008, "Policy violation", keys)
        except Unavailable as error:
            self.api.complaints.warn("a device could not register: {error}", error=str(error))
            await self._refuse(messages.UNAVAILABLE, *NORMAL, keys)
        except Exception:
            self.log.failure("a registration failed")
            await self._refuse(messages.UNAVAILABLE, *NORMAL, keys)

    async def _refuse(
        self, answer: bytes, code: int, reason: str, keys: list[tuple[str, str]]
    ) -> None:
        """Answer who could not register, so late that trying again at once is of no use."""
        if not self.is_open:
            return
        self._late = self.api.refusals.turn(*keys)
        try:
            await self._late
        except CancelledError:
            return
        except TooMany:
            self.close(1013, "try again later")
            return
        self.send_text(answer)
        self.close(code, reason)

    def _trust(self) -> None:
        """Know that a device has registered; it may be silent."""
        patience, self._patience = self._patience, None
        if patience is not None:
            patience.cancel()

    # The ends of the transport

    def pinging(self) -> None:
        """Note how far deliveries are when a ping leaves."""
        if self.registration is not None:
            self.registration.courier.pinging()

    def ponged(self) -> None:
        """Confirm what was delivered before the ping."""
        if self.registration is not None:
            self.registration.courier.ponged()
            if self.registration.courier.unconfirmed:
                self.probe()

    def settle(self) -> Deferred[None]:
        """Fire when what was taken is done; who is refused hears no more of it."""
        self.pause_reading()
        self._give_up()
        return self._lane.when_idle()

    def closing(self) -> None:
        """Be nobody's socket any more."""
        self._trust()
        self._give_up()
        self.api.registrations.drop(self)

    def closed(self) -> None:
        """Leave nothing behind."""
        self.closing()
        self._lane.close()

    def _give_up(self) -> None:
        if self._late is not None:
            self._late.cancel()
