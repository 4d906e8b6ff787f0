"""Plugins and the tokens that open their topics; what takes more than a request is tested apart."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

from tests.api.rest_table import INVALID, TOKENS, UNKNOWN, Case, Step

TOPIC = re.compile(r"plugin_topic_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_REGISTERED = {**TOKENS, "topicName": TOPIC,
               "proxyEndpoint": re.compile(r"ws://127\.0\.0\.1:\d+/plugin/proxy")}  # fmt: skip
_NEW: dict[str, Any] = {"name": "plugin-<n>"}
#: A new plugin without a filter, and how it is listed.
_GIVEN = [Step("POST /plugin?names=old", {**_NEW, "description": "Some text"}, "topic")]
_GIVEN_AS = {"id": int, "name": "plugin-<n>", "description": "Some text", "topicName": "<topic>",
             "filter": "*/*/*/*/old", "status": "CREATED", "subscriptionId": None, "userId": 1,
             "parameters": None}  # fmt: skip
_ACTIVE = [*_GIVEN, Step("PUT /plugin?topicName=<topic>&status=ACTIVE")]

_NO_KIND = (
    "Requested subscription is not valid. Please, set at least one 'return*' parameter to true."
)
_IN_USE = "Plugin's subscription filter can't be updated if plugin is ACTIVE"
_NO_NAME = "Topic name is wrong or empty"
_NO_TOPIC = "No permisions or invalid topic name"
_NO_ACCESS = "No access to plugin"
_NOT_FOUND = "Plugin is not found"
_ACTIONS = "Actions list should contain only Strings or Integers"
_VALIDATED = (
    "Error! Make sure, that the passed object is correct and properly structured. "
    "Validation failed: \nOn property {0} (value: {1}): {2} ; "
)
_LENGTH = "The length of {} should be from 3 to 128 symbols."
_NAME = "The name can only contain letters, digits and _@.-"
_DESCRIPTION = "The description can only contain letters, digits, spaces and _@.-"
_REQUIRED = _VALIDATED.format("name", "null", "name field cannot be null.")
#: Rules that hold for new plugins as for old ones, by what breaks them.
_BROKEN: list[tuple[dict[str, str], str]] = [
    ({"name": "ab"}, _VALIDATED.format("name", "ab", _LENGTH.format("name"))),
    ({"name": "x" * 129}, _VALIDATED.format("name", "x" * 129, _LENGTH.format("name"))),
    ({"name": "a b {c}"}, _VALIDATED.format("name", "a b {c}", _NAME)),
    ({"name": "\u00e9tienne"}, _VALIDATED.format("name", "\u00e9tienne", _NAME)),
    ({"description": "ab"}, _VALIDATED.format("description", "ab", _LENGTH.format("description"))),
    ({"description": "a/b"}, _VALIDATED.format("description", "a/b", _DESCRIPTION)),
]
#: Filters that are none.
_BROKEN_FILTERS: list[tuple[str, str]] = [
    ("returnCommands=false", _NO_KIND),
    ("returnCommands=false&returnUpdatedCommands=false&returnNotifications=false", _NO_KIND),
    ("returnCommands=yes", INVALID),
    ("returnCommands=", INVALID),
    ("networkIds=a", INVALID),
    ("networkIds=1,0", INVALID),
    ("deviceTypeIds=-1", INVALID),
    (f"deviceTypeIds={2**63}", INVALID),
]
_KINDS = "returnCommands={}&returnUpdatedCommands={}&returnNotifications={}"
#: Filters, and how they are shown.
_FILTERS = [
    (_KINDS.format("true", "True", "TRUE"), "command,command_update,notification/*/*/*/*"),
    (_KINDS.format("false", "true", "true"), "command_update,notification/*/*/*/*"),
    ("returnCommands=true", "command/*/*/*/*"),
    ("returnUpdatedCommands=true", "command_update/*/*/*/*"),
    ("returnNotifications=true&returnCommands=false", "notification/*/*/*/*"),
    ("networkIds=2", "*/2/*/*/*"),
    ("networkIds=3,1,,3", "*/1,3/*/*/*"),
    ("deviceTypeIds=1,999999", "*/*/1,999999/*/*"),
    ("deviceId=No-Such-Device", "*/*/*/No-Such-Device/*"),
    ("names=b,a", "*/*/*/*/a,b"),
    ("names=%C3%A4,+$x", "*/*/*/*/ $x,\u00e4"),
    ("names=", "*/*/*/*/*"),
    ("networkIds=&deviceTypeIds=,&deviceId=&names=", "*/*/*/*/*"),
    (
        "returnNotifications=true&networkIds=1&deviceTypeIds=2&deviceId=D&names=n",
        "notification/1/2/D/n",
    ),
]


def _shown(**fields: object) -> list[Case]:
    """Return the request that shows a plugin as it is given but for some fields."""
    return [Case("GET /plugin?name=plugin-<n>", 200, [{**_GIVEN_AS, **fields}])]


def _insert(status: int, answer: object, body: object, query: str = "") -> Case:
    return Case(f"POST /plugin?{query}", status, answer, body)


def _registered(query: str, **fields: object) -> Case:
    shown = {**_GIVEN_AS, "topicName": TOPIC, "description": None, "filter": "*/*/*/*/*", **fields}
    said = {name: fields[name] for name in ("description", "parameters") if name in fields}
    return Case(
        f"POST /plugin?{query}", 201, _REGISTERED, _NEW | said,
        then=[Case("GET /plugin?name=plugin-<n>", 200, [shown])],
    )  # fmt: skip


_INSERTS = [
    _registered(""),
    _registered("name=x&topicName=x&status=ACTIVE", description="a\tb _@.-"),
    _registered("", parameters={"a": [1, {}]}),
    *(_registered(query, filter=shown) for query, shown in _FILTERS),
    *(_insert(400, text, {**_NEW, **broken}) for broken, text in _BROKEN),
    *(_insert(400, text, _NEW, query) for query, text in _BROKEN_FILTERS),
    *(_insert(400, _REQUIRED, body) for body in ({}, {"name": None}, {"plugin": _NEW})),
    _insert(400, _REQUIRED, {}, "plugin=%7B%22name%22:%22plugin%22%7D"),
    _insert(400, _VALIDATED.format("name", "", _LENGTH.format("name")), {"name": ""}),
    _insert(400, INVALID, {"name": ["plugin"]}),
    _insert(400, "'parameters' must be JSON Object!", {**_NEW, "parameters": [1]}),
    *(_insert(400, INVALID, body) for body in (b"", b"{", b"[]", b"null", b'{"name":"\xff"}')),
    Case("POST /plugin", 201, _REGISTERED, _NEW, who="client"),
]


def _update(status: int, answer: object, query: str, then: list[Case], **more: Any) -> Case:
    more = {"given": _GIVEN, **more}
    return Case(f"PUT /plugin?topicName=<topic>&{query}", status, answer, then=then, **more)


def _changed(query: str, **fields: object) -> Case:
    return _update(204, None, query, _shown(**fields))


_UPDATES = [
    _changed(""),
    _changed("description=&parameters=&status="),
    _changed("description=Other+text", description="Other text"),
    _changed("parameters=%7B%22a%22:+%7B%22b%22:1%7D%7D", parameters={"a": {"b": 1}}),
    _changed("status=INACTIVE", status="INACTIVE"),
    _changed("status=active&names=new", status="ACTIVE", subscriptionId=int, filter="*/*/*/*/new"),
    *(_changed(query, filter=shown) for query, shown in _FILTERS),
    _update(204, None, "name=other-<n>", [
        Case("GET /plugin?name=plugin-<n>", 200, []),
        Case("GET /plugin?name=other-<n>", 200, [{**_GIVEN_AS, "name": "other-<n>"}]),
    ]),
    *(_update(400, text, urlencode({"status": "INACTIVE", **broken}), _shown())
      for broken, text in _BROKEN),
    *(_update(400, text, f"status=INACTIVE&{query}", _shown()) for query, text in _BROKEN_FILTERS),
    *(_update(400, INVALID, f"description=Other&{query}", _shown())
      for query in ("status=gone", "status=1", "parameters=%7B", "parameters=%5B%5D")),
    _update(400, "Cannot change status of existing plugin to Created.",
            "description=Other&status=CREATED", _shown()),
    # The filter of an active plugin is in use, unless the same request turns it off.
    *(_update(400, _IN_USE, f"description=Other&{query}",
              _shown(status="ACTIVE", subscriptionId=int), given=_ACTIVE)
      for query, _ in _FILTERS),
    _update(204, None, "status=ACTIVE&description=Other",
            _shown(status="ACTIVE", subscriptionId=int, description="Other"), given=_ACTIVE),
    _update(204, None, "status=INACTIVE&names=", _shown(status="INACTIVE", filter="*/*/*/*/*"),
            given=_ACTIVE),
]  # fmt: skip
_DELETES = [
    Case("DELETE /plugin?topicName=<topic>", 204, given=_GIVEN, then=[
        Case("DELETE /plugin?topicName=<topic>", 404, _NOT_FOUND),
        Case("PUT /plugin?topicName=<topic>", 404, _NOT_FOUND),
        Case("GET /plugin?topicName=<topic>", 200, []),
    ]),
    *(Case(f"{method} /plugin?{query}", 400, _NO_NAME)
      for method in ("PUT", "DELETE") for query in ("", "topicName=", "topic=x")),
    # Whether there is another's, or none, is not told.
    *(Case(f"{method} /plugin?topicName={topic}", 403, _NO_ACCESS, who="client", given=_GIVEN)
      for method in ("PUT", "DELETE") for topic in ("<topic>", "nowhere", "*")),
]  # fmt: skip


def _found(query: str, *names: str, who: str = "admin") -> Case:
    return Case(
        f"GET /plugin?namePattern=p_<n>-%25&{query}", 200,
        [{**_GIVEN_AS, "topicName": TOPIC, "name": f"p_<n>-{name}", "filter": "*/*/*/*/*",
          "description": None, "status": str, "subscriptionId": Any} for name in names],
        given=_SEVERAL, who=who,
        then=[] if "take" in query or "skip" in query else [
            Case(f"GET /plugin/count?namePattern=p_<n>-%25&{query}", 200, {"count": len(names)},
                 who=who),
        ],
    )  # fmt: skip


_SEVERAL = [
    Step("POST /plugin", {"name": "p_<n>-b"}),
    Step("POST /plugin", {"name": "p_<n>-a"}, "topic"),
    Step("POST /plugin", {"name": "p_<n>-c"}, "other topic"),
    Step("PUT /plugin?topicName=<topic>&status=ACTIVE"),
    Step("PUT /plugin?topicName=<other topic>&status=INACTIVE"),
]
_LISTS = [
    _found("", "b", "a", "c"),
    _found("name=p_<n>-a", "a"),
    _found("name=p_<n>"),
    _found("topicName=<other topic>", "c"),
    _found("topicName=nowhere"),
    _found("status=0", "a"),
    _found("status=1", "c"),
    _found("status=2", "b"),
    _found("status=9"),
    _found("userId=1", "b", "a", "c"),
    _found("userId=<client>"),
    _found("userId=1&status=2&name=p_<n>-b", "b"),
    _found("", who="client"),
    _found("userId=<client>", who="client"),
    _found("sortField=id&sortOrder=DESC", "c", "a", "b"),
    _found("sortField=NAME", "a", "b", "c"),
    _found("sortField=name&take=2", "a", "b"),
    _found("sortOrder=desc&take=1", "c"),
    _found("take=1&skip=1", "a"),
    _found("take=0"),
    _found("skip=9"),
    Case("GET /plugin", 200, [], who="outsider"),
    Case("GET /plugin/count", 200, {"count": 0}, who="outsider"),
    *(Case(f"GET {path}?userId=1", 403, _NO_ACCESS, who="client")
      for path in ("/plugin", "/plugin/count")),
    Case("GET /plugin?sortField=topicName", 400, INVALID),
    Case("GET /plugin?sortOrder=up", 400, "Unparseable sort order : up"),
    *(Case(f"GET /plugin?{name}=-1", 400, INVALID) for name in ("take", "skip")),
    *(Case(f"GET /plugin?{name}=x", 404, UNKNOWN) for name in ("take", "skip", "status", "userId")),
    *(Case(f"GET /plugin/count?{name}=x", 404, UNKNOWN) for name in ("status", "userId")),
    *(Case(f"GET {path}?namePattern={'a' * 1025}", 400, INVALID)
      for path in ("/plugin", "/plugin/count")),
]  # fmt: skip


#: What is no list of actions.
_NO_ACTIONS: tuple[object, ...] = ([None], [[]], "x", {})


def _create(status: int, answer: object, /, who: str = "admin", **fields: object) -> Case:
    return Case("POST /token/plugin/create", status, answer, fields, who=who, given=_GIVEN)


def _authenticate(query: str, text: str) -> Case:
    return Case(f"GET /token/plugin/authenticate?{query}", 401, text, who=None)


_TOKENS = [
    _create(201, TOKENS, tpc="<topic>"),
    _create(201, TOKENS, tpc="<topic>", a=["ManagePlugin", 0, 99], e="2099-01-01", t=0),
    _create(201, TOKENS, tpc="<topic>", e=4_070_908_800_000),
    _create(201, TOKENS, tpc="*"),
    *(_create(403, _NO_TOPIC, **body) for body in ({}, {"tpc": ""}, {"tpc": "nowhere"})),
    *(_create(403, _NO_TOPIC, "client", tpc=topic) for topic in ("*", "nowhere")),
    _create(403, "User with id 1 is not a plugin creator", "client", tpc="<topic>"),
    _create(400, INVALID, tpc=["<topic>"]),
    _create(400, INVALID, tpc={}),
    _create(400, INVALID, tpc="<topic>", e="soon"),
    *(_create(400, _ACTIONS, tpc="<topic>", a=bad) for bad in _NO_ACTIONS),
    *(Case("POST /token/plugin/create", 400, INVALID, body) for body in (b"", b"[]", b"null")),
    _authenticate("", "Token is empty"),
    _authenticate("token=", "Token is empty"),
    _authenticate("token=x", "Token is not valid"),
    _authenticate("token=<access token>", "Token is not valid"),
    _authenticate("token=<refresh token>", "Invalid token type"),
]
CASES = [*_INSERTS, *_UPDATES, *_DELETES, *_LISTS, *_TOKENS]
