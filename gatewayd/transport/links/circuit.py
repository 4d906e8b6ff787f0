"""One client's way through to the device."""

from __future__ import annotations

from collections.abc import Callable
from socket import SHUT_WR
from typing import Protocol

from gatewayd.core.line import Address, Ending, LinePlan, Traffic
from gatewayd.transport.links.bucket import TokenBucket
from gatewayd.transport.links.cipher import Transforms
from gatewayd.transport.links.dial import Dial
from gatewayd.transport.links.end import End
from gatewayd.transport.links.gear import Gear
from gatewayd.transport.links.pump import CipherPump, CopyPump, SplicePump, Way
from gatewayd.transport.links.stillness import Stillness


class CircuitKeeper(Protocol):
    """To whom circuits belong.

    :ivar plan: of the line. :ivar traffic: where bytes are counted.
    :ivar patience: with devices that do not answer. :ivar linger: with sides that do not end.
    :ivar limit_up: of what all circuits carry together. :ivar limit_down: the other way.
    """

    plan: LinePlan
    traffic: Traffic
    patience: Stillness
    linger: Stillness
    limit_up: TokenBucket | None
    limit_down: TokenBucket | None

    def transforms(self) -> Transforms | None:
        """Return how a circuit encrypts; None: not at all."""

    def circuit_connected(self, circuit: Circuit) -> None:
        """Know that the client is connected through."""

    def circuit_failed(self, circuit: Circuit, ending: Ending) -> None:
        """Know that there was no connection to the device; the client has been reset."""

    def circuit_closed(self, circuit: Circuit) -> None:
        """Know that a circuit that was connected is closed."""


class Circuit:
    """A client's connection, the device's, and what moves bytes between them.

    Nothing is read from the client before the device is connected. When one side ends, the other
    is told so and may go on, until it ends too or nothing has passed for ``plan.linger`` seconds.
    When one side breaks, the other is reset.

    :ivar client: who it is.
    """

    __slots__ = (
        "_client", "_closed", "_device", "_dial", "_ended", "_gear", "_keeper", "_pumps",
        "_traffic", "client",
    )  # fmt: skip

    def __init__(self, client: Address, end: End, keeper: CircuitKeeper, gear: Gear) -> None:
        self.client = client
        self._keeper = keeper
        self._traffic = keeper.traffic
        self._gear = gear
        self._client = end
        self._device: End | None = None
        self._dial: Dial | None = None
        self._pumps: tuple[CopyPump, ...] = ()
        self._ended = False
        self._closed = False

    def start(self) -> None:
        """Connect to the device; that may fail at once."""
        self._dial = Dial(self._gear, self._keeper.patience, self._connected, self._failed)
        self._dial.start(self._keeper.plan.device)

    def abort(self) -> None:
        """Reset both connections, without telling the keeper."""
        if self._free():
            self._client.abort()
            if self._device is not None:
                self._device.abort()

    def progress(self) -> tuple[int, ...]:
        """Return what changes while bytes move, be it only from the kernel to a peer."""
        if self._device is None:
            return ()
        moved = [pump.total - pump.held for pump in self._pumps]
        return (*moved, self._client.unsent(), self._device.unsent())

    def _connected(self, device: End) -> None:
        self._dial = None
        self._device = device
        for end in (self._client, device):
            end.readConnectionLost = self._ending
            end.connectionLost = self._broken
        self._pumps = self._make_pumps(device)
        try:
            for pump in self._pumps:
                pump.start()
        except OSError:  # the kernel watches no more sockets for us
            self._failed(Ending.UNREACHABLE)
        else:
            self._keeper.circuit_connected(self)

    def _failed(self, ending: Ending) -> None:
        if not self._closed:
            self.abort()
            self._keeper.circuit_failed(self, ending)

    def _make_pumps(self, device: End) -> tuple[CopyPump, CopyPump]:
        """Return what moves bytes up and what moves them down."""
        keeper, gear, client = self._keeper, self._gear, self._client
        up = self._way(client, device, self._up, self._client_ended, keeper.limit_up)
        down = self._way(device, client, self._down, self._device_ended, keeper.limit_down)
        transforms = keeper.transforms()
        if transforms is not None:
            return (
                CipherPump(up, gear, transforms.up, opens=True),
                CipherPump(down, gear, transforms.down, opens=False),
            )
        if gear.pipes is not None:
            return SplicePump(up, gear, gear.pipes), SplicePump(down, gear, gear.pipes)
        return CopyPump(up, gear), CopyPump(down, gear)

    def _way(
        self,
        source: End,
        target: End,
        moved: Callable[[int], None],
        ended: Callable[[], None],
        bucket: TokenBucket | None,
    ) -> Way:
        return Way(source, target, moved, self._ending, ended, self._broken, bucket)

    def _up(self, size: int) -> None:
        self._traffic.bytes_up += size

    def _down(self, size: int) -> None:
        self._traffic.bytes_down += size

    def _ending(self, _reason: object = None) -> None:
        """One side has ended, be it that the other does not take what came before."""
        self._keeper.linger.watch(self, self.progress, self._broken)

    def _client_ended(self) -> None:
        self._pass_end(self._device)

    def _device_ended(self) -> None:
        self._pass_end(self._client)

    def _pass_end(self, target: End | None) -> None:
        """One side has ended: so shall the other, which may still send what it has."""
        if self._ended or target is None:
            self._finish()
            return
        self._ended = True
        try:
            target.socket.shutdown(SHUT_WR)
        except OSError:
            self._broken()

    def _finish(self) -> None:
        """Both sides have ended: to close their sockets tells what they have not been told yet."""
        if self._free():
            self._client.close()
            if self._device is not None:
                self._device.close()
            self._keeper.circuit_closed(self)

    def _broken(self, _reason: object = None) -> None:
        if not self._closed:
            self.abort()
            self._keeper.circuit_closed(self)

    def _free(self) -> bool:
        """Let go of all but the sockets; whether that had still to be done."""
        if self._closed:
            return False
        self._closed = True
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        self._keeper.linger.leave(self)
        for pump in self._pumps:
            pump.stop()
        self._pumps = ()
        self._gear.poller.forget(self._client)
        if self._device is not None:
            self._gear.poller.forget(self._device)
        return True
