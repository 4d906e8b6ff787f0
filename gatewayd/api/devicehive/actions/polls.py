"""Long polling: REST's way to follow commands, notifications and one command's answer."""

from __future__ import annotations

from collections.abc import Callable

from gatewayd.api.devicehive import wire
from gatewayd.api.devicehive.call import Call, Reply, coroutine, route
from gatewayd.api.devicehive.errors import Refused
from gatewayd.api.devicehive.wanted import reach, read_wanted, targets
from gatewayd.core.access import Action
from gatewayd.core.model import Event, Kind

#: Seconds that a poll waits by default, and at most.
_WAIT = 30
_LONGEST_WAIT = 60
#: How many stored messages an answer has by default.
_LIMIT = 100


@route("command/poll", Action.COMMAND_READ, rest_only=True)
@coroutine
async def commands(call: Call) -> Reply:
    """Wait for commands, or with returnUpdatedCommands for their updates."""
    updates = bool(call.fields.boolean("returnUpdatedCommands"))
    return await _poll(call, Kind.COMMAND_UPDATE if updates else Kind.COMMAND, _command)


def _command(event: Event) -> bytes:
    assert event.command is not None
    return wire.command(event.command)


@route("notification/poll", Action.EVENT_READ, rest_only=True)
@coroutine
async def notifications(call: Call) -> Reply:
    """Wait for notifications."""
    return await _poll(call, Kind.NOTIFICATION, wire.notification)


async def _poll(call: Call, kind: Kind, shown: Callable[[Event], bytes]) -> Reply:
    fields = call.fields
    device_id = call.chosen_id()
    device_ids = fields.strings("deviceIds") or [] if device_id is None else [device_id]
    devices = await targets(call, device_ids)
    wait = _wait(call)
    wanted = read_wanted(fields, device_ids, fields.strings("names") or None)
    limit = _LIMIT if fields.integer("limit") is None else wanted.limit
    found = await reach(call, wanted, devices)
    filters = found.filters(frozenset({kind}), wanted.names)
    events = await call.core.polls.events(
        call.user, filters, wanted.since, limit, wait, found.devices
    )
    return call.reply(b"messages", wire.array(map(shown, events)))


def _wait(call: Call) -> int:
    """Return for how many seconds a poll may wait. :raises Refused: too long, or negative."""
    wait = call.fields.integer("waitTimeout")
    if wait is None:
        return _WAIT
    if wait < 0:
        raise Refused(400, "Timeout can't be less than 0 seconds. ")
    if wait > _LONGEST_WAIT:
        raise Refused(400, f"Timeout can't be more than {_LONGEST_WAIT} seconds. ")
    return wait


@route("command/wait", Action.COMMAND_READ, rest_only=True)
@coroutine
async def answered(call: Call) -> Reply:
    """Wait until a command is updated; nothing is told of one that is not or is unknown."""
    device = await call.device()
    wait = _wait(call)
    number = call.fields.integer("commandId") or 0
    command = await call.core.polls.answered(call.user, device, number, wait)
    return call.done() if command is None else call.reply(b"command", wire.command(command))
