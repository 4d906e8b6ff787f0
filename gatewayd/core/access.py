"""Who may do what to which device: the one permission model behind every API."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from gatewayd.core.model import Device, Event, GroupKind, User
from gatewayd.errors import Denied, NotFound


class Action(StrEnum):
    """Everything that a principal may be allowed to do."""

    DEVICE_READ = "device.read"
    DEVICE_REGISTER = "device.register"
    COMMAND_READ = "command.read"
    COMMAND_SEND = "command.send"
    COMMAND_UPDATE = "command.update"
    EVENT_READ = "event.read"
    EVENT_SEND = "event.send"
    NETWORK_READ = "network.read"
    NETWORK_MANAGE = "network.manage"
    TYPE_READ = "device-type.read"
    TYPE_MANAGE = "device-type.manage"
    SELF_READ = "self.read"
    SELF_UPDATE = "self.update"
    USER_MANAGE = "user.manage"
    CONFIGURATION_MANAGE = "configuration.manage"
    TOKEN_MANAGE = "token.manage"  # noqa: S105 - the name of a permission
    PLUGIN_MANAGE = "plugin.manage"
    LINK_CREATE = "link.create"
    LINK_READ = "link.read"
    LINK_DELETE = "link.delete"
    #: links that send to a UDP client at an address which is not the asker's own
    LINK_ANY_SOURCE = "link.any-source"
    #: requests that are relayed to a device
    RELAY_CALL = "relay.call"


ALL_ACTIONS = frozenset(Action)
ADMIN_ACTIONS = frozenset(
    {
        Action.USER_MANAGE,
        Action.CONFIGURATION_MANAGE,
        Action.NETWORK_MANAGE,
        Action.TYPE_MANAGE,
        Action.LINK_CREATE,
        Action.LINK_READ,
        Action.LINK_DELETE,
        Action.LINK_ANY_SOURCE,
        Action.RELAY_CALL,
    }
)
#: What a user with the client role gets at login; a link or a relayed request opens a network, so
#: somebody has to grant that.
CLIENT_ACTIONS = ALL_ACTIONS - ADMIN_ACTIONS
#: What a device gets that proves to be itself.
DEVICE_ACTIONS = frozenset(
    {
        Action.DEVICE_READ,
        Action.DEVICE_REGISTER,
        Action.COMMAND_READ,
        Action.COMMAND_UPDATE,
        Action.EVENT_READ,
        Action.EVENT_SEND,
    }
)


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """A set of devices: those in any of the networks and of any of the types.

    :ivar networks: None for no limit; so types.
    :ivar stream: one device alone.
    :ivar ids: the ids of devices, in upper case; None for no limit.
    """

    networks: frozenset[int] | None = None
    types: frozenset[int] | None = None
    stream: int | None = None
    ids: frozenset[str] | None = None

    def holds(self, device: Device) -> bool:
        """Whether the device is in the set."""
        return (
            self.stream in (None, device.uid)
            and self.reaches(device.network, device.type)
            and (self.ids is None or device.id.upper() in self.ids)
        )

    def shows(self, event: Event) -> bool:
        """Whether the device of an event is in the set."""
        return (
            self.reaches(event.network, event.type)
            and self.stream in (None, event.stream)
            and (self.ids is None or event.device.upper() in self.ids)
        )

    def reaches(self, network: int, type_: int) -> bool:
        """Whether devices of that network and type are in the set."""
        return (self.networks is None or network in self.networks) and (
            self.types is None or type_ in self.types
        )

    def members(self, kind: GroupKind) -> frozenset[int] | None:
        """Return the networks or the device types of the set, None for all."""
        return self.networks if kind is GroupKind.NETWORK else self.types


UNLIMITED = Scope()
NOTHING = Scope(networks=frozenset(), types=frozenset())


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a credential says of networks and device types.

    Saying nothing of networks reaches none; saying nothing of types reaches them all when all are
    open to the user, and otherwise none.

    :ivar networks: None when it says nothing; so types.
    :ivar all_networks: it names all networks, those to come too; so all_types.
    """

    networks: frozenset[int] | None = None
    types: frozenset[int] | None = None
    all_networks: bool = False
    all_types: bool = False

    def covers(self, other: Grant) -> bool:
        """Whether another grant names nothing that this one does not."""
        if not self.all_networks and (
            other.all_networks or not _within(other.networks, self.networks)
        ):
            return False
        return (
            self.all_types
            or self.types is None
            or (not other.all_types and other.types is not None and other.types <= self.types)
        )


def _within(theirs: frozenset[int] | None, mine: frozenset[int] | None) -> bool:
    if theirs is None:
        return mine is None  # it registers devices in any network of its user
    return theirs <= (mine or frozenset())


EVERYTHING = Grant(all_networks=True, all_types=True)


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A program that has an account of its own, here or with an identity provider.

    :ivar name: what it is called in records and quotas.
    :ivar devices: the ids of the devices that it may know of, in upper case; None for all.
    """

    name: str
    devices: frozenset[str] | None = None


class Principal:
    """Somebody whom an API has authenticated.

    Nothing behind the APIs knows which credential it was. A user principal follows its user:
    when that changes or goes, :meth:`follow` narrows what open sessions may do.
    """

    __slots__ = (
        "__weakref__", "_granted", "actions", "device", "grant", "scope", "service", "user",
    )  # fmt: skip

    def __init__(
        self,
        actions: frozenset[Action],
        grant: Grant = EVERYTHING,
        user: User | None = None,
        device: Device | None = None,
        service: Service | None = None,
    ) -> None:
        self._granted = actions
        self.grant = grant
        self.device = device
        self.service = service
        self.user: User | None = None
        self.actions: frozenset[Action] = actions
        self.scope = UNLIMITED if device is None else Scope(stream=device.uid)
        if service is not None and service.devices is not None:
            self.scope = Scope(ids=service.devices)
        if user is not None:
            self.follow(user)

    def follow(self, user: User | None) -> None:
        """Take over a change of the user; None when it may no longer act."""
        self.user = user
        if user is None:
            self.actions = frozenset()
            self.scope = NOTHING
        else:
            self.actions = self._granted
            self.scope = Scope(networks=self._networks(user), types=self._types(user))
            if self.scope == UNLIMITED:
                self.scope = UNLIMITED  # the same object: comparing by identity is quick

    def _networks(self, user: User) -> frozenset[int] | None:
        if self.grant.all_networks:
            return None if user.is_admin else user.networks
        granted = self.grant.networks or frozenset()
        return granted if user.is_admin else user.networks & granted

    def _types(self, user: User) -> frozenset[int] | None:
        if user.all_types:
            # A list in the token does not narrow such a user: DeviceHive's rule, see
            # docs/devicehive.md.
            return None
        if self.grant.all_types:
            return None if user.is_admin else user.types
        granted = self.grant.types or frozenset()
        return granted if user.is_admin else user.types & granted

    @property
    def home(self) -> Scope:
        """Where it may register and change devices.

        A credential that says nothing of networks reads nothing, but registers devices in the
        networks of its user: DeviceHive's rule, and what provisioning tokens are made with.
        """
        if self.user is None or self.grant.all_networks or self.grant.networks is not None:
            return self.scope
        networks = None if self.user.is_admin else self.user.networks
        return Scope(networks=networks, types=self.scope.types)

    @property
    def name(self) -> str:
        """What it is called in records and quotas."""
        if self.user is not None:
            return f"user {self.user.id}"
        if self.service is not None:
            return f"service {self.service.name}"
        return "nobody" if self.device is None else f"device {self.device.id}"

    @property
    def is_admin(self) -> bool:
        """Whether it acts for an administrator."""
        return self.user is not None and self.user.is_admin

    @property
    def unlimited(self) -> bool:
        """Whether it was granted all networks and all device types."""
        scope = self.scope
        limited = scope.types is not None or scope.stream is not None or scope.ids is not None
        return self.grant.all_networks and not limited

    def require(self, action: Action) -> None:
        """Check a permission. :raises Denied: it is not held."""
        if action not in self.actions:
            raise Denied

    def admit(self, device: Device | None, device_id: str) -> Device:
        """Return the device when the principal may know of it.

        One that is hidden looks exactly like one that does not exist.

        :raises NotFound: for a principal that is not limited. :raises Denied: for others.
        """
        if device is not None and self.scope.holds(device):
            return device
        if self.unlimited:
            raise NotFound("device", device_id)
        raise Denied

    def admit_group(self, kind: GroupKind, group_id: int) -> None:
        """Check that a network or device type is in scope. :raises Denied: it is not."""
        members = self.scope.members(kind)
        if members is not None and group_id not in members:
            raise Denied
