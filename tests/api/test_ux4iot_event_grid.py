"""Events of IoT Hub that Event Grid delivers to a webhook, in both of its schemas."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.api.ux4iot.errors import Complaint
from gatewayd.api.ux4iot.event_grid import read_grid, to_hub_event, validation
from gatewayd.transport.rest import BadBody
from tests.api.ux4iot_doors import (
    KEYS,
    NOON,
    DoorKit,
    StartDoors,
    set_up,  # noqa: F401 - the fixture "kit"
    set_up_doors,  # noqa: F401 - the fixture "start_doors"
)

GRID, CLOUD = "grid", "cloud"
TOPIC = "/subscriptions/1/resourceGroups/r/providers/Microsoft.Devices/IotHubs/hub"
SYSTEM = {
    "iothub-content-type": "application/json", "iothub-content-encoding": "utf-8",
    "iothub-connection-device-id": "D", "iothub-enqueuedtime": "2024-05-01T12:00:01Z",
    "iothub-message-source": "Telemetry",
}  # fmt: skip
both = pytest.mark.parametrize("schema", [GRID, CLOUD])


def told(schema: str, kind: str, data: Any, number: int = 1) -> dict[str, Any]:
    """Return an event as Event Grid delivers it."""
    common = {"id": f"56afc886-767b-d359-d59e-{number:012}", "subject": "devices/D", "data": data}
    time = "2024-05-01T12:00:00Z"
    if schema == CLOUD:
        return {**common, "source": TOPIC, "type": kind, "time": time, "specversion": "1.0"}
    return {
        **common, "topic": TOPIC, "eventType": kind, "eventTime": time, "dataVersion": "",
        "metadataVersion": "1",
    }  # fmt: skip


def telemetry(schema: str, body: Any, number: int = 1, **system: Any) -> dict[str, Any]:
    data = {"properties": {}, "systemProperties": {**SYSTEM, **system}, "body": body}
    return told(schema, "Microsoft.Devices.DeviceTelemetry", data, number)


def state(schema: str, connected: bool, sequence: int) -> dict[str, Any]:
    kind = f"Microsoft.Devices.Device{'Connected' if connected else 'Disconnected'}"
    info = {"sequenceNumber": f"{sequence:064X}"}
    data = {"deviceConnectionStateEventInfo": info, "hubName": "hub", "deviceId": "D"}
    return told(schema, kind, data)


def life(schema: str, created: bool) -> dict[str, Any]:
    kind = f"Microsoft.Devices.Device{'Created' if created else 'Deleted'}"
    data = {"twin": {"deviceId": "D", "etag": "AAAA"}, "hubName": "hub", "deviceId": "D"}
    return told(schema, kind, data)


async def delivered(kit: DoorKit, *events: dict[str, Any]) -> None:
    """Deliver events, several as a batch."""
    answered = await kit.grid(events[0] if len(events) == 1 else list(events))
    assert (answered.code, answered.body) == (204, b"")


@both
@pytest_twisted.ensureDeferred
async def test_validation(kit: DoorKit, schema: str) -> None:
    """Asked whether it wants events, the gateway says so with the code, if the key is right."""
    data = {"validationCode": "512d38b6", "validationUrl": "https://x.example/?id=1"}
    asked = [told(schema, "Microsoft.EventGrid.SubscriptionValidationEvent", data)]
    head = {"aeg_event_type": "SubscriptionValidation"}
    answered = await kit.grid(asked, **head)
    assert (answered.code, answered.json) == (200, {"validationResponse": "512d38b6"})
    assert (await kit.grid(asked, "wrong", **head)).code == 401


@both
@pytest_twisted.ensureDeferred
async def test_consent(kit: DoorKit, schema: str) -> None:
    """A sender of CloudEvents asks with OPTIONS, and with the key."""
    path = f"/ingest/event-grid?key={KEYS[0].replace(' ', '%20')}"
    origin = {"WebHook_Request_Origin": "eventgrid.azure.net"}
    answered = await kit.ask(f"OPTIONS {path}", **origin)
    assert answered.code == 200
    assert answered.header("WebHook-Allowed-Origin") == "eventgrid.azure.net"
    assert answered.header("WebHook-Allowed-Rate") == "*"
    assert (await kit.ask(f"OPTIONS {path}")).code == 400
    assert (await kit.ask("OPTIONS /ingest/event-grid?key=x", **origin)).code == 401


@both
@pytest_twisted.ensureDeferred
async def test_telemetry(kit: DoorKit, schema: str) -> None:
    """A message is telemetry, as JSON or as base64, with its time and properties."""
    encoded = base64.b64encode(b'{"b":2}').decode()
    third = telemetry(schema, {"_ts": NOON + 5}, 3)
    third["data"]["properties"] = {"level": "high"}
    await delivered(kit, telemetry(schema, {"a": 1}), telemetry(schema, encoded, 2), third)
    assert await kit.said() == [
        ("telemetry", {"a": 1}), ("telemetry", {"b": 2}),
        ("telemetry", {"_ts": NOON + 5, "$properties": {"level": "high"}}),
    ]  # fmt: skip
    assert [event.stamp for event in await kit.events()] == [NOON + 1000, NOON + 1000, NOON + 5]
    binary = base64.b64encode(b"\xff").decode()
    untimed = telemetry(schema, binary, 4)
    del untimed["data"]["systemProperties"]["iothub-enqueuedtime"]
    await delivered(kit, untimed)
    last = (await kit.events())[-1]
    assert (last.name, last.stamp) == ("d2c", NOON)


@both
@pytest_twisted.ensureDeferred
async def test_again(kit: DoorKit, schema: str) -> None:
    """An event that is delivered again is recorded once; equal messages are two."""
    events = [telemetry(schema, {"a": 1}, number, **{"message-id": "x"}) for number in (1, 2)]
    for _ in range(3):
        await delivered(kit, *events)
    assert len(await kit.events()) == 2


@both
@pytest_twisted.ensureDeferred
async def test_states(kit: DoorKit, schema: str) -> None:
    """Connections count in the order of their numbers."""
    await delivered(kit, state(schema, True, 2))
    assert await kit.connected() is True
    await delivered(kit, state(schema, False, 1))
    assert await kit.connected() is True
    await delivered(kit, state(schema, False, 3), state(schema, True, 2))
    assert await kit.connected() is False


@both
@pytest_twisted.ensureDeferred
async def test_lifecycle(kit: DoorKit, schema: str) -> None:
    """Devices are registered when they are created, and stay when they are deleted."""
    await delivered(kit, life(schema, True))
    device = await kit.device()
    assert device is not None
    await delivered(kit, state(schema, True, 1), life(schema, False))
    assert await kit.device() == device
    assert await kit.connected() is False


@both
@pytest_twisted.ensureDeferred
async def test_others(kit: DoorKit, schema: str) -> None:
    """Events of other kinds, of modules, or without data, are nothing here."""
    module = state(schema, True, 1)
    module["data"]["moduleId"] = "m"
    other = told(schema, "Microsoft.Storage.BlobCreated", {"url": "https://x.example"})
    nobody = told(schema, "Microsoft.Devices.DeviceConnected", {"hubName": "hub"})
    empty = told(schema, "Microsoft.Devices.DeviceTelemetry", None)
    for event in (module, other, nobody, empty):
        await delivered(kit, event)
    assert await kit.device() is None


@both
@pytest_twisted.ensureDeferred
async def test_refused(start_doors: StartDoors, schema: str) -> None:
    """What would be refused again is acknowledged, and named: Event Grid need not repeat it."""
    kit = await start_doors(auto_register=False)
    answered = await kit.grid([telemetry(schema, {"a": 1})])
    assert answered.code == 200
    assert [each["status"] for each in answered.json["refused"]] == [404]


@both
@pytest_twisted.ensureDeferred
async def test_keys(kit: DoorKit, schema: str) -> None:
    """The key is in the address or in the head; the head counts when both are there."""
    body = [telemetry(schema, {"a": 1})]
    for key in (None, "", "wrong"):
        assert (await kit.grid(body, key)).code == 401
    assert (await kit.grid(body, KEYS[1])).code == 204
    assert (await kit.grid(body, None, Shared_Access_Key=KEYS[1])).code == 204
    assert (await kit.grid(body, KEYS[1], Shared_Access_Key="wrong")).code == 401


@pytest.mark.parametrize(
    "body", [b"", b"x", b"1", b"null", b"[1]", b"[[]]", b'{"id":1}', b'{"data":1}', b"[" * 100_000]
)
@both
@pytest_twisted.ensureDeferred
async def test_wrong_shape(kit: DoorKit, schema: str, body: bytes) -> None:
    """What is no event is refused, with those beside it."""
    assert (await kit.grid(body)).code == 400
    good = json.dumps(telemetry(schema, {"a": 1})).encode()
    assert (await kit.grid(b"[" + good + b"," + body + b"]")).code == 400
    nobody = telemetry(schema, {"a": 1}, 2, **{"iothub-connection-device-id": "a/b"})
    assert (await kit.grid([json.loads(good), nobody])).code == 400
    assert await kit.device() is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
DATA = st.dictionaries(
    st.sampled_from(["deviceId", "moduleId", "body", "properties", "systemProperties",
                     "deviceConnectionStateEventInfo", "validationCode"]), JSON,
)  # fmt: skip


@given(
    st.sampled_from([GRID, CLOUD]),
    DATA | JSON,
    st.sampled_from(["DeviceTelemetry", "DeviceConnected", "DeviceDeleted", "Other"]),
    st.sampled_from([1, "t", "2024-05-01T12:00:00Z"]),
)
def test_any_event(schema: str, data: Any, kind: str, time: Any) -> None:
    """Whatever is delivered is read, or refused as it should be."""
    event = {**told(schema, f"Microsoft.Devices.{kind}", data), "time": time}
    try:
        events = read_grid(json.dumps([event]).encode())
    except (Complaint, BadBody):
        return
    validation(events)
    for each in events:
        to_hub_event(each)
