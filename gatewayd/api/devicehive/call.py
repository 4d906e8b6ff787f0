"""One request, through whichever door it came, on its way to a handler and back."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred

from gatewayd.api.devicehive.errors import Refused
from gatewayd.api.devicehive.fields import Fields
from gatewayd.api.devicehive.wire import encode
from gatewayd.core.access import Action, Principal
from gatewayd.core.gateway import Core
from gatewayd.core.model import Device, Event
from gatewayd.core.queries import Order
from gatewayd.errors import NotFound, Unauthenticated

if TYPE_CHECKING:
    from gatewayd.api.devicehive.session import Session

#: A reply, or the reply and what is to be done right after it was sent.
Reply = bytes | tuple[bytes, Callable[[], None]]
#: Takes the :class:`Call`; one that works on sockets alone takes a :class:`SocketCall`.
Handler = Callable[[Any], "Reply | Deferred[Any]"]
#: Does something with a device that may be missing, and was named or not.
OnTarget = Callable[["Call", "Device | None", "str | None"], "Deferred[Reply]"]


@attrs.frozen
class Route:
    """An operation: who may ask for it and what performs it.

    :ivar permission: needed before anything else is looked at; None for everybody.
    :ivar overlap: whether it may begin while earlier requests of the connection still run.
    """

    name: str
    permission: Action | None
    handler: Handler
    overlap: bool
    prefix: bytes = attrs.field(init=False)

    @prefix.default
    def _prefix(self) -> bytes:
        return b'{"action":' + encode(self.name) + b',"requestId":'


#: The WebSocket actions; REST has endpoints for most of them.
ROUTES: dict[str, Route] = {}
#: The operations that only REST has.
REST_ROUTES: dict[str, Route] = {}


def route(
    name: str, permission: Action | None = None, *, overlap: bool = False, rest_only: bool = False
) -> Callable[[Handler], Handler]:
    """Declare the handler of an operation."""

    def declare(handler: Handler) -> Handler:
        table = REST_ROUTES if rest_only else ROUTES
        table[name] = Route(name, permission, handler, overlap)
        return handler

    return declare


def coroutine(
    handler: Callable[[Any], Coroutine[Deferred[Any], Any, Reply]],
) -> Handler:
    """Let a coroutine be a handler."""

    def start(call: Call) -> Deferred[Any]:
        return Deferred.fromCoroutine(handler(call))

    return start


class Call:
    """A request: who asks, what for, and how the answer is framed.

    Each door has its own kind: :class:`SocketCall` here, ``RestCall`` with the endpoints.

    :ivar take: how many members a list has when the request does not say; None for all.
    """

    __slots__ = ("core", "fields", "principal", "route", "take")

    def __init__(
        self,
        core: Core,
        route: Route,
        fields: Fields,
        principal: Principal | None,
        take: int | None,
    ) -> None:
        self.core = core
        self.route = route
        self.fields = fields
        self.principal = principal
        self.take = take

    @property
    def user(self) -> Principal:
        """The principal of an operation that needs one."""
        if self.principal is None:
            raise Unauthenticated("missing")
        return self.principal

    def authorize(self) -> None:
        """Check the operation's permission. :raises Unauthenticated: :raises Denied:"""
        if self.route.permission is not None:
            self.user.require(self.route.permission)

    # Replies

    def done(self) -> bytes:
        """Return the reply that has nothing to tell."""
        raise NotImplementedError

    def reply(self, member: bytes, shown: bytes) -> bytes:
        """Return the reply that tells one thing.

        :param member: its name on a socket. :param shown: its JSON.
        """
        raise NotImplementedError

    def members(self, **members: object) -> bytes:
        """Return the reply that tells several things side by side."""
        raise NotImplementedError

    def answer(self, member: str, shown: object) -> bytes:
        """Return the reply that tells one thing which is still to be encoded."""
        return self.reply(member.encode(), encode(shown))

    def missing(self, thing: str) -> Refused:
        """Return the error of a message without a name."""
        return Refused(400, f"{thing} is required")

    # What only some connections know

    @property
    def default_device(self) -> str | None:
        """The device that is meant when none is named."""
        return None

    def elsewhere(self) -> dict[str, str]:
        """Return where the other door is, for the server's description."""
        raise NotImplementedError

    def proxy_url(self) -> str:
        """Return where plugins connect; who asks on a socket is never told."""
        raise NotImplementedError

    def epoch_for(self, device: Device) -> int | None:
        """Return the epoch in which the asker speaks for a device; None when it does not."""
        return None

    def inserted(self, event: Event) -> None:
        """Know that the command of this request was recorded."""

    async def saved(self, device: Device, fields: Fields) -> None:
        """Know that this request registered a device."""

    # What many requests name

    def device_id(self) -> str | None:
        """Return the device that the request names, on /device the socket's own by default."""
        return self.fields.text("deviceId") or self.default_device

    def chosen_id(self) -> str | None:
        """Return the device that a request is limited to; one that names none means all.

        :raises Refused: 400: the name is empty, which is no way to ask for all.
        """
        device_id = self.device_id()
        if device_id is None and self.fields.string("deviceId") is not None:
            raise Refused(400, "Device id is wrong or empty")
        return device_id

    async def target(self, device_id: str | None) -> Device | None:
        """Return the device of a request, None when none is named or none is there.

        :raises Denied: the principal's reach is limited and the device is not in it.
        """
        if device_id is None:
            return None
        device = await self.core.registry.device(device_id)
        try:
            return self.user.admit(device, device_id)
        except NotFound:
            return None

    def on_target(self, act: OnTarget) -> Deferred[Reply]:
        """Act on the device of a request, at once when the device is at hand.

        :raises Denied: :raises NotFound: as :meth:`target` and :meth:`need` do.
        """
        device_id = self.device_id()
        device = None if device_id is None else self.core.registry.cached_device(device_id)
        if device is None or device_id is None:
            return Deferred.fromCoroutine(self._on_looked_up(act, device_id))
        return act(self, self.user.admit(device, device_id), device_id)

    async def _on_looked_up(self, act: OnTarget, device_id: str | None) -> Reply:
        return await act(self, await self.target(device_id), device_id)

    def need_id(self, device_id: str | None) -> str:
        """Check that a device was named. :raises Refused: 400."""
        if device_id is None:
            raise Refused(400, "Device id is wrong or empty")
        return device_id

    def need(self, device: Device | None, device_id: str) -> Device:
        """Check that the device is there. :raises NotFound:"""
        if device is None:
            raise NotFound("device", device_id)
        return device

    async def device(self) -> Device:
        """Return the device of a request that needs nothing else."""
        device_id = self.device_id()
        device = await self.target(device_id)
        return self.need(device, self.need_id(device_id))

    def group_id(self, key: str, text: str) -> int:
        """Return the network or device type of a request. :raises Refused: 400."""
        group = self.fields.integer(key)
        if group is None:
            raise Refused(400, f"{text} id is wrong or empty")
        return group

    def user_id(self) -> int:
        """Return the user of a request. :raises Refused: 400."""
        user = self.fields.integer("userId")
        if user is None:
            raise Refused(400, "User id is wrong or empty")
        return user

    def order(self, sortable: dict[str, str], default: Order) -> Order:
        """Return how a list is sorted and cut.

        :param sortable: the store's name of each field that the list can be sorted by.
        :raises Refused: 400: an unknown field or order, or a negative number.
        """
        field = self.fields.text("sortField")
        way = self.fields.text("sortOrder")
        taken, skip = self.fields.integer("take"), self.fields.integer("skip")
        if field is not None and field.lower() not in sortable:
            raise Refused(400, "Invalid request parameters")
        if way is not None and way.lower() not in ("asc", "desc"):
            raise Refused(400, f"Unparseable sort order : {way}")
        if (taken is not None and taken < 0) or (skip is not None and skip < 0):
            raise Refused(400, "Invalid request parameters")
        descending = default.descending
        if way is not None:
            descending = way.lower() == "desc"
        return Order(
            field=default.field if field is None else sortable[field.lower()],
            descending=descending,
            take=self.take if taken is None else taken,
            skip=skip or 0,
        )


#: How many members a list on a socket has by default.
_TAKE = 20


class SocketCall(Call):
    """A request of a WebSocket session."""

    __slots__ = ("session",)

    def __init__(
        self, session: Session, route: Route, fields: Fields, principal: Principal | None
    ) -> None:
        super().__init__(session.api.core, route, fields, principal, _TAKE)
        self.session = session

    def _success(self, members: bytes) -> bytes:
        request_id = self.fields.raw("requestId") or b"null"
        return self.route.prefix + request_id + b',"status":"success"' + members + b"}"

    def done(self) -> bytes:
        """Return the reply that has nothing to tell."""
        return self._success(b"")

    def reply(self, member: bytes, shown: bytes) -> bytes:
        """Return the reply that tells one thing."""
        return self._success(b',"%b":%b' % (member, shown))

    def members(self, **members: object) -> bytes:
        """Return the reply that tells several things side by side."""
        return self._success(b"," + encode(members)[1:-1])

    @property
    def default_device(self) -> str | None:
        """The device that is meant when none is named: on /device the socket's own."""
        return self.session.default_device

    def elsewhere(self) -> dict[str, str]:
        """Return where REST is."""
        return {"restServerUrl": self.session.rest_url}

    def epoch_for(self, device: Device) -> int | None:
        """Return the epoch in which this socket speaks for a device; None when it does not."""
        return self.session.epoch_for(device)

    def inserted(self, event: Event) -> None:
        """Let the session know."""
        self.session.inserted(event)

    async def saved(self, device: Device, fields: Fields) -> None:
        """Let the session know."""
        await self.session.saved(device, self.fields, fields)
