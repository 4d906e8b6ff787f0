"""What was acknowledged is kept, whatever happens to the database or the connections to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import psycopg2
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from gatewayd.core.model import Device, Event
from gatewayd.errors import Unavailable
from tests.storage.pg_place import PostgresPlace, pause
from tests.storage.postgres import PostgresServer
from tests.storage.store_bench import Place, Rig, bounded, rising, seqs, the_reactor, together
from tests.storage.test_durability import settle

#: Seconds for which the store waits here.
PATIENCE = 1.0


@pytest_twisted.async_yield_fixture(name="place")
async def choose_place(pg_place: PostgresPlace) -> AsyncIterator[Place]:
    """Be the place of the store under test, with less patience."""
    await pg_place.store.stop()
    pg_place.store = pg_place.another(patience=PATIENCE)
    await pg_place.store.start()
    yield pg_place


@pytest.fixture(name="server")
def mend_server(store_server: PostgresServer) -> Iterator[PostgresServer]:
    """Have the server going when the test ends, however."""
    yield store_server
    store_server.thaw()
    try:
        store_server.execute("SELECT 1")
    except psycopg2.OperationalError:
        store_server.start()


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Wait until something is so."""
    end = the_reactor().seconds() + seconds
    while not await condition():
        assert the_reactor().seconds() < end, "it did not come to be so"
        await pause(0.02)


async def healthy(rig: Rig) -> None:
    """Wait until the store says that all is well."""

    async def well() -> bool:
        return rig.store.healthy

    await until(well)


class Load:
    """Appends all the time with keys, and tries again what was not acknowledged."""

    def __init__(self, rig: Rig, devices: list[Device]) -> None:
        self.rig = rig
        self.acknowledged: dict[str, Event] = {}
        self.refused = 0
        self._running = True
        self._writers = [
            Deferred.fromCoroutine(self._write(device, f"{device.id}{number}"))
            for device in devices
            for number in range(4)
        ]

    async def _write(self, device: Device, label: str) -> None:
        number = 0
        while self._running:
            key = f"{label}-{number}"
            try:
                self.acknowledged[key] = await self.rig.note(device, key, key=key)
                number += 1
            except Unavailable:
                self.refused += 1
                await pause(0.01)

    async def grows(self) -> None:
        """Wait until more was acknowledged."""
        before = len(self.acknowledged)

        async def more() -> bool:
            return len(self.acknowledged) > before + 50

        await until(more, 15)

    async def refuses(self) -> None:
        """Wait until nothing is acknowledged."""
        before = self.refused

        async def some() -> bool:
            return self.refused > before + 20

        await until(some)

    async def end(self) -> None:
        self._running = False
        await together(self._writers)


async def check(rig: Rig, load: Load, seen: list[Event]) -> None:
    """Compare the log with what its writers and an observer were told."""
    logged = await rig.replay()
    assert len({event.name for event in logged}) == len(logged)
    assert {event.name: event.seq for event in logged}.items() >= {
        key: event.seq for key, event in load.acknowledged.items()
    }.items()
    for stream in {event.stream for event in logged}:
        timeline = [event for event in logged if event.stream == stream]
        assert seqs(timeline) == list(range(1, len(timeline) + 1))
        assert rising([event.ts for event in timeline])
    assert [event.position for event in seen] == [event.position for event in logged]
    assert [event.name for event in seen] == [event.name for event in logged]


async def stop_and_start(server: PostgresServer, load: Load) -> None:
    server.stop()
    await load.refuses()
    await server.start_meanwhile()


async def freeze_and_thaw(server: PostgresServer, load: Load) -> None:
    server.freeze()
    await load.refuses()
    server.thaw()


async def end_the_connections(server: PostgresServer, load: Load) -> None:
    del load
    for _ in range(5):
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gateway'"
        )
        await pause(0.05)


@pytest.mark.parametrize("fault", [stop_and_start, freeze_and_thaw, end_the_connections])
@bounded
async def test_database_goes_and_comes(
    rig: Rig, server: PostgresServer, fault: Callable[[PostgresServer, Load], Awaitable[None]]
) -> None:
    """Acknowledged events are there once and in order, and observers are told of each once."""
    seen: list[Event] = []
    rig.store.observe(seen.extend)
    device = await rig.device("A")
    load = Load(rig, [device, await rig.device("B")])
    await load.grows()
    await fault(server, load)
    await load.grows()
    await load.end()
    await healthy(rig)
    await rig.note(device, "last")
    await check(rig, load, seen)


@bounded
async def test_away(pg_place: PostgresPlace, rig: Rig, server: PostgresServer) -> None:
    """While the database is away all calls fail at once; then all work again."""
    device = await rig.device()
    server.stop()

    async def noticed() -> bool:
        store = pg_place.store
        return all(part.reason is not None for part in store._open if part is not store.tail)

    await until(noticed)
    assert not rig.store.healthy
    for _ in range(2):
        calls: list[Deferred[Any]] = [
            rig.note(device), rig.store.put_setting("a", "b"), rig.store.device("D"),
            rig.store.delete_device(device.uid), rig.store.horizon(),
        ]  # fmt: skip
        assert [call.called for call in calls] == [True] * 5
        for call in calls:
            with pytest.raises(Unavailable):
                await call
        await pause(0.3)
    await server.start_meanwhile()
    await healthy(rig)
    assert (await rig.note(device)).seq == 1


@bounded
async def test_stop_while_away(rig: Rig, server: PostgresServer) -> None:
    """A store stops soon when the database is away, and everybody has an answer."""
    device = await rig.device()
    server.freeze()
    writes = [rig.note(device) for _ in range(20)]
    stopped = rig.store.stop()
    events, refused = await settle(writes)
    assert (events, refused) == ([], 20)
    await stopped
    server.thaw()


@bounded
async def test_reads_go_on(rig: Rig, server: PostgresServer) -> None:
    """A read whose connection is ended is read again on another one."""
    device = await rig.device()
    for _ in range(5):
        reads = [rig.store.device("D") for _ in range(20)]
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE usename = 'gateway' ORDER BY backend_start LIMIT 1"
        )
        assert await together(reads) == [device] * 20
