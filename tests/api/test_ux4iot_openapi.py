"""The description of the ux4iot API: that it is sound, served, and what the API does."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
import yaml
from openapi_spec_validator import OpenAPIV31SpecValidator

from gatewayd.openapi import SOURCES, render
from tests.api.ux4iot import StartUx, Ux, fill, start_ux, ux
from tests.api.ux4iot_description import operations, validator
from tests.api.ux4iot_table import CASES, DOCUMENTED, call, change, of

__all__ = ["start_ux", "ux"]

TEXT = (SOURCES / "ux4iot.yaml").read_text()
SERVED = SOURCES.parent.parent / "gatewayd" / "api" / "ux4iot" / "openapi.json"
DOCUMENT: Any = yaml.safe_load(TEXT)
OLDER = {"sessionId": "<session>", "deviceId": "lamp", "grantType": "subscribeToDeviceTwin"}
LISTS = operations()["PUT", "/subscriptions"]["requestBody"]["content"]["application/json"]


def test_is_openapi() -> None:
    """The document is valid OpenAPI 3.1, and the JSON is made from it."""
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []
    assert SERVED.read_text() == render(TEXT), (
        "run: python -m gatewayd.openapi ux4iot > gatewayd/api/ux4iot/openapi.json"
    )


def test_complete() -> None:
    """Every endpoint is described, with every status that there is a case for."""
    described = {f"{method} {path}": each for (method, path), each in operations().items()}
    assert described.keys() == {*DOCUMENTED, "GET /openapi.json"}
    for case in CASES:
        responses = described[case.endpoint]["responses"]
        assert str(case.status) in responses or "default" in responses, case


@pytest_twisted.ensureDeferred
async def test_served(start_ux: StartUx) -> None:
    """The document is beside the other paths, and says that they are there."""
    for path in ("", "/x"):
        ux = await start_ux(path=path)
        answered = await ux.ask(f"GET {path}/openapi.json")
        assert answered.body == SERVED.read_bytes()
        assert answered.header("Content-Type") == "application/json"
        assert answered.json["servers"][0]["url"] == "."


#: What is asked for, the schema of its body, a body, and whether that is good.
BODIES: list[tuple[str, str | None, Any, bool]] = [
    *(
        ("PUT /grants", "GrantRequest", body, good)
        for body, good in (
            (of("telemetry"), True), (of("telemetry", telemetryKey=None, x=1), True),
            (of("deviceTwin", telemetryKey=1), True), (OLDER, True),
            ({**OLDER, "type": "deviceTwin"}, True), ({**OLDER, "type": "x"}, False),
            (of("x"), False), (of("telemetry", telemetryKey=1), False),
            (of("telemetry", telemetryKey="x" * 1025), False), (of("telemetry", "a b"), False),
            (of("directMethod", directMethodName={}), False), ({"type": "telemetry"}, False),
            ([], False), ({**OLDER, "grantType": "telemetry"}, False),
        )
    ),
    *(
        ("PUT /subscription", "SubscriptionRequest", body, good)
        for body, good in (
            (of("d2cMessages"), True), (of("telemetry", telemetryKey="t"), True),
            (of("directMethod"), False), (OLDER, False), (of("telemetry", telemetryKey=[]), False),
            ({"type": "telemetry", "deviceId": "lamp"}, False),
        )
    ),
    *(
        ("PUT /subscriptions", None, body, good)
        for body, good in (
            ([], True), ([of("telemetry")], True), ({"subscriptionRequests": [], "x": 1}, True),
            ({"subscriptionRequests": [of("deviceTwin")]}, True),
            ([of("telemetry"), of("x")], False), ({}, False), (None, False), ([[]], False),
            ({"subscriptionRequests": of("telemetry")}, False),
        )
    ),
    *(
        ("POST /directMethod", "MethodCall", body, good)
        for body, good in (
            (call("foreign", responseTimeoutInSeconds=5.5, x=1, payload=None), True),
            (call("foreign", connectTimeoutInSeconds=None), True),
            (call("foreign", connectTimeoutInSeconds="1"), False),
            (call("foreign", responseTimeoutInSeconds=True), False),
            ({"deviceId": "foreign"}, False), ({"deviceId": "foreign", "methodParams": {}}, False),
            ({**call(), "deviceId": 1}, False),
        )
    ),
    *(
        ("PATCH /deviceTwinDesiredProperties", "DesiredPatch", body, good)
        for body, good in (
            (change(), True), ({**change(), "desiredPropertyPatch": {}}, True),
            ({**change(), "desiredPropertyPatch": []}, False), ({"deviceId": "lamp"}, False),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("line", "schema", "body", "good"), BODIES)
@pytest_twisted.ensureDeferred
async def test_requests(ux: Ux, line: str, schema: str | None, body: Any, good: bool) -> None:
    """What the description refuses the gateway refuses, and nothing else."""
    session = await ux.session(*(of(type_) for type_ in ("telemetry", "deviceTwin", "d2cMessages")))
    body = fill(body, session)
    wanted = LISTS["schema"] if schema is None else {"$ref": f"#/components/schemas/{schema}"}
    assert validator(wanted).is_valid(body) is good
    answered = await ux.ask(line, body, "good")
    understood = answered.code != 400 or answered.body.startswith(b"IoT Hub API disabled")
    assert understood is good, answered
