"""command/subscribe, notification/subscribe, unsubscribe, subscription/list."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred

from gatewayd.api.devicehive.call import Reply, SocketCall, coroutine, route
from gatewayd.api.devicehive.errors import Refused
from gatewayd.api.devicehive.session import Push, Subscribed
from gatewayd.api.devicehive.timestamps import format_timestamp
from gatewayd.api.devicehive.wanted import Wanted, reach, read_wanted, targets
from gatewayd.core.access import Action
from gatewayd.core.model import Device, Kind
from gatewayd.core.queries import Filter
from gatewayd.core.timeline import Subscription
from gatewayd.errors import Denied, NotFound

_PERMISSION = {"command": Action.COMMAND_READ, "notification": Action.EVENT_READ}


def _shown(wanted: Wanted, number: int, type_: str) -> dict[str, object]:
    """Return what subscription/list tells of a subscription."""
    return {
        "subscriptionId": number,
        "type": type_,
        "deviceId": wanted.device_ids[0] if wanted.device_ids else None,
        "networkIds": wanted.networks,
        "deviceTypeIds": wanted.types,
        "names": wanted.names,
        "timestamp": None if wanted.since is None else format_timestamp(wanted.since),
    }


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
    device_ids = session.named_devices(call)
    devices = await targets(call, device_ids)
    names = session.checked_names(call.fields.strings("names"))
    wanted = read_wanted(call.fields, device_ids, names)
    found = await reach(call, wanted, devices)
    session.check_room()
    number = session.api.next_subscription()
    subscribed = Subscribed(type_, _shown(wanted, number, type_))
    push = Push(session, session.api.push_suffix(number))
    if type_ == "notification":
        kind = Kind.NOTIFICATION
    else:
        kind = Kind.COMMAND_UPDATE if wanted.updates else Kind.COMMAND
    session.subscriptions[number] = subscribed
    try:
        if kind is Kind.COMMAND and found.devices:
            begin = [_to_device(call, subscribed, push, each, wanted) for each in found.devices]
        else:
            filters = found.filters(frozenset({kind}), wanted.names)
            begin = [_follow(call, subscribed, push, each, wanted) for each in filters]
    except Exception:
        session.unsubscribe(number)  # one of several devices may be blocked
        raise

    def start() -> None:
        for part in begin:
            part()

    return call.members(subscriptionId=number), start


def _to_device(
    call: SocketCall, subscribed: Subscribed, push: Push, device: Device, wanted: Wanted
) -> Callable[[], None]:
    """Subscribe to the commands of one device: who does that is taken for the device."""
    core = call.core
    names = None if wanted.names is None else frozenset(wanted.names)
    part, courier = core.commands.attach(call.user, device, names, push)
    subscribed.parts.append(part)
    subscribed.couriers.append(courier)
    if call.session.epoch_for(device) is None:
        lost = partial(call.session.leave, 1013, "try again later")
        subscribed.attachments.append(core.presence.share(device, "devicehive", lost))

    def begin() -> None:
        Deferred.fromCoroutine(core.commands.deliver(part, wanted.since, wanted.limit))

    return begin


def _follow(
    call: SocketCall, subscribed: Subscribed, push: Push, wanted_events: Filter, wanted: Wanted
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
