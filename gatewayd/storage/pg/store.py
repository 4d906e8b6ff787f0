"""The store in PostgreSQL: a few connections that write, each in order, and a few that read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from gatewayd.core.cluster import ClusterStore
from gatewayd.core.estate import Estate
from gatewayd.core.grants import SessionChange, StoredSession
from gatewayd.core.interfaces import Observer
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
from gatewayd.storage.pg import (
    devices,
    groups,
    history,
    live_sessions,
    plugins,
    relay_calls,
    retention,
    settings,
    shadows,
    users,
    vault,
)
from gatewayd.storage.pg.adopt import adopt
from gatewayd.storage.pg.draft import Draft
from gatewayd.storage.pg.engine import DirectoryEngine, LogEngine
from gatewayd.storage.pg.lane import Budget, Lane
from gatewayd.storage.pg.pool import Readers, dsn_with
from gatewayd.storage.pg.server import prepare
from gatewayd.storage.pg.tx import Tx
from gatewayd.storage.worker import Job

_READERS = 3  # connections


class PostgresStore:
    """A :class:`gatewayd.core.interfaces.Store` in a PostgreSQL database.

    What is written goes by one of a few lanes, each a connection of its own: the log, the registry,
    relayed requests, what the hub keeps, and what is swept. Within a lane the order of the calls is
    the order of the commits. While the database is away every call fails at once; the store works
    again as soon as the database does.

    :param url: of the database, see :class:`~gatewayd.storage.dsn.Dsn`; it exists, and is ours.
    :param reactor: connects, and keeps time.
    :param wall: the time of day in ms.
    :param pending: refuse writes when those in flight hold more bytes than this.
    :param patience: seconds until the server has to answer a statement; else it counts as away.
    :raises ConfigError: this is no URL of a database.
    """

    def __init__(
        self,
        url: str,
        reactor: Any,
        wall: Callable[[], int],
        *,
        pending: int = 64 * 1024 * 1024,
        patience: float = 5.0,
    ) -> None:
        self._reactor = reactor
        self._patience = patience
        self._observers: list[Observer] = []
        self._engine = LogEngine(wall)
        self._opened_at = (0, 0)
        # A transaction whose process stands still must not keep the others from the log for ever.
        self._dsn = dsn_with(
            url,
            idle_in_transaction_session_timeout=str(int(patience * 1000)),
        )
        budget = Budget(pending)

        def lane() -> Lane:
            return Lane(DirectoryEngine(), self._dsn, reactor, patience, budget)

        self._log = Lane(self._engine, self._dsn, reactor, patience, budget, self._delivered)
        self._registry = lane()
        self._calls = lane()
        self._hub = lane()
        self._upkeep = lane()
        reading = dsn_with(url, default_transaction_read_only="on")
        self._readers = Readers(reading, _READERS, reactor, patience)
        #: What is open, in the order in which it began; it ends in the reverse one.
        self._open: list[Lane | Readers] = []

    @property
    def healthy(self) -> bool:
        """Whether the last append succeeded, and the database is there."""
        return self._engine.healthy and all(part.reason is None for part in self._open)

    @property
    def cluster(self) -> ClusterStore | None:
        """What is kept with other nodes."""
        return None

    @property
    def opened_at(self) -> tuple[int, int]:
        return self._opened_at

    def start(self) -> Deferred[None]:
        """Connect, and migrate the database. :raises ConfigError: it cannot be used."""
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        try:
            # First: it tells soon whether there is a database.
            await self._begin(self._readers)
            journal = self._engine.journal
            await prepare(self._dsn, self._reactor, journal)
            self._opened_at = (journal.position, journal.latest)
            for lane in (self._log, self._registry, self._calls, self._hub, self._upkeep):
                await self._begin(lane)
        except BaseException:
            await self._stop()
            raise

    async def _begin(self, part: Lane | Readers) -> None:
        await part.start()
        self._open.append(part)

    def stop(self) -> Deferred[None]:
        """Finish every write that was accepted, if the database is there, and disconnect."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for part in self._open:
            part.refuse()
        while self._open:
            await self._open.pop().stop()

    def observe(self, observer: Observer) -> None:
        """Call ``observer`` after each commit."""
        self._observers.append(observer)

    def _delivered(self, batch: list[Job]) -> None:
        for job in batch:
            if job.events:
                for observer in self._observers:
                    observer(job.events)

    def _between(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Delete devices, after what was appended to them before and before what is to be after."""
        gate = self._log.gate()
        done = self._registry.submit(_behind, gate.reached, function, *arguments)
        return done.addBoth(gate.open)

    # The log

    def append(self, entry: Entry, patience: float = 0.0) -> Deferred[Event]:
        return self._log.submit(Draft.append, entry, size=entry.size, patience=patience)

    def update_command(self, change: CommandChange) -> Deferred[Event]:
        size = 512 + len(change.result or b"")
        return self._log.submit(Draft.update_command, change, size=size)

    def read(self, replay: Replay) -> Deferred[Page]:
        return self._readers.submit(history.read, replay)

    def horizon(self) -> Deferred[int]:
        return self._readers.submit(history.horizon)

    def notifications(self, listing: Listing) -> Deferred[list[Event]]:
        return self._readers.submit(history.notifications, listing)

    def notification(self, device: Device, seq: int) -> Deferred[Event | None]:
        return self._readers.submit(history.notification, device, seq)

    def commands(self, listing: Listing) -> Deferred[list[Command]]:
        return self._readers.submit(history.commands, listing)

    def command(self, device: Device, seq: int) -> Deferred[Command | None]:
        return self._readers.submit(history.command, device, seq)

    def pending(self, query: Pending) -> Deferred[list[Event]]:
        return self._readers.submit(history.pending, query)

    def mark(self, stream: int, seqs: Sequence[int], delivery: Delivery) -> Deferred[None]:
        return self._log.submit(Draft.mark, stream, seqs, delivery)

    def sweep(self, before: int, limit: int) -> Deferred[int]:
        return self._upkeep.submit(retention.sweep, before, limit)

    # The directory

    def device(self, device_id: str) -> Deferred[Device | None]:
        return self._readers.submit(devices.get, device_id)

    def save_device(self, device: Device) -> Deferred[Device]:
        return self._registry.submit(devices.save, device)

    def delete_device(self, uid: int) -> Deferred[bool]:
        return self._between(devices.delete, uid)

    def device_key(self, uid: int) -> Deferred[str | None]:
        return self._readers.submit(devices.key, uid)

    def set_device_key(self, uid: int, hashed: str) -> Deferred[None]:
        return self._registry.submit(devices.set_key, uid, hashed)

    def devices(self, query: DeviceQuery) -> Deferred[list[Device]]:
        return self._readers.submit(devices.find, query)

    def count_devices(self, query: DeviceQuery) -> Deferred[int]:
        return self._readers.submit(devices.count, query)

    def group(self, kind: GroupKind, group_id: int) -> Deferred[Group | None]:
        return self._readers.submit(groups.get, kind, group_id)

    def groups(self, kind: GroupKind, query: GroupQuery) -> Deferred[list[Group]]:
        return self._readers.submit(groups.find, kind, query)

    def count_groups(self, kind: GroupKind, query: GroupQuery) -> Deferred[int]:
        return self._readers.submit(groups.count, kind, query)

    def insert_group(self, kind: GroupKind, name: str, description: str | None) -> Deferred[Group]:
        return self._registry.submit(groups.insert, kind, name, description)

    def update_group(self, kind: GroupKind, group: Group) -> Deferred[None]:
        return self._registry.submit(groups.update, kind, group)

    def delete_group(self, kind: GroupKind, group_id: int, force: bool) -> Deferred[list[Device]]:
        return self._between(groups.delete, kind, group_id, force)

    def user(self, user_id: int) -> Deferred[User | None]:
        return self._readers.submit(users.get, user_id)

    def user_by_login(self, login: str) -> Deferred[User | None]:
        return self._readers.submit(users.by_login, login)

    def users(self, query: UserQuery) -> Deferred[list[User]]:
        return self._readers.submit(users.find, query)

    def count_users(self, query: UserQuery) -> Deferred[int]:
        return self._readers.submit(users.count, query)

    def save_user(self, user: User) -> Deferred[User]:
        return self._registry.submit(users.save, user)

    def delete_user(self, user_id: int) -> Deferred[bool]:
        return self._registry.submit(users.delete, user_id)

    def plugin(self, topic: str) -> Deferred[Plugin | None]:
        return self._readers.submit(plugins.get, topic)

    def plugins(self, query: PluginQuery) -> Deferred[list[Plugin]]:
        return self._readers.submit(plugins.find, query)

    def count_plugins(self, query: PluginQuery) -> Deferred[int]:
        return self._readers.submit(plugins.count, query)

    def save_plugin(self, plugin: Plugin) -> Deferred[Plugin]:
        return self._registry.submit(plugins.save, plugin)

    def delete_plugin(self, plugin_id: int) -> Deferred[bool]:
        return self._registry.submit(plugins.delete, plugin_id)

    def setting(self, name: str) -> Deferred[Setting | None]:
        return self._readers.submit(settings.get, name)

    def put_setting(self, name: str, value: str) -> Deferred[Setting]:
        return self._registry.submit(settings.put, name, value)

    def delete_setting(self, name: str) -> Deferred[bool]:
        return self._registry.submit(settings.delete, name)

    def adopt(self, estate: Estate) -> Deferred[bool]:
        return self._registry.submit(adopt, estate)

    # The vault

    def signing_keys(self) -> Deferred[list[SigningKey]]:
        return self._readers.submit(vault.signing_keys)

    def add_signing_key(self, key: SigningKey) -> Deferred[None]:
        return self._registry.submit(vault.add_signing_key, key)

    def drop_signing_key(self, kid: str) -> Deferred[bool]:
        return self._registry.submit(vault.drop_signing_key, kid)

    def device_login(self, uid: int) -> Deferred[DeviceLogin | None]:
        return self._readers.submit(vault.device_login, uid)

    def set_device_login(self, uid: int, login: DeviceLogin | None) -> Deferred[None]:
        size = 512 + len(login.ca or b"" if login else b"")
        return self._registry.submit(vault.set_device_login, uid, login, size=size)

    def device_secret(self, uid: int) -> Deferred[bytes | None]:
        return self._readers.submit(vault.device_secret, uid)

    def set_device_secret(self, uid: int, secret: bytes | None) -> Deferred[None]:
        return self._registry.submit(vault.set_device_secret, uid, secret)

    def secret(self, name: str) -> Deferred[bytes | None]:
        return self._readers.submit(vault.secret, name)

    def keep_secret(self, name: str, secret: bytes) -> Deferred[bytes]:
        return self._registry.submit(vault.keep_secret, name, secret)

    # Relayed requests

    def begin_call(self, call: RelayCall) -> Deferred[RelayCall | None]:
        return self._calls.submit(relay_calls.begin, call, size=call.size)

    def end_call(self, call: RelayCall) -> Deferred[None]:
        return self._calls.submit(relay_calls.end, call, size=call.size)

    def forget_call(self, call_id: str) -> Deferred[None]:
        return self._calls.submit(relay_calls.forget, call_id)

    def call(self, call_id: str) -> Deferred[RelayCall | None]:
        return self._readers.submit(relay_calls.get, call_id)

    def sweep_calls(self, now: int, limit: int) -> Deferred[int]:
        return self._upkeep.submit(relay_calls.sweep, now, limit)

    def kept_bytes(self) -> Deferred[int]:
        return self._readers.submit(relay_calls.kept_bytes)

    # Shadows

    def twin(self, uid: int) -> Deferred[StoredTwin | None]:
        return self._readers.submit(shadows.twin, uid)

    def last_values(self, uid: int) -> Deferred[list[LastValue]]:
        return self._readers.submit(shadows.last_values, uid)

    def keep_shadows(
        self,
        values: Sequence[LastValue],
        states: Sequence[ConnectionState],
        until: int,
        limit: int,
    ) -> Deferred[None]:
        size = shadows.size(values, states)
        return self._hub.submit(shadows.keep, values, states, until, limit, size=size)

    def shadowed_until(self) -> Deferred[int | None]:
        return self._readers.submit(shadows.shadowed_until)

    def connection_state(self, uid: int) -> Deferred[ConnectionState | None]:
        return self._readers.submit(shadows.connection_state, uid)

    def connected(self) -> Deferred[list[ConnectionState]]:
        return self._readers.submit(shadows.connected)

    # Live sessions

    def live_sessions(self) -> Deferred[list[StoredSession]]:
        return self._readers.submit(live_sessions.every)

    def change_session(self, change: SessionChange) -> Deferred[None]:
        size = live_sessions.size(change)
        return self._hub.submit(live_sessions.change, change, size=size)

    def drop_sessions(self, ids: Sequence[str]) -> Deferred[None]:
        return self._hub.submit(live_sessions.drop, ids)


async def _behind(
    tx: Tx, reached: Deferred[None], function: Callable[..., Any], *arguments: Any
) -> Any:
    await reached
    return await function(tx, *arguments)
