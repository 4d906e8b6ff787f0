"""What the description of the ux4iot API says of an answer."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator

from tests.api.web import Answered

_NAME = re.compile(r"\{\w+\}")


@cache
def description() -> Any:
    """Return the document that the gateway serves."""
    return json.loads((files("gatewayd.api.ux4iot") / "openapi.json").read_bytes())


@cache
def operations() -> dict[tuple[str, str], Any]:
    """Return what it says of each method of each path, whose fields are ``{}``."""
    return {
        (method.upper(), _NAME.sub("{}", path)): operation
        for path, item in description()["paths"].items()
        for method, operation in item.items()
        if isinstance(operation, dict)
    }


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    """Return what validates against a schema that refers to the components."""
    return Draft202012Validator({**schema, "components": description()["components"]})


def check_answer(method: str, path: str, answered: Answered) -> None:
    """Check an answer by the document, if that has the method and path of the request.

    :param path: below the prefix, with its query.
    """
    place = path.partition("?")[0].removesuffix("/")
    for each, template in operations():
        if each == method and _pattern(template).fullmatch(place):
            check_described(method, template, answered)


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile("[^/]+".join(map(re.escape, template.split("{}"))))


def check_described(method: str, path: str, answered: Answered) -> None:
    """Check that the document has an answer with its status, and that head and body are valid.

    :param path: of the endpoint, with ``{}`` for its fields.
    """
    responses = operations()[method, path]["responses"]
    response = responses.get(str(answered.code), responses.get("default"))
    assert response is not None, f"{answered.code} of {method} {path} is not described"
    if "$ref" in response:
        response = description()["components"]["responses"][response["$ref"].rpartition("/")[2]]
    for name, header in response.get("headers", {}).items():
        _check_header(header, answered.header(name))
    if "content" not in response:
        assert not answered.body
        return
    media_type = (answered.header("Content-Type") or "").partition(";")[0]
    value = answered.json if media_type == "application/json" else answered.body.decode()
    validator(response["content"][media_type]["schema"]).validate(value)


def _check_header(header: dict[str, Any], said: str | None) -> None:
    """Check a header field of an answer; those that are not required may be missing."""
    if said is not None:
        whole = header["schema"].get("type") == "integer"
        validator(header["schema"]).validate(int(said) if whole else said)
    else:
        assert not header.get("required")
