"""A gateway's core to work on, and stand-ins for what is around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, execute, fail, succeed
from twisted.internet.task import Clock as Timers

from gatewayd.core.access import ALL_ACTIONS, Principal
from gatewayd.core.bootstrap import bootstrap
from gatewayd.core.devices import DeviceChange
from gatewayd.core.gateway import Core
from gatewayd.core.interfaces import Observer, Store
from gatewayd.core.model import Delivery, Device, Event, Group, GroupKind, Kind, Role, User
from gatewayd.core.queries import Filter, GroupQuery, Replay
from gatewayd.core.tokens import TokenAuthority
from gatewayd.core.users import UserChange
from gatewayd.errors import Unauthenticated
from gatewayd.storage.pg.store import PostgresStore
from gatewayd.storage.sqlite import SQLiteStore
from tests.storage.store_bench import START as START
from tests.storage.store_bench import Clock as Clock
from tests.storage.store_bench import bounded as bounded
from tests.storage.store_bench import the_reactor
from tests.storage.store_bench import together as together
from tests.stores import stores

ADMIN = "dhadmin"
PASSWORD = "dhadmin_#911"
KEY = bytes(range(32))
DAY = 86_400_000
RETENTION = 7 * DAY
NOTES = frozenset({Kind.NOTIFICATION})


async def refused(attempt: Awaitable[Any]) -> str:
    """Return why somebody is not let in."""
    with pytest.raises(Unauthenticated) as caught:
        await attempt
    return caught.value.reason


class Recorder:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.breaks = 0
        self.writable = True
        #: becomes not writable after so many events more
        self.room: int | None = None
        self._waiters: list[Deferred[None]] = []

    @property
    def seqs(self) -> list[int]:
        return [event.seq for event in self.events]

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]

    def when_writable(self) -> Deferred[None]:
        if self.writable:
            return succeed(None)
        self._waiters.append(Deferred())
        return self._waiters[-1]

    def deliver(self, event: Event) -> None:
        self.events.append(event)
        if self.room is not None:
            self.room -= 1
            if self.room <= 0:
                self.writable = False

    def broken(self) -> None:
        self.breaks += 1

    def drain(self, room: int | None = None) -> None:
        """Be writable again."""
        self.writable, self.room = True, room
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)


class Threads:
    """Runs at once what should run in a thread, or when the test says so."""

    def __init__(self) -> None:
        self.holding = False
        self.calls: list[str] = []
        self._held: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        self.calls.append(function.__name__)
        if not self.holding:
            return execute(function, *arguments)
        done: Deferred[Any] = Deferred()
        self._held.append((done, function, arguments))
        return done

    @property
    def held(self) -> int:
        return len(self._held)

    def release(self) -> None:
        """Run what was held, and from now on everything at once."""
        self.holding = False
        self.step()

    def step(self) -> None:
        """Run what was held."""
        held, self._held = self._held, []
        for done, function, arguments in held:
            execute(function, *arguments).chainDeferred(done)


class Gate:
    """Stands before a store: some answers arrive when the test lets them, some calls fail."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.calls: list[str] = []
        self._held: dict[str, list[tuple[Deferred[Any], Deferred[Any]]]] = {}
        self._errors: dict[str, Exception] = {}
        self._batches: list[tuple[Observer, Sequence[Event]]] | None = None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.store, name)
        if not callable(method):
            return method

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if name in self._errors:
                return fail(self._errors[name])
            answer = method(*arguments)
            if name not in self._held:
                return answer
            later: Deferred[Any] = Deferred()
            self._held[name].append((answer, later))
            return later

        return call

    def observe(self, observer: Observer) -> None:
        def observed(events: Sequence[Event]) -> None:
            if self._batches is None:
                observer(events)
            else:
                self._batches.append((observer, events))

        self.store.observe(observed)

    def fail(self, name: str, error: Exception | None) -> None:
        """Let calls fail from now on; None: no longer."""
        if error is None:
            del self._errors[name]
        else:
            self._errors[name] = error

    def hold(self, *names: str) -> None:
        """Hold the answers of these calls from now on."""
        for name in names:
            self._held[name] = []

    async def answered(self, name: str) -> None:
        """Wait until the store has answered the calls that are held; the caller has not heard."""
        for answer, _ in self._held[name]:
            known: Deferred[None] = Deferred()

            def tell(value: Any, known: Deferred[None] = known) -> Any:
                known.callback(None)
                return value

            answer.addBoth(tell)
            await known

    async def release(self, name: str) -> None:
        """Give the callers what is held, and hold no longer."""
        for answer, later in self._held.pop(name):
            later.callback(await answer)

    def hold_publishing(self) -> None:
        """Commit from now on without telling the observers."""
        self._batches = []

    def publish(self) -> None:
        """Tell the observers what was held, and hold no longer."""
        batches, self._batches = self._batches or [], None
        for observer, events in batches:
            observer(events)


class Bench:
    """A core over a real store, with a clock to set and short ways to put things into it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.timers = Timers()
        self.threads = Threads()
        self._number = 0

    async def open(self) -> None:
        """Build it and start the store."""
        store = self._store()
        self.gate = Gate(store)
        self.store = cast("Store", self.gate)
        self.tokens = TokenAuthority(KEY, self.clock)
        self.core = Core(self.store, self.tokens, self.threads, self.clock, self.timers, RETENTION)
        # Its time is not the database's: there is no lease that could be renewed.
        self.core.presence.holds = lambda: True
        await store.start()
        await bootstrap(self.store, self.core.passwords, ADMIN, PASSWORD)
        user = await self.core.users.by_login(ADMIN)
        assert user is not None
        self.admin = self.principal(user)
        network, *_ = await self.store.groups(GroupKind.NETWORK, GroupQuery())
        type_, *_ = await self.store.groups(GroupKind.DEVICE_TYPE, GroupQuery())
        self.network, self.type = network.id, type_.id

    def _store(self) -> SQLiteStore | PostgresStore:
        storage = stores.storage(self.path)
        if not storage.is_shared:
            return SQLiteStore(storage.path, the_reactor(), self.clock)
        if not stores.exists(storage):
            stores.create(storage)
        assert storage.url is not None
        return PostgresStore(storage.url.reveal(), the_reactor(), self.clock)

    async def close(self) -> None:
        self.threads.release()
        self.core.stop()
        await self.gate.store.stop()

    async def reopen(self) -> None:
        """Restart over the same file."""
        await self.settle()
        await self.close()
        await self.open()

    async def settle(self) -> None:
        """Let everything that began in the background end: it is never longer than five steps."""
        for _ in range(5):
            await self.gate.store.setting("")
            await self.gate.store.drop_sessions([])
            await self.gate.store.mark(0, [], Delivery.NEVER)

    def principal(self, user: User) -> Principal:
        """Return a principal that may do everything its user's scope allows, and follows it."""
        principal = Principal(ALL_ACTIONS, user=user)
        self.core.registry.track(principal)
        return principal

    async def group(self, kind: GroupKind, name: str) -> int:
        """Create a network or device type."""
        group: Group = await self.core.groups(kind).insert(self.admin, name, None)
        return group.id

    async def user(
        self, login: str = "client", *networks: int, password: str = PASSWORD, **change: Any
    ) -> User:
        """Create a user in these networks."""
        wanted = UserChange(**{"login": login, "password": password, "role": 1, **change})
        user = await self.core.users.insert(self.admin, wanted)
        for network in networks:
            await self.core.users.assign(self.admin, GroupKind.NETWORK, user.id, network, True)
        found = await self.core.users.by_id(user.id)
        assert found is not None
        return found

    async def client(self, *networks: int, login: str = "client", **change: Any) -> Principal:
        """Create a client with these networks and log it in."""
        await self.user(login, *networks, role=int(Role.CLIENT), **change)
        return await self.core.authentication.by_password(login, PASSWORD)

    async def device(self, device_id: str = "D", **change: int | bytes | bool) -> Device:
        """Register a device; its announcement is event 1."""
        fields: dict[str, Any] = {"name": device_id, "network": self.network, **change}
        wanted = DeviceChange(**fields)
        return await self.core.devices.save(self.admin, device_id, wanted)

    def note(self, device: Device, name: str = "note", **fields: Any) -> Deferred[Event]:
        """Record a notification."""
        return self.core.notifications.insert(self.admin, device, name, b"{}", **fields)

    async def replay(self, device: Device | None = None) -> list[Event]:
        """Return what is in the log, of a device or of all."""
        wanted = Replay(filter=Filter(kinds=frozenset(Kind)), since=0, now=self.clock.now)
        page = await self.gate.store.read(wanted)
        return [event for event in page.events if device is None or event.stream == device.uid]
