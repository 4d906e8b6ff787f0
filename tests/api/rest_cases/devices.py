"""Devices: registered, found, changed and deleted."""

from __future__ import annotations

from typing import Any

from tests.api.rest_table import (
    CROWD,
    DENIED,
    DEVICE,
    INVALID,
    NOT_AN_OBJECT,
    NOTIFICATION,
    UNKNOWN,
    Case,
    Step,
)

_LAMP = {"id": "lamp", "name": "Lamp", "data": {"watt": 5}, "networkId": "<home>",
         "deviceTypeId": "<light>", "isBlocked": False}  # fmt: skip
_DOOR = {"id": "door", "name": "Door", "data": None, "networkId": "<shed>",
         "deviceTypeId": "<lock>", "isBlocked": False}  # fmt: skip
_GONE = {**DEVICE, "id": "gone", "isBlocked": True}
_NOBODY = "Device with such deviceId = nobody not found"
_CROWD: list[Any] = [{**DEVICE, "id": f"crowd-{n:02}"} for n in range(CROWD)]
_OF_HOME: list[Any] = [{**DEVICE, "name": name} for name in ("Busy", "Lamp", "Log")]
_KEPT = Step(
    "PUT /device/kept-<n>",
    {"name": "old", "data": {"a": 1}, "networkId": "<yard>", "deviceTypeId": "<heater>"},
)
_KEPT_AS = {"id": "kept-<n>", "name": "old", "data": {"a": 1}, "networkId": "<yard>",
            "deviceTypeId": "<heater>", "isBlocked": False}  # fmt: skip


def _list(query: str, answer: object, status: int = 200, who: str = "admin") -> Case:
    return Case(f"GET /device?{query}", status, answer, who=who)


def _count(query: str, answer: object, status: int = 200, who: str = "admin") -> Case:
    return Case(f"GET /device/count?{query}", status, answer, who=who)


_LISTS = [
    _list("name=Lamp", [_LAMP]),
    _list("name=lamp", []),
    _list("name=Lamp&name=Door", [_LAMP]),
    _list("namePattern=L_mp", [_LAMP]),
    _list("namePattern=l%25", []),
    _list("namePattern=%25oo%25", [_DOOR]),
    _list("networkId=<shed>", [_DOOR]),
    _list("networkName=shed", [_DOOR]),
    _list("networkName=shed&name=Lamp", []),
    _list("networkId=999999", []),
    _list("name=Gone", [_GONE]),
    # Without take there is no limit.
    _list("namePattern=crowd-%25&sortField=name", _CROWD),
    _list("namePattern=crowd-%25&sortField=NAME&sortOrder=DESC", _CROWD[::-1]),
    _list("namePattern=crowd-%25&sortField=name&take=3&skip=2", _CROWD[2:5]),
    _list("namePattern=crowd-%25&sortField=name&take=3&skip=20", _CROWD[20:]),
    _list("namePattern=crowd-%25&sortField=name&skip=99", []),
    _list("namePattern=crowd-%25&sortField=name&take=&skip=&sortOrder=", _CROWD),
    _list("take=0", []),
    _list("networkName=home&sortField=name", _OF_HOME, who="client"),
    _list("networkId=<home>&sortField=name&sortOrder=asc", _OF_HOME, who="narrow"),
    *(_list(f"name=Lamp&sortField={field}", [_LAMP]) for field in ("status", "network",
                                                                    "devicetype")),
    _list("name=Door", [], who="client"),
    _list("networkId=<shed>", [], who="narrow"),
    _list("", [], who="outsider"),
    _list("sortField=data", INVALID, 400),
    _list("sortField=id", INVALID, 400),
    _list("sortOrder=up", "Unparseable sort order : up", 400),
    _list("take=-1", INVALID, 400),
    _list("skip=-1", INVALID, 400),
    _list(f"namePattern={'a' * 1025}", INVALID, 400),
    *(_list(f"{name}=x", UNKNOWN, 404) for name in ("take", "skip", "networkId")),
    _count("namePattern=crowd-%25", {"count": CROWD}),
    _count("namePattern=crowd-%25&take=1&skip=1&sortField=x", {"count": CROWD}),
    _count("name=Lamp", {"count": 1}),
    _count("networkId=<shed>", {"count": 1}),
    _count("networkName=shed", {"count": 1}),
    _count("name=Door", {"count": 0}, who="client"),
    _count("", {"count": 0}, who="outsider"),
    _count("networkId=x", UNKNOWN, 404),
]  # fmt: skip


def _save(status: int, answer: object, who: str = "admin", /, **fields: object) -> Case:
    return Case("PUT /device/bad-<n>", status, answer, fields, who)


_LONG_NAME = "Field name cannot be empty. The length of name should not be more than 128 symbols."
_CHARACTERS = "Device Id can only contain letters, digits and dashes."
_SAVES = [
    Case("PUT /device/New-<n>", 204, body={
        "name": "New", "data": {"deep": [{}]}, "networkId": "<yard>", "deviceTypeId": "<heater>",
        "isBlocked": True,
    }, then=[
        Case("GET /device/New-<n>", 200, {
            "id": "New-<n>", "name": "New", "data": {"deep": [{}]}, "networkId": "<yard>",
            "deviceTypeId": "<heater>", "isBlocked": True,
        }),
        Case("GET /device/New-<n>/notification", 200, [
            {**NOTIFICATION, "notification": "$device-add", "deviceId": "New-<n>",
             "networkId": None, "deviceTypeId": None,
             "parameters": {**DEVICE, "id": "New-<n>", "name": "New"}},
        ]),
    ]),
    # Without a network or type it gets the lowest in reach.
    Case("PUT /device/own-<n>", 204, body={"name": "Own"}, who="maker", then=[
        Case("GET /device/own-<n>", 200, {
            "id": "own-<n>", "name": "Own", "data": None, "networkId": "<yard>",
            "deviceTypeId": "<heater>", "isBlocked": False,
        }),
    ]),
    # What old clients say too is ignored.
    Case("PUT /device/old-<n>", 204, body={
        "name": "Old", "key": "k", "status": "online", "network": {"name": "x"},
        "deviceClass": {"name": "x", "version": "1"}, "equipment": [], "id": "other",
    }, then=[Case("GET /device/old-<n>", 200, {**DEVICE, "id": "old-<n>", "name": "Old"})]),
    # What is not said stays; the first spelling of the id too.
    Case("PUT /device/KEPT-<n>", 204, body={"name": "new"}, given=[_KEPT], then=[
        Case("GET /device/kept-<n>", 200, {**_KEPT_AS, "name": "new"}),
        Case("GET /device/kept-<n>/notification?take=1", 200, [
            {**NOTIFICATION, "notification": "$device-update"},
        ]),
    ]),
    Case("PUT /device/kept-<n>", 204, given=[_KEPT],
         then=[Case("GET /device/kept-<n>", 200, _KEPT_AS)]),
    Case("PUT /device/kept-<n>", 204, body={"data": {}, "isBlocked": "true"}, given=[_KEPT],
         who="maker",
         then=[Case("GET /device/kept-<n>", 200, {**_KEPT_AS, "data": {}, "isBlocked": True})]),
    _save(400, "name field cannot be null."),
    _save(400, "name field cannot be null.", name=None),
    Case("PUT /device/bad-<n>", 400, "name field cannot be null.", b""),
    _save(400, _LONG_NAME, name=""),
    _save(400, _LONG_NAME, name="x" * 129),
    _save(400, INVALID, name={}),
    _save(400, NOT_AN_OBJECT, name="x", data=[1]),
    _save(400, INVALID, name="x", networkId=999999),
    _save(400, INVALID, name="x", deviceTypeId=999999),
    _save(400, INVALID, name="x", networkId="home"),
    _save(400, INVALID, name="x", isBlocked="perhaps"),
    Case("PUT /device/bad-<n>", 400, INVALID, b"[]"),
    Case("PUT /device/bad-<n>", 400, INVALID, b"null"),
    Case("PUT /device/a_b", 400, _CHARACTERS, {"name": "x"}),
    Case("PUT /device/a%2Fb", 400, _CHARACTERS, {"name": "x"}),
    Case(f"PUT /device/{'x' * 49}", 400,
         "The length of device id should not be more than 48 symbols.", {"name": "x"}),
    Case(f"PUT /device/{'x' * 48}", 204, body={"name": "x"}),
    _save(403, "No access to network!", "client", name="x", networkId="<shed>"),
    _save(403, "No access to device type!", "client", name="x", deviceTypeId="<lock>"),
    _save(403, "No access to network!", "narrow", name="x", networkId="<shed>"),
    _save(403, "No access to network!", "outsider", name="x"),
    Case("PUT /device/door", 403, "No access to device", {"name": "Mine"}, "client",
         then=[Case("GET /device/door", 200, _DOOR)]),
]  # fmt: skip

CASES = [
    *_LISTS,
    *_SAVES,
    Case("GET /device/lamp", 200, _LAMP),
    Case("GET /device/LAMP", 200, _LAMP),
    Case("GET /device/l%61mp?deviceId=door&id=door", 200, _LAMP),
    Case("GET /device/lamp", 200, _LAMP, who="client"),
    Case("GET /device/lamp", 200, _LAMP, who="narrow"),
    Case("GET /device/nobody", 404, _NOBODY),
    *(
        Case(f"{method} /device/{device}", 403, DENIED, who=who)
        for method in ("GET", "DELETE")
        for device in ("door", "nobody")
        for who in ("client", "narrow", "outsider")
    ),
    Case("DELETE /device/kept-<n>", 204, given=[_KEPT], then=[
        Case("GET /device/kept-<n>", 404, "Device with such deviceId = kept-<n> not found"),
        Case("DELETE /device/kept-<n>", 404, "Device with such deviceId = kept-<n> not found"),
    ]),
    Case("DELETE /device/kept-<n>", 204, given=[_KEPT], who="maker"),
    # Its messages go with it: a device that comes after it with the same id has none of them.
    Case("DELETE /device/kept-<n>", 204, given=[
        _KEPT, Step("POST /device/kept-<n>/command", {"command": "c"}, "lost"),
    ], then=[
        Case("PUT /device/kept-<n>", 204, body={"name": "again"}),
        Case("GET /device/kept-<n>/command", 200, []),
        Case("GET /device/kept-<n>/command/<lost>", 404, "Command with id = <lost> not found"),
    ]),
    Case("DELETE /device/nobody", 404, _NOBODY),
]  # fmt: skip
