"""What Schemathesis has to be told about DeviceHive: what no schema says, and what must survive.

:mod:`tests.openapi.devicehive` makes the devices, networks, users and messages that this speaks of.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

import schemathesis

#: What the requests are to find until the end, the administrator with id 1 among it: whatever
#: would delete one of these, or take it from where others look for it, goes to the one whose
#: number is higher by four.
_SPARED = re.compile(r"(device-|setting-)?0*([1-4])")
_CHANGING = ("updateUser", "allowAllDeviceTypes")
#: Text with a shortest length, which a number has to have as text too.
_MEASURED = {
    "insertUser": ("login", "password"),
    "updateUser": ("login", "password"),
    "updateCurrentUser": ("login", "password"),
    "insertPlugin": ("name", "description"),
}
#: The setting that says how many wrong passwords lock a user.
_ATTEMPTS = "user.login.maxAttempts"
#: Roles and statuses with which a user can do less.
_LESS = re.compile(r"0*[12](\.0)?")
_SEEDS = json.loads(os.environ["GATEWAYD_SEEDS"])
#: Ids of a command and a notification of each device.
_MESSAGES = _SEEDS["messages"]
#: What stands in the dictionaries for a topic and a token that are not known before.
_PLUGIN = {"seeded-topic": _SEEDS["topic"], "seeded-token": _SEEDS["token"]}


def _operation(case: Any) -> str:
    operation: str = case.operation.definition.raw["operationId"]
    return operation


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Leave out what no schema can judge: whether the text of a number is long enough."""
    body = case.body if isinstance(case.body, dict) else {}
    return not any(
        isinstance(body.get(field), int | float) for field in _MEASURED.get(_operation(case), ())
    )


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Let a request find its message and not wait, and spare what the run needs."""
    operation = _operation(case)
    _find_message(case)
    _find_plugin(case)
    if "poll" in case.path:
        _do_not_wait(case)
    if operation.startswith("delete") or operation in _CHANGING:
        _spare(case.path_parameters)
    elif operation == "updateCurrentUser":
        _stay_administrator(case)
    if operation.endswith("Setting") and case.path_parameters.get("name") == _ATTEMPTS:
        case.path_parameters["name"] = "setting-5"


def _find_message(case: Any) -> None:
    """Let every second id of a message be that of one that the device has.

    Those that come from an answer, as they do along links, stay.
    """
    own = _MESSAGES.get((case.path_parameters or {}).get("deviceId"), {})
    if case.meta is None or case.meta.phase.name.value == "stateful":
        return
    for name, number in own.items():
        wanted = str(case.path_parameters.get(name, ""))
        if wanted.isdecimal() and int(wanted) % 2 == 0:
            case.path_parameters[name] = number


def _find_plugin(case: Any) -> None:
    for place in (case.query, case.body):
        for name, value in place.items() if isinstance(place, dict) else ():
            if isinstance(value, str) and value in _PLUGIN:
                place[name] = _PLUGIN[value]


def _do_not_wait(case: Any) -> None:
    """Let a poll that would wait answer at once."""
    query = case.query if isinstance(case.query, dict) else {}
    wait = query.get("waitTimeout")
    while isinstance(wait, list | dict):  # of several the first counts
        wait = next(iter(wait), None)
    text = "" if wait is None else str(wait)
    if text == "" or (text.isdecimal() and int(text) <= 60):
        case.query = {**query, "waitTimeout": 0}


def _spare(segments: dict[str, Any]) -> None:
    for name, value in segments.items():
        spared = _SPARED.fullmatch(str(value))
        if spared is not None:
            kind, number = spared.groups(default="")
            segments[name] = f"{kind}{int(number) + 4}"


def _stay_administrator(case: Any) -> None:
    if isinstance(case.body, dict):
        case.body = {
            field: value
            for field, value in case.body.items()
            if not (field in ("role", "status") and _LESS.fullmatch(str(value)))
        }
