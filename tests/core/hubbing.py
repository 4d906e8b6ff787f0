"""A hub over a core, devices that talk, and somebody who watches them."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest_twisted
from greenlet import greenlet  # type: ignore[import-untyped]
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gatewayd.core.attachment import Attachment
from gatewayd.core.hub.hub import Hub, HubRules, Message
from gatewayd.core.hub.twin import Twin
from gatewayd.core.model import Device, Event
from gatewayd.errors import Unavailable
from tests.core.bench import Bench
from tests.storage.store_bench import the_reactor


class Watching:
    """A watcher that keeps what it is told, all in one list."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def message(self, message: Message) -> None:
        self.told.append(("message", json.loads(message.body), message.stamp))

    def state(self, connected: bool, stamp: int) -> None:
        self.told.append(("state", connected, stamp))

    def twin(self, twin: Twin, stamp: int) -> None:
        self.told.append(("twin", twin.document(), stamp))

    @property
    def states(self) -> list[bool]:
        """The states that it was told of."""
        return [each[1] for each in self.told if each[0] == "state"]

    @property
    def kinds(self) -> list[str]:
        """What it was told of, in order."""
        return [each[0] for each in self.told]


class Broken(Watching):
    """A watcher that cannot cope."""

    def message(self, message: Message) -> None:
        super().message(message)
        raise RuntimeError("message")

    def state(self, connected: bool, stamp: int) -> None:
        super().state(connected, stamp)
        raise RuntimeError("state")

    def twin(self, twin: Twin, stamp: int) -> None:
        super().twin(twin, stamp)
        raise RuntimeError("twin")


class HubBench:
    """A hub over the core of a bench, that may stop, or crash with all that it has in memory.

    :ivar watching: watches the device D.
    """

    def __init__(self, bench: Bench, **rules: Any) -> None:
        self.bench = bench
        self.rules = HubRules(**rules)

    async def open(self) -> None:
        """Make a hub and let it read the log."""
        self.make()
        await self.hub.start()
        await self.hub.settled()
        # What it learned from the log is kept already; the next thing that is kept is new.
        await self.bench.settle()

    def make(self) -> None:
        """Make a hub that is not started."""
        self.hub = Hub(self.bench.core, self.rules, self.bench.timers)
        self.watching = Watching()
        self.hub.watch("D", self.watching)

    async def close(self) -> None:
        await self.hub.stop()

    async def restart(self) -> None:
        """Stop in good order and start again."""
        await self.close()
        await self.bench.reopen()
        await self.open()

    async def crash(self) -> None:
        """Lose everything that is not on disk, and start again."""
        await self.lose()
        await self.open()

    async def lose(self) -> None:
        """Lose everything that is not on disk; there is no hub then."""
        self.bench.gate.fail("keep_shadows", Unavailable("crashed"))
        await self.bench.reopen()
        await self.hub.stop()  # only its timers: nothing reaches the disk any more

    def say(self, device: Device, body: Any, name: str = "data", **fields: Any) -> Deferred[Event]:
        """Let a device say something. :param body: JSON, or what becomes that."""
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.bench.core.notifications.insert(self.bench.admin, device, name, text, **fields)

    async def hear(self, device: Device, *bodies: Any) -> Event:
        """Let a device say something, and wait until it was taken; return the last event."""
        for body in bodies:
            event = await self.say(device, body)
        await self.bench.settle()
        return event

    def attach(self, device: Device) -> Attachment:
        """Attach a socket that shares."""
        return self.bench.core.presence.share(device, "test")

    def detach(self, attachment: Attachment) -> None:
        """Let a socket go."""
        self.bench.core.presence.detach(attachment)

    async def wait(self, seconds: float) -> None:
        """Let time pass, and what comes of it."""
        self.bench.clock.now += round(seconds * 1000)
        self.bench.timers.advance(seconds)
        await self.bench.settle()

    async def values(self, device: Device) -> dict[str, Any]:
        """Return what a device said last."""
        return plain(await self.hub.values.of(device))

    async def state(self, device: Device) -> tuple[bool, int] | None:
        """Return whether a device is connected, and since when."""
        state = await self.hub.states.of(device)
        return None if state is None else (state.connected, state.stamp)

    async def stored(self, device: Device) -> dict[str, Any]:
        """Return what the store has of what a device said last."""
        found = await self.bench.store.last_values(device.uid)
        return plain({value.key: value for value in found})


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return last values as Python has them."""
    for key, value in values.items():
        assert key == value.key
    return {key: json.loads(value.value) for key, value in values.items()}


def beside_the_reactor(work: Callable[[], None]) -> Deferred[None]:
    """Run a function that blocks; the reactor, in whose greenlet a test runs, goes on."""
    done: Deferred[None] = Deferred()

    def run() -> None:
        # What waits for the result goes on in the reactor's greenlet, this one ends.
        try:
            work()
            the_reactor().callLater(0, done.callback, None)
        except BaseException:
            the_reactor().callLater(0, done.errback, Failure())

    greenlet(run).switch()
    return done


def wait_for(work: Coroutine[Deferred[Any], Any, None]) -> None:
    """Block until a coroutine is done, beside the reactor."""
    pytest_twisted.blockon(Deferred.fromCoroutine(work))
