"""The nouns of the gateway: values that pass between an API, the core and a store."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

import msgspec

from gatewayd.core.shadow import StoredTwin

#: How far (ms) times may run ahead of the clock so that events of different devices differ in
#: time too. Within one device they always differ.
LEAD = 1000

# Message ids on the wire are positive 31-bit integers. They are a bijection of the sequence
# number, different for each device, so that an id is unique within its device for 2**31 - 2
# messages, looks random across devices, and is looked up by the log's own key.
_PRIME = 2**31 - 1
_STEP = 1_103_515_245
_STEP_INVERSE = pow(_STEP, -1, _PRIME)
_SPREAD = 1_812_433_253


def message_id(stream: int, seq: int) -> int:
    """Return the public id (1 .. 2**31 - 1) of message ``seq`` of device ``stream``."""
    return 1 + (seq * _STEP + stream * _SPREAD) % _PRIME


def message_seq(stream: int, public_id: int) -> int:
    """Return the sequence number behind a public id; 0 when no message can have that id."""
    if not 0 < public_id <= _PRIME:
        return 0
    return (public_id - 1 - stream * _SPREAD) * _STEP_INVERSE % _PRIME


class Kind(IntEnum):
    """What an event of a timeline is."""

    NOTIFICATION = 1
    COMMAND = 2
    COMMAND_UPDATE = 3
    ATTACHED = 4
    DETACHED = 5
    LINK_OPENED = 6
    LINK_CLOSED = 7
    RELAYED = 8


#: What applications and devices say to each other; the other kinds are the gateway's own notes.
MESSAGES = frozenset({Kind.NOTIFICATION, Kind.COMMAND, Kind.COMMAND_UPDATE})


class Delivery(IntEnum):
    """How far a command has come on its way to a device."""

    NEVER = 0
    #: written to an attached socket, not known to have arrived
    PUSHED = 1
    #: the device's WebSocket answered a ping that was sent after it
    CONFIRMED = 2


class GroupKind(StrEnum):
    """Networks and device types are the same thing under two names: named sets of devices."""

    NETWORK = "network"
    DEVICE_TYPE = "device type"


class Role(IntEnum):
    """A user's role; the numbers are DeviceHive's."""

    ADMIN = 0
    CLIENT = 1


class Status(IntEnum):
    """A user's status; the numbers are DeviceHive's."""

    ACTIVE = 0
    LOCKED = 1
    DISABLED = 2


class PluginStatus(IntEnum):
    """How far a plugin has come; the numbers are DeviceHive's."""

    ACTIVE = 0
    INACTIVE = 1
    #: registered, never active yet
    CREATED = 2


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A device.

    :ivar uid: the store's own number; never used again after the device is deleted, it also
        names the device's timeline.
    :ivar id: the public id, as it was first written; ids that differ in case only are one device.
    :ivar data: a JSON object, verbatim.
    """

    uid: int
    id: str
    name: str
    network: int
    type: int
    data: bytes | None = None
    blocked: bool = False


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A network or a device type."""

    id: int
    name: str
    description: str | None = None


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A user account.

    :ivar password: the password's hash in PHC form, never the password.
    :ivar last_login: ms since the epoch.
    :ivar attempts: failed logins since the last good one.
    :ivar all_types: whether every device type is open to the user.
    """

    id: int
    login: str
    role: Role
    status: Status = Status.ACTIVE
    password: str = ""
    last_login: int | None = None
    attempts: int = 0
    data: bytes | None = None
    intro_reviewed: bool = False
    all_types: bool = True
    networks: frozenset[int] = frozenset()
    types: frozenset[int] = frozenset()

    @property
    def is_admin(self) -> bool:
        """Whether the role is administrator."""
        return self.role is Role.ADMIN

    def is_as(self, other: User) -> bool:
        """Whether two are the same, but for what logins change."""
        logins = {"last_login": other.last_login, "attempts": other.attempts}
        return msgspec.structs.replace(self, **logins) == other

    def __repr__(self) -> str:
        return f"User(id={self.id}, login={self.login!r})"


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A named value that administrators keep in the gateway."""

    id: int
    name: str
    value: str
    version: int = 0


class PluginFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which events a plugin wants; None in a field means any.

    :ivar kinds: of :data:`MESSAGES`.
    :ivar device: the id of a device, whose case does not count.
    """

    kinds: frozenset[Kind] | None = None
    networks: frozenset[int] | None = None
    types: frozenset[int] | None = None
    device: str | None = None
    names: frozenset[str] | None = None


class Plugin(msgspec.Struct, frozen=True, kw_only=True):
    """A program that receives what its owner may see, through a topic of its own.

    :ivar topic: its public name, never used again.
    :ivar subscription: a number that is new each time the plugin becomes active; None when it
        is not active.
    :ivar user: the id of its owner, with whom it goes.
    :ivar parameters: a JSON object, verbatim.
    """

    id: int
    name: str
    topic: str
    user: int
    description: str | None = None
    filter: PluginFilter = PluginFilter()
    status: PluginStatus = PluginStatus.CREATED
    subscription: int | None = None
    parameters: bytes | None = None


class SigningKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key with which the gateway signs OAuth2 tokens.

    :ivar kid: its public name.
    :ivar pem: the private key, PKCS #8.
    :ivar created: ms since the epoch.
    """

    kid: str
    pem: bytes
    created: int

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r})"


class DeviceLogin(msgspec.Struct, frozen=True, kw_only=True):
    """What an HTTP device is told so that it lets the gateway in, and by what it is known.

    :ivar base_url: the only place that is told: who moves the device does not get its password.
    :ivar ca: the certificates, PEM, one of which must have signed the device's; None for those that
        the machine trusts.
    """

    base_url: str
    username: str | None = None
    password: str | None = None
    ca: bytes | None = None

    def __repr__(self) -> str:
        return f"DeviceLogin(base_url={self.base_url!r}, username={self.username!r})"


#: About how many bytes a call holds besides the headers and the body of its answer.
BARE_CALL = 512


class RelayCall(msgspec.Struct, frozen=True, kw_only=True):
    """A relayed request whose answer is kept.

    :ivar id: its public name.
    :ivar principal: whose it is: the name of a principal.
    :ivar stream: the device.
    :ivar key: the caller's own name for it, with which it may be repeated; None for none.
    :ivar digest: of what was asked.
    :ivar created: ms since the epoch; so expires, after which it is forgotten.
    :ivar command: the sequence number of the command that carries it; None when none does; 0
        while that is being recorded.
    :ivar status: of the answer; None while there is none; 0 when it came to nothing.
    :ivar headers: of the answer, a JSON list of pairs.
    :ivar body: of the answer; with a status of 0, why it came to nothing.
    """

    id: str
    principal: str
    stream: int
    digest: bytes
    created: int
    expires: int
    key: str | None = None
    command: int | None = None
    status: int | None = None
    headers: bytes = b"[]"
    body: bytes | None = None

    @property
    def size(self) -> int:
        """About how many bytes it holds, in memory or on disk."""
        return BARE_CALL + len(self.headers) + len(self.body or b"")


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command and how far it has come.

    :ivar seq: the sequence number of its insertion in the device's timeline.
    :ivar ts: when the gateway took it, ms since the epoch.
    :ivar stamp: the time that it shows: the sender's, never later than ``ts``.
    :ivar lifetime: seconds after ``ts`` in which it may be delivered; None or 0 for ever.
    :ivar changed: whether it was ever updated.
    """

    stream: int
    seq: int
    device: str
    name: str
    network: int
    type: int
    ts: int
    stamp: int
    updated: int
    user: int | None = None
    parameters: bytes | None = None
    lifetime: int | None = None
    status: str | None = None
    result: bytes | None = None
    changed: bool = False

    @property
    def id(self) -> int:
        """The public id."""
        return message_id(self.stream, self.seq)

    def expired(self, now: int) -> bool:
        """Whether its lifetime is over at ``now`` (ms)."""
        return bool(self.lifetime) and self.ts + (self.lifetime or 0) * 1000 <= now


class CommandDraft(msgspec.Struct, frozen=True, kw_only=True):
    """What a sender says of a new command."""

    user: int | None = None
    parameters: bytes | None = None
    lifetime: int | None = None
    status: str | None = None
    result: bytes | None = None


class CommandChange(msgspec.Struct, frozen=True, kw_only=True):
    """A device's answer to a command; a None field leaves the old value."""

    device: Device
    seq: int
    status: str | None = None
    result: bytes | None = None
    epoch: int | None = None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What a writer asks to be appended to a device's timeline.

    :ivar stamp: the sender's own time in ms, if it gave one.
    :ivar key: idempotency key; a second entry with the same key returns the first one's event.
    :ivar epoch: the writer's attachment epoch; refused when a newer exclusive one exists.
    :ivar exclusive: for ATTACHED: begins a new epoch. Not together with a key: the epoch of an
        event is known when it is recorded, not when it is read.
    :ivar twin: what becomes of the device's twin, in the same transaction; refused when its version
        is not the next one. Not together with a key.
    :ivar attachment: for ATTACHED and DETACHED, the number of the attachment, and ``node``, the
        name of the node that has it; they are kept, or forgotten, in the same transaction.
    """

    device: Device
    kind: Kind
    name: str = ""
    body: bytes | None = None
    stamp: int | None = None
    command: CommandDraft | None = None
    key: str | None = None
    epoch: int | None = None
    exclusive: bool = False
    twin: StoredTwin | None = None
    attachment: int | None = None
    node: str = ""

    @property
    def size(self) -> int:
        """About how many bytes it holds in memory."""
        size = 256 + len(self.body or b"")
        if self.twin is not None:
            size += len(self.twin.document)
        if self.command is not None:
            size += len(self.command.parameters or b"") + len(self.command.result or b"")
        return size


def scoped(key: str | None, device: Device, kind: Kind) -> str | None:
    """Return an idempotency key that marks only messages of one kind to one device."""
    return None if key is None else f"{device.uid}/{int(kind)}/{key}"


class Event(msgspec.Struct, kw_only=True):
    """One entry of a timeline, as it was recorded.

    :ivar seq: 1, 2, 3, ... per device, without a gap, in commit order.
    :ivar ts: ms since the epoch, strictly increasing per device.
    :ivar position: grows in commit order over all devices of a store, for as long as it is open.
    :ivar epoch: the device's attachment epoch.
    :ivar command: for COMMAND and COMMAND_UPDATE.
    :ivar foreign: whether another node may have recorded it.
    :ivar memo: encodings of this event, one per API, so that it is encoded once and not once
        per subscriber.
    """

    stream: int
    seq: int
    ts: int
    stamp: int
    kind: Kind
    name: str
    device: str
    network: int
    type: int
    position: int
    body: bytes | None = None
    epoch: int = 0
    command: Command | None = None
    foreign: bool = False
    memo: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def id(self) -> int:
        """The public id."""
        return message_id(self.stream, self.seq)

    @property
    def size(self) -> int:
        """How many bytes its contents hold."""
        size = len(self.body or b"")
        if self.command is not None:
            size += len(self.command.parameters or b"") + len(self.command.result or b"")
        return size
