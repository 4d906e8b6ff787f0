"""A process that is killed while it appends to PostgreSQL."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from gatewayd.errors import NotFound
from tests.storage.pg_place import PostgresPlace
from tests.storage.store_bench import Rig, bounded, rising, seqs
from tests.storage.test_durability import check_twin

ROOT = Path(__file__).parents[2]


@bounded
async def test_killed(pg_place: PostgresPlace) -> None:
    """After SIGKILL at any moment, all that was acknowledged is there, once, without a gap."""
    acknowledged: list[list[str]] = []
    for turn in range(3):
        command = [sys.executable, "-m", "tests.storage.appender", pg_place.url, str(turn)]
        wanted = random.randrange(1, 600)
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(wanted)]
            process.kill()
            lines += process.stdout.readlines()
        assert all(lines), f"the writers ended by themselves, of {wanted} lines"
        acknowledged += [line.split() for line in lines]
        await check_log(pg_place, acknowledged)


async def check_log(place: PostgresPlace, acknowledged: list[list[str]]) -> None:
    """Compare the log with what its writers were told."""
    rig = Rig(place)
    # What the killed one was about may still be going on; who appends waits for it.
    last = await place.store.device(acknowledged[-1][0])
    assert last is not None
    with pytest.raises(NotFound):
        await rig.answer(last, 0)
    logged = await rig.replay()
    names = {(event.device, event.seq): event.name for event in logged}
    assert len({event.name for event in logged}) == len(logged)
    for device_id, seq, key in acknowledged:
        assert names[device_id, int(seq)] == key
    for device_id in {event.device for event in logged}:
        timeline = [event for event in logged if event.device == device_id]
        assert seqs(timeline) == list(range(1, len(timeline) + 1))
        assert rising([event.ts for event in timeline])
        await check_twin(rig, timeline)
    device_id, seq, key = acknowledged[-1]
    device = await place.store.device(device_id)
    assert device is not None
    retried = await rig.note(device, key, key=key)
    assert (retried.seq, retried.name) == (int(seq), key)
