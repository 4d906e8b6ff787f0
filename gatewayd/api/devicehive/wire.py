"""DeviceHive's objects as JSON text (devicehive contract, objects): each key always there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from gatewayd.api.devicehive.timestamps import format_timestamp
from gatewayd.core.devices import SPECIAL
from gatewayd.core.model import Command, Device, Event, Group, Kind, Setting, User
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
