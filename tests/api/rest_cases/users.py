"""Users, the one who asks among them, and their networks and device types."""

from __future__ import annotations

from typing import Any

from tests.api.rest_table import (
    INVALID,
    NOT_AN_OBJECT,
    TOKENS,
    UNKNOWN,
    USER,
    Case,
    Step,
)

_HOME = {"id": "<home>", "name": "home", "description": "Where the lamp is"}
_SHED = {"id": "<shed>", "name": "shed", "description": None}
_LIGHT = {"id": "<light>", "name": "light", "description": "What shines"}
_CLI = {**USER, "id": "<client>", "login": "cli", "role": 1, "status": 0, "data": {"k": 1},
        "introReviewed": False, "allDeviceTypesAvailable": False}  # fmt: skip
_LOCKED = {**USER, "id": "<locked>", "login": "locked", "role": 1, "status": 1}
_NOBODY = "User with id = 999999 not found"
_TAKEN = "User with such login already exists. Please, select another one"
_ADMIN_ONLY = "Admin permissions required for this action"
_LENGTH = "Field cannot be empty. The length of login should be from 3 to 128 symbols."
_CHARACTERS = (
    "Login can contain only lowercase or uppercase letters, numbers, and some special symbols (_@.)"
)
_PASSWORD = "Password can contain only from 6 to 128 symbols!"
_VALIDATED = (
    "Error! Make sure, that the passed object is correct and properly structured. "
    "Validation failed: \nOn property {0} (value: {1}): {2} ; "
)
_ROLE = "The value of role should not be {} than {}."
_STATUS = "The value of status should not be {} than {}."
#: Rules that hold for new users as for old ones, by what breaks them.
_BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"login": "ab"}, _LENGTH),
    ({"login": "a" * 129}, _LENGTH),
    ({"login": "a b"}, _CHARACTERS),
    ({"login": "\u00e9tienne"}, _CHARACTERS),
    ({"password": "short"}, _PASSWORD),
    ({"password": "p" * 129}, _PASSWORD),
    ({"role": 2}, _VALIDATED.format("role", 2, _ROLE.format("more", 1))),
    ({"role": -1}, _VALIDATED.format("role", -1, _ROLE.format("less", 0))),
    ({"status": 3}, _VALIDATED.format("status", 3, _STATUS.format("more", 2))),
    ({"status": -1}, _VALIDATED.format("status", -1, _STATUS.format("less", 0))),
    ({"data": []}, NOT_AN_OBJECT),
    ({"login": {}}, INVALID),
    ({"role": "admin"}, INVALID),
    ({"introReviewed": "perhaps"}, INVALID),
]
_NEW = {"login": "new-<n>", "password": "new-<n>_#911", "role": 1}
_KEPT = [
    Step("POST /user", {"login": "kept-<n>", "password": "secret", "role": 1,
                        "data": {"a": 1}, "allDeviceTypesAvailable": False}, "kept"),
]  # fmt: skip
_KEPT_AS = {**USER, "id": "<kept>", "login": "kept-<n>", "role": 1, "status": 0, "data": {"a": 1},
            "introReviewed": False, "allDeviceTypesAvailable": False, "networks": []}  # fmt: skip


def _list(query: str, answer: object, status: int = 200, who: str = "admin") -> Case:
    return Case(f"GET /user?{query}", status, answer, who=who)


def _count(query: str, answer: object, status: int = 200) -> Case:
    return Case(f"GET /user/count?{query}", status, answer)


_FIRST = "loginPattern=%25c%25&role=1&take=2"
_LISTS = [
    _list("login=cli", [_CLI]),
    _list("login=cli&loginPattern=lock__", [_LOCKED]),
    _list("login=CLI", []),
    _list("loginPattern=CLI", []),
    _list("status=1&login=locked", [_LOCKED]),
    _list("login=locked&role=0", []),
    _list(f"{_FIRST}&sortField=login", [_CLI, _LOCKED]),
    _list("loginPattern=%25&role=0&sortField=ID&sortOrder=asc&take=1",
          [{**USER, "id": 1, "login": "dhadmin"}]),
    _list("loginPattern=c_i&skip=1", []),
    _list("take=0", []),
    _list("login=cli", [_CLI], who="narrow"),
    _list("sortField=password", INVALID, 400),
    _list("sortField=role", INVALID, 400),
    _list("sortOrder=up", "Unparseable sort order : up", 400),
    _list("take=-1", INVALID, 400),
    _list("skip=-1", INVALID, 400),
    _list(f"loginPattern={'a' * 1025}", INVALID, 400),
    *(_list(f"{name}=x", UNKNOWN, 404) for name in ("take", "skip", "role", "status")),
    _count("login=cli&take=0&sortField=x", {"count": 1}),
    _count("loginPattern=cl%25&role=1&status=0", {"count": 1}),
    _count("status=1&login=cli", {"count": 0}),
    _count("role=x", UNKNOWN, 404),
    _count("status=x", UNKNOWN, 404),
    _count(f"loginPattern={'a' * 1025}", INVALID, 400),
]  # fmt: skip


def _insert(status: int, answer: object, /, **fields: object) -> Case:
    return Case("POST /user", status, answer, {**_NEW, **fields})


_SUBMITTED = {"id": int, "lastLogin": None, "data": None, "introReviewed": False,
              "allDeviceTypesAvailable": True}  # fmt: skip
_INSERTS = [
    Case("POST /user", 201, _SUBMITTED, _NEW, then=[
        Case("GET /user?login=new-<n>", 200, [
            {**USER, "login": "new-<n>", "role": 1, "status": 0, "lastLogin": None, "data": None,
             "introReviewed": False, "allDeviceTypesAvailable": True},
        ]),
    ]),
    _insert(201, {**_SUBMITTED, "data": {"d": 1}, "introReviewed": True,
                  "allDeviceTypesAvailable": False},
            login=" a.b@c-_<n> ", role="0", status=2, data={"d": 1}, introReviewed=True,
            allDeviceTypesAvailable=False, id=7, networks=["<home>"]),
    *(_insert(400, text, **broken) for broken, text in _BROKEN),
    _insert(400, _VALIDATED.format("login", "null", "login field cannot be null."), login=None),
    _insert(400, "User role is invalid or empty", role=None),
    _insert(400, _PASSWORD, password=None),
    Case("POST /user", 400, INVALID, b""),
    Case("POST /user", 400, INVALID, b"null"),
    _insert(403, _TAKEN, login="cli"),
    Case("POST /user", 403, _ADMIN_ONLY, {**_NEW, "role": 0}, "client"),
]  # fmt: skip

_CURRENT = [
    Case("GET /user/current", 200, {**_CLI, "networks": [_HOME]}, who="client"),
    Case("GET /user/current?userId=1", 200,
         {**USER, "id": "<boss>", "login": "boss", "networks": []}, who="narrow"),
    Case("PUT /user/current", 204, body={"introReviewed": True, "password": None}, who="outsider",
         then=[Case("GET /user/<outsider>", 200, {**USER, "login": "out", "introReviewed": True,
                                                  "networks": []})]),
    Case("PUT /user/current", 204, who="outsider"),
    *(Case("PUT /user/current", 400, text, broken, "narrow") for broken, text in _BROKEN),
    Case("PUT /user/current", 400, INVALID, b"null"),
    Case("PUT /user/current", 403, _TAKEN, {"login": "cli"}, "narrow"),
    *(
        Case("PUT /user/current", 403, _ADMIN_ONLY, {**fields, "password": "changed"}, "client")
        for fields in ({"login": "new"}, {"role": 0}, {"role": 1}, {"status": 0},
                       {"allDeviceTypesAvailable": True})
    ),
]  # fmt: skip


def _update(status: int, answer: object, /, **fields: object) -> Case:
    return Case("PUT /user/<client>", status, answer, fields)


def _updated(body: object, **seen: object) -> Case:
    return Case("PUT /user/<kept>", 204, body=body, given=_KEPT,
                then=[Case("GET /user/<kept>", 200, {**_KEPT_AS, **seen})])  # fmt: skip


_ONES = [
    Case("GET /user/<client>", 200, {**_CLI, "networks": [_HOME]}),
    Case("GET /user/<client>?userId=1", 200, {**_CLI, "networks": [_HOME]}, who="client"),
    Case("GET /user/999999", 404, _NOBODY),
    Case("GET /user/x", 404, UNKNOWN),
    # Who is no administrator is forbidden the others, in the words of what is not there.
    *(
        Case(f"GET /user/{number}", 403,
             {"error": 404, "message": f"User with id = {number} not found"}, who="client")
        for number in ("<admin>", "<outsider>", 999999)
    ),
    _updated({"login": "now-<n>", "role": 0, "status": 2, "data": {}, "introReviewed": True,
              "allDeviceTypesAvailable": True, "id": 7},
             login="now-<n>", role=0, status=2, data={}, introReviewed=True,
             allDeviceTypesAvailable=True),
    _updated({"status": 1}, status=1),
    _updated({"data": None, "password": ""}),
    _updated(None),
    Case("PUT /user/<kept>", 204, body={"password": "changed"}, given=_KEPT, then=[
        Case("POST /token", 201, TOKENS, {"login": "kept-<n>", "password": "changed"}, None),
        Case("POST /token", 401, "Invalid credentials",
             {"login": "kept-<n>", "password": "secret"}, None),
    ]),
    *(_update(400, text, **broken) for broken, text in _BROKEN),
    Case("PUT /user/<client>", 400, INVALID, b"null"),
    _update(403, _TAKEN, login="boss"),
    Case("PUT /user/<client>", 403, _ADMIN_ONLY, {"role": 0}, "client"),
    Case("PUT /user/<admin>", 403, _ADMIN_ONLY, {"password": "mine now"}, "client"),
    Case("PUT /user/999999", 404, _NOBODY, {"status": 1}),
    Case("PUT /user/x", 404, UNKNOWN, {"status": 1}),
    Case("DELETE /user/<kept>", 204, given=_KEPT, then=[
        Case("GET /user/<kept>", 404, "User with id = <kept> not found"),
        Case("GET /user/count?login=kept-<n>", 200, {"count": 0}),
    ]),
    Case("DELETE /user/<admin>", 403,
         "You can not delete a user or access key that you use to authenticate this request"),
    Case("DELETE /user/999999", 404, _NOBODY),
    Case("DELETE /user/x", 404, UNKNOWN),
]  # fmt: skip

_NO_NETWORK = "Network with id {} for user with id {} was not found"
_NO_TYPE = "Device type with id {} for user with id {} not found"
_ALL = "Cannot assign device type to user with all device types allowed"
_WITH_NETWORK = [*_KEPT, Step("PUT /user/<kept>/network/<shed>")]
_WITH_TYPE = [*_KEPT, Step("PUT /user/<kept>/devicetype/<light>")]
_NETWORKS = [
    Case("GET /user/<client>/network/<home>", 200, {"network": _HOME}),
    Case("GET /user/<client>/network/<home>", 200, {"network": _HOME}, who="client"),
    Case("GET /user/<client>/network/<shed>", 404, _NO_NETWORK.format("<shed>", "<client>")),
    Case("GET /user/<client>/network/999999", 404, _NO_NETWORK.format(999999, "<client>")),
    Case("GET /user/<admin>/network/<home>", 404, "User with id = 1 not found", who="client"),
    Case("PUT /user/<kept>/network/<shed>", 204, given=_KEPT,
         then=[Case("GET /user/<kept>", 200, {**_KEPT_AS, "networks": [_SHED]})]),
    Case("PUT /user/<kept>/network/<shed>", 204, given=_WITH_NETWORK,
         then=[Case("GET /user/<kept>", 200, {**_KEPT_AS, "networks": [_SHED]})]),
    Case("DELETE /user/<kept>/network/<shed>", 204, given=_WITH_NETWORK,
         then=[Case("GET /user/<kept>", 200, _KEPT_AS)]),
    Case("DELETE /user/<kept>/network/<shed>", 204, given=_KEPT),
    *(
        Case(f"{method} /user/<client>/network/999999", 404, "Network with id = 999999 not found")
        for method in ("PUT", "DELETE")
    ),
]  # fmt: skip
_TYPES = [
    Case("GET /user/<client>/devicetype", 200, [_LIGHT]),
    Case("GET /user/<kept>/devicetype", 200, [], given=_KEPT),
    Case("GET /user/<admin>/devicetype", 200, list),
    Case("GET /user/<client>/devicetype/<light>", 200, {"deviceType": _LIGHT}),
    Case("GET /user/<admin>/devicetype/<light>", 200, {"deviceType": _LIGHT}),
    Case("GET /user/<client>/devicetype/<light>", 200, {"deviceType": _LIGHT}, who="client"),
    Case("GET /user/<client>/devicetype/<lock>", 404, _NO_TYPE.format("<lock>", "<client>")),
    Case("GET /user/<admin>/devicetype/999999", 404, _NO_TYPE.format(999999, "<admin>")),
    Case("GET /user/<admin>/devicetype/<light>", 404, "User with id = 1 not found", who="client"),
    Case("PUT /user/<kept>/devicetype/<light>", 204, given=_KEPT,
         then=[Case("GET /user/<kept>/devicetype", 200, [_LIGHT])]),
    Case("DELETE /user/<kept>/devicetype/<light>", 204, given=_WITH_TYPE,
         then=[Case("GET /user/<kept>/devicetype", 200, [])]),
    *(
        Case(f"{method} /user/<client>/devicetype/999999", 404,
             "Device type with id = 999999 not found")
        for method in ("PUT", "DELETE")
    ),
    *(
        Case(f"{method} /user/<admin>/devicetype/<light>", 403, _ALL)
        for method in ("PUT", "DELETE")
    ),
    # All of them are more than any list has by default, and the list of one's own is gone.
    Case("PUT /user/<kept>/devicetype/all", 204, given=_WITH_TYPE, then=[
        Case("GET /user/<kept>", 200, {**_KEPT_AS, "allDeviceTypesAvailable": True}),
        Case("DELETE /user/<kept>/devicetype/all", 204),
        Case("GET /user/<kept>/devicetype", 200, []),
    ]),
    Case("DELETE /user/<kept>/devicetype/all", 204, given=[
        *_KEPT, Step("PUT /user/<kept>/devicetype/all"),
    ], then=[Case("GET /user/<kept>", 200, _KEPT_AS)]),
]  # fmt: skip
#: What names a user that is not there, or no user at all.
_OF_NOBODY = [
    Case(f"{method} /user/{user}/{rest}", 404, text)
    for user, text in (("999999", _NOBODY), ("x", UNKNOWN), ("current", UNKNOWN))
    for rest, methods in (("network/<home>", ("GET", "PUT", "DELETE")),
                          ("devicetype/<light>", ("GET", "PUT", "DELETE")),
                          ("devicetype/all", ("PUT", "DELETE")), ("devicetype", ("GET",)))
    for method in methods
] + [
    Case(f"{method} /user/<client>/{noun}/x", 404, UNKNOWN)
    for noun in ("network", "devicetype")
    for method in ("GET", "PUT", "DELETE")
]  # fmt: skip

CASES = [*_LISTS, *_INSERTS, *_CURRENT, *_ONES, *_NETWORKS, *_TYPES, *_OF_NOBODY]
