"""notification/insert, get and list."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from gatewayd.api.devicehive import wire
from gatewayd.api.devicehive.call import Call, Reply, coroutine, route
from gatewayd.api.devicehive.errors import Refused
from gatewayd.api.devicehive.fields import Malformed
from gatewayd.api.devicehive.timestamps import format_timestamp
from gatewayd.core.access import Action
from gatewayd.core.devices import SPECIAL
from gatewayd.core.model import Device, Event, Kind
from gatewayd.core.queries import Listing, Order

#: Newest first.
NEWEST = Order(field="timestamp", descending=True)
_SORT = {"timestamp": "timestamp", "notification": "name"}


@route("notification/insert", Action.EVENT_SEND, overlap=True)
def insert(call: Call) -> Deferred[Reply]:
    """Record a notification."""
    return call.on_target(_insert)


def _insert(call: Call, device: Device | None, device_id: str | None) -> Deferred[Reply]:
    fields = call.fields.nested("notification")
    name = None if fields is None else fields.string("notification")
    if fields is None or name is None:
        raise call.missing("Notification")
    device = call.need(device, call.need_id(device_id))
    if name in SPECIAL:
        raise Refused(
            403,
            "It's forbidden to insert these special notifications: $device-update, $device-add.",
        )
    recorded = call.core.notifications.insert(
        call.user, device, name, fields.json_object("parameters"),
        stamp=fields.timestamp("timestamp"), key=idempotency_key(call),
        epoch=call.epoch_for(device),
    )  # fmt: skip
    return recorded.addCallback(_inserted, call)


def _inserted(event: Event, call: Call) -> bytes:
    stamp = format_timestamp(event.stamp).encode()
    return call.reply(b"notification", b'{"id":%d,"timestamp":"%b"}' % (event.id, stamp))


def idempotency_key(call: Call) -> str | None:
    """Return the key with which a client marks a request that it may send again (extension)."""
    key = call.fields.text("idempotencyKey")
    if key is None:
        return None
    if len(key) > 128:
        raise Refused(400, "idempotencyKey should not be more than 128 symbols.")
    principal = call.user
    owner = f"d{principal.device.uid}" if principal.device else ""
    owner = f"u{principal.user.id}" if principal.user else owner
    return f"{owner}/{key}"


@route("notification/get", Action.EVENT_READ)
@coroutine
async def get(call: Call) -> bytes:
    """Return a notification."""
    device_id = call.device_id()
    device = await call.target(device_id)
    device_id = call.need_id(device_id)
    try:
        number = call.fields.integer("notificationId")
    except Malformed:
        raise Refused(400, "Notification id should be an integer value.") from None
    if number is None:
        raise Refused(400, "Notification id is wrong or empty")
    device = call.need(device, device_id)
    event = await call.core.notifications.get(call.user, device, number)
    return call.reply(b"notification", wire.notification(event))


@route("notification/list", Action.EVENT_READ)
@coroutine
async def list_(call: Call) -> bytes:
    """List the notifications of a device."""
    fields = call.fields
    device = await call.device()
    listing = Listing(
        stream=device.uid, kind=Kind.NOTIFICATION, start=fields.timestamp("start"),
        end=fields.timestamp("end"), name=fields.text("notification"),
        order=call.order(_SORT, NEWEST),
    )  # fmt: skip
    events = await call.core.notifications.list(call.user, listing)
    return call.reply(b"notifications", wire.array(map(wire.notification, events)))
