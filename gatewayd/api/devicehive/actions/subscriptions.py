"""command/subscribe, notification/subscribe, unsubscribe, subscription/list."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.internet.defer import Deferred

from gatewayd.api.devicehive.call import Reply, SocketCall, coroutine, route
from gatewayd.api.devicehive.errors import Refused
from gatewayd.api.devicehive.session import Push, Subscribed
from gatewayd.api.devicehive.timestamps import format_timestamp
from gatewayd.core.access import Action
from gatewayd.core.model import Device, GroupKind, Kind
from gatewayd.core.queries import Filter, GroupQuery
from gatewayd.core.timeline import Subscription
from gatewayd.errors import Denied, NotFound

_PERMISSION = {"command": Action.COMMAND_READ, "notification": Action.EVENT_READ}


class _Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscribe request asks for, as it was given."""

    device_ids: list[str]
    networks: list[int] | None
    types: list[int] | None
    names: list[str] | None
    since: int | None
    limit: int | None
    updates: bool

    def shown(self, number: int, type_: str) -> dict[str, object]:
        """Return what subscription/list tells of it."""
        return {
            "subscriptionId": number,
            "type": type_,
            "deviceId": self.device_ids[0] if self.device_ids else None,
            "networkIds": self.networks,
            "deviceTypeIds": self.types,
            "names": self.names,
            "timestamp": None if self.since is None else format_timestamp(self.since),
        }


def _read(call: SocketCall) -> _Wanted:
    fields = call.fields
    names = fields.strings("names")
    limit = fields.integer("limit")
    if limit is not None and limit < 0:
        raise Refused(400, "Limit can't be less than 0.")
    return _Wanted(
        device_ids=call.session.named_devices(call),
        networks=fields.integers("networkIds") or None,
        types=fields.integers("deviceTypeIds") or None,
        names=call.session.checked_names(names),
        since=fields.timestamp("timestamp"),
        # 0 means all, as the REST clients use it.
        limit=limit or None,
        updates=bool(fields.boolean("returnUpdatedCommands")),
    )


async def _members(
    call: SocketCall, kind: GroupKind, wanted: list[int] | None
) -> frozenset[int] | None:
    """Return the networks or device types of a subscription: wanted, or all in reach.

    :raises Denied: one is out of reach, or nothing is in reach at all.
    :raises NotFound: an administrator names one that does not exist.
    """
    reach = call.user.scope.members(kind)
    if wanted is None:
        if reach is not None and not reach:
            raise Denied("scope")
        return reach
    ids = frozenset(wanted)
    if reach is not None and not ids <= reach:
        raise Denied
    if len(await call.core.store.groups(kind, GroupQuery(ids=ids))) < len(ids):
        if call.user.is_admin:
            raise NotFound(f"{kind.value}s", wanted)
        raise Denied
    return ids


@route("notification/subscribe", Action.EVENT_READ)
@coroutine
async def notification_subscribe(call: SocketCall) -> Reply:
    """Subscribe to notifications."""
    return await _subscribe(call, "notification")


@route("command/subscribe", Action.COMMAND_READ)
@coroutine
async def command_subscribe(call: SocketCall) -> Reply:
    """Subscribe to commands, or with returnUpdatedCommands to their updates."""
    return await _subscribe(call, "command")


async def _subscribe(call: SocketCall, type_: str) -> Reply:
    session = call.session
    devices = [await call.target(device_id) for device_id in session.named_devices(call)]
    wanted = _read(call)
    networks = await _members(call, GroupKind.NETWORK, wanted.networks)
    types = await _members(call, GroupKind.DEVICE_TYPE, wanted.types)
    found = [
        call.need(device, device_id)
        for device, device_id in zip(devices, wanted.device_ids, strict=True)
    ]
    session.check_room()
    number = session.api.next_subscription()
    subscribed = Subscribed(type_, wanted.shown(number, type_))
    push = Push(session, session.api.push_suffix(number))
    if type_ == "notification":
        kind = Kind.NOTIFICATION
    else:
        kind = Kind.COMMAND_UPDATE if wanted.updates else Kind.COMMAND
    names = None if wanted.names is None else frozenset(wanted.names)
    begin: list[Callable[[], None]] = []
    if found:
        for device in found:
            begin.append(_to_device(call, subscribed, push, kind, device, names, wanted))
    else:
        everything = Filter(kinds=frozenset({kind}), networks=networks, types=types, names=names)
        begin.append(_follow(call, subscribed, push, everything, wanted))
    session.subscriptions[number] = subscribed

    def start() -> None:
        for part in begin:
            part()

    return call.members(subscriptionId=number), start


def _to_device(
    call: SocketCall,
    subscribed: Subscribed,
    push: Push,
    kind: Kind,
    device: Device,
    names: frozenset[str] | None,
    wanted: _Wanted,
) -> Callable[[], None]:
    """Subscribe to one device; who subscribes to its commands is taken for the device."""
    if kind is not Kind.COMMAND:
        one = Filter(kinds=frozenset({kind}), stream=device.uid, names=names)
        return _follow(call, subscribed, push, one, wanted)
    core = call.core
    part, courier = core.commands.attach(call.user, device, names, push)
    subscribed.parts.append(part)
    subscribed.couriers.append(courier)
    if call.session.epoch_for(device) is None:
        subscribed.attachments.append(core.presence.share(device, "devicehive"))

    def begin() -> None:
        Deferred.fromCoroutine(core.commands.deliver(part, wanted.since, wanted.limit))

    return begin


def _follow(
    call: SocketCall, subscribed: Subscribed, push: Push, wanted_events: Filter, wanted: _Wanted
) -> Callable[[], None]:
    """Subscribe to what passes a filter, after what the log has since the time given."""
    timeline = call.core.timeline
    part: Subscription = timeline.subscribe(wanted_events, call.user, push)
    subscribed.parts.append(part)

    def begin() -> None:
        if wanted.since is None:
            part.go_live()
            return
        Deferred.fromCoroutine(timeline.warn_of_horizon(wanted.since))
        Deferred.fromCoroutine(part.catch_up(wanted.since, limit=wanted.limit))

    return begin


@route("notification/unsubscribe", Action.EVENT_READ)
def notification_unsubscribe(call: SocketCall) -> bytes:
    """End one subscription to notifications, or all."""
    return _unsubscribe(call, "notification")


@route("command/unsubscribe", Action.COMMAND_READ)
def command_unsubscribe(call: SocketCall) -> bytes:
    """End one subscription to commands, or all."""
    return _unsubscribe(call, "command")


def _unsubscribe(call: SocketCall, type_: str) -> bytes:
    session = call.session
    number = call.fields.integer("subscriptionId")
    own = [n for n, subscribed in session.current().items() if subscribed.type == type_]
    if number is not None:
        if number not in own:
            raise NotFound("subscription", number)
        own = [number]
    for each in own:
        session.unsubscribe(each)
    return call.done()


@route("subscription/list")
def list_(call: SocketCall) -> bytes:
    """List the subscriptions of this connection that the principal may read."""
    principal = call.user
    allowed = [type_ for type_, action in _PERMISSION.items() if action in principal.actions]
    if not allowed:
        raise Denied
    wanted = call.fields.text("type")
    if wanted is not None:
        if wanted.lower() not in _PERMISSION:
            raise Refused(400, "Invalid request parameters")
        allowed = [type_ for type_ in allowed if type_ == wanted.lower()]
    subscribed = call.session.current().values()
    return call.answer("subscriptions", [each.shown for each in subscribed if each.type in allowed])
