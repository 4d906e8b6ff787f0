"""What another hub says of its devices besides their messages (ux4iot contract, ``ingest``)."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from gatewayd.api.ux4iot.ingest_fields import to_sequence
from gatewayd.core.hub.hub import HubRules
from gatewayd.core.hub.upstream import FOREIGN
from tests.api.ux4iot_doors import (
    NOON,
    DoorKit,
    StartDoors,
    change,
    event,
    set_up,  # noqa: F401 - the fixture "kit"
    set_up_doors,  # noqa: F401 - the fixture "start_doors"
    state,
)

# Connection states


@pytest_twisted.ensureDeferred
async def test_states(kit: DoorKit) -> None:
    """What the hub says of connections counts in the order of its numbers."""
    await kit.taken(state(True, 5))
    assert await kit.connected() is True
    assert await kit.events() == []
    await kit.taken(state(False, 7))
    assert await kit.connected() is False
    await kit.taken([state(True, 6), state(True, 7)])
    assert await kit.connected() is False
    await kit.taken(state(True, 0x10))
    assert await kit.connected() is True


@pytest_twisted.ensureDeferred
async def test_states_and_messages(kit: DoorKit) -> None:
    """A disconnection after messages of the same request comes after them."""
    for number in range(0, 30, 3):
        await kit.taken(state(True, number))
        messages = [event({"n": number}), event({"n": number + 1})]
        await kit.taken([*messages, state(False, number + 1)])
        assert await kit.connected() is False
        await kit.taken([state(False, number + 2), *messages])
        await kit.until(kit.connected)  # type: ignore[arg-type]


@pytest_twisted.ensureDeferred
async def test_state_time(kit: DoorKit) -> None:
    """A state is since when the hub says that it is, never since later than now."""
    await kit.taken(state(True, 1, operationTimestamp="2024-05-01T12:00:00Z"))
    device = await kit.device()
    assert device is not None
    found = await kit.hub.states.of(device)
    assert found is not None
    assert found.stamp == NOON
    await kit.taken(state(False, 2, operationTimestamp="2124-05-01T12:00:00Z"))
    found = await kit.hub.states.of(device)
    assert found is not None
    assert found.stamp <= kit.core.wall()


@pytest_twisted.ensureDeferred
async def test_own_state_key(start_doors: StartDoors) -> None:
    """With a key of one's own only what the device says under it counts."""
    kit = await start_doors(hub=HubRules(state_key="up"))
    await kit.taken([state(True, 1), event({"a": 1})])
    assert await kit.connected() is None
    await kit.taken(event({"up": True}))
    await kit.until(kit.connected)  # type: ignore[arg-type]
    await kit.taken(state(False, 2))
    assert await kit.connected() is True


@pytest_twisted.ensureDeferred
async def test_schema(kit: DoorKit) -> None:
    """Without a source the schema says what an event is; with one a device cannot pretend."""
    told = {
        "deviceId": "D", "body": {"sequenceNumber": "1"},
        "properties": {
            "iothub-message-schema": "deviceConnectionStateNotification",
            "opType": "deviceConnected",
        },
    }  # fmt: skip
    await kit.taken(told)
    assert await kit.connected() is True
    assert await kit.events() == []
    told["systemProperties"] = {"iothub-message-source": "Telemetry"}
    await kit.taken(told)
    assert [name for name, _ in await kit.said()] == ["telemetry"]


SEQUENCES = [
    ("0A", "a".rjust(64, "0")), ("F" * 64, "f" * 64), ("F" * 65, ""), ("", ""), ("xyz", ""),
    (None, ""), (12, "12".rjust(64, "0")), ([1], ""), ("-1", ""),
]  # fmt: skip


@pytest.mark.parametrize(("given", "sequence"), SEQUENCES)
def test_sequence(given: Any, sequence: str) -> None:
    """Sequence numbers become texts of one length; what is none does not count."""
    assert to_sequence(given) == sequence


# Twins


@pytest_twisted.ensureDeferred
async def test_twins(kit: DoorKit) -> None:
    """Changes of twins are merged, or replace them, in order with everything else."""
    await kit.save("D", data=FOREIGN)
    patch = {"version": 3, "properties": {"reported": {"a": 1, "$version": 2}}}
    sections = {"desired": {"d": 1, "$version": 4}, "reported": {"$version": 5}}
    whole = {"version": 9, "tags": {"t": 1}, "properties": sections}
    update = change("twinChangeEvents", "updateTwin", patch)
    await kit.taken([event({"n": 1}), update, event({"n": 2})])
    device = await kit.device()
    assert device is not None
    assert (await kit.hub.twins.of(device)).reported.values == {"a": 1}
    names = [name for name, _ in await kit.said()]
    assert names == ["telemetry", "$twin/updated", "telemetry"]
    await kit.taken(change("twinChangeEvents", "replaceTwin", whole))
    twin = await kit.hub.twins.of(device)
    assert (twin.reported.values, twin.desired.values, twin.tags) == ({}, {"d": 1}, {"t": 1})


@pytest_twisted.ensureDeferred
async def test_own_twin(kit: DoorKit) -> None:
    """Another hub has no say in the twin of a device of the gateway's own."""
    await kit.save()
    body = {"properties": {"reported": {"a": 1}}}
    assert b"own" in await kit.taken(change("twinChangeEvents", "updateTwin", body), 409)
    assert await kit.events() == []


# Lifecycle


@pytest_twisted.ensureDeferred
async def test_lifecycle(kit: DoorKit) -> None:
    """A device that is created is registered; one that is deleted stays, and is not connected."""
    await kit.taken(change("deviceLifecycleEvents", "createDeviceIdentity", {"etag": "x"}))
    device = await kit.device()
    assert device is not None
    assert (device.data, device.blocked) == (FOREIGN, False)
    await kit.taken(event({"a": 1}))
    await kit.until(kit.connected)  # type: ignore[arg-type]
    await kit.taken(change("deviceLifecycleEvents", "deleteDeviceIdentity"))
    assert await kit.device() == device
    assert await kit.connected() is False
    assert await kit.said() == [
        ("$hub/created", {"etag": "x"}), ("telemetry", {"a": 1}), ("$hub/deleted", {}),
    ]  # fmt: skip
    await kit.taken(event({"late": 1}))
    await kit.taken(change("deviceLifecycleEvents", "deleteDeviceIdentity", device_id="unknown"))
    assert await kit.device("unknown") is None


@pytest_twisted.ensureDeferred
async def test_unknown_operations(kit: DoorKit) -> None:
    """What other things may happen elsewhere is nothing here, and no error."""
    for source in ("deviceConnectionStateEvents", "twinChangeEvents", "deviceLifecycleEvents"):
        await kit.taken(change(source, "somethingNew"))
    assert await kit.device() is None
