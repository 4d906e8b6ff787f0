"""The settings of the daemon, one :class:`Section` per table of the configuration file.

Everything here is a value that has been checked already. Those of the Cloud Relay and of its tokens
are in :mod:`gatewayd.configuration.relaying`, those of iotkit and ux4iot in modules of their name.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from gatewayd.configuration.iotkit import IotKit, IotKitAccount, IotKitBindings
from gatewayd.configuration.node import Node
from gatewayd.configuration.relaying import CloudRelay, Issuer, OAuth, OAuthClient
from gatewayd.configuration.section import (
    DAY,
    MIB,
    MINUTE,
    Apis,
    Duration,
    FileName,
    IpAddress,
    Networks,
    PortRange,
    Ports,
    Secret,
    Section,
    Size,
)
from gatewayd.configuration.urls import SQLITE
from gatewayd.configuration.ux4iot import IotHub, Ux4Iot

#: The longest time in ms that a number of 32 bits holds, about 25 days.
MAX_TIMEOUT = 2**31 - 1

#: What a listener can serve.
APIS = ("devicehive", "devicelink", "cloudrelay", "iotkit", "ux4iot", "ops")
#: Of these, what the gateway's own tokens open.
TOKEN_APIS = ("devicehive", "devicelink", "cloudrelay", "iotkit")


class Listen(Section, frozen=True):
    """One `[[listen]]` table per port or socket. At least one is required."""

    endpoint: Annotated[
        str,
        Meta(
            description="Where to listen, as a Twisted endpoint: "
            '`"tcp:8080:interface=127.0.0.1"`, `tls:`, `unix:`, `systemd:`, `haproxy:`.'
        ),
    ]
    serve: Annotated[
        Apis,
        Meta(
            description="The APIs to serve there. Keep `ops` off public interfaces: "
            "it shows metrics and health, and takes the commands of the operator.",
            examples=[["ops"]],
        ),
    ]
    reuse_port: Annotated[
        bool,
        Meta(
            description="Whether other processes of the same user, which allow it as well, may "
            "listen on the same port: the kernel spreads the connections over them. For `tcp:`, "
            "`tcp6:`, `ssl:` and `tls:` only; the port is bound when all else is ready."
        ),
    ] = False

    @property
    def has_port(self) -> bool:
        """Tell whether it is a port of its own, not a Unix socket or one that is handed over."""
        return _split_endpoint(self.endpoint)[0] in ("tcp", "tcp4", "tcp6", "ssl", "tls")

    @property
    def is_local(self) -> bool:
        """Tell whether only this machine can connect: a Unix socket or a loopback interface.

        What does not show its address, for instance ``systemd:``, is taken for public.
        """
        kind, options = _split_endpoint(self.endpoint)
        if kind == "unix":
            return True
        try:
            address = ipaddress.ip_address(options.get("interface", ""))
        except ValueError:
            return False
        return kind in ("tcp", "tcp6", "ssl", "tls") and address.is_loopback


def _split_endpoint(endpoint: str) -> tuple[str, dict[str, str]]:
    """Split a Twisted endpoint into its kind, without ``haproxy:``, and its named arguments."""
    words = [[""]]
    characters = iter(endpoint)
    for character in characters:
        if character == ":":
            words.append([""])
        elif character == "=" and len(words[-1]) == 1:
            words[-1].append("")
        else:
            words[-1][-1] += next(characters, "") if character == "\\" else character
    plain = [word[0] for word in words if len(word) == 1 and word[0] != "haproxy"]
    return plain[0] if plain else "", dict(word for word in words if len(word) == 2)


class Storage(Section, frozen=True):
    """Where devices, users, commands and notifications are kept."""

    url: Annotated[
        Secret | None,
        Meta(
            description='The database: `"sqlite:///var/lib/gatewayd/gatewayd.db"` by absolute '
            'path, `"sqlite:gatewayd.db"` beside the configuration file; the path is taken '
            'literally. Or `"postgresql://user:password@host/database"`, which several nodes '
            "may share; it exists, in UTF-8, and belongs to the gateway alone. This or "
            "`url_file` is required."
        ),
    ] = None
    url_file: Annotated[FileName | None, Meta(description="A file that holds the URL.")] = None
    retention: Annotated[
        Duration,
        Meta(description="How long commands and notifications are kept.", ge=MINUTE),
    ] = 7 * DAY

    @property
    def is_shared(self) -> bool:
        """Whether it is a PostgreSQL database, to which other nodes may come."""
        return self.url is not None and not self.url.reveal().startswith(SQLITE)

    @property
    def path(self) -> Path:
        """The SQLite database file, absolute once the settings have been read.

        :raises ValueError: there is no URL, or it names no SQLite database.
        """
        url = self.url.reveal() if self.url else ""
        if not url.startswith(SQLITE):
            raise ValueError("the store is no SQLite database")
        return Path(url.removeprefix(SQLITE).removeprefix("//"))


class DeviceHive(Section, frozen=True):
    """The DeviceHive API: its tokens and its first user."""

    jwt_secret: Annotated[
        Secret | None,
        Meta(
            description="Signs and verifies the tokens. This or `jwt_secret_file` is required "
            "where a listener serves `devicehive`, `devicelink`, `cloudrelay` or `iotkit`."
        ),
    ] = None
    jwt_secret_file: Annotated[
        FileName | None, Meta(description="A file that holds the secret.")
    ] = None
    jwt_secret_encoding: Annotated[
        Literal["devicehive", "utf-8", "hex"],
        Meta(
            description="How the secret's text becomes the key: DeviceHive's lenient base64, "
            "which keeps the tokens of an existing installation valid; the text itself; or "
            "hexadecimal digits, the best choice for a new key."
        ),
    ] = "devicehive"  # noqa: S105 - an encoding's name
    access_token_lifetime: Annotated[
        Duration, Meta(description="How long an access token is valid.", ge=1.0)
    ] = 30 * MINUTE
    refresh_token_lifetime: Annotated[
        Duration, Meta(description="How long a refresh token is valid.", ge=1.0)
    ] = 182 * DAY
    admin_login: Annotated[
        str,
        Meta(description="The login of the first user, an administrator."),
    ] = "dhadmin"
    admin_password: Annotated[
        Secret | None,
        Meta(
            description="The password of the first user. Only used, and then required, while "
            "the store has no user."
        ),
    ] = None
    admin_password_file: Annotated[
        FileName | None, Meta(description="A file that holds the password.")
    ] = None


class DeviceLink(Section, frozen=True):
    """The DeviceLink API: the ports of links, where they may lead, and how many there may be."""

    host: Annotated[
        IpAddress,
        Meta(description="The interface on which the clients of links connect."),
    ] = "127.0.0.1"
    port_range: Annotated[
        PortRange,
        Meta(description="The lowest and the highest port of links, from 1024 to 65535."),
    ] = (40000, 49999)
    advertise: Annotated[
        str | None,
        Meta(
            description="The host that clients are told to connect to; without it, the one to "
            "which they sent their request."
        ),
    ] = None
    device_port: Annotated[
        Annotated[int, Meta(ge=1, le=65535)] | None,
        Meta(description="The port of the device when a request names none."),
    ] = None
    timeout: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_TIMEOUT)] | None,
        Meta(
            description="Milliseconds without traffic after which a UDP link ends, when a request "
            "does not say."
        ),
    ] = None
    tcp_idle: Annotated[
        Annotated[float, Meta(extra={"kind": "duration"}, ge=0.001)] | None,
        Meta(description="How long a TCP link may be without traffic."),
    ] = None
    claim_timeout: Annotated[
        Annotated[float, Meta(extra={"kind": "duration"}, ge=0.001)] | None,
        Meta(description="How long a link waits for a client, at first and after each."),
    ] = None
    connect_timeout: Annotated[
        Duration, Meta(description="How long connecting to a device may take.", ge=0.001)
    ] = 10.0
    linger: Annotated[
        Duration,
        Meta(
            description="How long a TCP connection is kept whose one direction has ended.", ge=0.001
        ),
    ] = 60.0
    max_lifetime: Annotated[
        Annotated[float, Meta(extra={"kind": "duration"}, ge=0.001)] | None,
        Meta(description="How long a link lives at most, whatever a request says."),
    ] = None
    rebind: Annotated[
        Literal["never", "host", "any"],
        Meta(
            description="Who may take a TCP link when its first client has gone: nobody, which "
            "ends it; a client with the same IP address; anybody."
        ),
    ] = "host"
    allowed_device_nets: Annotated[
        Networks | None,
        Meta(
            description="Where devices may be. Loopback and link-local addresses count only if "
            "a network has nothing else. Required where a listener serves `devicelink`."
        ),
    ] = None
    allowed_device_ports: Annotated[
        Ports | None,
        Meta(description="The ports of devices that links may lead to; without it, all."),
    ] = None
    links_per_device: Annotated[int, Meta(description="Links to one device.", ge=1)] = 4
    links_per_principal: Annotated[
        int, Meta(description="Links of one user, whatever tokens it uses.", ge=1)
    ] = 32
    links: Annotated[int, Meta(description="Links all together.", ge=1)] = 1000
    rate: Annotated[
        Annotated[int, Meta(extra={"kind": "size"}, ge=1)] | None,
        Meta(description="Bytes per second and direction of one link."),
    ] = None
    strict_ctr: Annotated[
        bool,
        Meta(
            description="Whether a key and initialization vector that were used before are "
            "refused with `aes-256-ctr`, and not just warned of."
        ),
    ] = False


class Limits(Section, frozen=True):
    """What clients may use up. One that goes beyond is refused or disconnected."""

    body: Annotated[Size, Meta(description="The body of an HTTP request.", ge=1)] = MIB
    ws_message: Annotated[Size, Meta(description="A message on a WebSocket.", ge=1)] = MIB
    send_window: Annotated[
        Size,
        Meta(description="What may wait to be sent to a WebSocket that reads too slowly.", ge=1),
    ] = MIB
    authentication: Annotated[
        Duration, Meta(description="The time in which a WebSocket must authenticate.", ge=0.001)
    ] = 10.0
    header: Annotated[
        Duration,
        Meta(description="The time in which the header of a request must arrive.", ge=0.001),
    ] = 10.0
    body_time: Annotated[
        Duration, Meta(description="The time in which the body of a request must arrive.", ge=0.001)
    ] = 30.0
    idle: Annotated[
        Duration,
        Meta(description="How long an HTTP connection may stay open between requests.", ge=0.001),
    ] = 60.0
    keepalive: Annotated[
        Duration,
        Meta(description="How often a WebSocket is pinged.", ge=1.0),
    ] = 30.0
    in_flight: Annotated[
        int, Meta(description="Requests of one WebSocket that wait for their answers.", ge=1)
    ] = 256
    subscriptions: Annotated[int, Meta(description="Subscriptions of one WebSocket.", ge=1)] = 1000
    connections: Annotated[
        int, Meta(description="Connections to one listener, and sockets of one API.", ge=1)
    ] = 50000
    connections_per_address: Annotated[
        int, Meta(description="Of these, those of one client address.", ge=1)
    ] = 10000
    json_depth: Annotated[
        # Python's own limit of nested calls is 1000.
        int, Meta(description="How deep JSON may be nested.", ge=1, le=500)
    ] = 64
    pending_writes: Annotated[
        Size,
        Meta(description="What may wait to be committed before writes are refused.", ge=1),
    ] = 64 * MIB


class Service(Section, frozen=True):
    """The daemon itself."""

    drain_timeout: Annotated[
        Duration,
        Meta(description="How long a stop waits for connections to finish before it cuts them."),
    ] = 10.0


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of one daemon."""

    listen: list[Listen]
    storage: Storage
    node: Node = Node()
    devicehive: DeviceHive = DeviceHive()
    devicelink: DeviceLink = DeviceLink()
    cloudrelay: CloudRelay = CloudRelay()
    oauth: OAuth = OAuth()
    iotkit: IotKit = IotKit()
    ux4iot: Ux4Iot = Ux4Iot()
    limits: Limits = Limits()
    service: Service = Service()

    def serves(self, api: str) -> bool:
        """Tell whether any listener serves the API of this name."""
        return any(api in listen.serve for listen in self.listen)


#: The tables of the file in the order of the reference, by path.
TABLES: dict[str, type[Section]] = {
    "listen": Listen,
    "storage": Storage,
    "node": Node,
    "devicehive": DeviceHive,
    "devicelink": DeviceLink,
    "cloudrelay": CloudRelay,
    "cloudrelay.issuer": Issuer,
    "oauth": OAuth,
    "oauth.client": OAuthClient,
    "iotkit": IotKit,
    "iotkit.account": IotKitAccount,
    "iotkit.bindings": IotKitBindings,
    "ux4iot": Ux4Iot,
    "ux4iot.iot_hub": IotHub,
    "limits": Limits,
    "service": Service,
}
#: Of these, those that may be there several times.
LISTS = ("listen", "cloudrelay.issuer", "oauth.client", "iotkit.account")
#: Those that are in no other table.
SECTIONS = {path: section for path, section in TABLES.items() if "." not in path}
