"""The seam between the core and what keeps its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from gatewayd.core.cluster import ClusterStore
from gatewayd.core.estate import Estate
from gatewayd.core.grants import SessionChange, StoredSession
from gatewayd.core.model import (
    Command,
    CommandChange,
    Delivery,
    Device,
    DeviceLogin,
    Entry,
    Event,
    Group,
    GroupKind,
    Plugin,
    RelayCall,
    Setting,
    SigningKey,
    User,
)
from gatewayd.core.queries import (
    DeviceQuery,
    GroupQuery,
    Listing,
    Page,
    Pending,
    PluginQuery,
    Replay,
    UserQuery,
)
from gatewayd.core.shadow import ConnectionState, LastValue, StoredTwin

#: Called with every batch of events that was committed, in commit order.
Observer = Callable[[Sequence[Event]], None]


class Log(Protocol):
    """The timelines of all devices."""

    @property
    def opened_at(self) -> tuple[int, int]:
        """The highest position and the latest time (ms) in the log when it was opened."""

    def append(self, entry: Entry, patience: float = 0.0) -> Deferred[Event]:
        """Append an entry; fires after it is on disk.

        :param patience: seconds for which it may wait, so that many are written together; nothing
            that is written later comes before it.
        :raises NotFound: the device is gone. :raises Superseded: its epoch is over.
        :raises Conflict: ``"version"``: the twin was changed meanwhile.
        :raises Unavailable: it could not be kept.
        """

    def update_command(self, change: CommandChange) -> Deferred[Event]:
        """Update a command and append the update; fires after both are on disk.

        :raises NotFound: no such command. :raises Superseded: the change's epoch is over.
        """

    def observe(self, observer: Observer) -> None:
        """Call ``observer`` after each commit, when the writers have had their answers."""

    def read(self, replay: Replay) -> Deferred[Page]:
        """Return the next page of a walk through the log, oldest first."""

    def horizon(self) -> Deferred[int]:
        """Return the ms up to which retention has dropped events; 0 when nothing was."""

    def notifications(self, listing: Listing) -> Deferred[list[Event]]:
        """List the notifications of a device."""

    def notification(self, device: Device, seq: int) -> Deferred[Event | None]:
        """Return one notification."""

    def commands(self, listing: Listing) -> Deferred[list[Command]]:
        """List the commands of a device."""

    def command(self, device: Device, seq: int) -> Deferred[Command | None]:
        """Return one command."""

    def pending(self, query: Pending) -> Deferred[list[Event]]:
        """Return the insertions of the commands that wait for their device, oldest first.

        An empty list: no more wait.
        """

    def mark(self, stream: int, seqs: Sequence[int], delivery: Delivery) -> Deferred[None]:
        """Record how far commands have come; never moves one back."""

    def sweep(self, before: int, limit: int) -> Deferred[int]:
        """Drop up to ``limit`` rows of each kind older than ``before`` (ms).

        Fires with how many went; 0 when nothing is left to drop.
        """


class Directory(Protocol):
    """Devices, networks, device types, users, plugins and named settings."""

    def device(self, device_id: str) -> Deferred[Device | None]:
        """Return the device whose id is that, ignoring case."""

    def save_device(self, device: Device, was: Device | None = None) -> Deferred[Device]:
        """Insert a device (``uid`` 0), or change the one that was read as ``was``.

        :return: it, as it is stored.
        :raises Conflict: ``"version"``: another writer came first: it is not as it was, or there
            is one of that id already.
        :raises Invalid: its network or type does not exist. :raises NotFound: it is gone.
        """

    def delete_device(self, uid: int) -> Deferred[bool]:
        """Delete a device with its timeline; fires with whether there was one."""

    def device_key(self, uid: int) -> Deferred[str | None]:
        """Return the hash of the key with which a device authenticates."""

    def set_device_key(self, uid: int, hashed: str) -> Deferred[None]:
        """Keep the hash of a device's key. :raises NotFound: the device is gone."""

    def devices(self, query: DeviceQuery) -> Deferred[list[Device]]:
        """List devices."""

    def count_devices(self, query: DeviceQuery) -> Deferred[int]:
        """Count devices."""

    def group(self, kind: GroupKind, group_id: int) -> Deferred[Group | None]:
        """Return a network or device type."""

    def groups(self, kind: GroupKind, query: GroupQuery) -> Deferred[list[Group]]:
        """List networks or device types."""

    def count_groups(self, kind: GroupKind, query: GroupQuery) -> Deferred[int]:
        """Count networks or device types."""

    def insert_group(self, kind: GroupKind, name: str, description: str | None) -> Deferred[Group]:
        """Insert a network or device type. :raises Duplicate: the name is taken."""

    def update_group(self, kind: GroupKind, group: Group, was: Group) -> Deferred[None]:
        """Change the one that was read as ``was``.

        :raises Conflict: ``"version"``: it is not as it was. :raises NotFound:
        :raises Duplicate: the name is taken.
        """

    def delete_group(self, kind: GroupKind, group_id: int, force: bool) -> Deferred[list[Device]]:
        """Delete it, with ``force`` also its devices, which it fires with.

        :raises NotFound: :raises NotEmpty: it has devices and ``force`` is not set.
        """

    def user(self, user_id: int) -> Deferred[User | None]:
        """Return a user."""

    def user_by_login(self, login: str) -> Deferred[User | None]:
        """Return the user with that login."""

    def users(self, query: UserQuery) -> Deferred[list[User]]:
        """List users."""

    def count_users(self, query: UserQuery) -> Deferred[int]:
        """Count users."""

    def save_user(self, user: User, was: User | None = None) -> Deferred[User]:
        """Insert a user (``id`` 0), or change the one that was read as ``was``.

        Its networks and types are saved with it. What logins change (``last_login``, ``attempts``)
        is saved with a new user only; of a known one it is neither compared nor written.

        :return: it, as it is stored.
        :raises Conflict: ``"version"``: another writer came first: it is not as it was.
        :raises Duplicate: the login is taken. :raises NotFound: it is gone, or a network or
            device type of it is.
        """

    def note_login(self, user_id: int, at: int) -> Deferred[User | None]:
        """Record that a user came in at ``at`` (ms), unless it came later, and nothing else.

        :return: the user, or None: it is gone.
        """

    def count_attempt(self, user_id: int, most: int) -> Deferred[User | None]:
        """Count a wrong password; at ``most`` of them the user is locked and the count is 0.

        However many writers count at once, each counts.

        :return: the user, or None: there is no active one, and nothing was counted.
        """

    def forget_attempts(self, user_id: int) -> Deferred[User | None]:
        """Count wrong passwords from 0 again; fires with the user, or None: it is gone."""

    def delete_user(self, user_id: int) -> Deferred[bool]:
        """Delete a user with its plugins; fires with whether there was one."""

    def plugin(self, topic: str) -> Deferred[Plugin | None]:
        """Return the plugin with that topic."""

    def plugins(self, query: PluginQuery) -> Deferred[list[Plugin]]:
        """List plugins."""

    def count_plugins(self, query: PluginQuery) -> Deferred[int]:
        """Count plugins."""

    def save_plugin(self, plugin: Plugin, was: Plugin | None = None) -> Deferred[Plugin]:
        """Insert a plugin (``id`` 0), or change the one that was read as ``was``; fires with it.

        Its topic and its user stay as they are.

        :raises Conflict: ``"version"``: another writer came first: it is not as it was.
        :raises NotFound: it is gone, or its user is.
        """

    def delete_plugin(self, plugin_id: int) -> Deferred[bool]:
        """Delete a plugin; fires with whether there was one."""

    def setting(self, name: str) -> Deferred[Setting | None]:
        """Return a named setting."""

    def put_setting(self, name: str, value: str) -> Deferred[Setting]:
        """Insert or replace a named setting."""

    def delete_setting(self, name: str) -> Deferred[bool]:
        """Delete a named setting; fires with whether there was one."""

    def adopt(self, estate: Estate) -> Deferred[bool]:
        """Take over what another server kept, with its ids: all of it, or nothing.

        Fires after it is on disk; with False, and nothing is changed, when there are users,
        networks, device types or devices already. Ids given out later are higher.

        :raises Invalid: something is in it twice, or names what is not in it.
        """


class Vault(Protocol):
    """Keys and passwords that are shown to nobody."""

    def signing_keys(self) -> Deferred[list[SigningKey]]:
        """List the keys that sign tokens, oldest first."""

    def add_signing_key(self, key: SigningKey) -> Deferred[None]:
        """Keep a key. :raises Duplicate: there is one of that name."""

    def drop_signing_key(self, kid: str) -> Deferred[bool]:
        """Forget a key; fires with whether there was one."""

    def device_login(self, uid: int) -> Deferred[DeviceLogin | None]:
        """Return how a device lets the gateway in."""

    def set_device_login(self, uid: int, login: DeviceLogin | None) -> Deferred[None]:
        """Keep or forget how a device lets the gateway in. :raises NotFound: it is gone."""

    def device_secret(self, uid: int) -> Deferred[bytes | None]:
        """Return the key with which a device signs what it sends."""

    def set_device_secret(self, uid: int, secret: bytes | None) -> Deferred[None]:
        """Keep or forget the key with which a device signs. :raises NotFound: it is gone."""

    def secret(self, name: str) -> Deferred[bytes | None]:
        """Return a secret of the gateway's own."""

    def keep_secret(self, name: str, secret: bytes) -> Deferred[bytes]:
        """Keep a secret unless there is one of that name; fires with the one that is kept."""


class RelayCalls(Protocol):
    """Relayed requests whose answers are kept. They go with their device."""

    def begin_call(self, call: RelayCall) -> Deferred[RelayCall | None]:
        """Keep a call that begins; fires with None.

        When the principal has one with the same key for the same device, which has not expired at
        ``call.created``, nothing is changed, and it fires with that one.

        :raises NotFound: the device is gone.
        """

    def end_call(self, call: RelayCall) -> Deferred[None]:
        """Keep what has become of a call (command, status, headers, body), if it is known still."""

    def forget_call(self, call_id: str) -> Deferred[None]:
        """Forget a call that came to nothing."""

    def call(self, call_id: str) -> Deferred[RelayCall | None]:
        """Return a call."""

    def sweep_calls(self, now: int, limit: int) -> Deferred[int]:
        """Forget up to ``limit`` calls that have expired at ``now`` (ms); fires with how many."""

    def kept_bytes(self) -> Deferred[int]:
        """Return the size of all calls together; see :attr:`RelayCall.size`."""


class Shadows(Protocol):
    """What devices said last and what is wanted of them; it goes with the device.

    Twins are written with the log, see :attr:`Entry.twin`.
    """

    def twin(self, uid: int) -> Deferred[StoredTwin | None]:
        """Return the twin of a device; None: nothing was ever said in it."""

    def last_values(self, uid: int) -> Deferred[list[LastValue]]:
        """Return what a device said last, by key; without what was deleted."""

    def keep_shadows(
        self,
        values: Sequence[LastValue],
        states: Sequence[ConnectionState],
        until: int,
        limit: int,
    ) -> Deferred[None]:
        """Keep what devices said last, in one transaction.

        An older value never replaces a newer one, nor does a state one that was heard later, and
        the greatest sequence counts. Those of devices that are gone are ignored.

        :param until: ms up to which the log is in it.
        :param limit: how many keys a device may have; those that it said longest ago are forgotten.
        """

    def shadowed_until(self) -> Deferred[int | None]:
        """Return the ms up to which the log is in what was kept; None: it never was."""

    def connection_state(self, uid: int) -> Deferred[ConnectionState | None]:
        """Return whether a device is connected, as it was kept."""

    def connected(self) -> Deferred[list[ConnectionState]]:
        """List the states of those that are connected, as they were kept."""


class SessionStore(Protocol):
    """The live sessions that were granted something."""

    def live_sessions(self) -> Deferred[list[StoredSession]]:
        """List all of them."""

    def live_session(self, session_id: str) -> Deferred[StoredSession | None]:
        """Return one."""

    def change_session(self, change: SessionChange) -> Deferred[None]:
        """Change one, or store it; and know when it was used, if that is later than known."""

    def touch_sessions(self, ids: Sequence[str], now: int) -> Deferred[None]:
        """Know that some are used at ``now`` (ms); unknown ones are ignored."""

    def drop_sessions(self, ids: Sequence[str]) -> Deferred[None]:
        """Forget some with all that was granted to them; unknown ones are ignored."""

    def drop_unused_sessions(self, ids: Sequence[str], before: int) -> Deferred[list[str]]:
        """Forget those of some that were used last before that (ms).

        Fires with the ids, sorted, of those that are not there any more, or never were.
        """


class Store(Log, Directory, Vault, RelayCalls, Shadows, SessionStore, Protocol):
    """Everything that is kept. One driver is one implementation of this."""

    def start(self) -> Deferred[Any]:
        """Open the store; migrate its schema. :raises ConfigError: it cannot be used."""

    def stop(self) -> Deferred[Any]:
        """Finish every write that was accepted, then close."""

    @property
    def healthy(self) -> bool:
        """Whether the last write succeeded."""

    @property
    def cluster(self) -> ClusterStore | None:
        """What is kept with other nodes; None: the store is this process's own."""
