"""The rows of a store: every table with its columns, once for both drivers and for the stream.

The names are those of SQLite; what PostgreSQL calls otherwise is said in ``pg``. Tables about the
nodes that run are none of these: nothing of them is true in another place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct
from msgspec.structs import astuple, fields

Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Id = Annotated[int, Meta(ge=1, le=2**63 - 1)]

# What is written at once.
_ROWS = 500
_BYTES = 1024 * 1024


class Row(Struct, frozen=True, tag_field="table", forbid_unknown_fields=True):
    """A row of some table; the fields of a subclass are the table's columns.

    :cvar order: the columns, by number, in whose order the rows are read.
    """

    order: ClassVar[str] = "1"


class Meta_(Row, frozen=True, tag="meta"):  # noqa: N801 - msgspec has the name
    """A number that the store keeps of itself."""

    name: str
    value: Int


class Network(Row, frozen=True, tag="network"):
    """A network."""

    id: Id
    name: str
    description: str | None


class DeviceType(Row, frozen=True, tag="device_type"):
    """A device type."""

    id: Id
    name: str
    description: str | None


class Device(Row, frozen=True, tag="device"):
    """A device."""

    uid: Id
    id: str
    id_fold: str
    name: str
    network: Int
    type: Int
    data: bytes | None
    blocked: bool


class DeviceKey(Row, frozen=True, tag="device_key"):
    """The hash of a device's key."""

    uid: Int
    hash: str


class DeviceLogin(Row, frozen=True, tag="device_login"):
    """How a device lets the gateway in."""

    uid: Int
    base_url: str
    username: str | None
    password: str | None
    ca: bytes | None


class DeviceSecret(Row, frozen=True, tag="device_secret"):
    """The key with which a device signs."""

    uid: Int
    secret: bytes


class User(Row, frozen=True, tag="user"):
    """A user, with the hash of the password."""

    id: Id
    login: str
    role: Int
    status: Int
    password: str
    last_login: Int | None
    attempts: Int
    data: bytes | None
    intro_reviewed: bool
    all_types: bool


class UserNetwork(Row, frozen=True, tag="user_network"):
    """A network of a user."""

    order: ClassVar[str] = "1, 2"
    user: Int
    network: Int


class UserDeviceType(Row, frozen=True, tag="user_device_type"):
    """A device type of a user."""

    order: ClassVar[str] = "1, 2"
    user: Int
    device_type: Int


class Plugin(Row, frozen=True, tag="plugin"):
    """A plugin."""

    id: Id
    name: str
    description: str | None
    topic: str
    filter: bytes
    status: Int
    subscription: Int | None
    user: Int
    parameters: bytes | None


class Configuration(Row, frozen=True, tag="configuration"):
    """A named setting."""

    id: Id
    name: str
    value: str
    version: Int


class SigningKey(Row, frozen=True, tag="signing_key"):
    """A key with which tokens are signed; the oldest is the first."""

    kid: str
    pem: bytes
    created: Int


class Secret(Row, frozen=True, tag="secret"):
    """A secret of the gateway's own."""

    name: str
    secret: bytes


class Stream(Row, frozen=True, tag="stream"):
    """The head of a device's timeline."""

    uid: Int
    epoch: Int
    seq: Int
    ts: Int


class Event(Row, frozen=True, tag="event"):
    """An entry of the log."""

    position: Int
    stream: Int
    seq: Int
    ts: Int
    stamp: Int
    kind: Int
    name: str
    body: bytes | None
    network: Int
    type: Int
    ref: Int


class Command(Row, frozen=True, tag="command"):
    """A command with its state."""

    order: ClassVar[str] = "1, 2"
    stream: Int
    seq: Int
    name: str
    network: Int
    type: Int
    ts: Int
    stamp: Int
    updated: Int
    user: Int | None
    parameters: bytes | None
    lifetime: Int | None
    status: str | None
    result: bytes | None
    changed: bool
    delivery: Int


class Idempotency(Row, frozen=True, tag="idempotency"):
    """What came of a request that may be repeated."""

    key: str
    stream: Int
    seq: Int
    ts: Int


class Orphan(Row, frozen=True, tag="orphan"):
    """A timeline whose device is gone."""

    stream: Int


class RelayCall(Row, frozen=True, tag="relay_call"):
    """A relayed request whose answer is kept."""

    id: str
    principal: str
    stream: Int
    key: str | None
    digest: bytes
    created: Int
    expires: Int
    command: Int | None
    status: Int | None
    headers: bytes
    body: bytes | None


class Twin(Row, frozen=True, tag="twin"):
    """A device's twin."""

    uid: Int
    version: Int
    document: bytes


class LastValue(Row, frozen=True, tag="last_value"):
    """What a device said last under a key."""

    order: ClassVar[str] = "1, 2"
    stream: Int
    key: str
    seq: Int
    stamp: Int
    value: bytes | None


class ConnectionState(Row, frozen=True, tag="connection_state"):
    """Whether a device is connected."""

    stream: Int
    connected: bool
    stamp: Int
    heard: Int
    sequence: str


class LiveSession(Row, frozen=True, tag="live_session"):
    """A session of live data."""

    id: str
    by_grant: bool
    met: bool
    used: Int


class LiveSessionGrant(Row, frozen=True, tag="live_session_grant"):
    """What a session was granted, or is subscribed to."""

    order: ClassVar[str] = "1, 2, 3, 4, 5 NULLS FIRST"
    session: str
    subscribed: bool
    device: str
    access: str
    selector: str | None


class LogEnd(Row, frozen=True, tag="log_end"):
    """The end of the log: the last position, and the latest time (ms), that were given out."""

    position: Int
    ts: Int


class Identity(Row, frozen=True, tag="identity"):
    """The last id that a table has given out, be it gone since.

    :ivar name: the table's.
    """

    name: str
    last: Id


#: The tables that both drivers have, each behind those to which it refers.
TABLES: tuple[type[Row], ...] = (
    Meta_, Network, DeviceType, Device, DeviceKey, DeviceLogin, DeviceSecret, User, UserNetwork,
    UserDeviceType, Plugin, Configuration, SigningKey, Secret, Stream, Event, Command, Idempotency,
    Orphan, RelayCall, Twin, LastValue, ConnectionState, LiveSession, LiveSessionGrant,
)  # fmt: skip
#: Of these, the ones that give out ids, in their first column.
NUMBERED: tuple[type[Row], ...] = (Network, DeviceType, Device, User, Plugin, Configuration)
#: All that the stream may have.
EVERY: tuple[type[Row], ...] = (*TABLES, LogEnd, Identity)


def name_of(table: type[Row]) -> str:
    """Return the name of a table."""
    return str(table.__struct_config__.tag)


def columns(table: type[Row]) -> tuple[str, ...]:
    """Return the names of a table's columns."""
    return table.__struct_fields__


def flags(table: type[Row]) -> list[int]:
    """Return which columns of a table are true or false."""
    return [index for index, field in enumerate(fields(table)) if field.type is bool]


def batches(rows: Iterable[Row]) -> Iterator[tuple[type[Row], list[tuple[Any, ...]]]]:
    """Yield rows as they may be written at once: of one table each, and not too many."""
    table: type[Row] | None = None
    batch: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        if batch and (type(row) is not table or len(batch) >= _ROWS or size >= _BYTES):
            assert table is not None
            yield table, batch
            batch, size = [], 0
        table = type(row)
        batch.append(astuple(row))
        size += sum(len(value) for value in batch[-1] if isinstance(value, str | bytes))
    if table is not None and batch:
        yield table, batch
