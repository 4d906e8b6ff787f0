"""The description of the ux4iot API: that it is sound, served, and what the API does."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
import pytest_twisted
import yaml
from openapi_spec_validator import OpenAPIV31SpecValidator

from gatewayd.core.hub.upstream import FOREIGN
from gatewayd.openapi import SOURCES, render
from tests.api.ux4iot import StartUx, Ux, fill, start_ux, ux
from tests.api.ux4iot_description import check_described, operations, validator
from tests.api.ux4iot_doors import KEYS, DoorKit
from tests.api.ux4iot_doors import set_up as set_up_doors
from tests.api.ux4iot_table import CASES, DOCUMENTED, call, change, of

__all__ = ["set_up_doors", "start_ux", "ux"]

TEXT = (SOURCES / "ux4iot.yaml").read_text()
SERVED = SOURCES.parent.parent / "gatewayd" / "api" / "ux4iot" / "openapi.json"
DOCUMENT: Any = yaml.safe_load(TEXT)
OLDER = {"sessionId": "<session>", "deviceId": "lamp", "grantType": "subscribeToDeviceTwin"}
LISTS = operations()["PUT", "/subscriptions"]["requestBody"]["content"]["application/json"]
#: Where devices and other hubs bring what happens.
DOORS = {
    "POST /devices/{}/messages/events", "PUT /devices/{}/key", "DELETE /devices/{}/key",
    "POST /ingest/events", "POST /ingest/event-grid", "OPTIONS /ingest/event-grid",
}  # fmt: skip


def test_is_openapi() -> None:
    """The document is valid OpenAPI 3.1, and the JSON is made from it."""
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []
    assert SERVED.read_text() == render(TEXT), (
        "run: python -m gatewayd.openapi ux4iot > gatewayd/api/ux4iot/openapi.json"
    )


def test_complete() -> None:
    """Every endpoint is described, with every status that there is a case for."""
    described = {f"{method} {path}": each for (method, path), each in operations().items()}
    assert described.keys() == {*DOCUMENTED, *DOORS, "GET /openapi.json"}
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
            (call("foreign", responseTimeoutInSeconds=5), True),
            (call("foreign", responseTimeoutInSeconds=4.9), False),
            (call("foreign", responseTimeoutInSeconds=300.5), False),
            (call("foreign", connectTimeoutInSeconds=300), True),
            (call("foreign", connectTimeoutInSeconds=-1), False),
            (call("foreign", connectTimeoutInSeconds=301), False),
            (call("foreign", "x" * 100), True), (call("foreign", "x" * 101), False),
            (call("foreign", ""), False), (call("foreign", "$x"), False),
            (call("foreign", "a\x7f"), False), (call("foreign", "\u00e4 $\u2028"), True),
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


@pytest.mark.parametrize(
    ("line", "most"),
    [
        ("PUT /grants", 128), ("PUT /subscription", 128), ("PUT /subscriptions", 128),
        ("POST /directMethod", 132), ("PATCH /deviceTwinDesiredProperties", 128),
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_too_large(ux: Ux, line: str, most: int) -> None:
    """A body that is too large is refused as the description says. ``most`` is in KiB."""
    method, _, path = line.partition(" ")
    answered = await ux.ask(line, b" " * (most * 1024 + 1), "good")
    assert answered.code == 413
    check_described(method, path, answered)


@pytest.mark.parametrize(
    ("endpoint", "most"),
    [
        ("POST /devices/{}/messages/events", 256), ("PUT /devices/{}/key", 256),
        ("POST /ingest/events", 1024), ("POST /ingest/event-grid", 1024),
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_too_much_brought(kit: DoorKit, endpoint: str, most: int) -> None:
    """So are those of devices and other hubs, which the kit holds to the description."""
    body = b" " * (most * 1024 + 1)
    answered = await kit.ask(endpoint.replace("{}", "D"), body, Shared_Access_Key=KEYS[0])
    assert answered.code == 413


def key(size: int) -> dict[str, str]:
    """Return a request for a key of so many bytes."""
    return {"key": b64encode(bytes(size)).decode()}


#: So :data:`BODIES`, of the doors.
BROUGHT: list[tuple[str, Any, bool]] = [
    *(
        ("PUT /devices/{}/key", body, good)
        for body, good in (
            *((key(size), 16 <= size <= 64) for size in (*range(14, 20), *range(61, 67))),
            ({}, True), ({"key": None, "x": 1}, True), ({"key": "?" * 24}, False), ([], False),
            ({"key": 1}, False), ({"key": key(16)["key"].rstrip("=")}, False), ("x", False),
        )
    ),
    *(
        ("POST /ingest/events", body, good)
        for body, good in (
            ({"deviceId": "D"}, True), ([{"deviceId": "D", "body": "x", "x": 1}] * 2, True),
            ([], True), ([{"deviceId": "D"}] * 1000, True), ([{"deviceId": "D"}] * 1001, False),
            ({"deviceId": None, "body": {"deviceId": "D"}}, True), ({"deviceId": 1}, False),
            ({"deviceId": "D", "properties": None, "systemProperties": None}, True),
            ({"deviceId": "D", "properties": {"a": 1, "b": 2.5, "c": "", "d": None}}, True),
            ({"deviceId": "D", "properties": {"a": [1]}}, False),
            ({"deviceId": "D", "systemProperties": {"a": [1]}}, True),
            ({"deviceId": "D", "systemProperties": []}, False), ([None], False), ("D", False),
        )
    ),
    *(
        ("POST /ingest/event-grid", body, good)
        for body, good in (
            ({}, True), ([{"id": "1", "eventType": None}], True), ({"id": None}, False),
            ({"data": None}, True), ({"data": "x"}, False), ({"data": {"deviceId": 1}}, False),
            ({"data": {"deviceConnectionStateEventInfo": {"sequenceNumber": None}}}, True),
            ({"data": {"deviceConnectionStateEventInfo": {"sequenceNumber": 1}}}, False),
            ({"data": {"body": [1], "properties": {"a": {}}}}, False), ({"time": 1}, False),
            ({"data": {"systemProperties": {"a": {}}, "validationCode": "x"}}, True),
            ([{}] * 1000, True), ([{}] * 1001, False), (1, False),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("endpoint", "body", "good"), BROUGHT)
@pytest_twisted.ensureDeferred
async def test_brought(kit: DoorKit, endpoint: str, body: Any, good: bool) -> None:
    """So it is with what devices and other hubs bring."""
    method, _, place = endpoint.partition(" ")
    wanted = operations()[method, place]["requestBody"]["content"]["application/json"]["schema"]
    assert validator(wanted).is_valid(body) is good
    await kit.save("D", data=FOREIGN)
    answered = await kit.ask(endpoint.replace("{}", "D"), body, Shared_Access_Key=KEYS[0])
    assert (answered.code != 400) is good, answered
