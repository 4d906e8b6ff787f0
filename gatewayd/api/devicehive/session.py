"""A DeviceHive WebSocket session (devicehive contract, section 2)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.api.devicehive import errors, wire
from gatewayd.api.devicehive.call import ROUTES, Call, Reply, Route, SocketCall
from gatewayd.api.devicehive.conversation import Conversation
from gatewayd.api.devicehive.errors import Refused
from gatewayd.api.devicehive.fields import Fields, Malformed
from gatewayd.core.access import Principal
from gatewayd.core.attachment import Attachment
from gatewayd.core.commands import Courier
from gatewayd.core.model import Device, Event
from gatewayd.core.timeline import Subscription
from gatewayd.errors import Unauthenticated

if TYPE_CHECKING:
    from gatewayd.api.devicehive.api import DeviceHive

_MALFORMED = wire.encode({"code": 400, "status": "error", "error": errors.MALFORMED})


@attrs.frozen
class Greeting:
    """What the handshake told.

    :ivar rest_url: where REST is for this client.
    :ivar principal: of the token in it, if there was one.
    """

    rest_url: str
    principal: Principal | None


class Push:
    """Where one subscription's events leave: a frame each, ending with the subscription's id."""

    __slots__ = ("_key", "_session", "_suffix")

    def __init__(self, session: Session, suffix: bytes) -> None:
        self._session = session
        self._suffix = suffix
        self._key = wire.memo_key(suffix)

    @property
    def writable(self) -> bool:
        """Whether the socket takes more."""
        return self._session.writable

    def when_writable(self) -> Deferred[None]:
        """Fire when the socket takes more, or is gone."""
        return self._session.when_writable()

    def deliver(self, event: Event) -> None:
        """Push an event."""
        suffix = self._suffix
        start = event.memo.get(self._key) or wire.push_start(event, suffix)
        self._session.send_frame(start + suffix)

    def broken(self) -> None:
        """Disconnect: the client's next replay brings what is missing."""
        self._session.close(1011, "replay failed")


class Subscribed:
    """A subscription as the client knows it.

    :ivar type: ``"command"`` or ``"notification"``.
    :ivar shown: what subscription/list tells of it.
    :ivar parts: one subscription to the timelines for each device that was named.
    """

    def __init__(self, type_: str, shown: dict[str, object]) -> None:
        self.type = type_
        self.shown = shown
        self.parts: list[Subscription] = []
        self.couriers: list[Courier] = []
        self.attachments: list[Attachment] = []


class Session(Conversation):
    """A client or a device on ``/websocket``.

    :ivar default_device: what a request without deviceId means; on ``/device`` only.
    """

    log = Logger()
    default_device: str | None = None

    def __init__(self, api: DeviceHive) -> None:
        super().__init__(api)
        self.principal: Principal | None = None
        self.subscriptions: dict[int, Subscribed] = {}

    def opened(self) -> None:
        """Begin; a token in the handshake has been verified already."""
        super().opened()
        greeting: Greeting = self.greeting
        self.rest_url = greeting.rest_url
        if greeting.principal is not None:
            self.become(greeting.principal)

    def become(self, principal: Principal) -> None:
        """Act for a principal from now on."""
        self.principal = principal
        self.trust()

    def text_received(self, payload: bytes) -> None:
        """Take a request; its reply leaves when those before it have left."""
        try:
            fields = Fields.parse(payload, self.api.limits.json_depth)
            name = fields.value("action")
        except Malformed:
            self.lane.submit(_malformed, False)
            return
        known = ROUTES.get(name) if isinstance(name, str) else None
        if known is None:
            self.lane.submit(partial(self._unknown, name, fields), False)
        else:
            self.lane.submit(partial(self._perform, known, fields), known.overlap)

    def _unknown(self, name: object, fields: Fields) -> bytes:
        if name is None:
            text = "'action' field could not be parsed to known endpoint"
        else:
            shown = name if isinstance(name, str) else wire.encode(name).decode()
            text = f"Illegal argument: {shown}"
        return self._error(fields, 400, text)

    def _perform(self, route: Route, fields: Fields) -> Reply | Deferred[Reply]:
        return self.run(SocketCall(self, route, fields, self.principal))

    def run(self, call: Call) -> Reply | Deferred[Reply]:
        """Run a request, turning what is refused into its reply."""
        try:
            call.authorize()
            result = call.route.handler(call)
        except Exception:
            return self._failed(Failure(), call)
        if isinstance(result, Deferred):
            result.addErrback(self._failed, call)
        return result

    def _failed(self, failure: Failure, call: Call) -> bytes:
        assert failure.value is not None
        return self.refused(failure.value, call)

    def refused(self, error: BaseException, call: Call) -> bytes:
        """Return the reply to a request that raised an error."""
        described = errors.describe(error)
        if described is None:
            self.log.failure("{action} failed", Failure(error), action=call.route.name)
            described = errors.INTERNAL
        return self._error(call.fields, *described)

    def _error(self, fields: Fields, code: int, text: str) -> bytes:
        action = fields.raw("action") or b"null"
        request_id = fields.raw("requestId") or b"null"
        return b'{"action":%b,"requestId":%b,"code":%d,"status":"error","error":%b}' % (
            action, request_id, code, wire.encode(text),
        )  # fmt: skip

    def defect(self, failure: Failure) -> bytes:
        """Return the reply to a request that failed by our fault."""
        code, text = errors.INTERNAL
        return wire.encode({"code": code, "status": "error", "error": text})

    # Subscriptions

    def check_room(self) -> None:
        """Check that one more subscription is allowed. :raises Refused: 429."""
        if self.ended:
            raise Refused(410, "The connection is closed")  # nobody hears it; nothing may be left
        if len(self.current()) >= self.api.limits.subscriptions:
            raise Refused(429, "Too many subscriptions on this connection")

    def unsubscribe(self, number: int) -> None:
        """End a subscription."""
        subscribed = self.subscriptions.pop(number)
        for part in subscribed.parts:
            part.close()
        for attachment in subscribed.attachments:
            self.api.core.presence.detach(attachment)

    def inserted(self, event: Event) -> None:
        """Know that a command of this connection was recorded; only legacy sessions care."""

    async def saved(self, device: Device, request: Fields, fields: Fields) -> None:
        """Know that this connection registered a device; only legacy sessions care."""

    def named_devices(self, call: Call) -> list[str]:
        """Return the devices that a subscription names. :raises Refused: 400."""
        device_id = call.chosen_id()
        return [] if device_id is None else [device_id]

    def checked_names(self, names: list[str] | None) -> list[str] | None:
        """Return the names of a subscription; an empty list means any."""
        return names or None

    def epoch_for(self, device: Device) -> int | None:
        """Return the epoch in which this socket speaks for a device; None when it does not."""
        return None

    # Authentication

    async def authenticate(self, fields: Fields) -> None:
        """Act for the owner of a token. :raises Unauthenticated:"""
        await self.authenticate_by(fields.text("token"))

    async def authenticate_by(self, token: str | None) -> None:
        """Act for the owner of a token. :raises Unauthenticated:"""
        if token is None:
            raise Unauthenticated("missing")
        self.become(await self.api.core.authentication.by_token(token))

    def current(self) -> dict[int, Subscribed]:
        """Return the subscriptions, without those whose device was deleted."""
        for number, subscribed in list(self.subscriptions.items()):
            if all(part.closed for part in subscribed.parts):
                self.unsubscribe(number)
        return self.subscriptions

    # The ends of the transport

    def pinging(self) -> None:
        """Note how far deliveries are when a ping leaves."""
        for subscribed in self.subscriptions.values():
            for courier in subscribed.couriers:
                courier.pinging()

    def ponged(self) -> None:
        """Confirm what was delivered before the ping."""
        for subscribed in self.subscriptions.values():
            for courier in subscribed.couriers:
                courier.ponged()

    def closing(self) -> None:
        """End the subscriptions: nothing that they bring can be sent any more."""
        super().closing()
        for number in list(self.subscriptions):
            self.unsubscribe(number)


def _malformed() -> bytes:
    return _MALFORMED
