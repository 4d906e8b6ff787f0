"""user/*: accounts, the current user, and a user's networks and device types."""

from __future__ import annotations

from gatewayd.api.devicehive import wire
from gatewayd.api.devicehive.actions.groups import DEVICE_TYPE, NETWORK, Spelling
from gatewayd.api.devicehive.call import Call, coroutine, route
from gatewayd.api.devicehive.errors import Refused
from gatewayd.api.devicehive.fields import Fields
from gatewayd.core.access import Action
from gatewayd.core.queries import NATURAL, Order, UserQuery
from gatewayd.core.users import UserChange

_SORT = {"id": "id", "login": "login"}


def user_query(fields: Fields, order: Order = NATURAL) -> UserQuery:
    """Read which users are asked for. :raises Malformed:"""
    return UserQuery(
        login=fields.text("login"), pattern=fields.pattern("loginPattern"),
        role=fields.integer("role"), status=fields.integer("status"), order=order,
    )  # fmt: skip


def user_change(fields: Fields) -> UserChange:
    """Read what is to become of a user. :raises Malformed: :raises Invalid:"""
    login = fields.string("login")
    return UserChange(
        login=None if login is None else login.strip(), password=fields.string("password"),
        role=fields.integer("role"), status=fields.integer("status"),
        data=fields.json_object("data"), intro_reviewed=fields.boolean("introReviewed"),
        all_types=fields.boolean("allDeviceTypesAvailable"),
    )  # fmt: skip


def _submitted(call: Call) -> UserChange:
    fields = call.fields.nested("user")
    if fields is None:
        raise Refused(400, "User is required")
    return user_change(fields)


@route("user/list", Action.USER_MANAGE)
@coroutine
async def list_(call: Call) -> bytes:
    """List users."""
    query = user_query(call.fields, call.order(_SORT, NATURAL))
    users = await call.core.users.list(call.user, query)
    return call.answer("users", [wire.user(user) for user in users])


@route("user/count", Action.USER_MANAGE)
@coroutine
async def count(call: Call) -> bytes:
    """Count users."""
    return call.members(count=await call.core.users.count(call.user, user_query(call.fields)))


@route("user/get", Action.USER_MANAGE)
@coroutine
async def get(call: Call) -> bytes:
    """Return a user with its networks."""
    return call.answer("user", wire.user(*await call.core.users.get(call.user, call.user_id())))


@route("user/getCurrent", Action.SELF_READ)
@coroutine
async def get_current(call: Call) -> bytes:
    """Return the asker's own user with its networks."""
    return call.answer("current", wire.user(*await call.core.users.current(call.user)))


@route("user/insert", Action.USER_MANAGE)
@coroutine
async def insert(call: Call) -> bytes:
    """Create a user."""
    user = await call.core.users.insert(call.user, _submitted(call))
    return call.answer("user", wire.submitted_user(user))


@route("user/update", Action.USER_MANAGE)
@coroutine
async def update(call: Call) -> bytes:
    """Change a user."""
    change = _submitted(call)
    await call.core.users.update(call.user, call.user_id(), change)
    return call.done()


@route("user/updateCurrent", Action.SELF_UPDATE)
@coroutine
async def update_current(call: Call) -> bytes:
    """Change the asker's own user."""
    await call.core.users.update_current(call.user, _submitted(call))
    return call.done()


@route("user/delete", Action.USER_MANAGE)
@coroutine
async def delete(call: Call) -> bytes:
    """Delete a user."""
    await call.core.users.delete(call.user, call.user_id())
    return call.done()


def _declare(spelling: Spelling, noun: str) -> None:
    """Declare what a user's networks and device types have in common; ``noun``: in the names."""
    kind = spelling.kind

    @route(f"user/get{noun}", spelling.read)
    @coroutine
    async def get_group(call: Call) -> bytes:
        user = call.user_id()
        number = call.group_id(spelling.key, spelling.text)
        group = await call.core.users.group(call.user, kind, user, number)
        return call.answer(spelling.one, {spelling.one: wire.group(group)})

    def assignment(action: str, member: bool) -> None:
        @route(action, spelling.manage)
        @coroutine
        async def assign(call: Call) -> bytes:
            user = call.user_id()
            number = call.group_id(spelling.key, spelling.text)
            await call.core.users.assign(call.user, kind, user, number, member)
            return call.done()

    assignment(f"user/assign{noun}", True)
    assignment(f"user/unassign{noun}", False)


_declare(NETWORK, "Network")
_declare(DEVICE_TYPE, "DeviceType")


@route("user/getDeviceTypes", Action.TYPE_MANAGE)
@coroutine
async def get_types(call: Call) -> bytes:
    """List the device types of a user."""
    types = await call.core.users.types(call.user, call.user_id())
    return call.answer("deviceTypes", [wire.group(group) for group in types])


@route("user/allowAllDeviceTypes", Action.TYPE_MANAGE)
@coroutine
async def allow_all(call: Call) -> bytes:
    """Open all device types to a user."""
    await call.core.users.open_all_types(call.user, call.user_id(), True)
    return call.done()


@route("user/disallowAllDeviceTypes", Action.TYPE_MANAGE)
@coroutine
async def disallow_all(call: Call) -> bytes:
    """Leave a user only the device types assigned to it."""
    await call.core.users.open_all_types(call.user, call.user_id(), False)
    return call.done()
