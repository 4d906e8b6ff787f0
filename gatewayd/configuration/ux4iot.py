"""The settings of the ux4iot API: its keys, what counts as connected, and another hub behind it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from gatewayd.configuration.section import (
    MINUTE,
    Duration,
    FileName,
    OptionalText,
    Secret,
    Section,
    UrlPath,
)


class IotHub(Section, frozen=True):
    """An Azure IoT Hub behind the gateway; optional. Its devices are reached there."""

    connection_string: Annotated[
        Secret | None,
        Meta(
            description="A policy of the hub that may read the registry and connect as a service: "
            "`HostName=...;SharedAccessKeyName=...;SharedAccessKey=...`. This or "
            "`connection_string_file` is required."
        ),
    ] = None
    connection_string_file: Annotated[
        FileName | None, Meta(description="A file that holds the connection string.")
    ] = None


class Ux4Iot(Section, frozen=True):
    """The ux4iot API: who may grant, and what its clients see of devices."""

    shared_access_key: Annotated[
        Secret | None,
        Meta(
            description="The key of security backends, at least 8 characters. This or "
            "`shared_access_key_file` is required where a listener serves `ux4iot`."
        ),
    ] = None
    shared_access_key_file: Annotated[
        FileName | None, Meta(description="A file that holds the key.")
    ] = None
    secondary_access_key: Annotated[
        Secret | None,
        Meta(description='A second key that is good as well, to change keys; `""` for none.'),
    ] = None
    secondary_access_key_file: Annotated[
        FileName | None, Meta(description="A file that holds the second key.")
    ] = None
    path: Annotated[
        UrlPath,
        Meta(
            description="Where REST is, as `/ux4iot`, when it shall not take the root of the "
            'listener; it is a part of the `Endpoint` then. `""` for the root.'
        ),
    ] = ""
    custom_connection_state_key: Annotated[
        OptionalText,
        Meta(
            description="The telemetry key whose boolean alone says whether a device is connected; "
            '`""`: its sockets and its telemetry say so.'
        ),
    ] = ""
    connection_state_on_telemetry: Annotated[
        bool, Meta(description="Whether a device without a socket is connected by its telemetry.")
    ] = True
    connection_state_ttl: Annotated[
        Duration,
        Meta(
            description="How long a device without a socket is connected by what it said; `0` for "
            "ever.",
            ge=0.0,
        ),
    ] = MINUTE
    custom_timestamp_key: Annotated[
        OptionalText,
        Meta(description='The member of a message that tells its time; `""` for none.'),
    ] = "_ts"
    custom_device_id_key: Annotated[
        OptionalText,
        Meta(description='The member of a forwarded event that tells its device; `""` for none.'),
    ] = "deviceId"
    throttling_interval: Annotated[
        int,
        Meta(
            description="ms in which a client gets only the last telemetry of each key; `-1` for "
            "all of it, at once.",
            ge=-1,
        ),
    ] = -1
    telemetry_keys: Annotated[
        int, Meta(description="Keys of one device whose last values are kept.", ge=1)
    ] = 1000
    sessions: Annotated[int, Meta(description="Sessions all together.", ge=1)] = 10_000
    grants_per_session: Annotated[
        int, Meta(description="Grants of one session, and subscriptions of one.", ge=1)
    ] = 2000
    session_lifetime: Annotated[
        Duration,
        Meta(description="How long a session is kept that nobody uses.", ge=10.0),
    ] = 10 * MINUTE
    resume: Annotated[
        bool,
        Meta(
            description="Whether any Socket.IO client may go on with a session that it was "
            "connected to. ux4iot-react from 3.0 on goes silent then; leave it off for that."
        ),
    ] = False
    auto_register: Annotated[
        bool, Meta(description="Whether forwarded events of unknown devices register them.")
    ] = True
    network: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="The id of the network of devices that are registered so; without it, "
            "the lowest."
        ),
    ] = None
    device_type: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="The id of their device type; without it, the lowest."),
    ] = None
    iot_hub: Annotated[
        IotHub | None, Meta(description="The hub of devices that are not the gateway's own.")
    ] = None
