"""network/* and devicetype/*: the same six actions over networks and device types."""

from __future__ import annotations

import attrs

from gatewayd.api.devicehive import wire
from gatewayd.api.devicehive.call import Call, coroutine, route
from gatewayd.api.devicehive.errors import Refused
from gatewayd.api.devicehive.fields import Fields
from gatewayd.core.access import Action
from gatewayd.core.model import GroupKind
from gatewayd.core.queries import NATURAL, GroupQuery, Order

_SORT = {"id": "id", "name": "name"}


@attrs.frozen
class Spelling:
    """How a kind of group is called on the wire.

    :ivar action: in action names. :ivar one: :ivar many: :ivar key: members of messages.
    :ivar text: in error texts.
    """

    kind: GroupKind
    action: str
    one: str
    many: str
    key: str
    text: str
    read: Action
    manage: Action


NETWORK = Spelling(
    GroupKind.NETWORK, "network", "network", "networks", "networkId", "Network",
    Action.NETWORK_READ, Action.NETWORK_MANAGE,
)  # fmt: skip
DEVICE_TYPE = Spelling(
    GroupKind.DEVICE_TYPE, "devicetype", "deviceType", "deviceTypes", "deviceTypeId",
    "Device type", Action.TYPE_READ, Action.TYPE_MANAGE,
)  # fmt: skip


def group_query(fields: Fields, order: Order = NATURAL) -> GroupQuery:
    """Read which networks or device types are asked for. :raises Malformed:"""
    return GroupQuery(name=fields.text("name"), pattern=fields.pattern("namePattern"), order=order)


def _declare(spelling: Spelling) -> None:
    """Declare the six actions of one kind."""
    kind, action = spelling.kind, spelling.action

    @route(f"{action}/list", spelling.read)
    @coroutine
    async def list_(call: Call) -> bytes:
        query = group_query(call.fields, call.order(_SORT, NATURAL))
        groups = await call.core.groups(kind).list(call.user, query)
        return call.answer(spelling.many, [wire.group(group) for group in groups])

    @route(f"{action}/count", spelling.read)
    @coroutine
    async def count(call: Call) -> bytes:
        groups = call.core.groups(kind)
        return call.members(count=await groups.count(call.user, group_query(call.fields)))

    @route(f"{action}/get", spelling.read)
    @coroutine
    async def get(call: Call) -> bytes:
        number = call.group_id(spelling.key, spelling.text)
        group, devices = await call.core.groups(kind).get(call.user, number)
        return call.answer(spelling.one, wire.group(group, devices))

    @route(f"{action}/insert", spelling.manage)
    @coroutine
    async def insert(call: Call) -> bytes:
        fields = call.fields.nested(spelling.one)
        if fields is None:
            raise Refused(400, f"{spelling.text} is required")
        if fields.raw("id") is not None:
            raise Refused(400, "Invalid request parameters. Id cannot be specified.")
        name, description = fields.string("name"), fields.string("description")
        group = await call.core.groups(kind).insert(call.user, name, description)
        return call.answer(spelling.one, {"id": group.id})

    @route(f"{action}/update", spelling.manage)
    @coroutine
    async def update(call: Call) -> bytes:
        number = call.group_id(spelling.key, spelling.text)
        fields = call.fields.nested(spelling.one)
        name = None if fields is None else fields.string("name")
        description = None if fields is None else fields.string("description")
        await call.core.groups(kind).update(call.user, number, name, description)
        if fields is None:
            # Told last, as the original does: only now it is known that there is such a group.
            raise Refused(400, f"{spelling.text} is required")
        return call.done()

    @route(f"{action}/delete", spelling.manage)
    @coroutine
    async def delete(call: Call) -> bytes:
        number = call.group_id(spelling.key, spelling.text)
        force = bool(call.fields.boolean("force"))
        await call.core.groups(kind).delete(call.user, number, force)
        return call.done()


_declare(NETWORK)
_declare(DEVICE_TYPE)
