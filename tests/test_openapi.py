"""The description of the REST API: that it is sound, complete, and the one that is served."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gatewayd.api.devicehive.fields import Fields
from gatewayd.api.devicehive.timestamps import format_timestamp, parse_timestamp
from gatewayd.openapi import SOURCE, render

SERVED = SOURCE.parent.parent.parent / "gatewayd" / "api" / "devicehive" / "openapi.json"
TEXT = SOURCE.read_text()
DOCUMENT: Any = yaml.safe_load(TEXT)
COMPONENTS = DOCUMENT["components"]
SCHEMAS = COMPONENTS["schemas"]
#: The endpoints of DeviceHive 4.1, and the one that serves the description.
ENDPOINTS = """
GET / /openapi.json /info /info/cache /info/config/cluster
POST /token /token/create /token/refresh /token/plugin/create
GET /token/plugin/authenticate
GET PUT DELETE /configuration/{name}
GET /device /device/count
GET PUT DELETE /device/{deviceId}
GET POST /device/{deviceId}/command /device/{deviceId}/notification
GET PUT /device/{deviceId}/command/{commandId}
GET /device/{deviceId}/command/{commandId}/poll
GET /device/{deviceId}/command/poll /device/command/poll
GET /device/{deviceId}/notification/{notificationId}
GET /device/{deviceId}/notification/poll /device/notification/poll
GET POST /network /devicetype /user
GET /network/count /devicetype/count /user/count
GET PUT DELETE /network/{networkId} /devicetype/{deviceTypeId} /user/{userId}
GET PUT /user/current
GET PUT DELETE /user/{userId}/network/{networkId}
GET /user/{userId}/devicetype
PUT DELETE /user/{userId}/devicetype/all
GET PUT DELETE /user/{userId}/devicetype/{deviceTypeId}
GET POST PUT DELETE /plugin
GET /plugin/count
"""
PUBLIC = {
    "welcome", "getDescription", "getInfo", "getCacheInfo", "getClusterInfo", "logIn",
    "refreshToken", "authenticatePlugin",
}  # fmt: skip
#: Neither the store nor a name in the path or query stands behind these.
CONSTANT = {"welcome", "getDescription", "getInfo", "getCacheInfo", "getClusterInfo"}
#: Objects that the client writes; and the description itself.
OPEN = {"Object", "getDescription"}


def endpoints() -> set[tuple[str, str]]:
    """Return the methods and paths of the table."""
    found = set()
    for line in ENDPOINTS.split("\n"):
        words = line.split()
        paths = {word for word in words if word.startswith("/")}
        found |= {(method, path) for method in set(words) - paths for path in paths}
    return found


def operations() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Return method, path and description of each operation by its id."""
    found = {}
    for path, item in DOCUMENT["paths"].items():
        shared = item.get("parameters", [])
        for method, operation in item.items():
            if method != "parameters":
                said = {**operation, "parameters": shared + operation.get("parameters", [])}
                found[operation["operationId"]] = (method.upper(), path, said)
    return found


OPERATIONS = operations()


def resolve(value: Any) -> Any:
    """Return what a reference refers to; what is none, as it is."""
    while isinstance(value, dict) and "$ref" in value:
        target: Any = DOCUMENT
        for part in value["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        value = target
    return value


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Return each object in a part of the document, itself among them."""
    if isinstance(value, dict):
        yield value
        for member in value.values():
            yield from nodes(member)
    elif isinstance(value, list):
        for member in value:
            yield from nodes(member)


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    """Return what validates against a schema that refers to the components."""
    return Draft202012Validator({**schema, "components": COMPONENTS})


def accepts(name: str, value: object) -> bool:
    """Whether a schema among the components accepts a value."""
    return bool(validator({"$ref": f"#/components/schemas/{name}"}).is_valid(value))


def bodies() -> dict[str, dict[str, Any]]:
    """Return the schema of each operation's body."""
    return {
        name: operation["requestBody"]["content"]["application/json"]["schema"]
        for name, (_, _, operation) in OPERATIONS.items()
        if "requestBody" in operation
    }


# The two files


def test_served_json_is_current() -> None:
    """What the gateway serves is what the YAML says today."""
    assert SERVED.read_text() == render(TEXT), (
        "run: python -m gatewayd.openapi > gatewayd/api/devicehive/openapi.json"
    )


def test_module_prints_the_json() -> None:
    """``python -m gatewayd.openapi`` prints exactly the file, whose contents are the YAML's."""
    command = [sys.executable, "-m", "gatewayd.openapi"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert printed.stdout == render(TEXT)
    assert json.loads(printed.stdout) == DOCUMENT


def test_no_key_comes_twice() -> None:
    """No mapping of the YAML has a key twice, of which one would be lost in silence."""

    def check(node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), f"line {node.start_mark.line + 1}: {keys}"
            for _, value in node.value:
                check(value)
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                check(value)

    root = yaml.compose(TEXT)
    assert root is not None
    check(root)


# Soundness


def test_is_openapi() -> None:
    """The document is valid OpenAPI 3.1, its schemas valid JSON Schema, its defaults too."""
    assert DOCUMENT["openapi"] == "3.1.0"
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []
    for schema in [*SCHEMAS.values(), *(n["schema"] for n in nodes(DOCUMENT) if "schema" in n)]:
        Draft202012Validator.check_schema(schema)


def test_every_component_is_used() -> None:
    """Every reference leads somewhere, and every component is referred to."""
    used = {node["$ref"] for node in nodes(DOCUMENT) if "$ref" in node}
    defined = {
        f"#/components/{kind}/{name}"
        for kind, components in COMPONENTS.items()
        if kind != "securitySchemes"
        for name in components
    }
    assert used == defined
    named = {name for node in nodes(DOCUMENT) for each in node.get("security", []) for name in each}
    assert named == COMPONENTS["securitySchemes"].keys()


def test_tags_are_declared() -> None:
    """Every operation has declared tags, and every tag is of use."""
    used = {tag for _, _, operation in OPERATIONS.values() for tag in operation["tags"]}
    assert used == {tag["name"] for tag in DOCUMENT["tags"]}


def test_links_lead_to_operations() -> None:
    """A link names an operation and parameters that it has."""
    found = 0
    for node in nodes(DOCUMENT["paths"]):
        for link in node.get("links", {}).values():
            _, _, operation = OPERATIONS[link["operationId"]]
            assert link.get("parameters", {}).keys() <= {
                resolve(each)["name"] for each in operation["parameters"]
            }
            found += 1
    assert found > 0


def test_examples_fit_their_schemas() -> None:
    """Every example is what its schema describes."""
    found = 0
    for node in nodes(DOCUMENT):
        if "examples" in node:
            for example in node["examples"]:
                validator(node).validate(example)
                found += 1
    assert found > 0


# Completeness


def test_endpoints() -> None:
    """The description has exactly the endpoints of DeviceHive, and itself."""
    described = {(method, path) for method, path, _ in OPERATIONS.values()}
    assert len(endpoints()) == 63 + 1
    assert described == endpoints()


def test_operation_ids_differ() -> None:
    """No id of an operation is given twice."""
    assert len(OPERATIONS) == 63 + 1


def test_prefixes() -> None:
    """There is a server for every prefix."""
    urls = [server["url"] for server in DOCUMENT["servers"]]
    assert urls == ["/rest", "/dh/rest", "/api/rest", "/auth/rest", "/plugin/rest"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_path_has_its_parameters(name: str) -> None:
    """Each segment in braces is a required parameter, and no parameter comes twice."""
    _, path, operation = OPERATIONS[name]
    parameters = [resolve(each) for each in operation["parameters"]]
    places = [(each["in"], each["name"]) for each in parameters]
    assert len(places) == len(set(places))
    in_path = {each["name"] for each in parameters if each["in"] == "path" and each["required"]}
    assert in_path == set(re.findall(r"\{(\w+)\}", path))


@pytest.mark.parametrize("name", OPERATIONS)
def test_success_is_of_the_method(name: str) -> None:
    """A POST creates, a PUT or DELETE has nothing to tell, and a GET tells something."""
    method, _, operation = OPERATIONS[name]
    success = {int(code) for code in operation["responses"] if int(code) < 400}
    usual = {"GET": {200}, "POST": {201}, "PUT": {204}, "DELETE": {204}}[method]
    assert success == {"putSetting": {200}, "waitForCommand": {200, 204}}.get(name, usual)
    for code in success:
        assert ("content" in resolve(operation["responses"][str(code)])) == (code != 204)


@pytest.mark.parametrize("name", OPERATIONS)
def test_errors_that_can_occur(name: str) -> None:
    """An operation lists the errors that follow from its form."""
    _, _, operation = OPERATIONS[name]
    parameters = [resolve(each) for each in operation["parameters"]]
    kinds = {each["in"] for each in parameters}
    schemas = [resolve(each.get("schema", {})) for each in parameters]
    codes = {int(code) for code in operation["responses"]}
    public = name in PUBLIC
    assert 401 in codes
    assert (403 in codes) == (not public)
    assert (503 in codes) == (name not in CONSTANT)
    assert (413 in codes) == ("requestBody" in operation)
    if "requestBody" in operation or ("query" in kinds and not public):
        assert 400 in codes
    if any(schema.get("type") == "integer" for schema in schemas):
        assert 404 in codes
    assert operation.get("security") == ([{}, {"bearer": []}] if public else None)


@pytest.mark.parametrize("name", OPERATIONS)
def test_answers_are_exact(name: str) -> None:
    """Every object in an answer has exactly the members that are listed, all of them."""
    _, _, operation = OPERATIONS[name]
    for code, response in operation["responses"].items():
        for media, content in resolve(response).get("content", {}).items():
            assert media == ("text/plain" if (name, code) == ("welcome", "200") else
                             "application/json")  # fmt: skip
            if name not in OPEN or code != "200":
                check_closed(content["schema"])


def check_closed(schema: dict[str, Any]) -> None:
    """Check the objects in a schema of an answer."""
    if schema.get("$ref", "").endswith("/Object"):
        return
    schema = resolve(schema)
    if schema.get("type") == "object":
        assert schema["additionalProperties"] is False
        assert set(schema["required"]) == schema["properties"].keys()
    for inner in [*schema.get("oneOf", []), *schema.get("properties", {}).values()]:
        check_closed(inner)
    if "items" in schema:
        check_closed(schema["items"])


@pytest.mark.parametrize("name", bodies())
def test_unknown_members_are_ignored(name: str) -> None:
    """A body may have members that nobody knows."""
    schema = resolve(bodies()[name])
    assert schema["type"] == "object"
    assert "additionalProperties" not in schema


@pytest.mark.parametrize("name", bodies())
def test_null_is_absent(name: str) -> None:
    """A member of a body may be null exactly when it may be missing."""
    schema = resolve(bodies()[name])
    for member, said in schema["properties"].items():
        assert validator(said).is_valid(None) == (member not in schema.get("required", [])), member


# What the description says of values is what the gateway does with them.


def read(method: str, value: object) -> Any:
    """Read a member of a body."""
    return getattr(Fields.parse(json.dumps({"x": value}).encode()), method)("x")


def pattern(name: str) -> re.Pattern[str]:
    """Return the pattern in a schema among the components."""
    (found,) = {node["pattern"] for node in nodes(SCHEMAS[name]) if "pattern" in node}
    return re.compile(found.removesuffix("$") + r"\Z")


READERS = {
    "OptionalTimestamp": "timestamp", "OptionalId": "integer", "OptionalBoolean": "boolean",
    "OptionalText": "string", "Role": "integer", "OptionalStatus": "integer",
}  # fmt: skip


@given(st.from_regex(pattern("TimestampText")))
def test_described_times_are_times(text: str) -> None:
    """Text that the description takes for a time is one."""
    format_timestamp(parse_timestamp(text))


@given(st.integers(-30_000_000_000_000, 253_402_300_799_999), st.sampled_from(["", "Z", "+01:00"]))
def test_shown_times_are_described(ms: int, zone: str) -> None:
    """A time from the year 1019 on that the gateway shows fits the description, with a zone too."""
    shown = format_timestamp(ms)
    assert accepts("Timestamp", shown)
    assert accepts("TimestampText", shown + zone)
    assert parse_timestamp(shown) == ms


@pytest.mark.parametrize(
    "text",
    ["2023-02-29", "2100-02-29", "2024-04-31", "2024-13-01", "2024-01-01T24:00", "2024-01-01T10",
     "2024-1-1", "2024-01-01T10:00:00.", "2024-01-01 10:00 Z", "-1", "1.5", "yesterday", "٣"],
)  # fmt: skip
def test_what_is_no_time(text: str) -> None:
    """What the gateway does not take for a time the description does not either."""
    assert not accepts("TimestampText", text)
    with pytest.raises(ValueError):
        parse_timestamp(text)


@pytest.mark.parametrize("name", ["OptionalId", "OptionalBoolean", "Role", "OptionalStatus"])
def test_described_texts_are_read(name: str) -> None:
    """Text that the description takes for a number or boolean is read as one."""

    @given(st.from_regex(pattern(name)))
    def check(text: str) -> None:
        assert read(READERS[name], text) is not None

    check()


SCALARS = st.none() | st.booleans() | st.integers(-9, 3_000) | st.floats(-9, 9) | st.text("tr01eE-")


@pytest.mark.parametrize("name", READERS)
def test_what_is_accepted_is_read(name: str) -> None:
    """A value that fits the description is read without an error."""

    @given(SCALARS | st.lists(SCALARS, max_size=1) | st.just({}))
    def check(value: object) -> None:
        if accepts(name, value):
            read(READERS[name], value)

    check()
