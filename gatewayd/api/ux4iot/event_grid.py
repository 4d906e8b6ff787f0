"""Events of IoT Hub as Event Grid delivers them, in its own schema or as CloudEvents 1.0."""

from __future__ import annotations

from typing import Any

import msgspec

from gatewayd.api.ux4iot.ingest_fields import HubEvent, read_batch

#: With this a webhook is asked whether it wants the events.
_VALIDATION = "Microsoft.EventGrid.SubscriptionValidationEvent"
_TELEMETRY = "Microsoft.Devices.DeviceTelemetry"
#: The other types, as the other hub calls them where it routes events itself.
_OPERATIONS = {
    "Microsoft.Devices.DeviceConnected": ("deviceConnectionStateEvents", "deviceConnected"),
    "Microsoft.Devices.DeviceDisconnected": ("deviceConnectionStateEvents", "deviceDisconnected"),
    "Microsoft.Devices.DeviceCreated": ("deviceLifecycleEvents", "createDeviceIdentity"),
    "Microsoft.Devices.DeviceDeleted": ("deviceLifecycleEvents", "deleteDeviceIdentity"),
}


class _StateInfo(msgspec.Struct):
    """Of a connection: its number."""

    sequenceNumber: str | None = None


class GridData(msgspec.Struct):
    """What an event says.

    :ivar deviceConnectionStateEventInfo: of a connection. :ivar body: of a message, so the
        properties. :ivar validationCode: what a webhook answers that wants the events.
    """

    deviceId: str | None = None
    moduleId: str | None = None
    deviceConnectionStateEventInfo: _StateInfo | None = None
    body: msgspec.Raw = msgspec.Raw(b"null")
    properties: dict[str, str | int | float | bool | None] | None = None
    systemProperties: dict[str, Any] | None = None
    validationCode: str | None = None


class GridEvent(msgspec.Struct):
    """An event in either schema: ``type``, ``time`` and ``source`` are those of CloudEvents."""

    id: str = ""
    eventType: str | None = None
    eventTime: str | None = None
    type: str | None = None
    time: str | None = None
    data: GridData | None = None

    @property
    def kind(self) -> str:
        """What sort of event it is."""
        return self.eventType or self.type or ""

    @property
    def at(self) -> str | None:
        """When it happened."""
        return self.eventTime or self.time


def read_grid(data: bytes) -> list[GridEvent]:
    """Return the events of a body: a list of them, or one. See :func:`read_batch`."""
    events, _ = read_batch(data, GridEvent)
    return events


def validation(events: list[GridEvent]) -> str | None:
    """Return the code with which a webhook says that it wants the events; None: nobody asks."""
    for event in events:
        if event.kind == _VALIDATION and event.data is not None:
            return event.data.validationCode
    return None


def to_hub_event(event: GridEvent) -> HubEvent | None:
    """Return an event as the other hub has it; None for what says nothing here."""
    data = event.data
    if data is None or data.moduleId:
        return None
    if event.kind == _TELEMETRY:
        system = {"iothub-enqueuedtime": event.at, **(data.systemProperties or {})}
        if event.id:  # it stays the same when Event Grid delivers the event again
            system["message-id"] = event.id
        return HubEvent(
            device=data.deviceId, body=data.body, properties=data.properties,
            system_properties=system,
        )  # fmt: skip
    if event.kind not in _OPERATIONS or data.deviceId is None:
        return None
    source, operation = _OPERATIONS[event.kind]
    info = data.deviceConnectionStateEventInfo
    said = {} if info is None else {"sequenceNumber": info.sequenceNumber}
    return HubEvent(
        device=data.deviceId, body=msgspec.Raw(msgspec.json.encode(said)),
        properties={"opType": operation, "operationTimestamp": event.at},
        system_properties={"iothub-message-source": source},
    )  # fmt: skip
