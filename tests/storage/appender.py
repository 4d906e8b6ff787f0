"""A process that appends until it is killed, and prints what was acknowledged.

One line per event: the device's id, the sequence number, the key. Between them the twin of each
device changes all the time, with events that are named after its versions.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from itertools import count
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from gatewayd.core.interfaces import Store
from gatewayd.core.model import CommandDraft, Device, Entry, Kind
from gatewayd.core.model import GroupKind as Group
from gatewayd.core.shadow import StoredTwin
from gatewayd.storage.pg.store import PostgresStore
from gatewayd.storage.sqlite import SQLiteStore

DEVICES = ("A", "B", "C")
WRITERS = 8


async def furnish(store: Store) -> list[Device]:
    """Find or make the devices."""
    if await store.device(DEVICES[0]) is None:
        network = await store.insert_group(Group.NETWORK, "n", None)
        type_ = await store.insert_group(Group.DEVICE_TYPE, "t", None)
        for name in DEVICES:
            device = Device(uid=0, id=name, name=name, network=network.id, type=type_.id)
            await store.save_device(device)
    found = [await store.device(name) for name in DEVICES]
    return [device for device in found if device is not None]


async def write(store: Store, device: Device, label: str) -> None:
    """Append one event after the other."""
    for number in count():
        key = f"{label}-{number}"
        draft = CommandDraft(parameters=b"[]") if number % 5 == 0 else None
        kind = Kind.NOTIFICATION if draft is None else Kind.COMMAND
        event = await store.append(
            Entry(device=device, kind=kind, name=key, key=key, command=draft, body=b"x" * number)
        )
        os.write(1, f"{device.id} {event.seq} {key}\n".encode())


async def change_twin(store: Store, device: Device) -> None:
    """Go on changing the twin where it ended."""
    known = await store.twin(device.uid)
    for version in count(1 if known is None else known.version + 1):
        name = f"twin-{device.id}-{version}"
        twin = StoredTwin(version=version, document=name.encode())
        await store.append(Entry(device=device, kind=Kind.NOTIFICATION, name=name, twin=twin))


def now() -> int:
    return int(time.time() * 1000)


def store_at(place: str) -> Store:
    """Return the store of a database's URL, or of a file."""
    if place.startswith("postgresql:"):
        return PostgresStore(place, reactor, now)
    return SQLiteStore(Path(place), reactor, now)


async def main(place: str, label: str) -> None:
    """Start all writers."""
    store = store_at(place)
    await store.start()
    for device in await furnish(store):
        Deferred.fromCoroutine(change_twin(store, device))
        for writer in range(WRITERS):
            Deferred.fromCoroutine(write(store, device, f"{label}-{device.id}-{writer}"))


if __name__ == "__main__":
    signal.alarm(30)
    reactor.callWhenRunning(  # type: ignore[attr-defined]
        lambda: Deferred.fromCoroutine(main(sys.argv[1], sys.argv[2]))
    )
    reactor.run()  # type: ignore[attr-defined]
