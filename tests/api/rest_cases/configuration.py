"""Named values that administrators keep."""

from __future__ import annotations

from tests.api.rest_table import INVALID, SETTING, Case, Step

_PREFIX = (
    "Error! Make sure, that the passed object is correct and properly structured. "
    "Validation failed: \nOn property value (value: {}): {} ; "
)
_LONG = "Field cannot be empty. The length of value should not be more than 128 symbols."
_NONE = "Requested config with name = {} not found in the database"
_NAME = "Name cannot be empty. The name's length should not be more than 32 symbols."
_COLOUR = {**SETTING, "name": "colour", "value": "blue"}
_KEPT = [Step("PUT /configuration/kept-<n>", {"value": "old"})]


def _put(status: int, answer: object, body: object, name: str = "bad-<n>") -> Case:
    return Case(f"PUT /configuration/{name}", status, answer, body)


CASES = [
    Case("GET /configuration/colour", 200, _COLOUR),
    Case("GET /configuration/colour?name=other", 200, _COLOUR),
    Case("GET /configuration/none", 404, _NONE.format("none")),
    Case("GET /configuration/Colour", 404, _NONE.format("Colour")),
    Case("GET /configuration/a%20b%2Fc", 404, _NONE.format("a b/c")),
    Case("GET /configuration/colour", 200, _COLOUR, who="narrow"),
    Case("PUT /configuration/new-<n>", 200,
         {**SETTING, "name": "new-<n>", "value": "v", "entityVersion": 0}, {"value": "v"},
         then=[Case("GET /configuration/new-<n>", 200, {**SETTING, "name": "new-<n>",
                                                        "value": "v"})]),
    Case("PUT /configuration/kept-<n>", 200,
         {**SETTING, "name": "kept-<n>", "value": "new", "entityVersion": 1},
         {"value": "new", "name": "ignored", "id": 7}, given=_KEPT),
    Case("PUT /configuration/kept-<n>?value=query&name=query", 200,
         {**SETTING, "name": "kept-<n>", "value": "5"}, {"value": 5}, given=_KEPT),
    _put(200, {**SETTING, "name": "k" * 32, "value": "v" * 128}, {"value": "v" * 128}, "k" * 32),
    _put(400, _PREFIX.format("null", "value field cannot be null."), {}),
    _put(400, _PREFIX.format("null", "value field cannot be null."), b""),
    _put(400, _PREFIX.format("", _LONG), {"value": ""}),
    _put(400, _PREFIX.format("v" * 129, _LONG), {"value": "v" * 129}),
    _put(400, _NAME, {"value": "v"}, "k" * 33),
    _put(400, INVALID, {"value": []}),
    _put(400, INVALID, b"[]"),
    Case("DELETE /configuration/kept-<n>", 204, given=_KEPT,
         then=[Case("GET /configuration/kept-<n>", 404, _NONE.format("kept-<n>"))]),
    Case("DELETE /configuration/none", 404, _NONE.format("none")),
]  # fmt: skip
