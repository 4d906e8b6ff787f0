"""What each write of the registry tells the other nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from gatewayd.core.cluster import ChangeKind
from gatewayd.core.model import Device, Plugin, User
from gatewayd.storage.pg import devices, groups, live_sessions, plugins, settings, users, vault
from gatewayd.storage.pg.adopt import adopt

_Told = list[tuple[ChangeKind, Any]]


def _devices_gone(gone: Iterable[Device]) -> _Told:
    return [(ChangeKind.DEVICE_GONE, device) for device in gone]


def _plugins_gone(gone: Iterable[Plugin]) -> _Told:
    return [(ChangeKind.PLUGIN_GONE, plugin) for plugin in gone]


def _sessions_gone(ids: Iterable[str]) -> _Told:
    gone = list(ids)
    return [(ChangeKind.SESSIONS_GONE, gone)] if gone else []


def _user(saved: User | None, *_: object) -> _Told:
    return [] if saved is None else [(ChangeKind.USER, saved.id)]


def _user_gone(user_id: int, with_it: list[Plugin] | None) -> _Told:
    if with_it is None:
        return []
    return [*_plugins_gone(with_it), (ChangeKind.USER_GONE, user_id)]


# By function: what makes it of the function's result and arguments.
_TOLD: dict[Callable[..., Any], Callable[..., _Told]] = {
    devices.save: lambda saved, *_: [(ChangeKind.DEVICE, saved.id)],
    devices.delete: lambda gone, _: _devices_gone(gone),
    devices.set_key: lambda _, uid, *rest: [(ChangeKind.DEVICE_KEY, uid)],
    groups.delete: lambda gone, kind, group_id, force: [
        *_devices_gone(gone),
        (ChangeKind.GROUP_GONE, group_id),
    ],
    users.save: _user,
    users.note_login: _user,
    users.count_attempt: _user,
    users.forget_attempts: _user,
    users.delete: lambda with_it, user_id: _user_gone(user_id, with_it),
    plugins.save: lambda saved, *_: [(ChangeKind.PLUGIN, saved)],
    plugins.delete: lambda gone, _: _plugins_gone(gone),
    settings.put: lambda _, name, value: [(ChangeKind.SETTING, name)],
    settings.delete: lambda was, name: [(ChangeKind.SETTING, name)] if was else [],
    vault.add_signing_key: lambda _, key: [(ChangeKind.SIGNING_KEY, key.kid)],
    vault.drop_signing_key: lambda was, kid: [(ChangeKind.SIGNING_KEY, kid)] if was else [],
    vault.set_device_login: lambda _, uid, *rest: [(ChangeKind.DEVICE_LOGIN, uid)],
    vault.set_device_secret: lambda _, uid, *rest: [(ChangeKind.DEVICE_SECRET, uid)],
    live_sessions.change: lambda _, change: [(ChangeKind.SESSION, change.id)],
    live_sessions.drop: lambda _, ids: _sessions_gone(ids),
    live_sessions.drop_unused: lambda gone, *rest: _sessions_gone(gone),
    adopt: lambda adopted, _: [(ChangeKind.ALL, None)] if adopted else [],
}


def told(
    function: Callable[..., Any], arguments: tuple[Any, ...], result: Any
) -> list[tuple[ChangeKind, bytes]]:
    """Return what the others are told of a write that is done, with subjects as JSON."""
    return [
        (kind, msgspec.json.encode(subject))
        for kind, subject in _TOLD[function](result, *arguments)
    ]
