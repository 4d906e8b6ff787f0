"""Networks and device types: the same requests under two names."""

from __future__ import annotations

from typing import Any

import attrs

from tests.api.rest_table import (
    CROWD,
    DENIED,
    GROUP,
    INVALID,
    NESTED_DEVICE,
    UNKNOWN,
    Case,
    Step,
)

_VALIDATED = (
    "Error! Make sure, that the passed object is correct and properly structured. "
    "Validation failed: \nOn property {} (value: {}): {} ; "
)
_LONG_NAME = "Field cannot be empty. The length of name should not be more than 128 symbols."
_LONG_TEXT = "The length of description should not be more than 128 symbols."
_CROWD: list[Any] = [{**GROUP, "name": f"crowd-{n:02}"} for n in range(CROWD)]


@attrs.frozen
class _Noun:
    """What tells networks and device types apart.

    :ivar path: in paths. :ivar key: of devices. :ivar text: in errors. :ivar mine: one that the
        client has. :ivar other: one that it does not have.
    """

    path: str
    key: str
    text: str
    mine: dict[str, object]
    other: dict[str, object]

    def not_found(self, number: object) -> str:
        return f"{self.text} with id = {number} not found"


_NETWORK = _Noun(
    "network", "networkId", "Network",
    {"id": "<home>", "name": "home", "description": "Where the lamp is"},
    {"id": "<shed>", "name": "shed", "description": None},
)  # fmt: skip
_TYPE = _Noun(
    "devicetype", "deviceTypeId", "Device type",
    {"id": "<light>", "name": "light", "description": "What shines"},
    {"id": "<lock>", "name": "lock", "description": None},
)  # fmt: skip


def _lists(noun: _Noun) -> list[Case]:
    def find(query: str, answer: object, status: int = 200, who: str = "admin") -> Case:
        return Case(f"GET /{noun.path}?{query}", status, answer, who=who)

    def count(query: str, answer: object, status: int = 200, who: str = "admin") -> Case:
        return Case(f"GET /{noun.path}/count?{query}", status, answer, who=who)

    name = noun.mine["name"]
    return [
        find(f"name={name}", [noun.mine]),
        find(f"name={name}x", []),
        find(f"namePattern=_{str(name)[1:]}", [noun.mine]),
        find("namePattern=CROWD%25", []),
        # Without take there is no limit.
        find("namePattern=crowd-%25&sortField=name", _CROWD),
        find("namePattern=crowd-%25&sortField=Name&sortOrder=Desc", _CROWD[::-1]),
        find("namePattern=crowd-%25&sortField=name&sortOrder=asc&take=2&skip=1", _CROWD[1:3]),
        find("namePattern=crowd-%25&sortField=name&skip=20", _CROWD[20:]),
        find("name=shed&name=home&sortField=ID", [] if noun is _TYPE else [noun.other]),
        find("take=0", []),
        find("", [noun.mine], who="client"),
        find("skip=1", [], who="client"),
        find("", [noun.mine], who="narrow"),
        find("sortField=description", INVALID, 400),
        find("sortOrder=up", "Unparseable sort order : up", 400),
        find("take=-1", INVALID, 400),
        find("skip=-1", INVALID, 400),
        find(f"namePattern={'a' * 1025}", INVALID, 400),
        find("take=x", UNKNOWN, 404),
        find("skip=x", UNKNOWN, 404),
        count("namePattern=crowd-%25&take=1&sortField=x", {"count": CROWD}),
        count(f"name={name}", {"count": 1}),
        count("", {"count": 1}, who="client"),
        count("", {"count": 1}, who="narrow"),
        count(f"name={noun.other['name']}", {"count": 0}, who="client"),
        count(f"namePattern={'a' * 1025}", INVALID, 400),
    ]


def _inserts(noun: _Noun) -> list[Case]:
    line = f"POST /{noun.path}"

    def insert(status: int, answer: object, /, **fields: object) -> Case:
        return Case(line, status, answer, fields)

    taken = f"{noun.text} cannot be created. {noun.text} with such name already exists"
    new = {**GROUP, "name": "new-<n>", "description": "d"}
    return [
        Case(line, 201, {"id": int}, {"name": "new-<n>", "description": "d", "devices": [7]},
             then=[Case(f"GET /{noun.path}?name=new-<n>", 200, [new])]),
        insert(201, {"id": int}, name="<n>" + "x" * 125, description="x" * 128, id=None),
        insert(400, _VALIDATED.format("name", "null", "name field cannot be null.")),
        insert(400, _VALIDATED.format("name", "", _LONG_NAME), name=""),
        insert(400, _VALIDATED.format("name", "x" * 129, _LONG_NAME), name="x" * 129),
        insert(400, _VALIDATED.format("description", "x" * 129, _LONG_TEXT), name="long-<n>",
               description="x" * 129),
        insert(400, "Invalid request parameters. Id cannot be specified.", name="id-<n>", id=7),
        insert(400, INVALID, name=[]),
        Case(line, 400, INVALID, b""),
        Case(line, 400, INVALID, b"null"),
        insert(403, taken, name=noun.mine["name"]),
    ]  # fmt: skip


def _ones(noun: _Noun) -> list[Case]:
    mine, other, path = noun.mine["id"], noun.other["id"], noun.path
    door = {**NESTED_DEVICE, "id": "door", "name": "Door"}
    kept = [Step(f"POST /{path}", {"name": "kept-<n>", "description": "old"}, "kept")]
    device = Step("PUT /device/in-<n>", {"name": "In", noun.key: "<kept>"})

    def seen(**fields: object) -> list[Case]:
        answer = {**GROUP, "id": "<kept>", "name": "kept-<n>", "description": "old",
                  "devices": [], **fields}  # fmt: skip
        return [Case(f"GET /{path}/<kept>", 200, answer)]

    gone = Case(f"GET /{path}/<kept>", 404, noun.not_found("<kept>"))
    return [
        Case(f"GET /{path}/{other}", 200, {**noun.other, "devices": [door]}),
        Case(f"GET /{path}/<kept>", 200, {**GROUP, "id": "<kept>", "name": "kept-<n>",
                                          "devices": [{**NESTED_DEVICE, "id": "in-<n>"}]},
             given=[*kept, device]),
        Case(f"GET /{path}/{mine}?name=x", 200, {**noun.mine, "devices": list}, who="client"),
        Case(f"GET /{path}/999999", 404, noun.not_found(999999)),
        Case(f"GET /{path}/-1", 404, noun.not_found(-1)),
        Case(f"GET /{path}/x", 404, UNKNOWN),
        *(
            Case(f"{method} /{path}/{number}", 403, DENIED, who=who)
            for method in ("GET", "PUT", "DELETE")
            for number in (other, 999999)
            for who in ("client", "narrow")
        ),
        Case(f"PUT /{path}/<kept>", 204, body={"name": "now-<n>", "description": "new", "id": 7},
             given=kept, then=seen(name="now-<n>", description="new")),
        Case(f"PUT /{path}/<kept>", 204, body={"name": "now-<n>"}, given=kept,
             then=seen(name="now-<n>")),
        Case(f"PUT /{path}/<kept>?description=x", 204, body={"name": None}, given=kept,
             then=seen()),
        Case(f"PUT /{path}/<kept>", 204, given=kept, then=seen()),
        Case(f"PUT /{path}/<kept>", 403,
             f"{noun.text} cannot be created. {noun.text} with such name already exists",
             {"name": noun.mine["name"]}, given=kept, then=seen()),
        Case(f"PUT /{path}/{mine}", 400, _VALIDATED.format("name", "", _LONG_NAME), {"name": ""}),
        Case(f"PUT /{path}/{mine}", 400,
             _VALIDATED.format("description", "x" * 129, _LONG_TEXT), {"description": "x" * 129}),
        Case(f"PUT /{path}/{mine}", 400, INVALID, {"name": {}}),
        Case(f"PUT /{path}/{mine}", 400, INVALID, b"[]"),
        Case(f"PUT /{path}/999999", 404, noun.not_found(999999), {"name": "x"}),
        Case(f"PUT /{path}/x", 404, UNKNOWN, {"name": "x"}),
        Case(f"DELETE /{path}/<kept>", 204, given=kept, then=[gone]),
        Case(f"DELETE /{path}/<kept>", 400,
             f"There are the following devices within this {noun.text.lower()}: in-<n>. "
             "Please review and delete them first.", given=[*kept, device],
             then=seen(devices=[{**NESTED_DEVICE, "id": "in-<n>"}])),
        Case(f"DELETE /{path}/<kept>?force=false", 400, dict, given=[*kept, device]),
        Case(f"DELETE /{path}/<kept>?force=True", 204, given=[*kept, device], then=[
            gone,
            Case("GET /device/in-<n>", 404, "Device with such deviceId = in-<n> not found"),
        ]),
        Case(f"DELETE /{path}/{mine}?force=1", 400, INVALID),
        Case(f"DELETE /{path}/999999?force=true", 404, noun.not_found(999999)),
        Case(f"DELETE /{path}/x", 404, UNKNOWN),
    ]  # fmt: skip


CASES = [
    case
    for noun in (_NETWORK, _TYPE)
    for cases in (_lists(noun), _inserts(noun), _ones(noun))
    for case in cases
]
