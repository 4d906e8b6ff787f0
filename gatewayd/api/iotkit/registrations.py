"""Which socket is a device's: the newest one that registered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from gatewayd.api.iotkit.actuations import to_message
from gatewayd.api.iotkit.messages import REGISTERED
from gatewayd.api.iotkit.pacing import Complaints
from gatewayd.api.iotkit.tokens import DeviceToken
from gatewayd.core.access import DEVICE_ACTIONS, Principal
from gatewayd.core.bindings import Bindings
from gatewayd.core.gateway import Core
from gatewayd.core.model import Device, Event
from gatewayd.core.throttle import Throttle
from gatewayd.errors import Denied, Unauthenticated, Unavailable

#: How often (in so many s) a socket is closed because a newer one of the same client took over:
#: some clients answer every close with a new socket (iotkit contract, A8).
_DISPLACEMENTS = 3
_IN = 60.0
#: How many sockets that were superseded stay open per device.
_MOST_KEPT = 8
#: Seconds from one that is closed because there are too many to the next.
_PAUSE = 600.0

NORMAL = (1000, "Normal connection closure")


class Socket(Protocol):
    """What a device is registered with.

    :ivar host: the client's address; None when there is none.
    :ivar registration: what it is registered as; None for nothing.
    """

    host: str | None
    registration: Registration | None

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""

    @property
    def writable(self) -> bool:
        """Whether it takes more without queueing it."""

    def when_writable(self) -> Deferred[None]:
        """Fire when it takes more, or is gone."""

    def send_text(self, payload: bytes) -> bool:
        """Send a message, after all that was sent before."""

    def probe(self) -> None:
        """Ask the other side whether all that was sent has arrived, unless that is being asked."""

    def close(self, code: int, reason: str = "") -> None:
        """Close it; it is dropped before this returns."""


class Registration:
    """A socket that is a device's, and the sink of the device's commands."""

    def __init__(self, core: Core, socket: Socket, device: Device, token: DeviceToken) -> None:
        self.socket = socket
        self.device = device
        self.token = token
        self._core = core

    def attach(self) -> None:
        """Take the device's commands from now on.

        :raises Denied: the device is blocked. :raises Unavailable: this node has no lease.
        """
        principal = Principal(DEVICE_ACTIONS, device=self.device)
        self.subscription, self.courier = self._core.commands.attach(
            principal, self.device, None, self, accepts=self._accepts
        )
        try:
            self.attachment = self._core.presence.share(self.device, "iotkit", self._lost)
        except Unavailable:
            self.subscription.close()
            raise

    def _lost(self) -> None:
        self.socket.close(1013, "try again later")

    def deliver_pending(self) -> None:
        """Send what waits for the device, then what comes."""
        Deferred.fromCoroutine(self._core.commands.deliver(self.subscription, None))

    def detach(self) -> None:
        """Take none any more."""
        self.subscription.close()
        self._core.presence.detach(self.attachment)

    def _message(self, event: Event) -> bytes | None:
        # Its account may have been changed since it registered.
        device = self._core.registry.cached_device(self.device.id) or self.device
        return to_message(event, device, self.token.account_id)

    def _accepts(self, event: Event) -> bool:
        return self._message(event) is not None

    # Sink

    @property
    def writable(self) -> bool:
        """Whether the socket takes more."""
        return self.socket.writable

    def when_writable(self) -> Deferred[None]:
        """Fire when the socket takes more, or is gone."""
        return self.socket.when_writable()

    def deliver(self, event: Event) -> None:
        """Send an actuation, and ask whether it has arrived.

        Devices of this API do not answer actuations; one that is not known to have arrived comes
        again when the device registers again.
        """
        message = self._message(event)
        assert message is not None
        self.socket.send_text(message)
        self.socket.probe()

    def broken(self) -> None:
        """Disconnect: the device's next registration brings what is missing."""
        self.socket.close(1011, "replay failed")


@attrs.define
class _Kept:
    """The sockets of a device that were superseded and stay open.

    :ivar closed_at: when one of them was closed because there were too many, in s.
    """

    registrations: list[Registration] = attrs.Factory(list)
    closed_at: float = float("-inf")


class Registrations:
    """Every device that a socket has registered as.

    :param bindings: where it is written too, if anywhere.
    """

    def __init__(self, core: Core, bindings: Bindings | None, clock: IReactorTime) -> None:
        self._core = core
        self._bindings = bindings
        self._clock = clock
        # By the ids of devices, which is what bindings know; also when one is registered anew.
        self._routed: dict[str, Registration] = {}
        self._kept: dict[str, _Kept] = {}
        self._registering: Counter[str] = Counter()
        self._told: set[str] = set()  # of whom the bindings believe that they are connected
        self._displacements = Throttle(clock, _DISPLACEMENTS, _IN)
        self._complaints = Complaints(clock)
        self._unfinished: set[Deferred[None]] = set()
        core.devices.deleted.append(self._deleted)

    def __len__(self) -> int:
        return len(self._routed)

    @property
    def kept(self) -> int:
        """How many sockets were superseded and are open."""
        return sum(len(kept.registrations) for kept in self._kept.values())

    async def register(self, socket: Socket, device: Device, token: DeviceToken) -> None:
        """Let a socket be a device's, and tell it so; that it was another device's is over.

        If the socket has closed meanwhile, nothing is left.

        :raises Unauthenticated: the device is blocked or deleted meanwhile.
        :raises Unavailable: it could not be written, or the device has too many sockets.
        """
        self._registering[device.id] += 1
        try:
            await self._tell_connected(device.id)
            # Meanwhile it may be another device, or none.
            current = await self._core.registry.device(device.id)
            if current is None or current.id != device.id:
                raise Unauthenticated("invalid")
            if socket.is_open:
                self._install(socket, current, token)
        except Denied:
            raise Unauthenticated("inactive") from None
        finally:
            self._registering -= Counter({device.id: 1})
            self._tell_gone(device.id)

    def _install(self, socket: Socket, device: Device, token: DeviceToken) -> None:
        older = self._routed.get(device.id)
        if older is not None and older.socket is socket and older.device.uid == device.uid:
            older.token = token
            socket.send_text(REGISTERED)
            return
        self.drop(socket)
        older = self._routed.get(device.id)
        keep = older is not None and self._damped((device.id, socket.host, token.digest))
        if keep:
            self._check_room(device)
        newer = Registration(self._core, socket, device, token)
        newer.attach()
        self._routed[device.id] = socket.registration = newer
        socket.send_text(REGISTERED)
        if older is not None:
            self._supersede(older, keep)
        newer.deliver_pending()

    def drop(self, socket: Socket) -> None:
        """Know that a socket is closing: it is nobody's any more."""
        gone, socket.registration = socket.registration, None
        if gone is None:
            return
        device_id = gone.device.id
        # A newer socket may be the device's now, and stays that.
        if self._routed.get(device_id) is gone:
            del self._routed[device_id]
            gone.detach()
            self._promote(device_id)
            self._tell_gone(device_id)
        kept = self._kept.get(device_id)
        if kept is not None and gone in kept.registrations:
            kept.registrations.remove(gone)
            if not kept.registrations:
                del self._kept[device_id]

    def _promote(self, device_id: str) -> None:
        """Let the newest socket that was kept be the device's: its client counts on it."""
        kept = self._kept.get(device_id)
        while kept is not None and kept.registrations:
            newest = kept.registrations.pop()
            if not kept.registrations:
                del self._kept[device_id]
            device = self._core.registry.cached_device(device_id)
            try:
                if device is None or device.uid != newest.device.uid:
                    raise Denied
                newest.attach()
            except (Denied, Unavailable):  # it is blocked, or another one by now; or nobody can be
                newest.socket.registration = None
                newest.socket.close(*NORMAL)
                continue
            self._routed[device_id] = newest
            newest.deliver_pending()
            return

    def _deleted(self, device: Device) -> None:
        """Close the socket of a device that was deleted: it may register again."""
        gone = self._routed.get(device.id)
        if gone is not None and gone.device.uid == device.uid:
            gone.socket.close(*NORMAL)

    # Sockets that were superseded

    def _damped(self, key: Hashable) -> bool:
        """Count a displacement; tell whether the one that is superseded has to stay open."""
        self._displacements.count(key)
        return self._displacements.wait(key) > 0

    def _check_room(self, device: Device) -> None:
        """Check that one socket more may stay open, or another be closed for it.

        The newcomer is refused otherwise: the answer makes clients wait longer and longer.

        :raises Unavailable: neither is allowed now.
        """
        kept = self._kept.get(device.id)
        if kept is not None and len(kept.registrations) >= _MOST_KEPT:
            if self._clock.seconds() - kept.closed_at < _PAUSE:
                raise Unavailable("the device has too many sockets")
            kept.closed_at = self._clock.seconds()
            kept.registrations[0].socket.close(*NORMAL)

    def _supersede(self, older: Registration, keep: bool) -> None:
        older.detach()
        if keep and older.socket.is_open:
            self._kept.setdefault(older.device.id, _Kept()).registrations.append(older)
        else:
            older.socket.close(*NORMAL)

    # Bindings

    async def _tell_connected(self, device_id: str) -> None:
        if self._bindings is not None:
            await self._bindings.connected(device_id)
            self._told.add(device_id)

    def _tell_gone(self, device_id: str) -> None:
        """Write that a device is not connected, unless it is, or is about to be."""
        if (
            self._bindings is None
            or device_id not in self._told
            or device_id in self._routed
            or device_id in self._registering
        ):
            return
        self._told.discard(device_id)
        done = self._bindings.disconnected(device_id)
        self._unfinished.add(done)
        done.addErrback(self._not_written)
        done.addBoth(lambda _: self._unfinished.discard(done))

    def _not_written(self, failure: Failure) -> None:
        self._complaints.warn(
            "a device's end was not written: {error}", error=failure.getErrorMessage()
        )

    async def settled(self) -> None:
        """Wait until everything is written that sockets have left to write."""
        await DeferredList(list(self._unfinished))
