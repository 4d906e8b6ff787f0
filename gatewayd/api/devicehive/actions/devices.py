"""device/get, list, count, save and delete."""

from __future__ import annotations

import re

from gatewayd.api.devicehive import wire
from gatewayd.api.devicehive.call import Call, coroutine, route
from gatewayd.api.devicehive.errors import Refused
from gatewayd.api.devicehive.fields import Fields
from gatewayd.core.access import Action
from gatewayd.core.devices import DeviceChange
from gatewayd.core.queries import NATURAL, DeviceQuery, Order
from gatewayd.errors import Invalid

_SORT = {"name": "name", "status": "status", "network": "network", "devicetype": "devicetype"}
#: Stricter than the gateway's own rule: DeviceHive clients put ids into paths unquoted.
_ID = re.compile(r"[a-zA-Z0-9-]+")
_LONGEST_ID = 48


def device_query(fields: Fields, order: Order = NATURAL) -> DeviceQuery:
    """Read which devices are asked for. :raises Malformed:"""
    return DeviceQuery(
        name=fields.text("name"), pattern=fields.pattern("namePattern"),
        network=fields.integer("networkId"), network_name=fields.text("networkName"), order=order,
    )  # fmt: skip


def device_change(fields: Fields) -> DeviceChange:
    """Read what is to become of a device. :raises Malformed: :raises Invalid:

    Members of older protocol versions (key, status, network, deviceClass, equipment) are ignored.
    """
    return DeviceChange(
        name=fields.string("name"), data=fields.json_object("data"),
        network=fields.integer("networkId"), type=fields.integer("deviceTypeId"),
        blocked=fields.boolean("isBlocked"),
    )  # fmt: skip


@route("device/get", Action.DEVICE_READ)
@coroutine
async def get(call: Call) -> bytes:
    """Return a device."""
    return call.answer("device", wire.device(await call.device()))


@route("device/list", Action.DEVICE_READ)
@coroutine
async def list_(call: Call) -> bytes:
    """List devices."""
    query = device_query(call.fields, call.order(_SORT, NATURAL))
    devices = await call.core.devices.list(call.user, query)
    return call.answer("devices", [wire.device(device) for device in devices])


@route("device/count", Action.DEVICE_READ)
@coroutine
async def count(call: Call) -> bytes:
    """Count devices."""
    return call.members(count=await call.core.devices.count(call.user, device_query(call.fields)))


@route("device/save", Action.DEVICE_REGISTER)
@coroutine
async def save(call: Call) -> bytes:
    """Register or change a device."""
    device_id = call.need_id(call.device_id())
    check_id(device_id)
    fields = call.fields.nested("device")
    if fields is None:
        raise Refused(400, "Device is empty")
    device = await call.core.devices.save(call.user, device_id, device_change(fields))
    await call.saved(device, fields)
    return call.done()


def check_id(device_id: str) -> None:
    """Check that DeviceHive can name the device. :raises Invalid: :raises Refused:"""
    if not _ID.fullmatch(device_id):
        raise Invalid("device", "id", device_id, "characters")
    if len(device_id) > _LONGEST_ID:
        raise Refused(400, "The length of device id should not be more than 48 symbols.")


@route("device/delete", Action.DEVICE_REGISTER)
@coroutine
async def delete(call: Call) -> bytes:
    """Delete a device with all its messages."""
    device_id = call.device_id()
    device = await call.target(device_id)
    device_id = call.need_id(device_id)
    await call.core.devices.delete(call.user, call.need(device, device_id).id)
    return call.done()
