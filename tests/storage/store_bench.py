"""A clock to set, a place to keep a store, and short ways to write into it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from gatewayd.core.interfaces import Store
from gatewayd.core.model import (
    CommandChange,
    CommandDraft,
    Device,
    Entry,
    Event,
    GroupKind,
    Kind,
)
from gatewayd.core.queries import Filter, Replay
from gatewayd.storage.sqlite import SQLiteStore

Result = TypeVar("Result")
START = 1_700_000_000_000
HOUR = 3_600_000
#: No wait of a test is longer (s).
PATIENCE = 60
ALL = frozenset(Kind)


def the_reactor() -> Any:
    """Return the reactor that was chosen for the tests."""
    from twisted.internet import reactor

    return reactor


def bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Any]:
    """Run a coroutine as a test that fails when it takes too long."""

    @functools.wraps(test)
    async def run(*arguments: Any, **fixtures: Any) -> None:
        done: Deferred[None] = Deferred.fromCoroutine(test(*arguments, **fixtures))  # type: ignore[arg-type]
        await done.addTimeout(PATIENCE, the_reactor())

    return pytest_twisted.ensureDeferred(run)  # type: ignore[no-any-return]


def together(deferreds: Iterable[Deferred[Result]]) -> Deferred[list[Result]]:
    """Wait for all; fail with the first failure itself."""
    done = gatherResults(list(deferreds), consumeErrors=True)

    def unwrap(failure: Any) -> Any:
        failure.value.subFailure.raiseException()

    return done.addErrback(unwrap)


def threads() -> list[threading.Thread]:
    """Return the threads of stores that are still there after a moment to end."""
    found = [thread for thread in threading.enumerate() if thread.name.startswith("gatewayd-")]
    for thread in found:
        thread.join(2)
    return [thread for thread in found if thread.is_alive()]


class Clock:
    """The time of day in ms, as it is set."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


class Place(Protocol):
    """Where one store is kept, whatever its driver."""

    clock: Clock

    @property
    def store(self) -> Store:
        """The store that is open now."""

    async def reopen(self) -> None:
        """Stop the store and start another one with the same contents."""


class SQLitePlace:
    """A file for an SQLite store."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.clock = Clock()
        self._options = options
        self.store = SQLiteStore(path, the_reactor(), self.clock, **options)

    async def reopen(self) -> None:
        await self.store.stop()
        self.store = SQLiteStore(self.path, the_reactor(), self.clock, **self._options)
        await self.store.start()

    def in_writer(self, function: Callable[..., Result], *arguments: Any) -> Deferred[Result]:
        """Call ``function(journal, ...)`` in the writer's thread and transaction."""
        return self.store._writer.submit(function, *arguments)


class Rig:
    """A store with one network and one device type."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.clock = place.clock
        self.network = 0
        self.type = 0

    @property
    def store(self) -> Store:
        return self.place.store

    async def furnish(self) -> None:
        self.network = await self.another(GroupKind.NETWORK, "home")
        self.type = await self.another(GroupKind.DEVICE_TYPE, "plain")

    async def another(self, kind: GroupKind, name: str) -> int:
        """Insert a network or device type."""
        return (await self.store.insert_group(kind, name, None)).id

    async def device(self, device_id: str = "D", **fields: Any) -> Device:
        """Insert a device."""
        values = {"name": device_id, "network": self.network, "type": self.type, **fields}
        return await self.store.save_device(Device(uid=0, id=device_id, **values))

    def note(self, device: Device, name: str = "note", **fields: Any) -> Deferred[Event]:
        """Append a notification."""
        entry = Entry(device=device, kind=Kind.NOTIFICATION, name=name, **fields)
        return self.store.append(entry)

    def order(
        self,
        device: Device,
        name: str = "order",
        *,
        stamp: int | None = None,
        key: str | None = None,
        **draft: Any,
    ) -> Deferred[Event]:
        """Append a command."""
        return self.store.append(
            Entry(
                device=device, kind=Kind.COMMAND, name=name, stamp=stamp, key=key,
                command=CommandDraft(**draft),
            )
        )  # fmt: skip

    def answer(self, device: Device, seq: int, **change: Any) -> Deferred[Event]:
        """Update a command."""
        return self.store.update_command(CommandChange(device=device, seq=seq, **change))

    def attach(self, device: Device, **fields: Any) -> Deferred[Event]:
        """Append an exclusive attachment."""
        fields.setdefault("exclusive", True)
        return self.store.append(Entry(device=device, kind=Kind.ATTACHED, **fields))

    async def replay(
        self, wanted: Filter | None = None, since: int = 0, **rest: Any
    ) -> list[Event]:
        """Walk through the log to its end, page by page."""
        wanted = Filter(kinds=ALL) if wanted is None else wanted
        found: list[Event] = []
        cursor = None
        while True:
            page = await self.store.read(
                Replay(
                    filter=wanted, since=since, cursor=cursor,
                    **{"now": self.clock.now, **rest},
                )
            )  # fmt: skip
            found += page.events
            cursor = page.cursor
            if page.complete:
                return found


def seqs(events: Iterable[Any]) -> list[int]:
    """Return the sequence numbers of events or commands."""
    return [event.seq for event in events]


def rising(values: Sequence[int]) -> bool:
    """Tell whether each value is greater than the one before."""
    return all(low < high for low, high in pairwise(values))
