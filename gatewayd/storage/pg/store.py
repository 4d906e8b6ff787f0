"""The store in PostgreSQL: a few connections that write, each in order, and a few that read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed

from gatewayd.core.cluster import LEASE
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
from gatewayd.core.shadow import ConnectionState, LastValue, StoredTwin, shadows_size
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
from gatewayd.storage.pg.changes import Recorder
from gatewayd.storage.pg.clock import SharedClock
from gatewayd.storage.pg.cluster import PostgresCluster, Ways
from gatewayd.storage.pg.draft import Draft
from gatewayd.storage.pg.engine import DirectoryEngine, LogEngine
from gatewayd.storage.pg.journal import Journal
from gatewayd.storage.pg.lane import Budget, Lane
from gatewayd.storage.pg.listener import Listener
from gatewayd.storage.pg.partitions import add_days
from gatewayd.storage.pg.pool import Part, Readers, dsn_with
from gatewayd.storage.pg.server import prepare
from gatewayd.storage.pg.tail import Tail
from gatewayd.storage.pg.tx import Tx
from gatewayd.storage.worker import Job

_READERS = 3  # connections


class PostgresStore:
    """A :class:`gatewayd.core.interfaces.Store` in a PostgreSQL database.

    What is written goes by one of a few lanes, each a connection of its own: the log, the registry,
    relayed requests, what the hub keeps, what is swept, and leases. Within a lane the order of the
    calls is the order of the commits. While the database is away every call fails at once; the
    store works again as soon as the database does.

    :param url: of the database, see :class:`~gatewayd.storage.dsn.Dsn`; it exists, and is ours.
    :param reactor: connects, and keeps time.
    :param wall: the time of day in ms.
    :param pending: refuse writes when those in flight hold more bytes than this.
    :param patience: seconds until the server has to answer a statement; else it counts as away.
    :param shared_clock: record the time of the database, and not that of ``wall``.
    :param node: the name of this process among those that share the database; ``lease``: ms for
        which the others take it for alive.
    :ivar cluster: what is kept with them; for a node that has joined.
    :ivar now: the time by which this store records, in ms; never later than that.
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
        shared_clock: bool = False,
        node: str = "gatewayd",
        lease: int = LEASE,
    ) -> None:
        self._reactor, self._patience = reactor, patience
        self._opened_at = (0, 0)
        # A transaction whose process stands still must not keep the others from the log for ever.
        self._dsn = dsn_with(url, idle_in_transaction_session_timeout=str(int(patience * 1000)))
        budget = Budget(pending)

        def lane() -> Lane:
            return Lane(DirectoryEngine(), self._dsn, reactor, patience, budget)

        clock = SharedClock(wall, time.monotonic)
        self.now: Callable[[], int] = clock.now if shared_clock else wall
        # What is read here is small: a plan for several processes takes longer than the work.
        reading = dsn_with(
            url, default_transaction_read_only="on", max_parallel_workers_per_gather="0"
        )
        self._readers = Readers(reading, _READERS, reactor, patience)
        self.tail = Tail(self._read_gap, reactor)
        self.journal = Journal(None if shared_clock else wall, clock, self.tail)
        self.listener = Listener(reading, reactor, patience, self.tail, clock, self.journal)
        self._engine = LogEngine(self.journal)
        self._log = Lane(self._engine, self._dsn, reactor, patience, budget, self._delivered)
        self._registry = lane()
        self._calls = lane()
        self._hub = lane()
        self._upkeep = lane()
        self._leases = lane()
        self._recorder = Recorder(node)
        ways = Ways(self._leases, self._registry, self._hub, self._readers)
        self.cluster = PostgresCluster(node, lease, ways, reactor, self._recorder, self)
        #: What is open, in the order in which it began; it ends in the reverse one.
        self._open: list[Part] = []

    @property
    def healthy(self) -> bool:
        """Whether the last append succeeded, and the database is there."""
        return self._engine.healthy and all(part.reason is None for part in self._open)

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
            await prepare(self._dsn, self._reactor, self.journal)
            self._opened_at = (self.journal.position, self.journal.latest)
            self.tail.begin(self.journal.position)
            lanes = (self._registry, self._calls, self._hub, self._upkeep, self._leases)
            for part in (self.tail, self._log, *lanes):
                await self._begin(part)
        except BaseException:
            await self._stop()
            raise

    async def _begin(self, part: Part) -> None:
        await part.start()
        self._open.append(part)

    def follow_others(self) -> Deferred[None]:
        """Hear what other stores do as soon as it is done; fires when that was tried first.

        Else this one learns of it when it writes itself. A second call does nothing.
        """
        if self.listener in self._open:
            return succeed(None)
        self._open.append(self.listener)
        return Deferred.fromCoroutine(self.listener.start())

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
        self.tail.observe(observer)

    def _delivered(self, _: list[Job]) -> None:
        for after, upto, events in self._engine.committed():
            self.tail.offer(after, upto, events)
        self.tail.release()

    def _read_gap(self, after: int, until: int) -> Deferred[tuple[list[Event], int]]:
        return self._readers.submit(history.between, after, until)

    def _between(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Delete devices, after what was appended to them before and before what is to be after."""
        gate = self._log.gate()
        job = (_behind, gate.reached, self._recorder.change, function, *arguments)
        return self._registry.submit(*job).addBoth(gate.open)

    def _change(self, function: Callable[..., Any], *arguments: Any, **rest: Any) -> Deferred[Any]:
        """Write to the registry, and tell other nodes what :mod:`.telling` says."""
        return self._registry.submit(self._recorder.change, function, *arguments, **rest)

    # The log

    def append(self, entry: Entry, patience: float = 0.0) -> Deferred[Event]:
        return self._log.submit(Draft.append, entry, size=entry.size, patience=patience)

    def update_command(self, change: CommandChange) -> Deferred[Event]:
        return self._log.submit(Draft.update_command, change, size=512 + len(change.result or b""))

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
        return Deferred.fromCoroutine(self._sweep(before, limit))

    async def _sweep(self, before: int, limit: int) -> int:
        await self._upkeep.submit(add_days)
        gone: int = await self._upkeep.submit(retention.sweep, before, limit)
        return gone

    # The directory

    def device(self, device_id: str) -> Deferred[Device | None]:
        return self._readers.submit(devices.get, device_id)

    def save_device(self, device: Device, was: Device | None = None) -> Deferred[Device]:
        return self._change(devices.save, device, was)

    def delete_device(self, uid: int) -> Deferred[bool]:
        return self._between(devices.delete, uid).addCallback(bool)

    def device_key(self, uid: int) -> Deferred[str | None]:
        return self._readers.submit(devices.key, uid)

    def set_device_key(self, uid: int, hashed: str) -> Deferred[None]:
        return self._change(devices.set_key, uid, hashed)

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

    def update_group(self, kind: GroupKind, group: Group, was: Group) -> Deferred[None]:
        return self._registry.submit(groups.update, kind, group, was)

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

    def save_user(self, user: User, was: User | None = None) -> Deferred[User]:
        return self._change(users.save, user, was)

    def note_login(self, user_id: int, at: int) -> Deferred[User | None]:
        return self._change(users.note_login, user_id, at)

    def count_attempt(self, user_id: int, most: int) -> Deferred[User | None]:
        return self._change(users.count_attempt, user_id, most)

    def forget_attempts(self, user_id: int) -> Deferred[User | None]:
        return self._change(users.forget_attempts, user_id)

    def delete_user(self, user_id: int) -> Deferred[bool]:
        return self._change(users.delete, user_id).addCallback(lambda gone: gone is not None)

    def plugin(self, topic: str) -> Deferred[Plugin | None]:
        return self._readers.submit(plugins.get, topic)

    def plugins(self, query: PluginQuery) -> Deferred[list[Plugin]]:
        return self._readers.submit(plugins.find, query)

    def count_plugins(self, query: PluginQuery) -> Deferred[int]:
        return self._readers.submit(plugins.count, query)

    def save_plugin(self, plugin: Plugin, was: Plugin | None = None) -> Deferred[Plugin]:
        return self._change(plugins.save, plugin, was)

    def delete_plugin(self, plugin_id: int) -> Deferred[bool]:
        return self._change(plugins.delete, plugin_id).addCallback(bool)

    def setting(self, name: str) -> Deferred[Setting | None]:
        return self._readers.submit(settings.get, name)

    def put_setting(self, name: str, value: str) -> Deferred[Setting]:
        return self._change(settings.put, name, value)

    def delete_setting(self, name: str) -> Deferred[bool]:
        return self._change(settings.delete, name)

    def adopt(self, estate: Estate) -> Deferred[bool]:
        return self._change(adopt, estate)

    # The vault

    def signing_keys(self) -> Deferred[list[SigningKey]]:
        return self._readers.submit(vault.signing_keys)

    def add_signing_key(self, key: SigningKey) -> Deferred[None]:
        return self._change(vault.add_signing_key, key)

    def drop_signing_key(self, kid: str) -> Deferred[bool]:
        return self._change(vault.drop_signing_key, kid)

    def device_login(self, uid: int) -> Deferred[DeviceLogin | None]:
        return self._readers.submit(vault.device_login, uid)

    def set_device_login(self, uid: int, login: DeviceLogin | None) -> Deferred[None]:
        size = 512 + len(login.ca or b"" if login else b"")
        return self._change(vault.set_device_login, uid, login, size=size)

    def device_secret(self, uid: int) -> Deferred[bytes | None]:
        return self._readers.submit(vault.device_secret, uid)

    def set_device_secret(self, uid: int, secret: bytes | None) -> Deferred[None]:
        return self._change(vault.set_device_secret, uid, secret)

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
        size = shadows_size(values, states)
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

    def live_session(self, session_id: str) -> Deferred[StoredSession | None]:
        return self._readers.submit(live_sessions.get, session_id)

    def change_session(self, change: SessionChange) -> Deferred[None]:
        size = change.size
        return self._hub.submit(self._recorder.change, live_sessions.change, change, size=size)

    def drop_sessions(self, ids: Sequence[str]) -> Deferred[None]:
        return self._hub.submit(self._recorder.change, live_sessions.drop, ids)

    def touch_sessions(self, ids: Sequence[str], now: int) -> Deferred[None]:
        return self._hub.submit(live_sessions.touch, ids, now)

    def drop_unused_sessions(self, ids: Sequence[str], before: int) -> Deferred[list[str]]:
        return self._hub.submit(self._recorder.change, live_sessions.drop_unused, ids, before)


async def _behind(
    tx: Tx, reached: Deferred[None], function: Callable[..., Any], *arguments: Any
) -> Any:
    await reached
    return await function(tx, *arguments)
