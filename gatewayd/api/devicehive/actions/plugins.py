"""plugin/* and token/plugin/*: what only REST has."""

from __future__ import annotations

from gatewayd.api.devicehive import wire
from gatewayd.api.devicehive.actions.tokens import action_ids
from gatewayd.api.devicehive.call import Call, coroutine, route
from gatewayd.api.devicehive.errors import INTERNAL, Refused, describe_plugin
from gatewayd.api.devicehive.fields import Fields
from gatewayd.api.devicehive.timestamps import format_timestamp
from gatewayd.core.access import Action
from gatewayd.core.model import Kind, PluginFilter, PluginStatus
from gatewayd.core.plugins import PluginChange, PluginDraft
from gatewayd.core.queries import NATURAL, Order, PluginQuery
from gatewayd.errors import Unauthenticated

#: The number of ManagePlugin, the one action of the tokens that a new plugin gets.
_MANAGE_PLUGIN = 16
_SORT = {"id": "id", "name": "name"}
#: Which parameter asks for which kind of message.
_KINDS = {
    "returnCommands": Kind.COMMAND,
    "returnUpdatedCommands": Kind.COMMAND_UPDATE,
    "returnNotifications": Kind.NOTIFICATION,
}
#: The other parameters of a filter.
_MEMBERS = ("networkIds", "deviceTypeIds", "deviceId", "names")


def plugin_query(fields: Fields, order: Order = NATURAL) -> PluginQuery:
    """Read which plugins are asked for. :raises Malformed:"""
    return PluginQuery(
        name=fields.text("name"), pattern=fields.pattern("namePattern"),
        topic=fields.text("topicName"), status=fields.integer("status"),
        user=fields.integer("userId"), order=order,
    )  # fmt: skip


def plugin_filter(fields: Fields) -> PluginFilter | None:
    """Read which messages a plugin wants; None when the request says nothing of it.

    An empty parameter says that everything is wanted. :raises Malformed:
    """
    if all(fields.raw(name) is None for name in (*_KINDS, *_MEMBERS)):
        return None
    asked = {kind: fields.boolean(name) for name, kind in _KINDS.items()}
    said = any(value is not None for value in asked.values())
    networks, types = fields.integers("networkIds"), fields.integers("deviceTypeIds")
    names = fields.strings("names")
    return PluginFilter(
        kinds=frozenset(kind for kind, wanted in asked.items() if wanted) if said else None,
        networks=frozenset(networks) if networks else None,
        types=frozenset(types) if types else None,
        device=fields.text("deviceId"),
        names=frozenset(names) if names else None,
    )


@route("plugin/list", Action.PLUGIN_MANAGE, rest_only=True)
@coroutine
async def list_(call: Call) -> bytes:
    """List plugins."""
    query = plugin_query(call.fields, call.order(_SORT, NATURAL))
    plugins = await call.core.plugins.list(call.user, query)
    return call.answer("plugins", [wire.plugin(plugin) for plugin in plugins])


@route("plugin/count", Action.PLUGIN_MANAGE, rest_only=True)
@coroutine
async def count(call: Call) -> bytes:
    """Count plugins."""
    query = plugin_query(call.fields)
    return call.members(count=await call.core.plugins.count(call.user, query))


@route("plugin/insert", Action.PLUGIN_MANAGE, rest_only=True)
@coroutine
async def insert(call: Call) -> bytes:
    """Register a plugin; tell its topic, its tokens and where to connect."""
    fields = call.fields.nested("plugin") or Fields({})
    plugins = call.core.plugins
    plugin = await plugins.register(
        call.user,
        PluginDraft(
            name=fields.string("name"), description=fields.string("description"),
            filter=plugin_filter(call.fields), parameters=fields.json_object("parameters"),
        ),
    )  # fmt: skip
    access, refresh = await plugins.create_tokens(call.user, plugin.topic, [_MANAGE_PLUGIN])
    return call.members(
        accessToken=access, refreshToken=refresh, topicName=plugin.topic,
        proxyEndpoint=call.proxy_url(),
    )  # fmt: skip


@route("plugin/update", Action.PLUGIN_MANAGE, rest_only=True)
@coroutine
async def update(call: Call) -> bytes:
    """Change a plugin."""
    fields = call.fields
    change = PluginChange(
        name=fields.text("name"), description=fields.text("description"),
        filter=plugin_filter(fields), parameters=fields.json_object("parameters"),
        status=_status(fields),
    )  # fmt: skip
    await call.core.plugins.update(call.user, _topic(fields), change)
    return call.done()


@route("plugin/delete", Action.PLUGIN_MANAGE, rest_only=True)
@coroutine
async def delete(call: Call) -> bytes:
    """Delete a plugin; its connections are closed."""
    await call.core.plugins.delete(call.user, _topic(call.fields))
    return call.done()


def _topic(fields: Fields) -> str:
    topic = fields.text("topicName")
    if topic is None:
        raise Refused(400, "Topic name is wrong or empty")
    return topic


def _status(fields: Fields) -> PluginStatus | None:
    status = fields.text("status")
    if status is None:
        return None
    try:
        return PluginStatus[status.upper()]
    except KeyError:
        raise Refused(400, "Invalid request parameters") from None


@route("token/plugin/create", Action.PLUGIN_MANAGE, rest_only=True)
@coroutine
async def create_tokens(call: Call) -> bytes:
    """Make tokens for a plugin of one's own."""
    fields = call.fields
    actions = action_ids(fields, "a")
    topic, expires = fields.text("tpc"), fields.timestamp("e")
    access, refresh = await call.core.plugins.create_tokens(call.user, topic, actions, expires)
    return call.members(accessToken=access, refreshToken=refresh)


@route("token/plugin/authenticate", rest_only=True)
@coroutine
async def authenticate(call: Call) -> bytes:
    """Check a plugin's access token."""
    try:
        _, claims = await call.core.plugins.verify(call.fields.text("token") or "")
    except Unauthenticated as error:
        raise Refused(*(describe_plugin(error) or INTERNAL)) from None
    return call.members(a=claims.a, e=format_timestamp(claims.e), t=claims.t, tpc=claims.tpc)
