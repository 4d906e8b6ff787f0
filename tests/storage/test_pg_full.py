"""A PostgreSQL server that has no room: on its disk, or for another connection."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
import pytest_twisted

from gatewayd.errors import ConfigError, Unavailable
from tests.storage.pg_place import PostgresPlace, pause
from tests.storage.store_bench import Place, Rig

#: Files of the server may not grow beyond it: what it writes first, of this size, it has already.
WAL_SEGMENT = 16 * 1024 * 1024
CHUNK = 256 * 1024


@pytest_twisted.async_yield_fixture(name="place")
async def choose_place(pg_place: PostgresPlace) -> AsyncIterator[Place]:
    """Test the store on PostgreSQL."""
    yield pg_place


@pytest_twisted.ensureDeferred
async def test_disk_full(rig: Rig, pg_place: PostgresPlace) -> None:
    """What there is no room for is refused, what was acknowledged is there; then it goes on."""
    device = await rig.device()
    server = pg_place.server
    events = []
    server.limit_files(WAL_SEGMENT)
    try:
        with pytest.raises(Unavailable):
            for _ in range(200):
                events.append(
                    await rig.note(device, body=b'"%s"' % os.urandom(CHUNK).hex().encode())
                )
        assert not rig.store.healthy
        with pytest.raises(Unavailable):
            for _ in range(20):
                events.append(
                    await rig.note(device, body=b'"%s"' % os.urandom(CHUNK).hex().encode())
                )
    finally:
        server.limit_files("unlimited")
    while True:
        try:
            events.append(await rig.note(device, body=b'"there is room"'))
        except Unavailable:
            await pause(0.1)
        else:
            break
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.body for event in await rig.replay()] == [event.body for event in events]
    assert rig.store.healthy


@pytest_twisted.ensureDeferred
async def test_no_connection_left(rig: Rig, pg_place: PostgresPlace) -> None:
    """A store that gets no connection says so at the start; one that has some works on."""
    device = await rig.device()
    another = pg_place.another()
    with pg_place.server.crowded(), pytest.raises(ConfigError, match=r"too many|slots"):
        await another.start()
    with pg_place.server.crowded():
        await rig.note(device)
    await another.start()
    await another.stop()


@pytest_twisted.ensureDeferred
async def test_connections_come_back_when_there_is_room(rig: Rig, pg_place: PostgresPlace) -> None:
    """Connections that were lost while there was no room for others come back afterwards."""
    device = await rig.device()
    with pg_place.server.crowded() as fill:
        pg_place.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gateway'"
        )
        fill()
        with pytest.raises(Unavailable):
            for _ in range(50):
                await rig.note(device)
                await pause(0.05)
    for _ in range(100):
        try:
            await rig.note(device)
        except Unavailable:
            await pause(0.1)
        else:
            break
    assert (await rig.note(device)).seq > 1
