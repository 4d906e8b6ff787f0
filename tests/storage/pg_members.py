"""Several nodes with one database, in one process, each with a lease."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gatewayd.core.cluster import Change, ChangeKind
from gatewayd.core.model import Device, Entry, GroupKind, Kind
from gatewayd.storage.pg.store import PostgresStore
from tests.storage.pg_place import PostgresPlace, pause
from tests.storage.store_bench import PATIENCE

#: What all nodes of a test have in common, unless it says something else.
FINGERPRINT = b"same"


class Nodes:
    """Starts stores, and stops them when the test ends."""

    def __init__(self, place: PostgresPlace) -> None:
        self.place = place
        self._stores: list[PostgresStore] = []

    async def start(self, name: str, **options: Any) -> PostgresStore:
        """Return a store that is started, of a node that has not joined."""
        store = self.place.another(node=name, **options)
        await store.start()
        self._stores.append(store)
        return store

    async def join(self, name: str, **options: Any) -> PostgresStore:
        """Return the store of a node that has joined."""
        store = await self.start(name, **options)
        await store.cluster.join("", FINGERPRINT)
        return store

    async def stop(self) -> None:
        for store in self._stores:
            await store.stop()

    def end(self, name: str, *, after: float = 0.0) -> None:
        """Let the lease of a node end in so many seconds."""
        self.place.execute(
            "UPDATE node SET until = clock_timestamp() + %s * interval '1 second' WHERE name = %s",
            after, name,
        )  # fmt: skip

    def age(self, name: str) -> None:
        """Let the lease of a node have ended more than a day ago."""
        self.end(name, after=-25 * 3600)


class Heard:
    """What a node hears of the changes of others."""

    def __init__(self, store: PostgresStore) -> None:
        self.changes: list[Change] = []
        store.cluster.follow(self._hear)

    def _hear(self, changes: Sequence[Change]) -> None:
        self.changes += changes

    @property
    def told(self) -> list[tuple[ChangeKind, Any]]:
        """Kinds and subjects."""
        return [(each.kind, msgspec.json.decode(each.subject)) for each in self.changes]

    async def wait(self, count: int) -> list[tuple[ChangeKind, Any]]:
        """Wait until so many were heard; return their kinds and subjects."""
        for _ in range(PATIENCE * 20):
            if len(self.changes) >= count:
                return self.told
            await pause(0.05)
        raise AssertionError(f"only {self.told} was heard")


async def furnish(store: PostgresStore, device_id: str = "D") -> Device:
    """Put a device into a database in which there is nothing."""
    network = await store.insert_group(GroupKind.NETWORK, f"of {device_id}", None)
    kind = await store.insert_group(GroupKind.DEVICE_TYPE, f"of {device_id}", None)
    return await store.save_device(
        Device(uid=0, id=device_id, name=device_id, network=network.id, type=kind.id)
    )


async def attach(
    store: PostgresStore, device: Device, number: int, *, exclusive: bool = False
) -> None:
    """Attach a device to the node of a store."""
    await store.append(
        Entry(
            device=device, kind=Kind.ATTACHED, name="devicehive", exclusive=exclusive,
            attachment=number, node=store.cluster.name,
        )
    )  # fmt: skip
