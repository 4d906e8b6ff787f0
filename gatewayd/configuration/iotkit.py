"""The settings of the iotkit API: its devices, its accounts and its dashboard."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gatewayd.configuration.section import (
    HOUR,
    MINUTE,
    Duration,
    FileName,
    HostAndPort,
    Secret,
    Section,
    TextFile,
    Uuid,
)


class IotKitAccount(Section, frozen=True):
    """One `[[iotkit.account]]` table per account in which devices can be activated here."""

    id: Annotated[
        Uuid, Meta(description="What tokens and requests call it; once among all tables.")
    ]
    name: Annotated[str, Meta(description="Its name, for people.")]
    activation_code: Annotated[
        Secret | None,
        Meta(
            description="What a device shows to get its token, at least 8 characters. This or "
            "`activation_code_file` is required."
        ),
    ] = None
    activation_code_file: Annotated[
        FileName | None, Meta(description="A file that holds the code.")
    ] = None


class IotKitBindings(Section, frozen=True):
    """The database of a dashboard that looks up there which devices are connected; optional."""

    server: Annotated[
        HostAndPort,
        Meta(description="Where the dashboard reaches a listener that serves `iotkit`."),
    ]
    url: Annotated[
        Secret | None,
        Meta(
            description="The database: `postgresql://user:password@host/database`. This or "
            "`url_file` is required."
        ),
    ] = None
    url_file: Annotated[FileName | None, Meta(description="A file that holds the URL.")] = None
    flavour: Annotated[
        Literal["function", "table", "uid"],
        Meta(
            description="How the dashboard keeps connections: behind the function "
            "`update_device_connection` (until 2019-05), in a table by `deviceId`, or in a table "
            "by `deviceUID` (from 2019-10)."
        ),
    ] = "table"


class IotKit(Section, frozen=True):
    """The iotkit API: who may connect, and what becomes of actuations."""

    public_key_file: Annotated[
        TextFile | None,
        Meta(
            description="The public key of device tokens (PEM), looked up like the file of a "
            "secret and read at the start. Required where a listener serves `iotkit`."
        ),
    ] = None
    private_key_file: Annotated[
        TextFile | None,
        Meta(
            description="The private key that goes with it (PEM), which signs the tokens of "
            "devices that are activated here. Required where there are accounts."
        ),
    ] = None
    username: Annotated[
        str | None,
        Meta(
            description="The name with which dashboards send actuations; without it, none is taken."
        ),
    ] = None
    password: Annotated[
        Secret | None,
        Meta(
            description="The password that goes with it. This or `password_file` is required "
            "together with `username`."
        ),
    ] = None
    password_file: Annotated[
        FileName | None, Meta(description="A file that holds the password.")
    ] = None
    auto_register: Annotated[
        bool,
        Meta(description="Whether a device that has a good token registers itself."),
    ] = True
    network: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="The id of the network of devices that register themselves; without it, "
            "the lowest."
        ),
    ] = None
    device_type: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="The id of their device type; without it, the lowest."),
    ] = None
    keep_actuations: Annotated[
        bool, Meta(description="Whether actuations wait for a device that is not connected.")
    ] = True
    actuation_lifetime: Annotated[
        Duration, Meta(description="How long an actuation may wait.", ge=1.0)
    ] = 24 * HOUR
    idle: Annotated[
        Duration,
        Meta(description="How long a socket may be silent that is no device's.", ge=1.0),
    ] = 5 * MINUTE
    account: Annotated[
        list[IotKitAccount], Meta(description="The accounts in which devices can be activated.")
    ] = []
    bindings: Annotated[
        IotKitBindings | None,
        Meta(description="Where a dashboard looks up which devices are connected."),
    ] = None
