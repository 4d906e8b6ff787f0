"""The embedded store: SQLite, one thread that writes and one that reads."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

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
from gatewayd.storage import (
    configuration,
    devices,
    groups,
    history,
    live_sessions,
    plugins,
    relay_calls,
    shadows,
    users,
    vault,
)
from gatewayd.storage.adopt import adopt
from gatewayd.storage.engine import Reader, Writer
from gatewayd.storage.file_lock import FileLock
from gatewayd.storage.journal import Journal
from gatewayd.storage.worker import Job, Worker

Result = TypeVar("Result")


class SQLiteStore:
    """A :class:`gatewayd.core.interfaces.Store` in one SQLite file.

    :param path: the database file; created when missing, mode 600.
    :param reactor: calls from other threads, and keeps time.
    :param wall: the time of day in ms; called in the writer's thread.
    :param pending: refuse writes when those in flight hold more bytes than this.
    """

    def __init__(
        self,
        path: Path,
        reactor: Any,
        wall: Callable[[], int],
        *,
        pending: int = 64 * 1024 * 1024,
    ) -> None:
        self._lock = FileLock(path)
        self._observers: list[Observer] = []
        self._engine = Writer(path, wall)
        self._writer: Worker[Journal] = Worker(
            "gatewayd-writer", self._engine, reactor, pending=pending, delivered=self._delivered
        )
        self._reader: Worker[sqlite3.Connection] = Worker("gatewayd-reader", Reader(path), reactor)

    @property
    def healthy(self) -> bool:
        """Whether the last write succeeded."""
        return self._engine.healthy

    @property
    def cluster(self) -> None:
        """Nobody else has the file."""
        return None

    @property
    def opened_at(self) -> tuple[int, int]:
        return self._engine.opened_at

    def start(self) -> Deferred[None]:
        """Open and migrate the database. :raises ConfigError: it cannot be used."""
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        # Sequence numbers live in our memory: no other process writes.
        self._lock.take()
        try:
            await self._writer.start()
            await self._reader.start()
        except BaseException:
            await self._writer.stop()
            self._lock.release()
            raise

    def stop(self) -> Deferred[None]:
        """Finish every write that was accepted, then close."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._writer.stop()
        await self._reader.stop()
        self._lock.release()

    def observe(self, observer: Observer) -> None:
        """Call ``observer`` after each commit."""
        self._observers.append(observer)

    def _delivered(self, batch: list[Job]) -> None:
        for job in batch:
            if job.events:
                for observer in self._observers:
                    observer(job.events)

    def _write(self, function: Callable[..., Result], *arguments: Any) -> Deferred[Result]:
        return self._writer.submit(function, *arguments)

    def _read(self, function: Callable[..., Result], *arguments: Any) -> Deferred[Result]:
        return self._reader.submit(function, *arguments)

    # The log

    def append(self, entry: Entry, patience: float = 0.0) -> Deferred[Event]:
        return self._writer.submit(Journal.append, entry, size=entry.size, patience=patience)

    def update_command(self, change: CommandChange) -> Deferred[Event]:
        size = 512 + len(change.result or b"")
        return self._writer.submit(Journal.update_command, change, size=size)

    def read(self, replay: Replay) -> Deferred[Page]:
        return self._read(history.read, replay)

    def horizon(self) -> Deferred[int]:
        return self._read(history.horizon)

    def notifications(self, listing: Listing) -> Deferred[list[Event]]:
        return self._read(history.notifications, listing)

    def notification(self, device: Device, seq: int) -> Deferred[Event | None]:
        return self._read(history.notification, device, seq)

    def commands(self, listing: Listing) -> Deferred[list[Command]]:
        return self._read(history.commands, listing)

    def command(self, device: Device, seq: int) -> Deferred[Command | None]:
        return self._read(history.command, device, seq)

    def pending(self, query: Pending) -> Deferred[list[Event]]:
        return self._read(history.pending, query)

    def mark(self, stream: int, seqs: Sequence[int], delivery: Delivery) -> Deferred[None]:
        return self._write(_mark, stream, seqs, delivery)

    def sweep(self, before: int, limit: int) -> Deferred[int]:
        return self._write(_sweep, before, limit)

    # The directory

    def device(self, device_id: str) -> Deferred[Device | None]:
        return self._read(devices.get, device_id)

    def save_device(self, device: Device, was: Device | None = None) -> Deferred[Device]:
        return self._write(devices.save, device, was)

    def delete_device(self, uid: int) -> Deferred[bool]:
        return self._write(devices.delete, uid)

    def device_key(self, uid: int) -> Deferred[str | None]:
        return self._read(devices.key, uid)

    def set_device_key(self, uid: int, hashed: str) -> Deferred[None]:
        return self._write(devices.set_key, uid, hashed)

    def devices(self, query: DeviceQuery) -> Deferred[list[Device]]:
        return self._read(devices.find, query)

    def count_devices(self, query: DeviceQuery) -> Deferred[int]:
        return self._read(devices.count, query)

    def group(self, kind: GroupKind, group_id: int) -> Deferred[Group | None]:
        return self._read(groups.get, kind, group_id)

    def groups(self, kind: GroupKind, query: GroupQuery) -> Deferred[list[Group]]:
        return self._read(groups.find, kind, query)

    def count_groups(self, kind: GroupKind, query: GroupQuery) -> Deferred[int]:
        return self._read(groups.count, kind, query)

    def insert_group(self, kind: GroupKind, name: str, description: str | None) -> Deferred[Group]:
        return self._write(groups.insert, kind, name, description)

    def update_group(self, kind: GroupKind, group: Group, was: Group) -> Deferred[None]:
        return self._write(groups.update, kind, group, was)

    def delete_group(self, kind: GroupKind, group_id: int, force: bool) -> Deferred[list[Device]]:
        return self._write(groups.delete, kind, group_id, force)

    def user(self, user_id: int) -> Deferred[User | None]:
        return self._read(users.get, user_id)

    def user_by_login(self, login: str) -> Deferred[User | None]:
        return self._read(users.by_login, login)

    def users(self, query: UserQuery) -> Deferred[list[User]]:
        return self._read(users.find, query)

    def count_users(self, query: UserQuery) -> Deferred[int]:
        return self._read(users.count, query)

    def save_user(self, user: User, was: User | None = None) -> Deferred[User]:
        return self._write(users.save, user, was)

    def note_login(self, user_id: int, at: int) -> Deferred[User | None]:
        return self._write(users.note_login, user_id, at)

    def count_attempt(self, user_id: int, most: int) -> Deferred[User | None]:
        return self._write(users.count_attempt, user_id, most)

    def forget_attempts(self, user_id: int) -> Deferred[User | None]:
        return self._write(users.forget_attempts, user_id)

    def delete_user(self, user_id: int) -> Deferred[bool]:
        return self._write(users.delete, user_id)

    def plugin(self, topic: str) -> Deferred[Plugin | None]:
        return self._read(plugins.get, topic)

    def plugins(self, query: PluginQuery) -> Deferred[list[Plugin]]:
        return self._read(plugins.find, query)

    def count_plugins(self, query: PluginQuery) -> Deferred[int]:
        return self._read(plugins.count, query)

    def save_plugin(self, plugin: Plugin, was: Plugin | None = None) -> Deferred[Plugin]:
        return self._write(plugins.save, plugin, was)

    def delete_plugin(self, plugin_id: int) -> Deferred[bool]:
        return self._write(plugins.delete, plugin_id)

    def setting(self, name: str) -> Deferred[Setting | None]:
        return self._read(configuration.get, name)

    def put_setting(self, name: str, value: str) -> Deferred[Setting]:
        return self._write(configuration.put, name, value)

    def delete_setting(self, name: str) -> Deferred[bool]:
        return self._write(configuration.delete, name)

    def adopt(self, estate: Estate) -> Deferred[bool]:
        return self._write(adopt, estate)

    # The vault

    def signing_keys(self) -> Deferred[list[SigningKey]]:
        return self._read(vault.signing_keys)

    def add_signing_key(self, key: SigningKey) -> Deferred[None]:
        return self._write(vault.add_signing_key, key)

    def drop_signing_key(self, kid: str) -> Deferred[bool]:
        return self._write(vault.drop_signing_key, kid)

    def device_login(self, uid: int) -> Deferred[DeviceLogin | None]:
        return self._read(vault.device_login, uid)

    def set_device_login(self, uid: int, login: DeviceLogin | None) -> Deferred[None]:
        size = 512 + len(login.ca or b"" if login else b"")
        return self._writer.submit(vault.set_device_login, uid, login, size=size)

    def device_secret(self, uid: int) -> Deferred[bytes | None]:
        return self._read(vault.device_secret, uid)

    def set_device_secret(self, uid: int, secret: bytes | None) -> Deferred[None]:
        return self._write(vault.set_device_secret, uid, secret)

    def secret(self, name: str) -> Deferred[bytes | None]:
        return self._read(vault.secret, name)

    def keep_secret(self, name: str, secret: bytes) -> Deferred[bytes]:
        return self._write(vault.keep_secret, name, secret)

    # Relayed requests

    def begin_call(self, call: RelayCall) -> Deferred[RelayCall | None]:
        return self._writer.submit(relay_calls.begin, call, size=call.size)

    def end_call(self, call: RelayCall) -> Deferred[None]:
        return self._writer.submit(relay_calls.end, call, size=call.size)

    def forget_call(self, call_id: str) -> Deferred[None]:
        return self._write(relay_calls.forget, call_id)

    def call(self, call_id: str) -> Deferred[RelayCall | None]:
        return self._read(relay_calls.get, call_id)

    def sweep_calls(self, now: int, limit: int) -> Deferred[int]:
        return self._write(relay_calls.sweep, now, limit)

    def kept_bytes(self) -> Deferred[int]:
        return self._read(relay_calls.kept_bytes)

    # Shadows

    def twin(self, uid: int) -> Deferred[StoredTwin | None]:
        return self._read(shadows.twin, uid)

    def last_values(self, uid: int) -> Deferred[list[LastValue]]:
        return self._read(shadows.last_values, uid)

    def keep_shadows(
        self,
        values: Sequence[LastValue],
        states: Sequence[ConnectionState],
        until: int,
        limit: int,
    ) -> Deferred[None]:
        size = shadows_size(values, states)
        return self._writer.submit(shadows.keep, values, states, until, limit, size=size)

    def shadowed_until(self) -> Deferred[int | None]:
        return self._read(shadows.shadowed_until)

    def connection_state(self, uid: int) -> Deferred[ConnectionState | None]:
        return self._read(shadows.connection_state, uid)

    def connected(self) -> Deferred[list[ConnectionState]]:
        return self._read(shadows.connected)

    # Live sessions

    def live_sessions(self) -> Deferred[list[StoredSession]]:
        return self._read(live_sessions.every)

    def live_session(self, session_id: str) -> Deferred[StoredSession | None]:
        return self._read(live_sessions.get, session_id)

    def change_session(self, change: SessionChange) -> Deferred[None]:
        return self._writer.submit(live_sessions.change, change, size=change.size)

    def drop_sessions(self, ids: Sequence[str]) -> Deferred[None]:
        return self._write(live_sessions.drop, ids)

    def touch_sessions(self, ids: Sequence[str], now: int) -> Deferred[None]:
        return self._write(live_sessions.touch, ids, now)

    def drop_unused_sessions(self, ids: Sequence[str], before: int) -> Deferred[list[str]]:
        return self._write(live_sessions.drop_unused, ids, before)


def _mark(journal: Journal, stream: int, seqs: Sequence[int], delivery: Delivery) -> None:
    history.mark(journal.db, stream, seqs, delivery)


def _sweep(journal: Journal, before: int, limit: int) -> int:
    return history.sweep(journal.db, before, limit)
