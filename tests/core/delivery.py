"""A device's sockets that take its commands, and the commands for them."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from gatewayd.core.commands import Commands, Courier
from gatewayd.core.model import CommandDraft, Device, Event
from gatewayd.core.timeline import Subscription
from tests.core.bench import Bench, Recorder


def insert(bench: Bench, device: Device, name: str = "go", **draft: object) -> Deferred[Event]:
    """Record a command."""
    wanted = CommandDraft(**draft)  # type: ignore[arg-type]
    return bench.core.commands.insert(bench.admin, device, name, wanted)


class Attached:
    """A socket of a device that takes its commands."""

    def __init__(self, bench: Bench, device: Device, names: frozenset[str] | None = None) -> None:
        self.sink = Recorder()
        self.bench = bench
        self.subscription: Subscription
        self.courier: Courier
        commands = bench.core.commands
        self.subscription, self.courier = commands.attach(bench.admin, device, names, self.sink)

    def begin(self, since: int | None = None, limit: int | None = None) -> Deferred[None]:
        commands: Commands = self.bench.core.commands
        return Deferred.fromCoroutine(commands.deliver(self.subscription, since, limit))

    async def deliver(self, since: int | None = None, limit: int | None = None) -> list[str]:
        """Deliver, wait until it is known how far that came, and return what arrived."""
        await self.begin(since, limit)
        await self.bench.settle()
        return self.sink.names

    async def confirm(self) -> None:
        self.courier.pinging()
        self.courier.ponged()
        await self.bench.settle()


async def attached(bench: Bench, device: Device) -> list[str]:
    """Return what a new socket of a device gets; then it is closed without a confirmation."""
    socket = Attached(bench, device)
    names = await socket.deliver()
    socket.subscription.close()
    return names
