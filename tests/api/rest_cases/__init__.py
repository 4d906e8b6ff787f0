"""The requests to each endpoint and what they are answered; a module for each noun."""

from tests.api.rest_cases import (
    commands,
    configuration,
    devices,
    groups,
    info,
    notifications,
    plugins,
    tokens,
    users,
)

CASES = (
    *info.CASES,
    *tokens.CASES,
    *configuration.CASES,
    *devices.CASES,
    *commands.CASES,
    *notifications.CASES,
    *groups.CASES,
    *users.CASES,
    *plugins.CASES,
)
