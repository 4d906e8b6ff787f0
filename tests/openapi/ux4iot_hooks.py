"""What Schemathesis has to be told about ux4iot: what no schema says, and what must survive.

:mod:`tests.openapi.ux4iot` makes the devices that this speaks of. The live channel at
``/socket.io/`` is not described by OpenAPI, so nothing is sent there.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import MutableMapping
from time import time
from typing import Any
from urllib.parse import quote
from zlib import crc32

import requests
import schemathesis

from gatewayd.core.sas import sign

_URL, _KEY = os.environ["GATEWAYD_URL"], os.environ["GATEWAYD_KEY"]
_ADMINISTRATOR = {"Shared-Access-Key": _KEY}
_TOKEN = f"Bearer {os.environ['GATEWAYD_TOKEN']}"
#: With this devices sign.
_SECRET = bytes(32)
_PATIENCE = 10.0
#: Characters of the id of a session.
_LONGEST = 1024
#: What stands in the dictionary for a session that is not known before.
_SEEDED = "seeded-session"
_RIGHTS = (
    "telemetry", "deviceTwin", "connectionState", "d2cMessages", "desiredProperties",
    "directMethod",
)  # fmt: skip
#: What takes sessions, or what they are granted, away.
_ENDING = ("endSession", "endSessions", "revoke")
#: What needs a way to the device.
_ACTING = ("grant", "revoke", "invokeMethod", "patchDesiredProperties")
_ID = re.compile(r"[\w\-.]{1,128}", re.ASCII)
#: What is told of devices elsewhere besides their messages: by whom, what, and with which body.
_CHANGES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("deviceConnectionStateEvents", "deviceConnected", {"sequenceNumber": "0A"}),
    ("deviceConnectionStateEvents", "deviceDisconnected", {"sequenceNumber": "0B"}),
    ("deviceLifecycleEvents", "createDeviceIdentity", {}),
    ("deviceLifecycleEvents", "deleteDeviceIdentity", {}),
    ("twinChangeEvents", "updateTwin", {"properties": {"reported": {"a": 1}}}),
)
_GRID_TYPES = (
    "Microsoft.Devices.DeviceTelemetry", "Microsoft.Devices.DeviceConnected",
    "Microsoft.Devices.DeviceDisconnected", "Microsoft.Devices.DeviceCreated",
    "Microsoft.Devices.DeviceDeleted", "Microsoft.EventGrid.SubscriptionValidationEvent",
)  # fmt: skip
#: Of which devices another hub tells; the last two it brings.
_TOLD_OF = ("foreign", "away", "blocked", "newcomer-1", "newcomer-2")


class _Sessions:
    """The session that requests are to find; when it is over, there is another one."""

    def __init__(self) -> None:
        self._current = ""

    @property
    def current(self) -> str:
        """A session that is granted everything of two devices."""
        if not self._current:
            self._current = self._begin()
        return self._current

    def end(self) -> None:
        """Know that it is over, or lacks something."""
        self._current = ""

    def _begin(self) -> str:
        begun = requests.post(f"{_URL}/session", timeout=_PATIENCE)
        begun.raise_for_status()
        session: str = begun.json()["sessionId"]
        for device in ("attached", "away"):
            for right in _RIGHTS:
                grant = {"sessionId": session, "deviceId": device, "type": right}
                granted = requests.put(
                    f"{_URL}/grants", json=grant, headers=_ADMINISTRATOR, timeout=_PATIENCE
                )
                granted.raise_for_status()
        return session


_sessions = _Sessions()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Let a request find what it is for and not wait, and spare what the run needs."""
    definition = case.operation.definition.raw
    operation: str = definition["operationId"]
    for place in (case.path_parameters, case.headers, case.body):
        _find_session(place)
    if {"session": []} in definition.get("security", ()):
        _be_a_session(case)
    if operation in _ACTING:
        _have_a_way(case.body)
    if operation in ("subscribeAll", "unsubscribeAll"):
        _find_all(case.body, named=bool((case.headers or {}).get("sessionId")))
    elif operation == "sendMessage":
        _sign(case)
    elif operation == "invokeMethod":
        _do_not_wait(case.body)
    elif operation == "deleteLastValues" and case.path_parameters["deviceId"].lower() == "away":
        case.path_parameters["deviceId"] = "mute"
    elif operation == "ingestEvents":
        for event in _events(case.body):
            _tell(event)
    elif operation == "deliverEvents":
        for event in _events(case.body):
            _deliver(event)


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Go on with another session when one is over, or has lost something."""
    if case.operation.definition.raw["operationId"] in _ENDING and response.status_code == 204:
        _sessions.end()


# Sessions


def _find_session(place: Any) -> None:
    """Put in the session that there is."""
    if isinstance(place, MutableMapping):
        for name, value in list(place.items()):
            if value == _SEEDED:
                place[name] = _sessions.current


def _be_a_session(case: Any) -> None:
    """Send every second request of the administrator's as one of a session."""
    headers = case.headers or {}
    if headers.get("Shared-Access-Key") == _KEY and _draw(case.path_parameters, case.body) % 2:
        del headers["Shared-Access-Key"]
        headers["sessionId"] = _sessions.current


def _find_all(body: Any, *, named: bool) -> None:
    """Let the requests of a list be for something that is granted.

    :param named: whether the head says whose those are that do not say it.
    """
    several = body.get("subscriptionRequests") if isinstance(body, dict) else body
    for each in several if isinstance(several, list) else ():
        if not isinstance(each, dict):
            continue
        if not named:
            each.setdefault("sessionId", _sessions.current)
        if isinstance(each.get("sessionId"), str) and len(each["sessionId"]) <= _LONGEST:
            each["sessionId"] = _sessions.current
        if isinstance(each.get("deviceId"), str) and _ID.fullmatch(each["deviceId"]):
            each["deviceId"] = ("away", "mute")[_draw(each) % 2]


# Devices


def _have_a_way(body: Any) -> None:
    """Let a request be for a device of the gateway's own: there is no other hub to ask."""
    if isinstance(body, dict) and str(body.get("deviceId")).lower() in _TOLD_OF:
        body["deviceId"] = "away"


def _do_not_wait(body: Any) -> None:
    """Let a device that is away not be waited for."""
    params = body.get("methodParams") if isinstance(body, dict) else None
    if not isinstance(params, dict):
        return
    wait = params.get("connectTimeoutInSeconds")
    if isinstance(wait, int | float) and 0 <= wait <= 300 and not isinstance(wait, bool):
        params["connectTimeoutInSeconds"] = 0


def _sign(case: Any) -> None:
    """Send every second message of the administrator's as one that the device has signed."""
    device: str = case.path_parameters["deviceId"]
    if (case.headers or {}).get("Authorization") != _TOKEN or _draw(device, case.body) % 2:
        return
    place = f"/devices/{quote(device, safe='')}"
    key = {"key": b64encode(_SECRET).decode()}
    requests.put(f"{_URL}{place}/key", json=key, headers=_ADMINISTRATOR, timeout=_PATIENCE)
    case.headers["Authorization"] = sign(_SECRET, f"hub{place}", int(time()) + 60)


# Other hubs


def _events(body: Any) -> list[dict[str, Any]]:
    """Return what may be events in a body."""
    several = body if isinstance(body, list) else [body]
    return [each for each in several if isinstance(each, dict)]


def _tell(event: dict[str, Any]) -> None:
    """Let an event be of a device that is, or may be, there, and every second one a change."""
    drawn = _draw(event)
    _be_of_a_device(event, drawn)
    system, own = event.get("systemProperties") or {}, event.get("properties") or {}
    if drawn % 2 and isinstance(system, dict) and isinstance(own, dict):
        source, operation, body = _CHANGES[drawn // 10 % len(_CHANGES)]
        event["systemProperties"] = {**system, "iothub-message-source": source}
        event["properties"] = {**own, "opType": operation}
        event["body"] = body


def _deliver(event: dict[str, Any]) -> None:
    """Let an event be of a type that counts, and of a device that is, or may be, there."""
    drawn = _draw(event)
    for name in ("eventType", "type"):
        if isinstance(event.get(name), str):
            event[name] = _GRID_TYPES[drawn % len(_GRID_TYPES)]
    if isinstance(event.get("data"), dict):
        _be_of_a_device(event["data"], drawn)


def _be_of_a_device(event: dict[str, Any], drawn: int) -> None:
    if isinstance(event.get("deviceId"), str | None):
        event["deviceId"] = _TOLD_OF[drawn % len(_TOLD_OF)]


def _draw(*values: Any) -> int:
    """Return a number that is the same for the same values, so that runs can be repeated."""
    return crc32(repr(values).encode("utf-8", "surrogatepass"))
