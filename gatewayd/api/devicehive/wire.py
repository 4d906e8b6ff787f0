"""DeviceHive's objects as JSON text (devicehive contract, objects): each key always there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from gatewayd.api.devicehive.timestamps import format_timestamp
from gatewayd.core.devices import SPECIAL
from gatewayd.core.model import (
    Command,
    Device,
    Event,
    Group,
    Kind,
    Plugin,
    PluginFilter,
    Setting,
    User,
)
from gatewayd.transport.frames import text_header

encode = msgspec.json.Encoder().encode


def _raw(text: bytes | None) -> msgspec.Raw:
    return msgspec.Raw(text or b"null")


def _optional(number: int | None) -> bytes:
    return b"null" if number is None else b"%d" % number


def device(device: Device) -> dict[str, Any]:
    """Return a device."""
    return {
        "id": device.id,
        "name": device.name,
        "data": _raw(device.data),
        "networkId": device.network,
        "deviceTypeId": device.type,
        "isBlocked": device.blocked,
    }


def group(group: Group, devices: Sequence[Device] | None = None) -> dict[str, Any]:
    """Return a network or device type, with its devices if they are given."""
    shown: dict[str, Any] = {"id": group.id, "name": group.name, "description": group.description}
    if devices is not None:
        shown["devices"] = [
            {"id": d.id, "name": d.name, "data": _raw(d.data), "isBlocked": d.blocked}
            for d in devices
        ]
    return shown


def user(user: User, networks: Sequence[Group] | None = None) -> dict[str, Any]:
    """Return a user, with its networks if they are given."""
    shown: dict[str, Any] = {
        "id": user.id,
        "login": user.login,
        "role": int(user.role),
        "status": int(user.status),
        "lastLogin": None if user.last_login is None else format_timestamp(user.last_login),
        "data": _raw(user.data),
        "introReviewed": user.intro_reviewed,
        "allDeviceTypesAvailable": user.all_types,
    }
    if networks is not None:
        shown["networks"] = [group(network) for network in networks]
    return shown


def submitted_user(saved: User) -> dict[str, Any]:
    """Return what a new user's creator is told."""
    full = user(saved)
    keys = ("id", "lastLogin", "data", "introReviewed", "allDeviceTypesAvailable")
    return {key: full[key] for key in keys}


def setting(setting: Setting) -> dict[str, Any]:
    """Return a named setting."""
    return {
        "id": setting.id,
        "name": setting.name,
        "value": setting.value,
        "entityVersion": setting.version,
    }


#: How the filter of a plugin calls the kinds of messages, in the order in which it names them.
_KINDS = {
    Kind.COMMAND: "command",
    Kind.COMMAND_UPDATE: "command_update",
    Kind.NOTIFICATION: "notification",
}


def _some(members: Iterable[object] | None) -> str:
    return "*" if members is None else ",".join(map(str, members))


def _filter(wanted: PluginFilter) -> str:
    kinds = wanted.kinds
    parts = (
        None if kinds is None else [name for kind, name in _KINDS.items() if kind in kinds],
        None if wanted.networks is None else sorted(wanted.networks),
        None if wanted.types is None else sorted(wanted.types),
        None if wanted.device is None else [wanted.device],
        None if wanted.names is None else sorted(wanted.names),
    )
    return "/".join(map(_some, parts))


def plugin(plugin: Plugin) -> dict[str, Any]:
    """Return a plugin."""
    return {
        "id": plugin.id,
        "name": plugin.name,
        "description": plugin.description,
        "topicName": plugin.topic,
        "filter": _filter(plugin.filter),
        "status": plugin.status.name,
        "subscriptionId": plugin.subscription,
        "userId": plugin.user,
        "parameters": _raw(plugin.parameters),
    }


def notification(event: Event) -> bytes:
    """Return a notification; announcements about a device show no network and no type."""
    special = event.name in SPECIAL
    return b"".join((
        b'{"id":%d,"notification":' % event.id, encode(event.name),
        b',"deviceId":', encode(event.device),
        b',"networkId":', b"null" if special else b"%d" % event.network,
        b',"deviceTypeId":', b"null" if special else b"%d" % event.type,
        b',"timestamp":"', format_timestamp(event.stamp).encode(),
        b'","parameters":', event.body or b"null", b"}",
    ))  # fmt: skip


def command(command: Command) -> bytes:
    """Return a command."""
    return b"".join((
        b'{"id":%d,"command":' % command.id, encode(command.name),
        b',"timestamp":"', format_timestamp(command.stamp).encode(),
        b'","lastUpdated":"', format_timestamp(command.updated).encode(),
        b'","userId":', _optional(command.user),
        b',"deviceId":', encode(command.device),
        b',"networkId":%d,"deviceTypeId":%d' % (command.network, command.type),
        b',"parameters":', command.parameters or b"null",
        b',"lifetime":', _optional(command.lifetime),
        b',"status":', encode(command.status),
        b',"result":', command.result or b"null", b"}",
    ))  # fmt: skip


def array(members: Iterable[bytes]) -> bytes:
    """Return a JSON array."""
    return b"[" + b",".join(members) + b"]"


_PUSHES = {
    Kind.NOTIFICATION: b'{"action":"notification/insert","notification":',
    Kind.COMMAND: b'{"action":"command/insert","command":',
    Kind.COMMAND_UPDATE: b'{"action":"command/update","command":',
}


def memo_key(suffix: bytes) -> str:
    """Return under what an event keeps the part of its push that subscriptions share."""
    return f"devicehive {len(suffix)}"


def push_start(event: Event, suffix: bytes) -> bytes:
    """Return the frame that pushes an event, header included, up to where ``suffix`` follows.

    It is made once per event and length of suffix, and kept in the event's memo.

    :param suffix: the end of the message, which names the subscription.
    """
    if event.kind is Kind.NOTIFICATION:
        shown = notification(event)
    else:
        assert event.command is not None
        shown = command(event.command)
    body = _PUSHES[event.kind] + shown
    start = event.memo[memo_key(suffix)] = text_header(len(body) + len(suffix)) + body
    return start


#: The numbers of the messages that a plugin gets.
_PLUGIN_ACTIONS = {Kind.NOTIFICATION: 10, Kind.COMMAND: 21, Kind.COMMAND_UPDATE: 23}


def plugin_push(event: Event, subscription: int | None) -> bytes:
    """Return the message that brings an event to a plugin; the event's part is made once."""
    body: bytes | None = event.memo.get("devicehive plugin")
    if body is None:
        body = event.memo["devicehive plugin"] = _plugin_body(event)
    number = b"null" if subscription is None else b'\\"%d\\"' % subscription
    return b"".join((
        b'{"t":"notif","s":0,"p":{"m":"{\\"b\\":', body,
        b',\\"cId\\":', number, b',\\"l\\":false,\\"err\\":0,\\"fld\\":false}"}}',
    ))  # fmt: skip


def _plugin_body(event: Event) -> bytes:
    """Return the event as JSON that stands inside a JSON string."""
    action = _PLUGIN_ACTIONS[event.kind]
    if event.command is None:
        shown = b'{"a":%d,"notification":%b}' % (action, notification(event))
    else:
        updated = b"true" if event.command.changed else b"false"
        whole = command(event.command)[:-1] + b',"isUpdated":' + updated + b"}"
        shown = b'{"a":%d,"command":%b}' % (action, whole)
    return encode(shown.decode())[1:-1]
