"""Stores that share a database and follow each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from gatewayd.core.model import Device, Entry, Event, Kind
from gatewayd.storage.pg.store import PostgresStore
from tests.storage.pg_place import PostgresPlace, pause
from tests.storage.store_bench import the_reactor

#: Seconds for which the stores wait here.
PATIENCE = 1.0
#: Seconds in which a notification has arrived; the log is looked at every 2 s.
SOON = 1.0


class Node:
    """A store that follows the others, and what its observer was told."""

    def __init__(self, store: PostgresStore, *, notifies: bool = True) -> None:
        self.store = store
        self.seen: list[Event] = []
        self.looks = 0
        store.journal.others = lambda: notifies
        store.observe(self.seen.extend)
        store.listener.changed.append(self._looked)

    def _looked(self) -> None:
        self.looks += 1

    async def start(self) -> None:
        await self.store.start()
        await self.follow()

    async def follow(self) -> None:
        before = self.looks
        await self.store.follow_others()
        await until(lambda: self.looks > before)

    @property
    def positions(self) -> list[int]:
        return [event.position for event in self.seen]

    def note(self, device: Device, name: str = "note", **fields: Any) -> Deferred[Event]:
        entry = Entry(device=device, kind=Kind.NOTIFICATION, name=name, **fields)
        return self.store.append(entry)

    async def sees(self, position: int, seconds: float = 10) -> None:
        """Wait until the observer was told of everything up to a position."""
        await until(lambda: self.store.tail.position >= position, seconds)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until something is so."""
    end = the_reactor().seconds() + seconds
    while not condition():
        assert the_reactor().seconds() < end, "it did not come to be so"
        await pause(0.01)


def backend(place: PostgresPlace) -> str:
    """Return the condition for connections that listen in a place's database."""
    listening = "query LIKE '%SELECT position, floor%' OR query LIKE '%LISTEN%'"
    return f"datname = '{place.name}' AND usename = 'gateway' AND ({listening})"


def deafen(place: PostgresPlace) -> None:
    """End the connections that look at the log's end."""
    place.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {backend(place)}")


def read_back(event: Event, *, foreign: bool) -> Event:
    """Return an event as it is in the log, without its epoch, as others see it."""
    return Event(**{
        **{name: getattr(event, name) for name in Event.__struct_fields__},
        "foreign": foreign, "epoch": 0, "memo": {},
    })  # fmt: skip


def same(seen: list[Event], logged: list[Event]) -> bool:
    """Tell whether an observer was told of exactly what is in the log."""
    return [read_back(event, foreign=False) for event in seen] == [
        read_back(event, foreign=False) for event in logged
    ]
