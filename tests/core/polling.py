"""Long polls: how they are asked, and whether they wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from gatewayd.core.access import Principal
from gatewayd.core.model import Command, Device, Event, Kind
from gatewayd.core.queries import Filter
from tests.core.bench import NOTES, Bench

COMMANDS = frozenset({Kind.COMMAND})
UPDATES = frozenset({Kind.COMMAND_UPDATE})


def poll(
    bench: Bench,
    *devices: Device,
    since: int | None = None,
    limit: int | None = None,
    wait: float = 30,
    kinds: frozenset[Kind] = NOTES,
    who: Principal | None = None,
    **wanted: Any,
) -> Deferred[list[Event]]:
    """Poll for what devices say, or all of them."""
    filters = [Filter(kinds=kinds, stream=device.uid, **wanted) for device in devices]
    work = bench.core.polls.events(
        who or bench.admin, filters or [Filter(kinds=kinds, **wanted)], since, limit, wait
    )
    return Deferred.fromCoroutine(work)


def wait_for(
    bench: Bench, device: Device, public_id: int, wait: float = 30
) -> Deferred[Command | None]:
    """Wait until a command is updated."""
    work = bench.core.polls.answered(bench.admin, device, public_id, wait)
    return Deferred.fromCoroutine(work)


async def say(bench: Bench, device: Device, name: str = "note", **fields: Any) -> Event:
    """Let a device say something, and let it be heard: who records it knows a moment before."""
    event = await bench.note(device, name, **fields)
    await bench.gate.store.setting("")
    return event


def names(events: Sequence[Event]) -> list[str]:
    return [event.name for event in events]


def followers(bench: Bench, device: Device) -> int:
    """Return how many subscriptions there are to a device."""
    return len(bench.core.timeline._fanout.of_stream(device.uid))


async def is_waiting(bench: Bench, asked: Deferred[Any]) -> bool:
    """Whether a poll has nothing to answer yet, once the log was read."""
    await bench.settle()
    return not asked.called


def is_clean(bench: Bench, *devices: Device) -> bool:
    """Whether no poll has left anything behind."""
    return not bench.timers.getDelayedCalls() and not any(followers(bench, d) for d in devices)
