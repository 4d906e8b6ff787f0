"""command/insert, update, get and list."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from gatewayd.api.devicehive import wire
from gatewayd.api.devicehive.actions.notifications import NEWEST, idempotency_key
from gatewayd.api.devicehive.call import Call, Reply, coroutine, route
from gatewayd.api.devicehive.errors import Refused
from gatewayd.api.devicehive.timestamps import format_timestamp
from gatewayd.core.access import Action
from gatewayd.core.model import CommandDraft, Device, Event, Kind
from gatewayd.core.queries import Listing
from gatewayd.errors import NotFound

_SORT = {"timestamp": "timestamp", "command": "name", "status": "status"}
#: About 34 years; more is no lifetime.
_LONGEST_LIFETIME = 2**30


@route("command/insert", Action.COMMAND_SEND, overlap=True)
def insert(call: Call) -> Deferred[Reply]:
    """Record a command and send it on its way."""
    return call.on_target(_insert)


def _insert(call: Call, device: Device | None, device_id: str | None) -> Deferred[Reply]:
    device = call.need(device, call.need_id(device_id))
    fields = call.fields.nested("command")
    name = None if fields is None else fields.string("command")
    if fields is None or name is None:
        raise call.missing("Command")
    lifetime = fields.integer("lifetime")
    if lifetime is not None and not 0 <= lifetime <= _LONGEST_LIFETIME:
        raise Refused(400, "Invalid request parameters")
    principal = call.user
    draft = CommandDraft(
        user=None if principal.user is None else principal.user.id,
        parameters=fields.json_object("parameters"), lifetime=lifetime,
        status=fields.string("status"), result=fields.json_object("result"),
    )  # fmt: skip
    recorded = call.core.commands.insert(
        principal, device, name, draft, stamp=fields.timestamp("timestamp"),
        key=idempotency_key(call),
    )  # fmt: skip
    return recorded.addCallback(_inserted, call)


def _inserted(event: Event, call: Call) -> bytes:
    command = event.command
    assert command is not None
    call.inserted(event)
    stamp = format_timestamp(command.stamp).encode()
    updated = format_timestamp(command.updated).encode()
    return call.reply(
        b"command",
        b'{"id":%d,"timestamp":"%b","lastUpdated":"%b","userId":%b}'
        % (event.id, stamp, updated, wire.encode(command.user)),
    )


@route("command/update", Action.COMMAND_UPDATE, overlap=True)
def update(call: Call) -> Deferred[Reply]:
    """Record a command's answer."""
    return call.on_target(_update)


def _update(call: Call, device: Device | None, device_id: str | None) -> Deferred[Reply]:
    number = call.fields.integer("commandId")
    if number is None:
        raise Refused(400, "Command id is wrong or empty")
    device = call.need(device, call.need_id(device_id))
    fields = call.fields.nested("command")
    status = None if fields is None else fields.string("status")
    result = None if fields is None else fields.json_object("result")
    updated = call.core.commands.update(
        call.user, device, number, status, result, epoch=call.epoch_for(device)
    )
    return updated.addCallback(lambda _: call.done())


@route("command/get", Action.COMMAND_READ)
@coroutine
async def get(call: Call) -> bytes:
    """Return a command."""
    device_id = call.device_id()
    device = await call.target(device_id)
    device_id = call.need_id(device_id)
    number = call.fields.integer("commandId")
    if number is None:
        raise Refused(400, "Command id is wrong or empty")
    device = call.need(device, device_id)
    command = await call.core.commands.get(call.user, device, number)
    if call.fields.boolean("returnUpdatedCommands") and not command.changed:
        raise NotFound("command", number)
    return call.reply(b"command", wire.command(command))


@route("command/list", Action.COMMAND_READ)
@coroutine
async def list_(call: Call) -> bytes:
    """List the commands of a device."""
    fields = call.fields
    device = await call.device()
    listing = Listing(
        stream=device.uid, kind=Kind.COMMAND, start=fields.timestamp("start"),
        end=fields.timestamp("end"), name=fields.text("command"), status=fields.text("status"),
        order=call.order(_SORT, NEWEST),
    )  # fmt: skip
    commands = await call.core.commands.list(call.user, listing)
    return call.reply(b"commands", wire.array(map(wire.command, commands)))
