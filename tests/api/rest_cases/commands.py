"""Commands: sent, answered and found. Polls that wait have tests of their own."""

from __future__ import annotations

from typing import Any

from tests.api.rest_table import (
    COMMAND,
    DENIED,
    INVALID,
    MANY,
    NO_OBJECTS,
    NOT_AN_OBJECT,
    TIMESTAMP,
    UNKNOWN,
    Case,
    Step,
)

_NOBODY = "Device with such deviceId = nobody not found"
_NO_COMMAND = "Command with id = {} not found"
_IN_HOME = {"deviceId": "log", "networkId": "<home>", "deviceTypeId": "<light>", "userId": 1}
_ON: dict[str, Any] = {
    **COMMAND, **_IN_HOME, "id": "<on>", "command": "on", "timestamp": "2024-01-01T10:00:00.000",
    "parameters": None, "lifetime": None, "status": None, "result": None,
}  # fmt: skip
_OFF = {
    **_ON, "id": "<off>", "command": "off", "timestamp": "2024-01-01T12:00:00.000",
    "parameters": {"a": [1]}, "lifetime": 60, "status": "Waiting",
}  # fmt: skip
_DIM = {
    **_ON, "id": "<dim>", "command": "dim", "timestamp": "2024-01-01T11:00:00.000",
    "status": "done", "result": {"level": 3},
}  # fmt: skip
_SUBMITTED = {"id": int, "timestamp": TIMESTAMP, "lastUpdated": TIMESTAMP, "userId": 1}


def _list(query: str, answer: object, status: int = 200, device: str = "log") -> Case:
    return Case(f"GET /device/{device}/command?{query}", status, answer)


_LISTS = [
    # Newest first, by the time that they show, and at most 100.
    _list("", [_OFF, _DIM, _ON]),
    _list("", [COMMAND] * 100, device="busy"),
    _list("take=101", [COMMAND] * MANY, device="busy"),
    _list("skip=99", [COMMAND] * 2, device="busy"),
    _list("take=0", []),
    _list("sortOrder=asc", [_ON, _DIM, _OFF]),
    _list("sortOrder=ASC&take=1&skip=1", [_DIM]),
    _list("sortField=timestamp&sortOrder=desc", [_OFF, _DIM, _ON]),
    _list("sortField=command", [_ON, _OFF, _DIM]),
    _list("sortField=command&sortOrder=asc", [_DIM, _OFF, _ON]),
    _list("sortField=Status&sortOrder=asc", [_ON, _OFF, _DIM]),
    _list("start=2024-01-01T11:00:00", [_OFF, _DIM]),
    _list("end=2024-01-01T11:00:00", [_DIM, _ON]),
    _list("start=2024-01-01T10:00:00.001&end=2024-01-01T13:59:59%2B02:00", [_DIM]),
    _list("start=1704106800001&end=", [_OFF]),
    _list("command=dim", [_DIM]),
    _list("command=DIM", []),
    _list("status=WAITING", [_OFF]),
    _list("command=on&status=waiting", []),
    _list("deviceId=door&limit=1&timestamp=x", [_OFF, _DIM, _ON]),
    Case("GET /device/LOG/command?take=1", 200, [_OFF], who="client"),
    *(_list(f"{name}=yesterday", "Unparseable timestamp", 400) for name in ("start", "end")),
    _list("sortField=name", INVALID, 400),
    _list("sortField=result", INVALID, 400),
    _list("sortOrder=down", "Unparseable sort order : down", 400),
    _list("take=-1", INVALID, 400),
    _list("skip=-1", INVALID, 400),
    *(_list(f"{name}=x", UNKNOWN, 404) for name in ("take", "skip")),
    Case("GET /device/nobody/command", 404, _NOBODY),
    Case("GET /device/door/command", 403, DENIED, who="client"),
    Case("GET /device/door/command", 403, DENIED, who="narrow"),
    Case("GET /device/nobody/command", 403, DENIED, who="client"),
]


def _insert(status: int, answer: object, /, **fields: object) -> Case:
    return Case("POST /device/lamp/command", status, answer, fields)


_OWN = Step("PUT /device/own-<n>", {"name": "Own"})
_INSERTS = [
    Case("POST /device/own-<n>/command", 201, _SUBMITTED, {"command": "c"}, given=[_OWN],
         then=[Case("GET /device/own-<n>/command", 200, [
             {**COMMAND, "command": "c", "deviceId": "own-<n>", "parameters": None,
              "lifetime": None, "status": None, "result": None},
         ])]),
    Case("POST /device/own-<n>/command", 201,
         {**_SUBMITTED, "timestamp": "2020-02-02T02:02:02.222"}, {
             "command": "c", "parameters": {"p": [None]}, "lifetime": "5",
             "timestamp": "2020-02-02T04:02:02.2229+02:00", "status": "sent", "result": {"r": {}},
             "id": 7, "userId": 9, "deviceId": "door", "networkId": 9,
         }, given=[_OWN], then=[Case("GET /device/own-<n>/command", 200, [
             {**COMMAND, "command": "c", "deviceId": "own-<n>", "parameters": {"p": [None]},
              "timestamp": "2020-02-02T02:02:02.222", "lifetime": 5, "status": "sent",
              "result": {"r": {}}, "userId": 1},
         ])]),
    Case("POST /device/log-<n>/command", 404, "Device with such deviceId = log-<n> not found",
         {"command": "c"}),
    Case("POST /device/lamp/command?command=other", 201, {**_SUBMITTED, "userId": "<client>"},
         {"command": "c"}, who="client"),
    _insert(400, INVALID),
    _insert(400, INVALID, command=None),
    _insert(400, INVALID, command={}),
    _insert(400, INVALID, parameters={}),
    *(_insert(400, NOT_AN_OBJECT, command="c", parameters=bad) for bad in NO_OBJECTS),
    _insert(400, NOT_AN_OBJECT, command="c", result=[]),
    _insert(400, INVALID, command="c", lifetime=-1),
    _insert(400, INVALID, command="c", lifetime="long"),
    _insert(400, INVALID, command="c", timestamp="now"),
    Case("POST /device/lamp/command", 400, INVALID, b""),
    Case("POST /device/lamp/command", 400, INVALID, b"null"),
    Case("POST /device/nobody/command", 404, _NOBODY, {"command": "c"}),
    Case("POST /device/door/command", 403, DENIED, {"command": "c"}, "client"),
    Case("POST /device/door/command", 403, DENIED, {"command": "c"}, "narrow"),
    Case("POST /device/gone/command", 403, "Device is blocked", {"command": "c"}),
]  # fmt: skip


def _get(number: str, status: int, answer: object, query: str = "", device: str = "log") -> Case:
    return Case(f"GET /device/{device}/command/{number}{query}", status, answer)


def _update(
    number: str, status: int, answer: object = None, body: object = None, device: str = "log"
) -> Case:
    return Case(f"PUT /device/{device}/command/{number}", status, answer, body)


_SENT = [_OWN, Step("POST /device/own-<n>/command", {"command": "c", "status": "new"}, "sent")]


def _updated(body: object, **seen: object) -> Case:
    return Case("PUT /device/own-<n>/command/<sent>", 204, body=body, given=_SENT, then=[
        Case("GET /device/own-<n>/command/<sent>?returnUpdatedCommands=true", 200,
             {**COMMAND, "id": "<sent>", "command": "c", "status": "new", "result": None, **seen}),
    ])  # fmt: skip


_ONES = [
    _get("<off>", 200, _OFF),
    _get("0<off>", 200, _OFF),
    _get("<off>", 200, _OFF, "?returnUpdatedCommands=false"),
    _get("<dim>", 200, _DIM, "?returnUpdatedCommands=true"),
    _get("<off>", 404, _NO_COMMAND.format("<off>"), "?returnUpdatedCommands=true"),
    _get("<off>", 400, INVALID, "?returnUpdatedCommands=maybe"),
    _get("5", 404, _NO_COMMAND.format("5")),
    _get("<open>", 404, _NO_COMMAND.format("<open>")),
    _get("x", 404, UNKNOWN),
    _get("<off>", 404, _NOBODY, device="nobody"),
    Case("GET /device/door/command/<open>", 403, DENIED, who="client"),
    _updated({"status": "done", "result": {"a": 1}, "command": "other", "lifetime": 5},
             status="done", result={"a": 1}),
    _updated({"status": "done"}, status="done"),
    _updated({"result": {}}, result={}),
    _updated({"status": None, "result": None}),
    _updated(None),
    _update("5", 404, _NO_COMMAND.format("5"), {"status": "done"}),
    _update("<open>", 404, _NO_COMMAND.format("<open>"), {"status": "done"}),
    _update("x", 404, UNKNOWN, {"status": "done"}),
    _update("<on>", 404, _NOBODY, {"status": "done"}, "nobody"),
    _update("<on>", 400, NOT_AN_OBJECT, {"result": "done"}),
    _update("<on>", 400, INVALID, {"status": []}),
    _update("<on>", 400, INVALID, b"null"),
    Case("PUT /device/door/command/<open>", 403, DENIED, {"status": "done"}, "client"),
    Case("PUT /device/door/command/<open>", 403, DENIED, {"status": "done"}, "narrow"),
    Case("PUT /device/gone/command/5", 403, "Device is blocked", {"status": "done"}),
]  # fmt: skip


def _poll(path: str, status: int, answer: object, who: str = "admin") -> Case:
    return Case(f"GET /device/{path}waitTimeout=0", status, answer, who=who)


_TOO_LONG = "Timeout can't be more than 60 seconds. "
_POLLS = [
    _poll("log/command/<dim>/poll?", 200, _DIM),
    _poll("log/command/<on>/poll?", 204, None),
    _poll("log/command/5/poll?", 204, None),
    _poll("log/command/<open>/poll?", 204, None),
    _poll("log/command/x/poll?", 404, UNKNOWN),
    _poll("nobody/command/<dim>/poll?", 404, _NOBODY),
    _poll("door/command/<open>/poll?", 403, DENIED, "client"),
    _poll("log/command/poll?timestamp=2024-01-01T10:00:00&", 200, [_DIM, _OFF]),
    _poll("log/command/poll?", 200, []),
    _poll("nobody/command/poll?", 404, _NOBODY),
    _poll("door/command/poll?", 403, DENIED, "client"),
    _poll("nobody/command/poll?", 403, DENIED, "narrow"),
    _poll("command/poll?deviceId=log&timestamp=2024-01-01&", 200, [_ON, _DIM, _OFF]),
    _poll("command/poll?", 200, []),
    _poll("command/poll?deviceId=nobody&", 404, _NOBODY),
    _poll("command/poll?deviceId=&", 400, "Device id is wrong or empty"),
    _poll("command/poll?deviceId=door&", 403, DENIED, "client"),
    _poll("command/poll?", 403, "No access to any device type or network", "outsider"),
    *(
        Case(f"GET /device/{path}", status, text)
        for path in ("log/command/poll?", "command/poll?", "log/command/5/poll?")
        for path, status, text in (
            (f"{path}waitTimeout=61", 400, _TOO_LONG),
            (f"{path}waitTimeout=-1", 400, "Timeout can't be less than 0 seconds. "),
            (f"{path}waitTimeout=x", 404, UNKNOWN),
        )
    ),
    *(
        _poll(f"{path}{query}&", status, text)
        for path in ("log/command/poll?", "command/poll?")
        for query, status, text in (
            ("limit=-1", 400, "Limit can't be less than 0."),
            ("limit=x", 404, UNKNOWN),
            ("timestamp=x", 400, "Unparseable timestamp"),
            ("returnUpdatedCommands=x", 400, INVALID),
        )
    ),
]

CASES = [*_LISTS, *_INSERTS, *_ONES, *_POLLS]
