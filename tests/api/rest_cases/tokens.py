"""Logging in, renewing tokens and making them."""

from __future__ import annotations

from typing import Any

from tests.api.rest_table import DENIED, INVALID, JWT, TIMESTAMP, TOKENS, Case, Step
from tests.harness import ADMIN, PASSWORD

_EMPTY = "Invalid or empty authorization request parameters"
_MISSING = "Missing or invalid payload in request"
_ACTIONS = "Actions list should contain only Strings or Integers"
_LOCKED = "User is locked or disabled"
_NO_USER = (
    "Error! Make sure, that the passed object is correct and properly structured. "
    "Validation failed: \nOn property userId (value: null): must not be null ; "
)
_NO_ACTIONS: list[Any] = [[True], [[]], [1.5], "x", {}]
_GOOD = {"login": ADMIN, "password": PASSWORD}


def _log_in(status: int, answer: object, body: object, query: str = "") -> Case:
    return Case(f"POST /token{query}", status, answer, body, who=None)


def _refresh(status: int, answer: object, body: object, query: str = "") -> Case:
    return Case(f"POST /token/refresh{query}", status, answer, body, who=None)


def _create(status: int, answer: object, who: str = "admin", **fields: object) -> Case:
    return Case("POST /token/create", status, answer, fields, who=who)


CASES = [
    _log_in(201, TOKENS, _GOOD),
    _log_in(201, TOKENS, {**_GOOD, "more": [1]}),
    _log_in(201, TOKENS, _GOOD, "?login=other&password=x"),
    Case("POST /token", 201, TOKENS, _GOOD, who="client"),
    _log_in(401, "Invalid credentials", {**_GOOD, "password": "wrong"}),
    _log_in(401, "Invalid credentials", {**_GOOD, "login": "nobody"}),
    _log_in(401, "Invalid credentials", {"login": "locked", "password": "wrong"}),
    _log_in(401, _LOCKED, {"login": "locked", "password": "locked_#911"}),
    *(
        _log_in(400, _EMPTY, body)
        for body in ({}, {"login": ADMIN}, {"password": PASSWORD}, {**_GOOD, "login": ""},
                     {**_GOOD, "login": " "}, {**_GOOD, "password": ""},
                     {**_GOOD, "login": None})
    ),
    _log_in(400, _EMPTY, {}, f"?login={ADMIN}&password=dhadmin_%23911"),
    _log_in(400, INVALID, {**_GOOD, "login": [ADMIN]}),
    _log_in(400, INVALID, b"null"),
    _refresh(201, {"accessToken": JWT}, {"refreshToken": "<refresh token>"}),
    _refresh(400, _MISSING, {}),
    _refresh(400, _MISSING, {"refreshToken": ""}),
    _refresh(400, _MISSING, {}, "?refreshToken=<refresh token>"),
    _refresh(400, INVALID, {"refreshToken": {}}),
    _refresh(400, INVALID, b"[]"),
    _refresh(401, "Invalid token type", {"refreshToken": "<access token>"}),
    _refresh(401, "Token has expired", {"refreshToken": "<expired token>"}),
    _refresh(401, "Unauthorized", {"refreshToken": "<refresh token>x"}),
    _refresh(401, "Unauthorized", {"refreshToken": "<token of nobody>"}),
    _create(201, TOKENS, userId="<client>"),
    _create(201, TOKENS, userId="<client>", actions=["GetDevice", "getnetwork", 5, "unknown"],
            networkIds=["<home>"], deviceTypeIds=["*"], expiration="2099-01-01T00:00:00",
            refreshExpiration=4_070_908_800_000),
    _create(201, TOKENS, "client", userId="<client>", actions=["GetDevice"],
            networkIds="<home>", deviceTypeIds=["<light>"]),
    _create(400, _NO_USER),
    _create(400, _NO_USER, userId=None),
    _create(400, _NO_USER, payload={"userId": 1}),
    *(_create(400, _ACTIONS, userId=1, actions=bad) for bad in _NO_ACTIONS),
    _create(400, INVALID, userId="x"),
    _create(400, INVALID, userId=1, expiration="soon"),
    _create(400, INVALID, userId=1, networkIds={}),
    Case("POST /token/create", 400, INVALID, b"null"),
    Case("POST /token/create?userId=1", 400, _NO_USER, {}),
    _create(404, "User with id = 999999 not found", userId=999999),
    _create(403, _LOCKED, userId="<locked>"),
    # A client makes tokens for itself, and for nothing that it does not reach.
    _create(403, DENIED, "client", userId="<admin>", actions=["GetDevice"]),
    _create(403, DENIED, "narrow", userId="<boss>", actions=["GetDevice"],
            networkIds=["<shed>"]),
    # A plugin's token is judged by the one who asks for it.
    Case("GET /token/plugin/authenticate?token=<topic token>", 200,
         {"a": [16], "e": TIMESTAMP, "t": 1, "tpc": "<topic>"}, who=None,
         given=[Step("POST /plugin", {"name": "plugin-<n>"}, "topic")]),
    # Who is locked by somebody else is not let in any more.
    Case(
        "POST /token", 401, _LOCKED, {"login": "late-<n>", "password": "late_#911"}, who=None,
        given=[
            Step("POST /user", {"login": "late-<n>", "password": "late_#911", "role": 1}, "late"),
            Step("PUT /user/<late>", {"status": 2}),
        ],
    ),
]  # fmt: skip
