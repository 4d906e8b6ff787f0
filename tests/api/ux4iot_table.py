"""Every endpoint of ux4iot's REST with every answer that its documentation lists."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

#: What the documentation lists: of each endpoint the statuses, with a word for each reason.
DOCUMENTED: Mapping[str, frozenset[str]] = {
    "GET /version": frozenset({"200"}),
    "GET /status": frozenset({"200", "503 initializing", "500 event hub", "500 iot hub"}),
    "PUT /logLevel/{}": frozenset({"204", "400 level"}),
    "POST /session": frozenset({"200"}),
    "DELETE /sessions/{}": frozenset({"204", "401"}),
    "DELETE /sessions": frozenset({"204", "401"}),
    "PUT /grants": frozenset({"204", "400 type", "400 unavailable", "401", "404 session"}),
    "DELETE /grants": frozenset({"204", "400 type", "400 unavailable", "401", "404 session"}),
    "PUT /subscription": frozenset({"204", "400 type", "403 grant", "404 session"}),
    "DELETE /subscription": frozenset({"204", "400 type", "403 grant", "404 session"}),
    "PUT /subscriptions": frozenset({"200", "400 elements"}),
    "DELETE /subscriptions": frozenset({"200", "400 elements"}),
    "GET /lastValue/{}": frozenset({"200", "401", "403 grant", "403 key", "404 session"}),
    "GET /lastValue/{}/{}": frozenset(
        {"200", "401", "403 grant", "403 key", "404 session", "404 value"}
    ),
    "DELETE /lastValue/{}": frozenset({"200", "401", "403 grant", "403 key", "404 session"}),
    "GET /deviceTwin/{}": frozenset(
        {"200", "400 disabled", "401", "403 grant", "403 key", "404 device"}
    ),
    "GET /connectionState/{}": frozenset(
        {"200", "400 disabled", "401", "403 grant", "403 key", "404 device"}
    ),
    "POST /directMethod": frozenset(
        {"200", "400 disabled", "403 grant", "404 session", "404 device", "504 no answer"}
    ),
    "PATCH /deviceTwinDesiredProperties": frozenset(
        {"200", "400 disabled", "403 grant", "404 session", "500 hub"}
    ),
}  # fmt: skip

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ID = re.compile(r"[A-Za-z0-9_-]{20,}")
EVENT_HUB = (
    "EventHub connection string misformed. Please check the iotHubEventHubConnectionString "
    "environment variable in your deployment file for ux4iot"
)
IOT_HUB = (
    "IoTHub connection string misformed. Please check the iotHubServiceConnectionString "
    "environment variable in your deployment file for ux4iot."
)
NO_SESSION = "No such sessionId"
NO_KEY = "Unauthorized: no Shared-Access-Key header"
WRONG_KEY = "Unauthorized: invalid shared access key"
NEITHER = "Provide either a Shared-Access-Key or a sessionId header"
READ_KEY = "Forbidden to read last value of device: invalid shared-access-key"
READ_GRANT = "Forbidden to read last value of device: missing grant"
UNKNOWN_GRANT = "unknown grant type"
UNKNOWN_SUBSCRIPTION = "unknown subscription type"
NOT_GRANTED = "subscription request not granted"
NOT_ALL = "Not all elements in the request body are subscription requests"
DISABLED = "IoT Hub API disabled, cannot invoke direct method"
#: What another hub answers when it fails.
BROKEN = {"Message": "ErrorCode:ServerError;x", "ExceptionMessage": "Tracking ID:y"}
LAMP = {"t": 21.5, "o": {"a": [1]}, "no": False, "a/b": 1}
TELEMETRY = {"deviceId": "lamp", "type": "telemetry"}
SECTION = {"$metadata": dict, "$version": int}


@attrs.frozen
class Case:
    """A request and the answer that it must get.

    ``<session>`` in any text stands for a session that has the grants.

    :ivar reason: the word for the status; see :data:`DOCUMENTED`.
    :ivar answer: what the body must be like: text as it is, else JSON, see ``fits``.
    :ivar key: ``"good"``, ``"second"`` or ``"wrong"``; None for none. :ivar session: of the head.
    :ivar grants: what the session has been granted. :ivar subscribed: what it has subscribed to.
    :ivar world: what the gateway is like: ``"alone"``, ``"starting"``, ``"troubled"``, or
        ``"upstream"``, where there is another hub that fails.
    """

    line: str
    status: int
    answer: Any = None
    reason: str = ""
    body: Any = None
    key: str | None = None
    session: str | None = None
    grants: tuple[Mapping[str, Any], ...] = ()
    subscribed: tuple[Mapping[str, Any], ...] = ()
    world: str = "alone"

    @property
    def endpoint(self) -> str:
        """The endpoint as :data:`DOCUMENTED` has it."""
        found = [each for each in DOCUMENTED if _pattern(each).fullmatch(self.line)]
        assert len(found) == 1, self.line
        return found[0]

    @property
    def documented(self) -> str:
        """The status with its reason."""
        return f"{self.status} {self.reason}".strip()

    def __str__(self) -> str:
        return f"{self.line} {self.documented}"


def _pattern(endpoint: str) -> re.Pattern[str]:
    return re.compile("[^/]+".join(map(re.escape, endpoint.split("{}"))))


def of(type_: str, device: str = "lamp", session: str = "<session>", **more: Any) -> dict[str, Any]:
    """Return a grant or subscription request."""
    return {"sessionId": session, "deviceId": device, "type": type_, **more}


def call(device: str = "lamp", name: str = "on", **more: Any) -> dict[str, Any]:
    """Return a direct method's request."""
    return {"deviceId": device, "methodParams": {"methodName": name, **more}}


def change(device: str = "lamp", **patch: Any) -> dict[str, Any]:
    """Return a change of desired properties."""
    return {"deviceId": device, "desiredPropertyPatch": patch or {"colour": "red"}}


def _shown(data: Any, device: str = "lamp", timestamp: Any = TIME) -> dict[str, Any]:
    return {"deviceId": device, "data": data, "timestamp": timestamp}


_ALL = of("telemetry")
_ONE = of("telemetry", telemetryKey="t")
_TWIN = of("deviceTwin")
_STATE = of("connectionState")
_METHOD = of("directMethod")
_DESIRED = of("desiredProperties")
_VALUES = _shown({key: {"value": v, "timestamp": TIME} for key, v in LAMP.items()}, timestamp="")
_SHOWN_TWIN = {"version": int, "tags": {}, "properties": {"desired": dict, "reported": dict}}
_HUB_ERROR = {"Message": str, "ExceptionMessage": ""}


def _grants(method: str) -> tuple[Case, ...]:
    line = f"{method} /grants"
    return (
        Case(line, 204, body=_ONE, key="good"),
        Case(line, 204, body=of("directMethod", directMethodName=None), key="second"),
        Case(line, 400, UNKNOWN_GRANT, "type", of("nothing"), key="good"),
        Case(line, 400, "Grant unavailable", "unavailable", of("directMethod", "foreign"), "good"),
        Case(line, 400, "Grant unavailable", "unavailable", of("desiredProperties", "foreign"),
             "good"),
        Case(line, 401, NO_KEY, body=_ONE),
        Case(line, 401, WRONG_KEY, body=_ONE, key="wrong"),
        Case(line, 404, NO_SESSION, "session", of("deviceTwin", session="x"), "good"),
    )  # fmt: skip


def _subscription(method: str) -> tuple[Case, ...]:
    line = f"{method} /subscription"
    return (
        Case(line, 204, body=_ONE, grants=(_ONE,)),
        Case(line, 204, body=_ONE, grants=(_ALL,), subscribed=(_ONE,)),
        Case(line, 400, UNKNOWN_SUBSCRIPTION, "type", of("directMethod")),
        Case(line, 403, NOT_GRANTED, "grant", _ALL, grants=(_ONE,)),
        Case(line, 404, NO_SESSION, "session", of("deviceTwin", session="x")),
    )


def _subscriptions(method: str) -> tuple[Case, ...]:
    line = f"{method} /subscriptions"
    return (
        Case(line, 200, [_ONE], body=[_ONE, _TWIN], grants=(_ALL,)),
        Case(line, 200, [_TWIN], body={"subscriptionRequests": [_TWIN]}, grants=(_TWIN,)),
        Case(line, 200, [], body=[]),
        Case(line, 400, NOT_ALL, "elements", [_ONE, of("desiredProperties")], grants=(_ALL,)),
    )


def _reading(line: str, *grants: Mapping[str, Any]) -> tuple[Case, ...]:
    """Return how everything that devices said is refused."""
    other = tuple(each for each in (_ALL, _TWIN, _STATE) if each not in grants)
    return (
        Case(line, 401, NEITHER),
        Case(line, 403, READ_GRANT, "grant", session="<session>", grants=other),
        Case(line, 403, READ_KEY, "key", key="wrong"),
        Case(line, 404, NO_SESSION, "session", session="x"),
    )


CASES: tuple[Case, ...] = (
    Case("GET /version", 200, re.compile(r"4\.2\.0\+gatewayd\.1\.2\.3")),
    Case("GET /status", 200, "OK"),
    Case("GET /status", 503, "Still initializing", "initializing", world="starting"),
    Case("GET /status", 500, IOT_HUB, "iot hub", world="troubled"),
    Case("GET /status", 500, EVENT_HUB, "event hub", world="troubled"),
    Case("PUT /logLevel/verbose", 204, key="good"),
    Case("PUT /logLevel/loud", 400, "Unknown log level", "level", key="good"),
    Case("PUT /logLevel/info", 401, NO_KEY),
    Case("POST /session", 200, {"sessionId": ID}),
    Case("DELETE /sessions/<session>", 204, key="good"),
    Case("DELETE /sessions/x", 204, key="second"),
    Case("DELETE /sessions/<session>", 401, WRONG_KEY, key="wrong"),
    Case("DELETE /sessions", 204, key="good"),
    Case("DELETE /sessions", 401, NO_KEY, session="<session>"),
    *_grants("PUT"),
    *_grants("DELETE"),
    Case("DELETE /grants", 204, key="good"),
    *_subscription("PUT"),
    *_subscription("DELETE"),
    *_subscriptions("PUT"),
    *_subscriptions("DELETE"),
    Case("GET /lastValue/lamp", 200, _VALUES, session="<session>", grants=(_ALL,)),
    Case("GET /lastValue/lamp", 200, _VALUES, key="good", session="x"),
    Case("GET /lastValue/silent", 200, _shown({}, "silent", ""), key="second"),
    Case("GET /lastValue/nobody", 200, _shown({}, "nobody", ""), key="good"),
    *_reading("GET /lastValue/lamp", _ALL),
    Case("GET /lastValue/lamp/t", 200, _shown({"t": 21.5}), session="<session>", grants=(_ONE,)),
    Case("GET /lastValue/lamp/no", 200, _shown({"no": False}), key="good"),
    *_reading("GET /lastValue/lamp/t", _ALL),
    Case("GET /lastValue/lamp/x", 404, "No last telemetry found", "value", key="good"),
    Case("GET /lastValue/nobody/t", 404, "No last telemetry found", "value", key="good"),
    Case("DELETE /lastValue/silent", 200, _shown({}, "silent", ""), key="good"),
    *_reading("DELETE /lastValue/lamp", _ALL),
    Case("GET /deviceTwin/lamp", 200, _shown(_SHOWN_TWIN), session="<session>", grants=(_TWIN,)),
    Case("GET /deviceTwin/silent", 200, _shown(_SHOWN_TWIN, "silent"), key="good"),
    Case("GET /deviceTwin/foreign", 400, DISABLED, "disabled", key="good"),
    *_reading("GET /deviceTwin/lamp", _TWIN),
    Case("GET /deviceTwin/nobody", 404, "No last devicetwin found", "device", key="good"),
    Case("GET /connectionState/lamp", 200, _shown(True), session="<session>", grants=(_STATE,)),
    Case("GET /connectionState/silent", 200, _shown(False, "silent"), key="good"),
    Case("GET /connectionState/foreign", 400, DISABLED, "disabled", key="good"),
    *_reading("GET /connectionState/lamp", _STATE),
    Case("GET /connectionState/nobody", 404, "No device found", "device", key="good"),
    Case("POST /directMethod", 200, {"status": 201, "payload": {"said": {"x": 1}}},
         body=call(payload={"x": 1}), session="<session>", grants=(_METHOD,)),
    Case("POST /directMethod", 200, {"status": 201, "payload": {"said": None}},
         body=call(), key="good"),
    Case("POST /directMethod", 400, DISABLED, "disabled", call("foreign"), "good"),
    Case("POST /directMethod", 403, "Forbidden", "grant", call(), "good", "<session>",
         (of("directMethod", directMethodName="off"),)),
    Case("POST /directMethod", 404, NO_SESSION, "session", call(), "good", "x"),
    Case("POST /directMethod", 404, _HUB_ERROR, "device", call("nobody"), "good"),
    Case("POST /directMethod", 404, _HUB_ERROR, "device", call("silent"), "good"),
    Case("POST /directMethod", 504, _HUB_ERROR, "no answer",
         call("mute", responseTimeoutInSeconds=5), "good"),
    Case("PATCH /deviceTwinDesiredProperties", 200, {"status": 200, "payload": _SHOWN_TWIN},
         body=change(), session="<session>", grants=(_DESIRED,)),
    Case("PATCH /deviceTwinDesiredProperties", 400, DISABLED, "disabled", change("foreign"),
         "good"),
    Case("PATCH /deviceTwinDesiredProperties", 403, "Forbidden", "grant", change(),
         session="<session>", grants=(_TWIN,)),
    Case("PATCH /deviceTwinDesiredProperties", 404, NO_SESSION, "session", change(), session="x"),
    Case("PATCH /deviceTwinDesiredProperties", 500, BROKEN, "hub", change("foreign"), "good",
         world="upstream"),
)  # fmt: skip
