"""The operations of both doors; importing this package declares them all."""

from gatewayd.api.devicehive.actions import (
    commands,
    configuration,
    devices,
    groups,
    notifications,
    plugins,
    polls,
    server,
    subscriptions,
    tokens,
    users,
)

__all__ = [
    "commands",
    "configuration",
    "devices",
    "groups",
    "notifications",
    "plugins",
    "polls",
    "server",
    "subscriptions",
    "tokens",
    "users",
]
