"""What Schemathesis has to be told about the Cloud Relay: what no schema says.

:mod:`tests.openapi.cloudrelay` makes the devices and requests that this speaks of.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

import schemathesis

#: Characters of a Remote-Query.
_LONGEST_QUERY = 8192
_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
_SEEDS = json.loads(os.environ["GATEWAYD_SEEDS"])
_ADMINISTRATOR = f"Bearer {os.environ['GATEWAYD_TOKEN']}"
_PROGRAM = f"Bearer {os.environ['GATEWAYD_PROGRAM']}"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Let a request find what it is for and not wait, and keep the rules that no schema has."""
    operation: str = case.operation.definition.raw["operationId"]
    if operation.startswith("relay") or operation == "getAnswer":
        _be_a_program(case)
        _find_request(case)
    if operation.startswith("relay"):
        _do_not_wait(case)
        _ask_for_something(case)
    elif operation == "setLogin":
        _make_login(case)
    elif operation == "getToken":
        _be_the_client(case)


def _be_a_program(case: Any) -> None:
    """Send a request of the administrator's as one of a program."""
    if (case.headers or {}).get("Authorization") == _ADMINISTRATOR:
        case.headers["Authorization"] = _PROGRAM


def _find_request(case: Any) -> None:
    """Put in the number of the request that was left for a device."""
    segments = case.path_parameters or {}
    if segments.get("requestId") == "kept":
        segments["requestId"] = _SEEDS["kept"].get(segments["deviceId"], "kept")


def _do_not_wait(case: Any) -> None:
    """Let a device that is away not be waited for."""
    query = case.query if isinstance(case.query, dict) else {}
    wait = query.get("connectTimeout")
    while isinstance(wait, list | dict) and len(wait) == 1:  # which is sent like its one member
        wait = next(iter(wait))
    if _INTEGER.fullmatch(str(wait)):
        case.query = {**query, "connectTimeout": 0}


def _ask_for_something(case: Any) -> None:
    """Make of a Remote-Query that fits the schema one that every device understands."""
    query = (case.headers or {}).get("Remote-Query")
    if isinstance(query, str) and 0 < len(query) <= _LONGEST_QUERY:
        text = "".join(each for each in query if "!" <= each <= "~")
        case.headers["Remote-Query"] = f"/{text.lstrip('/')}"[:_LONGEST_QUERY]


def _make_login(case: Any) -> None:
    """Keep to what no schema says: names that can be printed, and real certificates."""
    if not isinstance(case.body, dict):
        return
    for name in ("username", "password"):
        value = case.body.get(name)
        if isinstance(value, str) and not value.isprintable():
            case.body[name] = "".join(each for each in value if each.isprintable()) or "x"
    if isinstance(case.body.get("ca"), str):
        case.body["ca"] = _SEEDS["ca"]


def _be_the_client(case: Any) -> None:
    """Let the program that there is know its secret."""
    if isinstance(case.body, dict) and case.body.get("client_id") == "seeded-client":
        case.body["client_id"] = _SEEDS["client"]
        if isinstance(case.body.get("client_secret"), str):
            case.body["client_secret"] = _SEEDS["secret"]
