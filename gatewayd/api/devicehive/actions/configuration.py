"""configuration/get, put and delete."""

from __future__ import annotations

from gatewayd.api.devicehive import wire
from gatewayd.api.devicehive.call import Call, coroutine, route
from gatewayd.api.devicehive.errors import Refused
from gatewayd.core.access import Action


def _name(call: Call) -> str:
    name = call.fields.text("name")
    if name is None:
        raise Refused(400, "Configuration name is wrong or empty")
    return name


@route("configuration/get", Action.CONFIGURATION_MANAGE)
@coroutine
async def get(call: Call) -> bytes:
    """Return a named setting."""
    setting = await call.core.configuration.get(call.user, _name(call))
    return call.answer("configuration", wire.setting(setting))


@route("configuration/put", Action.CONFIGURATION_MANAGE)
@coroutine
async def put(call: Call) -> bytes:
    """Insert or replace a named setting."""
    name = _name(call)
    setting = await call.core.configuration.put(call.user, name, call.fields.string("value"))
    return call.answer("configuration", wire.setting(setting))


@route("configuration/delete", Action.CONFIGURATION_MANAGE)
@coroutine
async def delete(call: Call) -> bytes:
    """Delete a named setting."""
    await call.core.configuration.delete(call.user, _name(call))
    return call.done()
