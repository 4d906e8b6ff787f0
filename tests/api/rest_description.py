"""How an answer of REST must look: what holds for all, and what the API's description says."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator

from tests.api.test_devicehive_rest import CORS
from tests.api.web import Answered

_NAME = re.compile(r"\{\w+\}")
_METHODS = frozenset({"get", "put", "post", "delete", "patch", "head", "options", "trace"})


@cache
def description() -> Any:
    """Return the document that the gateway serves."""
    return json.loads((files("gatewayd.api.devicehive") / "openapi.json").read_bytes())


def bare(path: str) -> str:
    """Return a path without the names of its fields."""
    return _NAME.sub("{}", path)


@cache
def operations() -> dict[tuple[str, str], Any]:
    """Return what the document says of each method of each bare path."""
    return {
        (method.upper(), bare(path)): operation
        for path, item in description()["paths"].items()
        for method, operation in item.items()
        if method in _METHODS
    }


@cache
def _response(method: str, path: str, status: int) -> Any:
    found = operations()[method, path]["responses"].get(str(status))
    if found is not None and "$ref" in found:
        found = description()["components"]["responses"][found["$ref"].rpartition("/")[2]]
    return found


@cache
def _validator(method: str, path: str, status: int, media_type: str) -> Any:
    schema = _response(method, path, status)["content"][media_type]["schema"]
    return Draft202012Validator({"components": description()["components"], "allOf": [schema]})


def check_described(method: str, path: str, answered: Answered) -> None:
    """Check that the document has an answer with its status, and that the body is valid.

    :param path: of the endpoint, with its fields in braces.
    """
    operation = method, bare(path)
    response = _response(*operation, answered.code)
    assert response is not None, f"{answered.code} of {operation} is not documented"
    if "content" not in response:
        assert not answered.body, f"{answered.code} of {operation} is documented without a body"
        return
    media_type, _, _ = (answered.header("Content-Type") or "").partition(";")
    assert media_type in response["content"], (operation, answered.code, media_type)
    value = answered.json if media_type == "application/json" else answered.body.decode()
    errors = [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
        for error in _validator(*operation, answered.code, media_type).iter_errors(value)
    ]
    assert not errors, (operation, answered.code, errors)


def check_form(answered: Answered, method: str, content_type: str = "application/json") -> None:
    """Check what holds for every answer: CORS, a length, a type, and no silent error.

    :param content_type: of a success.
    """
    for name, value in CORS.items():
        assert answered.header(name) == value, (answered, name)
    assert answered.header("Transfer-Encoding") is None
    if method in ("HEAD", "OPTIONS") or answered.code == 204:
        assert not answered.body
        return
    assert answered.body
    assert answered.length == len(answered.body)
    wanted = content_type if answered.code < 300 else "application/json"
    assert answered.header("Content-Type") == wanted
