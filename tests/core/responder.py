"""A device that is attached by a socket and answers its commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from gatewayd.core.attachment import Attachment
from gatewayd.core.devices import DeviceChange
from gatewayd.core.gateway import Core
from gatewayd.core.invocations import Invocations
from gatewayd.core.model import Device, Event
from gatewayd.core.timeline import Subscription
from gatewayd.errors import Denied, GatewayError, NotFound
from tests.core.bench import Bench, Recorder
from tests.core.polling import followers

HI = b'{"say":"hi"}'
#: What a device answers to a command, JSON; None for nothing.
Answering = Callable[[Event], bytes | None]


def silence(event: Event) -> None:
    """Answer nothing."""


def make_invocations(bench: Bench) -> Invocations:
    core = bench.core
    return Invocations(core.store, core.timeline, core.presence, core.registry, bench.timers)


class Responder(Recorder):
    """A device's socket.

    :ivar answering: what it answers at once.
    """

    subscription: Subscription
    attachment: Attachment

    def __init__(self, core: Core, bench: Bench, device: Device, answering: Answering) -> None:
        super().__init__()
        self.answering = answering
        self._core = core
        self._bench = bench
        self._device = device

    def deliver(self, event: Event) -> None:
        super().deliver(event)
        result = self.answering(event)
        if result is not None:
            self.answer(event, result)

    def answer(self, event: Event, result: bytes, status: str = "done") -> None:
        """Answer a command."""
        commands = self._core.commands
        done = commands.update(self._bench.admin, self._device, event.id, status, result)
        done.addErrback(lambda _: None)  # the device is gone

    def detach(self) -> None:
        """Go away."""
        self.subscription.close()
        self._core.presence.detach(self.attachment)


async def attach(bench: Bench, device: Device, answering: Answering = silence) -> Responder:
    """Attach a socket of a device; it has what waits for it."""
    core = bench.core
    socket = Responder(core, bench, device, answering)
    socket.subscription, _ = core.commands.attach(bench.admin, device, None, socket)
    socket.attachment = core.presence.share(device, "test")
    await core.commands.deliver(socket.subscription, None)
    await bench.settle()
    return socket


def left_over(bench: Bench, *devices: Device) -> list[object]:
    """Return the timers, the subscriptions that are no sockets, and who waits for a socket."""
    timers: list[object] = list(bench.timers.getDelayedCalls())
    subscriptions = [
        device.id
        for device in devices
        if followers(bench, device) != len(bench.core.presence.of(device))
    ]
    return [*timers, *subscriptions, *bench.core.presence._awaited]


def echo(event: Event) -> bytes | None:
    """Answer with what was asked."""
    return event.command.parameters if event.command is not None else None


async def submit(
    invocations: Invocations, device: Device, lifetime: int = 60, user: int | None = None
) -> Event:
    return await invocations.submit(device, "RestApi", HI, lifetime=lifetime, user=user)


async def fails(asked: Deferred[Any], kind: type[GatewayError]) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await asked
    assert type(caught.value) is kind
    return caught.value


async def fails_cancelled(asked: Deferred[Any]) -> None:
    with pytest.raises(CancelledError):
        await asked


async def block(bench: Bench, blocked: bool, device_id: str = "D") -> None:
    await bench.core.devices.save(bench.admin, device_id, DeviceChange(blocked=blocked))


Meanwhile = tuple[Callable[[Bench], Any], type[GatewayError]]
MEANWHILE: list[Meanwhile] = [
    (lambda bench: block(bench, True), Denied),
    (lambda bench: bench.core.devices.delete(bench.admin, "D"), NotFound),
]
