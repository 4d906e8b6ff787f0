"""Events of another hub that somebody forwards (ux4iot contract, ``ingest``)."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, gatherResults

from gatewayd.api.ux4iot.errors import Complaint
from gatewayd.api.ux4iot.ingest_fields import (
    MOST,
    HubEvent,
    Message,
    classify,
    read_events,
)
from gatewayd.api.ux4iot.rules import Ux4IotRules
from gatewayd.core.hub.upstream import FOREIGN
from gatewayd.core.model import Kind
from gatewayd.core.queries import Filter, Replay
from gatewayd.errors import Unavailable
from gatewayd.transport.rest import BadBody
from tests.api.scene import no_failures
from tests.api.ux4iot_doors import (
    KEYS,
    NOON,
    DoorKit,
    StartDoors,
    change,
    event,
    set_up,  # noqa: F401 - the fixture "kit"
    set_up_doors,  # noqa: F401 - the fixture "start_doors"
    state,
)

RULES = Ux4IotRules()


# Messages


@pytest_twisted.ensureDeferred
async def test_message(kit: DoorKit) -> None:
    """A message of a device that nobody knows registers it as another hub's, and is telemetry."""
    await kit.taken(event({"temp": 21.5}))
    device = await kit.device()
    assert device is not None
    assert (device.id, device.name, device.data) == ("D", "D", FOREIGN)
    assert await kit.said() == [("telemetry", {"temp": 21.5})]
    assert (await kit.hub.values.of(device)).keys() == {"temp"}
    assert await kit.connected() is True


@pytest_twisted.ensureDeferred
async def test_known_device(kit: DoorKit) -> None:
    """A device that is known stays as it is, however its id is spelled."""
    known = await kit.save("D", data=b'{"mine":1}')
    await kit.taken(event({"temp": 1}, "d"))
    assert await kit.device("d") == known
    assert await kit.said() == [("telemetry", {"temp": 1})]


@pytest_twisted.ensureDeferred
async def test_order(kit: DoorKit) -> None:
    """Events of one device keep their order, also the first ones of a new device."""
    events = [event({"n": number}, "ab"[number % 2]) for number in range(200)]
    await kit.taken(events)
    for which, device_id in enumerate("ab"):
        said = [parameters["n"] for _, parameters in await kit.said(device_id)]
        assert said == list(range(which, 200, 2))


@pytest_twisted.ensureDeferred
async def test_registered_once(kit: DoorKit) -> None:
    """Many requests at once about a new device register it once."""
    asked = [
        Deferred.fromCoroutine(kit.ingest(event({"n": number}, "dD"[number % 2])))
        for number in range(20)
    ]
    assert {answered.code for answered in await gatherResults(asked)} == {204}
    announced = Replay(
        filter=Filter(
            kinds=frozenset({Kind.NOTIFICATION}),
            names=frozenset({"$device-add", "$device-update"}),
        ),
        since=0, now=kit.core.wall(),
    )  # fmt: skip
    events = [each.name for each in (await kit.core.store.read(announced)).events]
    assert events == ["$device-add"]


BODIES: list[tuple[Any, tuple[str, Any]]] = [
    (base64.b64encode(b'{"a":1}').decode(), ("telemetry", {"a": 1})),
    ('{"a":1}', ("telemetry", {"a": 1})),
    (base64.b64encode(b"\xff").decode(), ("d2c", {"$body": "/w==", "$contentEncoding": "base64"})),
    ("some text", ("d2c", {"$body": "some text"})),
    ("", ("d2c", {"$body": ""})),
    ([1], ("d2c", {"$body": [1]})),
    (None, ("d2c", {"$body": "null"})),
    (5, ("d2c", {"$body": 5})),
]


@pytest.mark.parametrize(("body", "said"), BODIES)
@pytest_twisted.ensureDeferred
async def test_bodies(kit: DoorKit, body: Any, said: tuple[str, Any]) -> None:
    """A body is JSON, or a text: base64 of what the device sent, or that itself."""
    await kit.taken(event(body))
    assert await kit.said() == [said]


@pytest_twisted.ensureDeferred
async def test_properties(kit: DoorKit) -> None:
    """What the device said beside the body stays; what the hub says does not."""
    sent = event({"a": 1}, **{"iothub-content-type": "application/json"})
    sent["properties"] = {"level": "high", "n": 1, "iothub-creation-time-utc": "2024-05-01T12:00Z"}
    text = event("x y", **{"content-type": "text/plain"})
    await kit.taken([sent, text])
    assert await kit.said() == [
        ("telemetry", {"a": 1, "$properties": {"level": "high", "n": 1}}),
        ("d2c", {"$body": "x y", "$contentType": "text/plain"}),
    ]
    assert (await kit.events())[0].stamp == NOON


def of(told: dict[str, Any], **rules: Any) -> Message:
    """Return what a message says."""
    (read,), _ = read_events(json.dumps(told).encode())
    message = classify(read, Ux4IotRules(**rules))
    assert isinstance(message, Message)
    return message


HUBS = "iothub-connection-device-id"
IDS: list[tuple[dict[str, Any], str]] = [
    ({"deviceId": "top", "body": {"deviceId": "body"}}, "top"),
    ({"body": {"deviceId": "body"}, "systemProperties": {HUBS: "sys"}}, "body"),
    ({"body": {"deviceId": 7}}, "7"),
    ({"body": {"deviceId": "no id!/"}, "properties": {HUBS: "prop"}}, "prop"),
    ({"body": {"deviceId": {"x": 1}}, "properties": {HUBS: "prop"}}, "prop"),
    ({"systemProperties": {HUBS: "sys"},
      "properties": {HUBS: "prop"}}, "sys"),
]  # fmt: skip


@pytest.mark.parametrize(("told", "device"), IDS)
def test_device_ids(told: dict[str, Any], device: str) -> None:
    """Who forwards an event knows best of which device it is, then its body, then the hub."""
    assert of(told).device == device


def test_own_keys() -> None:
    """The members with the device and the time are called as the rules say; "" for none."""
    sent = event({"id": "mine", "deviceId": "x", "at": NOON, "_ts": 1})
    message = of(sent, device_id_key="id", timestamp_key="at")
    assert (message.device, message.stamp) == ("mine", NOON)
    assert (of(sent, device_id_key="").device) == "D"


STAMPS = [
    ({"_ts": NOON}, {}, NOON),
    ({"_ts": "bad"}, {"iothub-creation-time-utc": "2024-05-01T12:00:01Z"}, NOON + 1000),
    ({}, {"iothub-creation-time-utc": NOON, "iothub-app-iothub-creation-time-utc": 1}, NOON),
    ({}, {"iothub-app-iothub-creation-time-utc": NOON, "iothub-enqueuedtime": 1}, NOON),
    ({}, {"iothub-enqueuedtime": "2024-05-01T12:00:00.000Z"}, NOON),
    ({}, {}, None),
]  # fmt: skip


@pytest.mark.parametrize(("body", "properties", "stamp"), STAMPS)
@pytest.mark.parametrize("where", ["properties", "systemProperties"])
def test_stamps(body: Any, properties: Any, stamp: int | None, where: str) -> None:
    """The time of a message is the first that is one, in the order of the contract."""
    assert of({"deviceId": "D", "body": body, where: properties}).stamp == stamp


# What comes again


@pytest_twisted.ensureDeferred
async def test_again(kit: DoorKit) -> None:
    """An event that the hub's stream names is recorded once, however often it is sent."""
    named = [
        event({"n": 1}, "D", **{"x-opt-sequence-number": 1, "x-opt-offset": "10"}),
        event({"n": 2}, sequenceNumber=2),
        event({"n": 3}, **{"message-id": "a"}),
        event({"n": 4}, **{"message-id": "a"}),
        event({"n": 5}, **{"messageId": "b", "iothub-enqueuedtime": "2024-05-01T12:00:00Z"}),
        event({"n": 5}, **{"messageId": "b", "iothub-enqueuedtime": "2024-05-01T12:00:01Z"}),
        event({"n": 1}, "E", **{"x-opt-sequence-number": 1, "x-opt-offset": "10"}),
    ]
    for _ in range(3):
        await kit.taken(named)
    assert [said["n"] for _, said in await kit.said()] == [1, 2, 3, 4, 5, 5]
    assert [said["n"] for _, said in await kit.said("E")] == [1]
    for _ in range(2):
        await kit.taken(event({"n": 9}, "F"))
    assert [said["n"] for _, said in await kit.said("F")] == [9, 9]


@pytest_twisted.ensureDeferred
async def test_failure(kit: DoorKit, monkeypatch: pytest.MonkeyPatch) -> None:
    """When something cannot be kept, nothing is acknowledged, and the rest waits for the repeat."""
    insert = kit.core.notifications.insert
    full = True

    def failing(principal: Any, device: Any, name: str, body: Any, **more: Any) -> Any:
        if full and json.loads(body).get("n") == 2:
            raise Unavailable("full")
        return insert(principal, device, name, body, **more)

    monkeypatch.setattr(kit.core.notifications, "insert", failing)
    events = [
        event({"n": 1}, sequenceNumber=1), event({"n": 2}, sequenceNumber=2), state(False, 1),
        event({"n": 3}, sequenceNumber=3), event({"n": 1}, "E", sequenceNumber=4),
    ]  # fmt: skip
    await kit.taken(events, 503)
    assert await kit.connected() is True
    full = False
    await kit.taken(events)
    assert sorted(said["n"] for _, said in await kit.said()) == [1, 2, 3]
    assert [said["n"] for _, said in await kit.said("E")] == [1]


# Who may, and what is refused


@pytest_twisted.ensureDeferred
async def test_keys(kit: DoorKit) -> None:
    """Administrators alone forward events, with either key."""
    for key in (None, "", "wrong"):
        answered = await kit.ingest(event({"a": 1}), key)
        assert answered.code == 401
        assert answered.body.startswith(b"Unauthorized: ")
    for key in KEYS:
        assert (await kit.ingest(event({"a": 1}), key)).code == 204
    assert len(await kit.events()) == 2


@pytest_twisted.ensureDeferred
async def test_not_registered(start_doors: StartDoors) -> None:
    """Where devices are not registered by themselves, events of unknown ones are refused."""
    kit = await start_doors(auto_register=False)
    await kit.save()
    assert b"unknown" in await kit.taken(event({"a": 1}, "X"), 404)
    created = change("deviceLifecycleEvents", "createDeviceIdentity", device_id="X")
    told = await kit.taken([event({"a": 1}, "X"), event({"a": 2}), created, event({"a": 3})], 200)
    assert told == {
        "refused": [
            {"index": 0, "status": 404, "message": "the device is unknown"},
            {"index": 2, "status": 404, "message": "the device is unknown"},
        ]
    }
    assert [said["a"] for _, said in await kit.said()] == [2, 3]
    assert await kit.device("X") is None


@pytest_twisted.ensureDeferred
async def test_where(start_doors: StartDoors) -> None:
    """Where the rules say that devices go nowhere, their events can come again later."""
    kit = await start_doors(network=999)
    assert (await kit.ingest(event({"a": 1}))).code == 503
    assert await kit.device() is None


@pytest_twisted.ensureDeferred
async def test_blocked(kit: DoorKit) -> None:
    """Messages of a blocked device are refused, others of the list are not."""
    await kit.save("D", blocked=True, data=FOREIGN)
    assert b"blocked" in await kit.taken(event({"a": 1}), 403)
    twin = change("twinChangeEvents", "updateTwin", {"properties": {"reported": {"a": 1}}})
    told = await kit.taken([event({"a": 1}), event({"b": 1}, "E"), twin], 200)
    assert [each["status"] for each in told["refused"]] == [403, 403]
    assert await kit.events() == []
    assert len(await kit.events("E")) == 1


GOOD = event({"a": 1})
WRONG: list[Any] = [
    b"", b"no JSON", b"\xff", b"[" * 100_000, 1, "x", None, [None], [GOOD, 1], [GOOD, []],
    {**GOOD, "deviceId": 5}, {**GOOD, "properties": []}, {**GOOD, "properties": {"x": {}}},
    {**GOOD, "systemProperties": "x"}, [GOOD, {"body": {"a": 1}}], [GOOD, event({"a": 1}, "a/b")],
    [GOOD, event({"a": 1}, "x" * 129)], [GOOD, event({"a": 1}, None)],
    [GOOD, change("twinChangeEvents", "updateTwin", [1])],
    [GOOD, change("deviceConnectionStateEvents", "deviceConnected", "x y")],
    [GOOD] * (MOST + 1),
]  # fmt: skip


@pytest.mark.parametrize("body", WRONG, ids=range(len(WRONG)))
@pytest_twisted.ensureDeferred
async def test_wrong_shape(kit: DoorKit, body: Any) -> None:
    """A list with something wrong in it is refused whole: nothing is registered or recorded."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    answered = await kit.ingest(sent)
    assert (answered.code, answered.header("Content-Type")) == (400, "text/plain; charset=utf-8")
    assert await kit.device() is None


@pytest_twisted.ensureDeferred
async def test_limits(kit: DoorKit) -> None:
    """A list may be empty, or have a thousand events; a request has a mebibyte."""
    await kit.taken([])
    await kit.taken([event({"n": number}) for number in range(MOST)])
    assert len(await kit.events()) == MOST
    assert (await kit.ingest(b" " * (1024 * 1024 + 1))).code == 413


@pytest_twisted.ensureDeferred
async def test_invalid_twin(kit: DoorKit) -> None:
    """A change that breaks the rules of twins is refused alone."""
    await kit.save("D", data=FOREIGN)
    bad = change("twinChangeEvents", "updateTwin", {"properties": {"reported": {"a.b": 1}}})
    told = await kit.taken([bad, event({"a": 1})], 200)
    assert [(each["index"], each["status"]) for each in told["refused"]] == [(0, 400)]
    assert await kit.said() == [("telemetry", {"a": 1})]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6)
    | st.sampled_from(["D", "deviceConnected", "updateTwin", "twinChangeEvents", "e30=", "{}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)  # fmt: skip
PROPERTIES = st.dictionaries(
    st.sampled_from(
        ["opType", "iothub-message-source", "iothub-message-schema", "deviceId", "x",
         "iothub-connection-device-id", "iothub-enqueuedtime", "x-opt-offset", "message-id"]
    ),
    JSON | st.sampled_from(["deviceLifecycleEvents", "deviceConnectionStateEvents"]),
)  # fmt: skip
EVENT = st.dictionaries(st.sampled_from(["deviceId", "body", "x"]), JSON).flatmap(
    lambda told: st.builds(
        lambda own, system: {**told, "properties": own, "systemProperties": system},
        PROPERTIES, PROPERTIES,
    )
)  # fmt: skip


@given(EVENT | st.lists(EVENT, max_size=3) | JSON)
def test_any_events(told: Any) -> None:
    """Whatever is forwarded is read, or refused as it should be."""
    try:
        events, _ = read_events(json.dumps(told).encode())
        for each in events:
            assert isinstance(each, HubEvent)
            classify(each, RULES)
    except (Complaint, BadBody) as error:
        if isinstance(error, Complaint):
            assert error.status == 400  # noqa: PT017


@pytest_twisted.ensureDeferred
async def test_garbage(kit: DoorKit) -> None:
    """Nothing that is sent is an error of the gateway's own."""
    deep = b"[" * 900 + b"]" * 900
    with no_failures():
        for body in (b'{"a":1e999}', deep, b'"\\ud800"', b'{"a":1,"a":2}'):
            sent = b'{"deviceId":"D","body":' + body + b"}"
            assert (await kit.ingest(sent)).code in (204, 400)
        sent = b'{"deviceId":"D","systemProperties":{"x":' + deep + b"}}"
        assert (await kit.ingest(sent)).code in (204, 400)
