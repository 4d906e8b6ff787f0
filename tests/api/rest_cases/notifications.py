"""Notifications: recorded and found. Polls that wait have tests of their own."""

from __future__ import annotations

from typing import Any

from tests.api.rest_table import (
    DENIED,
    INVALID,
    MANY,
    NO_OBJECTS,
    NOT_AN_OBJECT,
    NOTIFICATION,
    TIMESTAMP,
    UNKNOWN,
    Case,
    Step,
)

_NOBODY = "Device with such deviceId = nobody not found"
_NONE = "Requested notification not found"
_SPECIAL = "It's forbidden to insert these special notifications: $device-update, $device-add."
_WARM: dict[str, Any] = {
    "id": "<warm>", "notification": "warm", "deviceId": "log", "networkId": "<home>",
    "deviceTypeId": "<light>", "timestamp": "2024-01-01T10:00:00.000", "parameters": None,
}  # fmt: skip
_HOT = {
    **_WARM, "id": "<hot>", "notification": "hot", "timestamp": "2024-01-01T12:00:00.000",
    "parameters": {"a": [1]},
}  # fmt: skip
_COLD = {
    **_WARM, "id": "<cold>", "notification": "cold", "timestamp": "2024-01-01T11:00:00.000",
}  # fmt: skip
#: By its time the newest of all: it was registered after the times that the others show.
_ADDED = {**NOTIFICATION, "notification": "$device-add", "networkId": None, "deviceTypeId": None}
_SUBMITTED = {"id": int, "timestamp": TIMESTAMP}
_OLD = "start=2024-01-01&end=2024-01-02"


def _list(query: str, answer: object, status: int = 200, device: str = "log") -> Case:
    return Case(f"GET /device/{device}/notification?{query}", status, answer)


_LISTS = [
    # Newest first, by the time that they show, and at most 100.
    _list("", [_ADDED, _HOT, _COLD, _WARM]),
    _list("", [NOTIFICATION] * 100, device="busy"),
    _list("notification=n&take=102", [NOTIFICATION] * MANY, device="busy"),
    _list("notification=n&skip=99", [NOTIFICATION] * 2, device="busy"),
    _list("take=0", []),
    _list("sortOrder=asc", [_WARM, _COLD, _HOT, _ADDED]),
    _list("sortOrder=ASC&take=1&skip=1", [_COLD]),
    _list(f"{_OLD}&sortField=timestamp&sortOrder=desc", [_HOT, _COLD, _WARM]),
    _list(f"{_OLD}&sortField=notification", [_WARM, _HOT, _COLD]),
    _list(f"{_OLD}&sortField=Notification&sortOrder=asc", [_COLD, _HOT, _WARM]),
    _list("start=2024-01-01T11:00:00&end=2024-01-01T12:00:00", [_HOT, _COLD]),
    _list("end=2024-01-01T11:00:00", [_COLD, _WARM]),
    _list("start=2024-01-01T10:00:00.001&end=2024-01-01T13:59:59%2B02:00", [_COLD]),
    _list("notification=hot", [_HOT]),
    _list("notification=HOT", []),
    _list("notification=$device-add", [_ADDED]),
    _list(f"{_OLD}&deviceId=door&limit=1&timestamp=x", [_HOT, _COLD, _WARM]),
    Case("GET /device/LOG/notification?notification=hot", 200, [_HOT], who="client"),
    *(_list(f"{name}=yesterday", "Unparseable timestamp", 400) for name in ("start", "end")),
    _list("sortField=status", INVALID, 400),
    _list("sortField=parameters", INVALID, 400),
    _list("sortOrder=down", "Unparseable sort order : down", 400),
    _list("take=-1", INVALID, 400),
    _list("skip=-1", INVALID, 400),
    *(_list(f"{name}=x", UNKNOWN, 404) for name in ("take", "skip")),
    Case("GET /device/nobody/notification", 404, _NOBODY),
    Case("GET /device/door/notification", 403, DENIED, who="client"),
    Case("GET /device/door/notification", 403, DENIED, who="narrow"),
    Case("GET /device/nobody/notification", 403, DENIED, who="client"),
]


def _insert(status: int, answer: object, /, **fields: object) -> Case:
    return Case("POST /device/lamp/notification", status, answer, fields)


_OWN = Step("PUT /device/own-<n>", {"name": "Own"})
_INSERTS = [
    Case("POST /device/own-<n>/notification", 201, _SUBMITTED, {"notification": "x"},
         given=[_OWN], then=[Case("GET /device/own-<n>/notification?notification=x", 200, [
             {**NOTIFICATION, "notification": "x", "deviceId": "own-<n>", "parameters": None},
         ])]),
    Case("POST /device/own-<n>/notification", 201,
         {"id": int, "timestamp": "2020-02-02T02:02:02.222"}, {
             "notification": "x", "parameters": {"p": [None]}, "id": 7, "deviceId": "door",
             "timestamp": 1580608922222,
         }, given=[_OWN], then=[Case("GET /device/own-<n>/notification?notification=x", 200, [
             {**NOTIFICATION, "notification": "x", "deviceId": "own-<n>",
              "parameters": {"p": [None]}, "timestamp": "2020-02-02T02:02:02.222"},
         ])]),
    Case("POST /device/lamp/notification?notification=other", 201, _SUBMITTED,
         {"notification": "of a client"}, who="client"),
    _insert(400, INVALID),
    _insert(400, INVALID, notification=None),
    _insert(400, INVALID, notification={}),
    *(_insert(400, NOT_AN_OBJECT, notification="x", parameters=bad)
      for bad in NO_OBJECTS),
    _insert(400, INVALID, notification="x", timestamp="now"),
    Case("POST /device/lamp/notification", 400, INVALID, b""),
    Case("POST /device/lamp/notification", 400, INVALID, b"null"),
    _insert(403, _SPECIAL, notification="$device-add"),
    _insert(403, _SPECIAL, notification="$device-update"),
    Case("POST /device/nobody/notification", 404, _NOBODY, {"notification": "x"}),
    # What it must have is asked before what is there.
    Case("POST /device/nobody/notification", 400, INVALID, {}),
    Case("POST /device/door/notification", 403, DENIED, {"notification": "x"}, "client"),
    Case("POST /device/door/notification", 403, DENIED, {"notification": "x"}, "narrow"),
    Case("POST /device/gone/notification", 403, "Device is blocked", {"notification": "x"}),
]  # fmt: skip

_ONES = [
    Case("GET /device/log/notification/<hot>", 200, _HOT),
    Case("GET /device/log/notification/<hot>", 200, _HOT, who="client"),
    Case("GET /device/log/notification/5", 404, _NONE),
    Case("GET /device/log/notification/<opened>", 404, _NONE),
    Case("GET /device/log/notification/<on>", 404, _NONE),
    Case("GET /device/log/notification/x", 404, UNKNOWN),
    Case("GET /device/nobody/notification/<hot>", 404, _NOBODY),
    Case("GET /device/door/notification/<opened>", 403, DENIED, who="client"),
    Case("GET /device/door/notification/<opened>", 403, DENIED, who="narrow"),
]


def _poll(path: str, status: int, answer: object, who: str = "admin") -> Case:
    return Case(f"GET /device/{path}waitTimeout=0", status, answer, who=who)


_POLLS = [
    _poll("log/notification/poll?timestamp=2024-01-01T10:00:00&", 200, [_COLD, _HOT]),
    _poll("log/notification/poll?", 200, []),
    _poll("nobody/notification/poll?", 404, _NOBODY),
    _poll("door/notification/poll?", 403, DENIED, "client"),
    _poll("nobody/notification/poll?", 403, DENIED, "narrow"),
    _poll("notification/poll?deviceId=log&timestamp=2024-01-01&", 200, [_WARM, _COLD, _HOT]),
    _poll("notification/poll?", 200, []),
    _poll("notification/poll?deviceId=nobody&", 404, _NOBODY),
    _poll("notification/poll?deviceId=&", 400, "Device id is wrong or empty"),
    _poll("notification/poll?deviceId=door&", 403, DENIED, "client"),
    _poll("notification/poll?", 403, "No access to any device type or network", "outsider"),
    *(
        Case(f"GET /device/{path}{query}", status, text)
        for path in ("log/notification/poll?", "notification/poll?")
        for query, status, text in (
            ("waitTimeout=61", 400, "Timeout can't be more than 60 seconds. "),
            ("waitTimeout=-1", 400, "Timeout can't be less than 0 seconds. "),
            ("waitTimeout=x", 404, UNKNOWN),
            ("waitTimeout=0&limit=-1", 400, "Limit can't be less than 0."),
            ("waitTimeout=0&limit=x", 404, UNKNOWN),
            ("waitTimeout=0&timestamp=x", 400, "Unparseable timestamp"),
        )
    ),
]

CASES = [*_LISTS, *_INSERTS, *_ONES, *_POLLS]
